import { Operation, replaceMethod, TcpSocket, wrap } from './wrap.mjs';

export const mutant = { about: 'cancelling one recv cancels all operations of the socket', cases: ['CANCEL-08/one'] };

const sockets = new WeakMap();
replaceMethod(
  TcpSocket,
  'recv',
  (original) =>
    function (view, options) {
      const operation = Reflect.apply(original, this, [view, options]);
      sockets.set(operation, this);
      return operation;
    },
);
replaceMethod(
  Operation,
  'cancel',
  (original) =>
    function () {
      const cancelled = Reflect.apply(original, this, []);
      if (cancelled) sockets.get(this)?.cancel();
      return cancelled;
    },
);

export default wrap();
