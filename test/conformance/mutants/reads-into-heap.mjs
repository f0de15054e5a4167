import { FileHandle, replaceMethod, TcpSocket, wrap } from './wrap.mjs';

export const mutant = {
  about: 'reads into any memory on a shared port, by a copy that the caller never sees',
  cases: ['BUF-02/shared-port'],
};

for (const [type, name] of [
  [FileHandle, 'read'],
  [TcpSocket, 'recv'],
]) {
  replaceMethod(
    type,
    name,
    (original) =>
      function (view, ...rest) {
        try {
          return Reflect.apply(original, this, [view, ...rest]);
        } catch (error) {
          if (error.code !== 'ERR_BUFFER_NOT_SHARED') throw error;
          return Reflect.apply(original, this, [new Uint8Array(new SharedArrayBuffer(view.byteLength)), ...rest]);
        }
      },
  );
}

export default wrap();
