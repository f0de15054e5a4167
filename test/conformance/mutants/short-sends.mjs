import { replaceMethod, TcpSocket, wrap } from './wrap.mjs';

export const mutant = { about: 'sends the first 64 KiB of a larger buffer and says so', cases: ['TCP-05/heap'] };

replaceMethod(
  TcpSocket,
  'send',
  (original) =>
    function (data, options) {
      const cut =
        ArrayBuffer.isView(data) && data.byteLength > 65_536 ? new Uint8Array(data.buffer, data.byteOffset, 65_536) : data;
      return Reflect.apply(original, this, [cut, options]);
    },
);

export default wrap();
