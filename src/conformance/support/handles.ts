// The kinds of handles as data, for cases that say the same of each: how to make one, and every way to start an operation on it.

import type { Context, FileHandle, Handle, Operation, Packet, TcpListener, TcpSocket } from '../types.js';

/** Each kind of handle, not associated yet. */
export const handles: Record<string, (t: Context) => Handle> = {
  file: (t) => t.track(t.api.FileHandle.openSync(t.tempFile('file', 'some text'), 'r+')),
  listener: (t) => t.listener(),
  socket: (t) => t.track(t.api.TcpSocket.openSync()),
};

/** Every way to start an operation on a handle, by the kind of handle. */
export const starts: Record<string, (t: Context, handle: Handle) => Record<string, () => Operation>> = {
  file(t, handle) {
    const file = handle as FileHandle;
    const byte = t.room(1);
    return {
      read: () => file.read(byte, { position: 0 }),
      write: () => file.write(byte, { position: 0 }),
      readv: () => file.readv([byte, byte], { position: 0 }),
      writev: () => file.writev([byte, byte], { position: 0 }),
      sync: () => file.sync(),
      datasync: () => file.datasync(),
      truncate: () => file.truncate(4),
      size: () => file.size(),
    };
  },
  listener: (_, handle) => ({ accept: () => (handle as TcpListener).accept() }),
  socket(t, handle) {
    const socket = handle as TcpSocket;
    const byte = t.room(1);
    return {
      connect: () => socket.connect({ host: '127.0.0.1', port: 1 }),
      recv: () => socket.recv(byte),
      send: () => socket.send(byte),
      sendv: () => socket.send([byte, byte]),
      shutdown: () => socket.shutdown(),
    };
  },
};

export function checkPacket(t: Context, packet: Packet, operation: Operation, kind: string, key: number, handle: Handle): void {
  t.equal(packet.operation, operation, `operation of the packet of a ${kind}`);
  t.equal(packet.kind, kind, 'kind of the packet');
  t.equal(packet.key, key, `key of the packet of a ${kind}`);
  t.equal(packet.handleId, handle.id, `handleId of the packet of a ${kind}`);
}
