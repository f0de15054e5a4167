// DISP-05 and FLUSH-01 with threads: nothing waits for a busy thread. A packet is taken by whoever is free, and what a thread starts
// begins at once, whatever it does next. And BUF-02: what a shared port reads into is memory that every thread reaches.

import { Crew, clock, median, sharedPort, waiting } from '../support/threads.js';
import type { ConformanceCase, Context, Operation, SharedPort, TcpSocket } from '../types.js';
import { forEachWay, variants } from '../variants.js';

const free = 'A packet is removed from the queue by the thread that handles it: none is set aside for a thread that is busy';
const begins = 'ReadFile and WSASend hand the request to the driver before they return';

/** A thread that counts what a socket of a plain peer receives: it is seen while this thread computes. */
async function countingPeer(t: Context): Promise<{ number: number; received: () => number }> {
  const counter = new Int32Array(new SharedArrayBuffer(4));
  const worker = t.worker(
    `const counter = new Int32Array(workerData);
     net.createServer((socket) => { socket.on('error', () => {}); socket.on('data', (chunk) => Atomics.add(counter, 0, chunk.length)); })
     .listen(0, '127.0.0.1', function () { parentPort.postMessage(this.address().port); });`,
    counter.buffer,
  );
  const number = await t.within(5000, new Promise<number>((resolve) => worker.once('message', resolve)), 'a server in a worker');
  return { number, received: () => Atomics.load(counter, 0) };
}

async function connected(t: Context, port: SharedPort, number: number): Promise<TcpSocket> {
  const socket = t.track(t.api.TcpSocket.openSync());
  port.associate(socket, 1);
  socket.connect({ host: '127.0.0.1', port: number });
  t.succeeded(await t.takeOne(port), 'the connect');
  return socket;
}

function computeUntil(t: Context, condition: () => boolean, what: string, ms = 1000): void {
  const end = t.now() + ms;
  while (!condition()) if (t.now() > end) t.fail(`${what}: not so within ${ms} ms of computing`);
}

export const cases: readonly ConformanceCase[] = [
  ...forEachWay(
    {
      clause: 'DISP-05',
      title: 'a slow handler holds back no packet that another thread could take',
      reference: free,
    },
    async (t, way) => {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 2);
      for (const other of ['getSync', 'dispatch'] as const) {
        crew.clear();
        // The slow one takes a packet, of ten that come at once, and computes until all others are handled.
        const slow = crew.run(
          0,
          async (w) => {
            let mine = 0;
            // All ten are there when it takes its first, so a consumer that takes more than one at a time has them.
            w.add('ready');
            w.until('posted', 1, 5000);
            await w.consume(w.port, w.data.way, () => {
              mine++;
              w.set('held', 1);
              w.until('handled', 19);
              return true;
            });
            return mine;
          },
          { way },
        );
        await crew.reached('ready', 1, 'the slow thread runs');
        for (let key = 0; key < 10; key++) port.post(key);
        crew.set('posted', 1);
        await crew.reached('held', 1, 'the handler runs');
        const quick = crew.run(1, (w) => w.consume(w.port, w.data.other, () => w.add('handled') === 19), { other });
        await crew.reached('handled', 9, 'the packets that were queued behind a slow handler');
        for (let key = 0; key < 10; key++) port.post(key);
        await crew.reached('handled', 19, 'the packets that came afterwards');
        t.equal(await t.within(3000, slow, 'the slow handler'), 1, 'packets that the slow handler’s thread took');
        await t.within(3000, quick, 'the other thread');
      }
    },
    ['get', 'iterator', 'dispatch', 'getSync'],
  ),
  {
    id: 'DISP-05/busy-loop',
    clause: 'DISP-05',
    title: 'an event loop that waits, but computes something else, holds back nothing either',
    reference: free,
    async run(t) {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 2);
      const delays: number[] = [];
      for (let round = 0; round < 5; round++) {
        crew.clear();
        const quick = crew.run(1, async (w) => ({ key: (await w.port.get({ timeout: 5000 }))?.key, at: w.clock() }), {});
        await waiting(t, port, 1);
        const busy = crew.run(
          0,
          async (w) => {
            const abort = new AbortController();
            const wait = w.port.get({ signal: abort.signal });
            await new Promise((resolve) => setTimeout(resolve, 2));
            w.set('busy', 1);
            // It is the newest that waits; but its event loop is not to be had.
            w.until('got', 1, 2000);
            abort.abort();
            return w.codeOfAsync(() => wait);
          },
          {},
        );
        await crew.reached('busy', 1, 'the newest event loop computes');
        const begin = clock();
        port.post(7);
        const got = await t.within(1500, quick, 'the packet reaches the other event loop');
        crew.set('got', 1);
        t.equal(got.key, 7, 'key of the packet in the other event loop');
        delays.push(got.at - begin);
        t.equal(await t.within(3000, busy, 'the busy event loop'), 'ABORT_ERR', 'how its get ended');
      }
      t.less(median(delays), 50, `milliseconds that the packet took (${delays.map((delay) => delay.toFixed(1)).join(', ')})`);
    },
  },
  {
    id: 'DISP-05/throws',
    clause: 'DISP-05',
    title: 'a handler that throws, and ends its thread with it, takes no packet along but its own',
    reference: free,
    async run(t) {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 2);
      const total = 60;
      crew
        .worker(0)
        .removeAllListeners('error')
        .on('error', () => {});
      void crew.run(
        0,
        (w) => {
          w.port.dispatch((packet) => {
            w.add(packet.key);
            w.add('handled');
            w.add('failed');
            throw new Error('of the case');
          });
        },
        {},
      );
      await waiting(t, port, 1);
      for (let key = 0; key < total; key++) port.post(key);
      await crew.reached('failed', 1, 'the handler has thrown');
      const rest = crew.run(
        1,
        (w) =>
          w.consume(w.port, 'dispatch', (packet) => {
            w.add(packet.key);
            w.add('handled');
            return false;
          }),
        {},
      );
      await crew.reached('handled', total, 'all packets are handled');
      port.close();
      await t.within(3000, rest, 'the other thread');
      for (let key = 0; key < total; key++) t.equal(crew.at(key), 1, `how often packet ${key} came`);
    },
  },

  ...variants(
    {
      clause: 'FLUSH-01',
      title: 'on a shared port a start submits before it returns: it begins although the same job computes on',
      reference: begins,
    },
    {
      'shared in a job': (_: Context, start: () => Operation) => Promise.resolve(start()),
      'shared in a handler': (t: Context, start: () => Operation) =>
        new Promise<Operation>((resolve) => {
          const other = t.createPort();
          other.dispatch(() => resolve(start()));
          other.post(1);
        }),
    },
    async (t, job) => {
      const port = sharedPort(t);
      const { number, received } = await countingPeer(t);
      const socket = await connected(t, port, number);
      for (let round = 1; round <= 3; round++) {
        const operation = await job(t, () => {
          const operation = socket.send(new Uint8Array(10));
          computeUntil(t, () => received() >= 10 * round, 'the peer has received what was sent in this very job');
          return operation;
        });
        t.equal(operation.pending, true, 'pending until the packet');
        t.equal(t.takeOneSync(port).operation, operation, 'operation of the packet');
      }
    },
  ),
  {
    id: 'FLUSH-01/shared-threads',
    clause: 'FLUSH-01',
    title: 'so it is in every attached thread',
    reference: begins,
    async run(t) {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 2);
      const { number, received } = await countingPeer(t);
      const sockets = [await connected(t, port, number), await connected(t, port, number)];
      for (let round = 1; round <= 3; round++) {
        crew.set('go', 0);
        const jobs = crew.all(
          (w) => {
            (w.port.handleOf(w.data.ids[w.index] as number) as TcpSocket).send(new Uint8Array(10), { id: w.index });
            w.until('go', 1);
          },
          { ids: sockets.map((socket) => socket.id) },
        );
        await t.eventually(() => received() >= 20 * round, 'the peer has received what both threads sent, which compute');
        crew.set('go', 1);
        await t.within(3000, Promise.all(jobs), 'both threads');
        t.deepEqual(
          t
            .takeSync(port, 2)
            .map((packet) => packet.operationId)
            .sort(),
          [0, 1],
          'ids of the packets',
        );
      }
    },
  },
  {
    id: 'FLUSH-01/defer',
    clause: 'FLUSH-01',
    title: 'port.defer submits what its function starts at the function’s end, also where it throws, and returns its result',
    reference: 'The portable rule: many starts may be handed over together; none later than the end of the function',
    async run(t) {
      const { number, received } = await countingPeer(t);
      for (const port of [sharedPort(t), t.createPort() as SharedPort]) {
        const socket = await connected(t, port, number);
        const before = received();
        const answer = port.defer(() => {
          for (let i = 0; i < 5; i++) socket.send(new Uint8Array(2));
          return 'an answer';
        });
        t.equal(answer, 'an answer', 'what defer returns');
        computeUntil(t, () => received() >= before + 2, 'the peer has received of what was started in defer');
        const error = t.throws(
          () =>
            port.defer(() => {
              socket.send(new Uint8Array(3));
              throw Object.assign(new Error('mine'), { code: 'MINE' });
            }),
          { code: 'MINE' },
          'what a function in defer throws',
        );
        t.equal(error.message, 'mine', 'its message');
        // Sends of a stream go one after the other; the last one begins when the others' completions are seen.
        t.takeSync(port, 6);
        await t.eventually(() => received() >= before + 13, 'the peer has received all that was started');
        t.throws(() => port.defer('no function' as unknown as () => void), { code: 'ERR_INVALID_ARG_TYPE' }, 'a string');
        const nested = port.defer(() => port.defer(() => socket.send(new Uint8Array(1))));
        t.equal(t.takeOneSync(port).operation, nested, 'operation of a send in a defer in a defer');
        await t.eventually(() => received() >= before + 14, 'the peer has received that, too');
      }
    },
  },
  {
    id: 'FLUSH-01/defer-get',
    clause: 'FLUSH-01',
    title: 'a get inside of port.defer submits first: it never waits for what has not begun',
    reference: 'GetQueuedCompletionStatus never waits for I/O that has not begun',
    run(t) {
      for (const port of [sharedPort(t), t.createPort() as SharedPort]) {
        const file = t.openFile(port, 1, t.tempFile(undefined, '0123456789'));
        const size = port.defer(() => {
          const operation = file.size();
          const packet = port.getSync(3000);
          t.ok(packet?.operation === operation, 'the packet of what was started in the same defer');
          return packet?.result;
        });
        t.equal(size, 10, 'the size');
      }
    },
  },

  {
    id: 'BUF-02/shared-port',
    clause: 'BUF-02',
    title: 'on a shared port a read takes arena or SharedArrayBuffer views only; anything else throws, and nothing is started',
    reference: 'The portable rule: the thread that dequeues can’t reach the starter’s other memory',
    run(t) {
      const port = sharedPort(t);
      const file = t.openFile(port, 1, t.tempFile('file', '0123456789'));
      const { a, b } = t.pair(port, 2, 3);
      const heap = [new Uint8Array(4), Buffer.alloc(4), new DataView(new ArrayBuffer(8)), new Float64Array(1)] as Uint8Array[];
      const shared = (): Uint8Array => new Uint8Array(new SharedArrayBuffer(4));
      for (const view of heap) {
        const refused = { code: 'ERR_BUFFER_NOT_SHARED', name: 'TypeError' };
        t.throws(() => file.read(view, { position: 0 }), refused, 'a read');
        t.throws(() => file.readv([shared(), view], { position: 0 }), refused, 'a readv, one of whose views it is');
        t.throws(() => a.recv(view), refused, 'a recv');
        const operation = new t.api.Operation('mine');
        operation.position = 0;
        t.throws(() => file.read(view, operation), refused, 'a read with an operation');
        t.equal(operation.pending, false, 'pending of that operation');
        t.equal(port.inFlight, 0, 'inFlight');
      }
      t.nothing(port, 2);
      // What is only read from is copied: any memory will do.
      for (const view of heap) {
        file.write(view, { position: 0 });
        file.writev([view, view], { position: 0 });
        b.send(view);
        for (const packet of t.takeSync(port, 3)) t.succeeded(packet, `a ${packet.kind} from other memory`);
      }
      const views = [port.allocate(4), shared(), new Uint8Array(port.arena, 4096, 4)];
      for (const view of views) {
        file.read(view, { position: 0 });
        a.recv(view);
        for (const packet of t.takeSync(port, 2)) t.succeeded(packet, `a ${packet.kind}`);
      }
      file.readv(views, { position: 0 });
      t.equal(t.takeOneSync(port).bytesTransferred, 12, 'bytes of a readv');
    },
  },
];
