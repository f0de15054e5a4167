import { FileHandle, replaceMethod, TcpSocket, wrap } from './wrap.mjs';

export const mutant = {
  about: 'delivers the packet of a read or recv before its bytes are in the buffer',
  cases: ['FILE-01/heap', 'TCP-03/heap'],
};

// The real operation reads into another buffer, from which the bytes go to the caller's a moment after the packet.
const shadows = new Map();
for (const [type, name] of [
  [FileHandle, 'read'],
  [TcpSocket, 'recv'],
]) {
  replaceMethod(
    type,
    name,
    (original) =>
      function (view, options) {
        const target = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
        const shadow = new Uint8Array(target.length);
        const operation = Reflect.apply(original, this, [shadow, options]);
        shadows.set(operation, { target, shadow });
        return operation;
      },
  );
}

export default wrap({
  deliver(packets) {
    for (const { operation } of packets) {
      const late = shadows.get(operation);
      if (late !== undefined) setTimeout(() => late.target.set(late.shadow), 5);
      shadows.delete(operation);
    }
    return packets;
  },
});
