// The family ASSOC: a handle is bound to one port under one key for its whole life, and every packet of it says that key.

import type { ConformanceCase, Context, FileHandle, Handle, Operation, Packet, Port, TcpListener, TcpSocket } from '../types.js';
import { forEachWay, variants } from '../variants.js';

/** Where a port that keeps keys in a smaller type, or takes 0 for none, loses them. */
const keys = [0, 1, 255, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 52 + 1, 2 ** 53 - 2, 2 ** 53 - 1];

/** Each kind of handle, not associated yet. */
const handles: Record<string, (t: Context) => Handle> = {
  file: (t) => t.track(t.api.FileHandle.openSync(t.tempFile('file', 'some text'), 'r+')),
  listener: (t) => t.listener(),
  socket: (t) => t.track(t.api.TcpSocket.openSync()),
};

/** Every way to start an operation on a handle, by the kind of handle. */
const starts: Record<string, (handle: Handle) => Record<string, () => Operation>> = {
  file(handle) {
    const file = handle as FileHandle;
    const byte = new Uint8Array(1);
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
  listener: (handle) => ({ accept: () => (handle as TcpListener).accept() }),
  socket(handle) {
    const socket = handle as TcpSocket;
    const byte = new Uint8Array(1);
    return {
      connect: () => socket.connect({ host: '127.0.0.1', port: 1 }),
      recv: () => socket.recv(byte),
      send: () => socket.send(byte),
      sendv: () => socket.send([byte, byte]),
      shutdown: () => socket.shutdown(),
    };
  },
};

function checkPacket(t: Context, packet: Packet, operation: Operation, kind: string, key: number, handle: Handle): void {
  t.equal(packet.operation, operation, `operation of the packet of a ${kind}`);
  t.equal(packet.kind, kind, 'kind of the packet');
  t.equal(packet.key, key, `key of the packet of a ${kind}`);
  t.equal(packet.handleId, handle.id, `handleId of the packet of a ${kind}`);
}

/** With each key: every kind of operation of this kind of handle, those that fail and those that are cancelled included. */
const keyed: Record<string, (t: Context, port: Port, key: number) => void> = {
  file(t, port, key) {
    const file = t.openFile(port, key, t.tempFile(undefined, 'some text'));
    t.equal(file.key, key, 'handle.key');
    for (const [kind, start] of Object.entries(starts.file?.(file) ?? {})) {
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
    const cancelled = socket.recv(new Uint8Array(1));
    cancelled.cancel();
    checkPacket(t, t.takeOneSync(port), cancelled, 'recv', key, socket);
    const closed = socket.recv(new Uint8Array(1));
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
    const reading = file.read(new Uint8Array(1), { position: 0 });
    checkPacket(t, t.takeOneSync(port), reading, 'read', key, file);
    port.open(`${t.tempDir()}/none`, 'r', { key });
    const missing = t.takeOneSync(port);
    t.failed(missing, { code: 'ENOENT' }, 'the open of a missing file');
    t.equal(missing.key, key, 'key of a failed open');
  },
};

/** A connection to `listener`, whose accept `port` gets. The client's packets go to `clients`. */
function acceptOne(t: Context, port: Port, listener: TcpListener, clients: Port): { accepted: TcpSocket; client: TcpSocket } {
  const client = t.track(t.api.TcpSocket.openSync());
  clients.associate(client, 0);
  client.connect({ host: '127.0.0.1', port: listener.address.port });
  t.succeeded(t.takeOneSync(clients), 'the connect');
  listener.accept();
  const packet = t.takeOneSync(port);
  t.succeeded(packet, 'the accept');
  if (packet.kind !== 'accept' || packet.error !== null) return t.fail(`the packet of an accept has the kind ${packet.kind}`);
  return { accepted: t.track(packet.result), client };
}

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
        wanted.set(file.read(new Uint8Array(1), { position: 0 }), key);
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

  ...variants(
    {
      clause: 'ASSOC-02',
      title: 'associating again, with the same or another port or key, throws and changes nothing',
      reference: 'CreateIoCompletionPort on a handle that has a port fails with ERROR_INVALID_PARAMETER (87)',
    },
    handles,
    (t, make, name) => {
      const port = t.createPort();
      const other = t.createPort();
      const handle = make(t);
      port.associate(handle, 7);
      const again = (): void => {
        for (const target of [port, other]) {
          for (const key of [7, 8, 0]) {
            t.throws(
              () => target.associate(handle, key),
              { code: 'ERR_ALREADY_ASSOCIATED' },
              `associating again with key ${key}`,
            );
          }
        }
        t.equal(handle.key, 7, 'handle.key');
      };
      again();
      for (const [kind, start] of Object.entries(starts[name]?.(handle) ?? {})) {
        // In between as well: an operation in flight must not go to the other port either.
        const operation = start();
        again();
        handle.cancel();
        checkPacket(t, t.takeOneSync(port), operation, kind, 7, handle);
        t.nothing(other);
      }
      port.close();
      t.throws(
        () => other.associate(handle, 7),
        { code: 'ERR_ALREADY_ASSOCIATED' },
        'associating with another port after the close of its own',
      );
      t.equal(handle.closed, false, 'closed of the handle');
    },
  ),

  {
    id: 'ASSOC-03/one key',
    clause: 'ASSOC-03',
    title: 'many handles may share one key: handleId tells their packets apart',
    reference: 'the key is the program’s own; nothing asks for different ones',
    run(t) {
      const port = t.createPort();
      const path = t.tempFile('file', t.pattern(0, 200));
      const buffers = Array.from({ length: 100 }, () => new Uint8Array(2));
      const wanted = new Map<Operation, { handle: FileHandle; index: number }>();
      for (const [index, buffer] of buffers.entries()) {
        const handle = t.openFile(port, 7, path, 'r');
        wanted.set(handle.read(buffer, { position: 2 * index }), { handle, index });
      }
      t.equal(new Set([...wanted.values()].map(({ handle }) => handle.id)).size, 100, 'number of different handle ids');
      for (const packet of t.takeSync(port, 100)) {
        const entry = t.some(wanted.get(t.some(packet.operation, 'operation')), 'an operation whose packet has not come yet');
        wanted.delete(packet.operation as Operation);
        t.equal(packet.key, 7, 'key');
        t.equal(packet.handleId, entry.handle.id, 'handleId');
        t.sameBytes(buffers[entry.index] as Uint8Array, t.pattern(2 * entry.index, 2), 'what the read gave');
      }
    },
  },
  {
    id: 'ASSOC-03/many handles',
    clause: 'ASSOC-03',
    title: "one port with 10,000 handles: each packet has its own handle's key",
    reference: 'a port has as many handles as memory allows',
    soak: true,
    timeoutMs: 60_000,
    async run(t) {
      const count = t.count(10_000, 10);
      const port = t.createPort();
      const path = t.tempFile('file', t.pattern(0, count));
      const bytes = new Uint8Array(new SharedArrayBuffer(count));
      const files: { file: FileHandle; key: number; index: number }[] = [];
      t.doing(`opening ${count} handles`);
      for (let index = 0; index < count; index++) {
        let file: FileHandle;
        try {
          file = t.track(t.api.FileHandle.openSync(path, 'r'));
        } catch (error) {
          const { code } = error as { code?: string };
          if (code === 'EMFILE' || code === 'ENFILE')
            return t.unable(`only ${index} of ${count} descriptors can be had: ${code}`);
          throw error;
        }
        // Neither the order of keys nor their low halves follow the order of the handles.
        const key = ((index * 7919) % count) + 2 ** 32 * t.random.int(4);
        port.associate(file, key);
        files.push({ file, key, index });
      }
      t.doing('reading through all of them');
      const wanted = new Map<Operation, (typeof files)[number]>();
      for (const entry of t.random.shuffle(files)) {
        wanted.set(entry.file.read(bytes, { position: entry.index, offset: entry.index, length: 1 }), entry);
      }
      const packets = await t.take(port, count, { timeoutMs: 30_000 });
      for (const packet of packets) {
        const entry = t.some(wanted.get(t.some(packet.operation, 'operation')), 'an operation whose packet has not come yet');
        wanted.delete(packet.operation as Operation);
        if (packet.error !== null) t.succeeded(packet, 'a read');
        if (packet.key !== entry.key || packet.handleId !== entry.file.id) {
          t.fail(
            `packet with key ${packet.key} and handle ${packet.handleId} of the handle ${entry.file.id} with key ${entry.key}`,
          );
        }
      }
      t.sameBytes(bytes, t.pattern(0, count), 'what the reads gave');
      t.nothing(port);
    },
  },

  ...variants(
    {
      clause: 'ASSOC-04',
      title: 'an operation on a handle without a port throws ERR_NOT_ASSOCIATED; the handle stays usable',
      reference: 'the portable rule: without a port there is no place for the packet',
    },
    handles,
    (t, make, name) => {
      const port = t.createPort();
      const handle = make(t);
      for (const [kind, start] of Object.entries(starts[name]?.(handle) ?? {})) {
        t.throws(start, { code: 'ERR_NOT_ASSOCIATED' }, `a ${kind} without a port`);
      }
      const reusable = new t.api.Operation('mine');
      if (name === 'file') {
        t.throws(() => (handle as FileHandle).read(new Uint8Array(1), reusable), {}, 'a read without a port');
        t.equal(reusable.pending, false, 'pending of the operation');
        t.equal(reusable.context, 'mine', 'context of the operation');
      }
      t.equal(handle.cancel(), 0, 'operations that cancel() found');
      t.equal(handle.closed, false, 'closed');
      t.equal(handle.key, undefined, 'key');
      t.nothing(port);
      port.associate(handle, 9);
      const [kind, start] = Object.entries(starts[name]?.(handle) ?? {})[0] as [string, () => Operation];
      const operation = start();
      handle.cancel();
      checkPacket(t, t.takeOneSync(port), operation, kind, 9, handle);
      t.nothing(port);
    },
  ),

  ...variants(
    {
      clause: 'ASSOC-05',
      title: "association ends with the handle's close; a new handle on the same descriptor has nothing of the old one",
      reference: 'the association lasts as long as the file object; a new file object has none, whatever its handle value',
    },
    handles,
    (t, make, name) => {
      const first = t.createPort();
      const second = t.createPort();
      let old = make(t);
      first.associate(old, 1);
      let stays: string | null = null;
      for (let round = 0; round < t.count(50, 2); round++) {
        const [kind, start] = Object.entries(starts[name]?.(old) ?? {})[0] as [string, () => Operation];
        const operation = start();
        const fds = t.fdCount();
        old.close();
        const fresh = make(t);
        if (t.fdCount() > fds) stays = 'the closed handle’s descriptor is still open';
        t.equal(fresh.key, undefined, 'key of a new handle');
        t.notEqual(fresh.id, old.id, 'id of a new handle');
        for (const begin of Object.values(starts[name]?.(fresh) ?? {})) {
          t.throws(begin, { code: 'ERR_NOT_ASSOCIATED' }, 'starting an operation on the new handle');
        }
        // The old handle's operation is the old handle's, although its number lives on.
        checkPacket(t, t.takeOneSync(first), operation, kind, 1 + round, old);
        t.throws(start, { code: 'ERR_HANDLE_CLOSED' }, 'starting an operation on the old handle');
        t.throws(() => second.associate(old, 3), { code: 'ERR_HANDLE_CLOSED' }, 'associating the old handle');
        second.associate(fresh, 100 + round);
        const [freshKind, freshStart] = Object.entries(starts[name]?.(fresh) ?? {})[0] as [string, () => Operation];
        const own = freshStart();
        fresh.cancel();
        checkPacket(t, t.takeOneSync(second), own, freshKind, 100 + round, fresh);
        t.nothing(first);
        t.nothing(second);
        fresh.close();
        old = make(t);
        first.associate(old, 2 + round);
      }
      t.equal(stays, null, 'what a close leaves open');
    },
  ),

  {
    id: 'ASSOC-06',
    clause: 'ASSOC-06',
    title: "an accepted socket isn't associated by itself; it takes its own key, on any port",
    reference: 'AcceptEx: the accept socket has no association, whatever the listening socket has',
    run(t) {
      const port = t.createPort();
      const other = t.createPort();
      const clients = t.createPort();
      const listener = t.listener(port, 1);
      for (const [target, key] of [
        [port, 2],
        [other, 3],
        [port, 1],
      ] as const) {
        const { accepted, client } = acceptOne(t, port, listener, clients);
        t.equal(accepted.key, undefined, 'key of an accepted socket');
        for (const start of Object.values(starts.socket?.(accepted) ?? {})) {
          t.throws(start, { code: 'ERR_NOT_ASSOCIATED' }, 'starting an operation on it');
        }
        target.associate(accepted, key);
        t.equal(accepted.key, key, 'key that it was given');
        t.equal(listener.key, 1, 'key of the listener');
        const buffer = new Uint8Array(4);
        const receiving = accepted.recv(buffer);
        t.equal(target.inFlight, 1, 'inFlight of the port it was given to');
        client.send(Buffer.from('ping'));
        t.succeeded(t.takeOneSync(clients), 'the client’s send');
        const packet = t.takeOneSync(target);
        t.succeeded(packet, 'the recv');
        checkPacket(t, packet, receiving, 'recv', key, accepted);
        t.equal(Buffer.from(buffer).toString(), 'ping', 'what was received');
        t.nothing(port);
        t.nothing(other);
      }
    },
  },
];
