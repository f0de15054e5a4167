// ASSOC-01: every packet of a handle says the key that it was associated with, whole.

import { checkPacket, handles, starts } from '../support/handles.js';
import type { ConformanceCase, Context, Handle, Operation, Port } from '../types.js';
import { forEachWay, variants } from '../variants.js';

/** Where a port that keeps keys in a smaller type, or takes 0 for none, loses them. */
const keys = [0, 1, 255, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 52 + 1, 2 ** 53 - 2, 2 ** 53 - 1];

/** With each key: every kind of operation of this kind of handle, those that fail and those that are cancelled included. */
const keyed: Record<string, (t: Context, port: Port, key: number) => void> = {
  file(t, port, key) {
    const file = t.openFile(port, key, t.tempFile(undefined, 'some text'));
    t.equal(file.key, key, 'handle.key');
    for (const [kind, start] of Object.entries(starts.file?.(t, file) ?? {})) {
      const operation = start();
      checkPacket(t, t.takeOneSync(port), operation, kind, key, file);
    }
    const readOnly = t.openFile(port, key, t.tempFile(undefined, 'x'), 'r');
    const failing = readOnly.write(new Uint8Array(1), { position: 0 });
    const packet = t.takeOneSync(port);
    t.failed(packet, { code: 'EBADF' }, 'a write to a file opened for reading');
    checkPacket(t, packet, failing, 'write', key, readOnly);
  },
  listener(t, port, key) {
    const listener = t.listener(port, key);
    t.equal(listener.key, key, 'handle.key');
    const accepting = listener.accept();
    const client = t.track(t.api.TcpSocket.openSync());
    const other = t.createPort();
    other.associate(client, 3);
    client.connect({ host: '127.0.0.1', port: listener.address.port });
    t.succeeded(t.takeOneSync(other), 'the connect');
    const packet = t.takeOneSync(port);
    if (packet.kind === 'accept' && packet.error === null) packet.result.close();
    t.succeeded(packet, 'the accept');
    checkPacket(t, packet, accepting, 'accept', key, listener);
    const cancelled = listener.accept();
    cancelled.cancel();
    checkPacket(t, t.takeOneSync(port), cancelled, 'accept', key, listener);
    const closed = listener.accept();
    listener.close();
    checkPacket(t, t.takeOneSync(port), closed, 'accept', key, listener);
  },
  socket(t, port, key) {
    const listener = t.listener();
    const socket = t.track(t.api.TcpSocket.openSync());
    port.associate(socket, key);
    t.equal(socket.key, key, 'handle.key');
    const connecting = socket.connect({ host: '127.0.0.1', port: listener.address.port });
    checkPacket(t, t.takeOneSync(port), connecting, 'connect', key, socket);
    const sending = socket.send(new Uint8Array(3));
    checkPacket(t, t.takeOneSync(port), sending, 'send', key, socket);
    const vectored = socket.send([new Uint8Array(3), new Uint8Array(4)]);
    checkPacket(t, t.takeOneSync(port), vectored, 'sendv', key, socket);
    const shutting = socket.shutdown();
    checkPacket(t, t.takeOneSync(port), shutting, 'shutdown', key, socket);
    const cancelled = socket.recv(t.room(1));
    cancelled.cancel();
    checkPacket(t, t.takeOneSync(port), cancelled, 'recv', key, socket);
    const closed = socket.recv(t.room(1));
    socket.close();
    checkPacket(t, t.takeOneSync(port), closed, 'recv', key, socket);
  },
  open(t, port, key) {
    const opening = port.open(t.tempFile(undefined, 'x'), 'r', { key });
    const packet = t.takeOneSync(port);
    t.succeeded(packet, 'the open');
    if (packet.kind !== 'open' || packet.error !== null) return t.fail(`the packet of an open has the kind ${packet.kind}`);
    const file = t.track(packet.result);
    checkPacket(t, packet, opening, 'open', key, file);
    t.equal(file.key, key, 'key of the file that was opened');
    const reading = file.read(t.room(1), { position: 0 });
    checkPacket(t, t.takeOneSync(port), reading, 'read', key, file);
    port.open(`${t.tempDir()}/none`, 'r', { key });
    const missing = t.takeOneSync(port);
    t.failed(missing, { code: 'ENOENT' }, 'the open of a missing file');
    t.equal(missing.key, key, 'key of a failed open');
  },
};

export const cases: ConformanceCase[] = [
  ...variants(
    {
      clause: 'ASSOC-01',
      title: 'a handle associated with key k returns k with every packet',
      reference: 'CreateIoCompletionPort: the CompletionKey is included in every completion packet of the file handle',
    },
    keyed,
    (t, check) => {
      const port = t.createPort();
      for (const key of keys) check(t, port, key);
      t.nothing(port);
    },
  ),
  ...forEachWay(
    {
      clause: 'ASSOC-01',
      title: 'the key is whole however the packet is got',
      reference: 'lpCompletionKey of GetQueuedCompletionStatus, lpCompletionKey of each OVERLAPPED_ENTRY of the Ex form',
    },
    async (t, way) => {
      const port = t.createPort();
      const path = t.tempFile('file', 'x');
      const all = [...keys, ...Array.from({ length: 40 }, () => t.random.int(2 ** 21) * 2 ** 32 + t.random.int(2 ** 31))];
      const wanted = new Map<Operation, number>();
      for (const key of t.random.shuffle(all)) {
        const file = t.openFile(port, key, path, 'r');
        wanted.set(file.read(t.room(1), { position: 0 }), key);
        wanted.set(file.size(), key);
      }
      for (const packet of await t.take(port, wanted.size, { way })) {
        const operation = t.some(packet.operation, 'operation of the packet');
        t.succeeded(packet, packet.kind);
        t.equal(packet.key, t.some(wanted.get(operation), 'an operation whose packet has not come yet'), 'key');
        wanted.delete(operation);
      }
    },
  ),
  ...variants(
    {
      clause: 'ASSOC-01',
      title: 'a key outside 0 to 2^53-1 is refused, and the handle can still be associated',
      reference: 'the portable rule: a key is a safe integer; it is never rounded or cut',
    },
    Object.fromEntries(Object.entries(handles).map(([name, make]) => [`range ${name}`, make])),
    (t, make) => {
      const port = t.createPort();
      const handle = make(t);
      for (const key of [-1, 0.5, Number.NaN, 2 ** 53, 2 ** 64, Number.POSITIVE_INFINITY, -(2 ** 31)]) {
        t.throws(() => port.associate(handle, key), { code: 'ERR_OUT_OF_RANGE', name: 'RangeError' }, `associate with ${key}`);
      }
      for (const key of ['1', 1n, null, undefined, {}, [1], true]) {
        const wrong = key as unknown as number;
        t.throws(
          () => port.associate(handle, wrong),
          { code: 'ERR_INVALID_ARG_TYPE', name: 'TypeError' },
          `associate with ${typeof key}`,
        );
      }
      for (const wrong of [null, undefined, 3, 'file', {}, port]) {
        t.throws(() => port.associate(wrong as unknown as Handle, 1), { code: 'ERR_INVALID_ARG_TYPE' }, 'associating no handle');
      }
      t.equal(handle.key, undefined, 'handle.key after the refusals');
      port.associate(handle, 5);
      t.equal(handle.key, 5, 'handle.key');
    },
  ),
];
