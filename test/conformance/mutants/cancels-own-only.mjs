import { replaceMethod, TcpSocket, wrap } from './wrap.mjs';

export const mutant = { about: 'cancels only what the own thread has started on a handle', cases: ['CANCEL-03/threads'] };

const started = new Map();

for (const name of ['recv', 'send']) {
  replaceMethod(
    TcpSocket,
    name,
    (original) =>
      function (...args) {
        const operation = Reflect.apply(original, this, args);
        if (!started.has(this.id)) started.set(this.id, []);
        started.get(this.id).push(operation);
        return operation;
      },
  );
}
TcpSocket.prototype.cancel = function () {
  return (started.get(this.id) ?? []).filter((operation) => operation.cancel()).length;
};

export default wrap();
