// THREAD-01: an operation is started in one thread and dequeued in another: what its packet says there, and what can be done with it.

import { Crew, sharedPort } from '../support/threads.js';
import type { ConformanceCase, Context, Operation, SharedPort, TcpSocket } from '../types.js';
import { variants } from '../variants.js';

const elsewhere =
  'Any thread that waits on the port may dequeue the packet of an operation, whoever started it; the OVERLAPPED leads to its state';

/** What a packet looks like in another thread. */
interface Seen {
  readonly key: number;
  readonly kind: string;
  readonly bytes: number;
  readonly operation: boolean;
  readonly id: number;
  readonly handleId: number;
  readonly result: string;
  readonly code: string;
}

/** The next packet, as another thread of the crew sees it. */
function seenElsewhere(t: Context, crew: Crew, index = 0): Promise<Seen> {
  return t.within(
    5000,
    crew.run(
      index,
      (w) => {
        const packet = w.port.getSync(4000);
        if (packet === null) throw new Error('no packet within 4 s');
        return {
          key: packet.key,
          kind: packet.kind,
          bytes: packet.bytesTransferred,
          operation: packet.operation !== undefined,
          id: packet.operationId,
          handleId: packet.handleId,
          result: typeof packet.result,
          code: packet.error?.code ?? '',
        };
      },
      {},
    ),
    'a packet in another thread',
  );
}

type Start = (t: Context, port: SharedPort, id: number) => { operation: Operation; handleId: number; key: number; bytes: number };

const file = (t: Context, port: SharedPort) => t.openFile(port, 11, t.tempFile(undefined, '0123456789'));

/** Operations of each kind, of this thread, that complete by themselves. */
const starts: Record<string, Start> = {
  read(t, port, id) {
    const handle = file(t, port);
    return { operation: handle.read(port.allocate(64), { position: 2, id }), handleId: handle.id, key: 11, bytes: 8 };
  },
  readv(t, port, id) {
    const handle = file(t, port);
    const views = [port.allocate(3), new Uint8Array(new SharedArrayBuffer(4))];
    return { operation: handle.readv(views, { position: 0, id }), handleId: handle.id, key: 11, bytes: 7 };
  },
  write(t, port, id) {
    const handle = file(t, port);
    return { operation: handle.write(new Uint8Array(5), { position: 0, id }), handleId: handle.id, key: 11, bytes: 5 };
  },
  sync(t, port, id) {
    const handle = file(t, port);
    return { operation: handle.sync({ id }), handleId: handle.id, key: 11, bytes: 0 };
  },
  recv(t, port, id) {
    const { a, b } = t.pair(port, 21, 22);
    b.send(new Uint8Array(3));
    t.takeOneSync(port);
    return { operation: a.recv(port.allocate(64), { id }), handleId: a.id, key: 21, bytes: 3 };
  },
  send(t, port, id) {
    const { a } = t.pair(port, 21, 22);
    return { operation: a.send(new Uint8Array(1000), { id }), handleId: a.id, key: 21, bytes: 1000 };
  },
  shutdown(t, port, id) {
    const { a } = t.pair(port, 21, 22);
    return { operation: a.shutdown({ id }), handleId: a.id, key: 21, bytes: 0 };
  },
};

export const cases: readonly ConformanceCase[] = [
  ...variants(
    {
      clause: 'THREAD-01',
      title: 'an operation started in one thread is dequeued in another: key, kind, bytes, ids are there, the object is not',
      reference: elsewhere,
    },
    starts,
    async (t, start, name) => {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 1);
      for (const id of [0, 7, 2 ** 53 - 1]) {
        const { operation, handleId, key, bytes } = start(t, port, id);
        const seen = await seenElsewhere(t, crew);
        t.deepEqual(
          seen,
          { key, kind: name, bytes, operation: false, id, handleId, result: 'undefined', code: '' },
          'the packet in the other thread',
        );
        await t.eventually(() => !operation.pending, 'the operation isn’t pending in its starter’s thread');
        t.equal(operation.cancel(), false, 'cancel() of an operation that was dequeued elsewhere');
      }
    },
  ),
  {
    id: 'THREAD-01/posts',
    clause: 'THREAD-01',
    title: 'so it is with posts: the id comes along, the operation only in the poster’s own thread',
    reference: elsewhere,
    async run(t) {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 1);
      const operation = new t.api.Operation({ mine: true }, { id: 4_294_967_297 });
      port.post(5, 2 ** 32 - 1, operation);
      t.deepEqual(
        await seenElsewhere(t, crew),
        {
          key: 5,
          kind: 'post',
          bytes: 2 ** 32 - 1,
          operation: false,
          id: 4_294_967_297,
          handleId: 0,
          result: 'undefined',
          code: '',
        },
        'the packet in the other thread',
      );
      port.post(6, 0, operation);
      const own = t.takeOneSync(port);
      t.equal(own.operation, operation, 'operation in the poster’s own thread');
      t.equal(own.operationId, 4_294_967_297, 'operationId there');
      await crew.everyone((w) => w.port.post(7, 3, new w.api.Operation(undefined, { id: 9 })), {});
      const theirs = t.takeOneSync(port);
      t.deepEqual([theirs.key, theirs.bytesTransferred, theirs.operationId], [7, 3, 9], 'a packet that another thread posted');
      t.equal(theirs.operation, undefined, 'its operation here');
    },
  },
  {
    id: 'THREAD-01/starter',
    clause: 'THREAD-01',
    title: 'where the starter itself dequeues the packet, it is its own operation',
    reference: elsewhere,
    async run(t) {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 2);
      const path = t.tempFile('file', '0123456789');
      const same = await crew.everyone(
        (w) => {
          const handle = w.api.FileHandle.openSync(w.data.path, 'r');
          // A port of its own: on one that is shared with others nobody knows who gets which packet.
          const port = w.api.CompletionPort.create({ backend: w.backend as 'io_uring', shared: true });
          port.associate(handle, 1);
          let same = 0;
          for (let i = 0; i < 20; i++) {
            const operation = handle.read(port.allocate(8), { position: 0, context: i });
            const packet = port.getSync(4000);
            if (packet?.operation === operation && packet.operation?.context === i && !operation.pending) same++;
          }
          port.close();
          handle.close();
          return same;
        },
        { path },
      );
      t.deepEqual(same, [20, 20], 'packets of 20 that carried the operation of their start, by thread');
    },
  },
  ...variants(
    {
      clause: 'THREAD-01',
      title: 'what an operation made is usable in the thread that dequeues it',
      reference: 'The handle that an operation made belongs to the process; any thread may use it',
    },
    {
      'result of accept': async (t: Context, port: SharedPort, crew: Crew) => {
        const listener = t.listener(port, 3);
        const operation = listener.accept({ id: 31 });
        const client = await t.peerClient(listener.address.port);
        const seen = await t.within(
          5000,
          crew.run(
            0,
            (w) => {
              const packet = w.port.getSync(4000);
              if (packet?.kind !== 'accept' || packet.error !== null) throw new Error(`not an accept: ${packet?.kind}`);
              const socket = packet.result;
              w.port.associate(socket, 32);
              socket.send(Buffer.from('hello from a thread'));
              const sent = w.port.getSync(4000);
              socket.close();
              return [packet.operationId, socket instanceof w.api.TcpSocket, sent?.kind, sent?.key, sent?.bytesTransferred];
            },
            {},
          ),
          'the accepted socket’s use',
        );
        t.deepEqual(seen, [31, true, 'send', 32, 19], 'what the other thread saw');
        t.equal(Buffer.from(await t.readPeer(client, 19)).toString(), 'hello from a thread', 'what the client got');
        t.equal(operation.pending, false, 'pending of the accept');
      },
      'result of open': async (t: Context, port: SharedPort, crew: Crew) => {
        const path = t.tempFile('file', 'some text');
        port.open(path, 'r', { key: 40, id: 41 });
        const seen = await t.within(
          5000,
          crew.run(
            0,
            (w) => {
              const packet = w.port.getSync(4000);
              if (packet?.kind !== 'open' || packet.error !== null) throw new Error(`not an open: ${packet?.kind}`);
              const file = packet.result;
              const view = w.port.allocate(16);
              file.read(view, { position: 5 });
              const read = w.port.getSync(4000);
              const text = Buffer.from(view.slice(0, read?.bytesTransferred)).toString();
              file.close();
              return [packet.operationId, packet.key, file instanceof w.api.FileHandle, read?.key, text];
            },
            {},
          ),
          'the opened file’s use',
        );
        t.deepEqual(seen, [41, 40, true, 40, 'text'], 'what the other thread saw');
      },
      'result of size': async (t: Context, port: SharedPort, crew: Crew) => {
        const handle = t.openFile(port, 50, t.tempFile('file', '12345'));
        handle.size({ id: 51 });
        const seen = await t.within(
          5000,
          crew.run(
            0,
            (w) => {
              const packet = w.port.getSync(4000);
              return [packet?.operationId, packet?.key, packet?.result];
            },
            {},
          ),
          'the size',
        );
        t.deepEqual(seen, [51, 50, 5], 'what the other thread saw');
      },
    },
    async (t, use) => {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 1);
      for (let round = 0; round < 3; round++) await use(t, port, crew);
    },
  ),
  {
    id: 'THREAD-01/errors',
    clause: 'THREAD-01',
    title: 'failures are the same everywhere; only a signal’s reason stays in the starter’s thread',
    reference: elsewhere,
    async run(t) {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 1);
      const { a } = t.pair(port, 1, 2);
      const look = (): Promise<unknown[]> =>
        t.within(
          5000,
          crew.run(
            0,
            (w) => {
              const packet = w.port.getSync(4000);
              const error = packet?.error;
              return [
                packet?.operationId,
                error?.code,
                error?.by,
                error?.cause === undefined,
                error instanceof Error,
                error?.syscall,
              ];
            },
            {},
          ),
          'a failure in another thread',
        );
      a.recv(port.allocate(8), { id: 1 }).cancel();
      t.deepEqual(await look(), [1, 'ECANCELED', 'cancel', true, true, 'recv'], 'a cancelled recv');
      const controller = new AbortController();
      a.recv(port.allocate(8), { id: 2, signal: controller.signal });
      controller.abort(new Error('a reason'));
      t.deepEqual(await look(), [2, 'ECANCELED', 'signal', true, true, 'recv'], 'a recv whose signal was aborted');
      a.recv(port.allocate(8), { id: 3, timeout: 10 });
      t.deepEqual(await look(), [3, 'ETIMEDOUT', 'timeout', true, true, 'recv'], 'a recv whose time ran out');
      a.recv(port.allocate(8), { id: 4 });
      a.close();
      t.deepEqual(await look(), [4, 'ECANCELED', 'close', true, true, 'recv'], 'a recv whose socket was closed');
      port.open('/there/is/no/such/file', 'r', { key: 1, id: 5 });
      t.deepEqual(await look(), [5, 'ENOENT', undefined, true, true, 'open'], 'an open that failed');
    },
  },
  {
    id: 'THREAD-01/handleOf',
    clause: 'THREAD-01',
    title: 'handleOf gives a thread its own object of a handle; a stale id, or one of another port, is an error',
    reference: 'A handle is valid in every thread of the process; a closed one is ERROR_INVALID_HANDLE',
    async run(t) {
      const port = sharedPort(t);
      const other = sharedPort(t);
      const crew = await Crew.start(t, port, 1);
      const { a, b } = t.pair(port, 1, 2);
      const listener = t.listener(port, 3);
      const path = t.tempFile('file', 'abc');
      const handle = t.openFile(port, 4, path);
      const foreign = t.openFile(other, 5, path);
      const loose = t.track(t.api.FileHandle.openSync(path, 'r'));
      const stale = t.openFile(port, 6, path);
      stale.close();
      const ids = {
        a: a.id,
        b: b.id,
        listener: listener.id,
        file: handle.id,
        foreign: foreign.id,
        loose: loose.id,
        stale: stale.id,
      };
      const seen = await t.within(
        5000,
        crew.run(
          0,
          (w) => {
            const { ids } = w.data;
            const { port } = w;
            const socket = port.handleOf(ids.a) as TcpSocket;
            const view = port.allocate(8);
            socket.recv(view, { id: 77 });
            (port.handleOf(ids.b) as TcpSocket).send(new Uint8Array([1, 2, 3]));
            const packets = [port.getSync(4000), port.getSync(4000)];
            const recv = packets.find((packet) => packet?.kind === 'recv');
            return {
              classes: [
                socket instanceof w.api.TcpSocket,
                port.handleOf(ids.listener) instanceof w.api.TcpListener,
                port.handleOf(ids.file) instanceof w.api.FileHandle,
              ],
              same: [socket.id === ids.a, socket.key, port.handleOf(ids.listener).key, port.handleOf(ids.file).closed],
              recv: [recv?.bytesTransferred, recv?.operationId, recv?.key, recv?.handleId === ids.a, ...view.slice(0, 3)],
              stale: w.codeOf(() => port.handleOf(ids.stale)),
              foreign: w.codeOf(() => port.handleOf(ids.foreign)),
              loose: w.codeOf(() => port.handleOf(ids.loose)),
              never: w.codeOf(() => port.handleOf(2 ** 53 - 1)),
              zero: w.codeOf(() => port.handleOf(0)),
              types: [undefined, null, '1', 1n, {}].map((value) => w.codeOf(() => port.handleOf(value as number))),
              ranges: [-1, 0.5, Number.NaN, 2 ** 53].map((value) => w.codeOf(() => port.handleOf(value))),
            };
          },
          { ids },
        ),
        'handleOf in another thread',
      );
      t.deepEqual(seen.classes, [true, true, true], 'classes');
      t.deepEqual(seen.same, [true, 1, 3, false], 'id and keys');
      t.deepEqual(seen.recv, [3, 77, 1, true, 1, 2, 3], 'a recv and a send through handles of handleOf');
      t.equal(seen.stale, 'ERR_HANDLE_CLOSED', 'a closed handle’s id');
      t.equal(seen.never, 'ERR_HANDLE_CLOSED', 'an id that no handle has');
      t.equal(seen.zero, 'ERR_HANDLE_CLOSED', 'the id 0, which no handle has');
      t.equal(seen.foreign, 'ERR_NOT_ASSOCIATED', 'a handle of another port');
      t.equal(seen.loose, 'ERR_NOT_ASSOCIATED', 'a handle of no port');
      t.deepEqual(seen.types, Array(5).fill('ERR_INVALID_ARG_TYPE'), 'no numbers');
      t.deepEqual(seen.ranges, Array(4).fill('ERR_OUT_OF_RANGE'), 'no ids');
      // Closed by one thread, closed for all.
      await crew.everyone((w) => w.port.handleOf(w.data.id).close(), { id: a.id });
      t.throws(() => a.recv(port.allocate(8)), { code: 'ERR_HANDLE_CLOSED' }, 'a recv on a socket that another thread closed');
      t.throws(() => port.handleOf(a.id), { code: 'ERR_HANDLE_CLOSED' }, 'handleOf for it');
      a.close();
    },
  },
];
