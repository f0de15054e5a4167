// ASSOC-02 to ASSOC-06: a handle is bound to one port for its whole life, and to none before. What keys do is in
// association-keys.ts.

import { checkPacket, handles, starts } from '../support/handles.js';
import type { ConformanceCase, Context, FileHandle, Operation, Port, TcpListener, TcpSocket } from '../types.js';
import { variants } from '../variants.js';

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
      for (const [kind, start] of Object.entries(starts[name]?.(t, handle) ?? {})) {
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
    id: 'ASSOC-03/one-key',
    clause: 'ASSOC-03',
    title: 'many handles may share one key: handleId tells their packets apart',
    reference: 'the key is the program’s own; nothing asks for different ones',
    run(t) {
      const port = t.createPort();
      const path = t.tempFile('file', t.pattern(0, 200));
      const buffers = Array.from({ length: 100 }, () => t.room(2));
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
    id: 'ASSOC-03/many-handles',
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
      for (const [kind, start] of Object.entries(starts[name]?.(t, handle) ?? {})) {
        t.throws(start, { code: 'ERR_NOT_ASSOCIATED' }, `a ${kind} without a port`);
      }
      const reusable = new t.api.Operation('mine');
      if (name === 'file') {
        t.throws(() => (handle as FileHandle).read(t.room(1), reusable), {}, 'a read without a port');
        t.equal(reusable.pending, false, 'pending of the operation');
        t.equal(reusable.context, 'mine', 'context of the operation');
      }
      t.equal(handle.cancel(), 0, 'operations that cancel() found');
      t.equal(handle.closed, false, 'closed');
      t.equal(handle.key, undefined, 'key');
      t.nothing(port);
      port.associate(handle, 9);
      const [kind, start] = Object.entries(starts[name]?.(t, handle) ?? {})[0] as [string, () => Operation];
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
        const [kind, start] = Object.entries(starts[name]?.(t, old) ?? {})[0] as [string, () => Operation];
        const operation = start();
        const fds = t.fdCount();
        old.close();
        const fresh = make(t);
        if (t.fdCount() > fds) stays = 'the closed handle’s descriptor is still open';
        t.equal(fresh.key, undefined, 'key of a new handle');
        t.notEqual(fresh.id, old.id, 'id of a new handle');
        for (const begin of Object.values(starts[name]?.(t, fresh) ?? {})) {
          t.throws(begin, { code: 'ERR_NOT_ASSOCIATED' }, 'starting an operation on the new handle');
        }
        // The old handle's operation is the old handle's, although its number lives on.
        checkPacket(t, t.takeOneSync(first), operation, kind, 1 + round, old);
        t.throws(start, { code: 'ERR_HANDLE_CLOSED' }, 'starting an operation on the old handle');
        t.throws(() => second.associate(old, 3), { code: 'ERR_HANDLE_CLOSED' }, 'associating the old handle');
        second.associate(fresh, 100 + round);
        const [freshKind, freshStart] = Object.entries(starts[name]?.(t, fresh) ?? {})[0] as [string, () => Operation];
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
        for (const start of Object.values(starts.socket?.(t, accepted) ?? {})) {
          t.throws(start, { code: 'ERR_NOT_ASSOCIATED' }, 'starting an operation on it');
        }
        target.associate(accepted, key);
        t.equal(accepted.key, key, 'key that it was given');
        t.equal(listener.key, 1, 'key of the listener');
        const buffer = t.room(4);
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
