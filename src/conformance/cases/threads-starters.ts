// THREAD-02, -10 and -13: what an operation's starter may rely on while others dequeue: that it completes although the starter
// computes, that slot and buffer come back, and that what was written before it is seen behind it.

import { Crew, clock, median, sharedPort, waiting } from '../support/threads.js';
import type { ConformanceCase, Packet, TcpSocket } from '../types.js';
import { variants } from '../variants.js';

export const cases: readonly ConformanceCase[] = [
  ...variants(
    {
      clause: 'THREAD-02',
      title: 'the starter computes for a second: what it started completes elsewhere within 50 ms',
      reference: 'A thread’s I/O goes on while it computes, and completes on the port',
      timeoutMs: 15_000,
    },
    {
      'file blocking': { kind: 'file', way: 'getSync' },
      'file event loop': { kind: 'file', way: 'get' },
      'stream blocking': { kind: 'stream', way: 'getSync' },
      'stream dispatch': { kind: 'stream', way: 'dispatch' },
      'timeout blocking': { kind: 'timeout', way: 'getSync' },
      'posts blocking': { kind: 'post', way: 'getSync' },
    } as const,
    async (t, { kind, way }) => {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 1);
      const handle = t.openFile(port, 1, t.tempFile('file', 'x'));
      const { a, b } = t.pair(port, 2, 3);
      const jobs = crew.all(
        (w) =>
          w.consume(w.port, w.data.way, (packet) => {
            // The time, in tenths of a millisecond since the start, under the packet's id.
            w.set(packet.kind === 'post' ? packet.key : packet.operationId, Math.round((w.clock() - w.data.begin) * 10));
            w.add('handled');
            return packet.operationId === 60;
          }),
        { way, begin: clock() },
      );
      const begin = clock();
      await waiting(t, port, 1);
      const delays: number[] = [];
      for (let round = 0; round < 5; round++) {
        await waiting(t, port, 1);
        const before = crew.at('handled');
        const startedAt = clock();
        const ids = [1 + 2 * round, 2 + 2 * round] as const;
        if (kind === 'file') {
          handle.write(new Uint8Array(10), { position: 0, id: ids[0] });
          handle.size({ id: ids[1] });
        } else if (kind === 'stream') {
          a.recv(port.allocate(16), { id: ids[0] });
          b.send(new Uint8Array(10), { id: ids[1] });
        } else if (kind === 'timeout') {
          a.recv(port.allocate(16), { id: ids[0], timeout: 5 });
          b.recv(port.allocate(16), { id: ids[1], timeout: 5 });
        } else {
          port.post(ids[0]);
          port.post(ids[1]);
        }
        // A whole second in the first round, unless both have been there for long before.
        const end = startedAt + (round === 0 ? 1000 : 100);
        while (clock() < end) if (crew.at('handled') - before === 2 && clock() > startedAt + 100) break;
        t.equal(crew.at('handled') - before, 2, 'packets that came elsewhere while this thread computed');
        for (const id of ids) delays.push(begin + crew.at(id) / 10 - startedAt);
      }
      t.less(median(delays), 50, `milliseconds until the packets came (${delays.map((delay) => delay.toFixed(1)).join(', ')})`);
      handle.sync({ id: 60 });
      await t.within(2000, Promise.all(jobs), 'the end of the other thread');
    },
  ),

  ...variants(
    {
      clause: 'THREAD-02',
      title: 'so it is where the starter has more packets before it, which it doesn’t come to',
      reference: 'A thread’s I/O goes on while it computes, and completes on the port',
    },
    { 'in a crowd getSync': 'getSync', 'in a crowd dispatch': 'dispatch' } as const,
    async (t, way) => {
      const port = sharedPort(t, { concurrency: 2 }); // this thread has one of the places
      if (typeof port.stats().queued !== 'number') t.unable('what is under test doesn’t count the packets that wait');
      const crew = await Crew.start(t, port, 1);
      const { a, b } = t.pair(port, 1, 2);
      b.recv(port.allocate(64), { id: 99 });
      const posts = 10;
      const jobs = crew.all(
        (w) => {
          const socket = w.port.handleOf(w.data.socket) as TcpSocket;
          const byte = w.port.allocate(1);
          const all = w.data.posts;
          w.add('arrived');
          return w.consume(w.port, w.data.way, (packet) => {
            if (packet.kind === 'post') {
              if (packet.key === 1) w.until('go', 1);
              // One of two computes for long; by then whoever was told of the start before has slept again.
              const long = packet.key % 2 === 0;
              if (long) w.spin(0.4);
              socket.send(byte, { id: packet.key });
              if (long) {
                w.set('started', packet.key);
                w.spin(120);
              }
            }
            return packet.kind === 'send' && packet.operationId === all;
          });
        },
        { way, posts, socket: a.id },
      );
      await t.within(5000, Promise.race([waiting(t, port, 1), ...jobs]), 'the thread waits');
      for (let key = 1; key <= posts; key++) port.post(key);
      crew.set('go', 1);
      const delays: number[] = [];
      for (let key = 2; key <= posts; key += 2) {
        while (crew.at('started') < key) await t.turn();
        const begin = clock();
        // For each post that was taken the packet of its send has come; and that of the one receive.
        while (port.stats().queued < posts + 1 && crew.at('started') === key && clock() - begin < 100) await t.turn();
        delays.push(clock() - begin);
      }
      t.less(median(delays), 50, `milliseconds until a send completed (${delays.map((delay) => delay.toFixed(1)).join(', ')})`);
      await t.within(3000, Promise.all(jobs), 'the end of the thread');
    },
  ),

  {
    id: 'THREAD-10',
    clause: 'THREAD-10',
    title: 'slot and buffer of an operation that was dequeued elsewhere are free for its starter',
    reference: 'The OVERLAPPED and the buffer belong to the caller again when the packet is dequeued, whoever does it',
    async run(t) {
      const port = sharedPort(t, { maxOperations: 4, arenaBytes: 65_536 });
      const crew = await Crew.start(t, port, 1);
      const handle = t.openFile(port, 1, t.tempFile('file', '0123456789'));
      const operations = Array.from({ length: 4 }, (_, i) => new t.api.Operation(i));
      const jobs = crew.all((w) => w.consume(w.port, 'getSync', () => void w.add('handled')), {});
      await waiting(t, port, 1);
      const rounds = t.count(50);
      for (let round = 1; round <= rounds; round++) {
        const views = operations.map((operation) => {
          operation.position = 0;
          // Half of the arena by four at a time: it lasts only if the blocks come back.
          const view = port.allocate(8192);
          t.equal(handle.read(view, operation), operation, 'what the start returns');
          port.release(view);
          return view;
        });
        t.equal(views.length, 4, 'reads that were started');
        await crew.reached('handled', 4 * round, 'the reads are dequeued elsewhere');
        for (const operation of operations) await t.eventually(() => !operation.pending, 'an operation is free for its starter');
        t.equal(port.inFlight, 0, 'inFlight');
      }
      const whole = port.allocate(65_536 - 4096);
      port.release(whole);
      port.close();
      await t.within(2000, Promise.all(jobs), 'the end of the other thread');
    },
  },
  {
    id: 'THREAD-10/no-turn',
    clause: 'THREAD-10',
    title: 'so it is for a starter that never comes back to its event loop and never gets',
    reference: 'The OVERLAPPED belongs to the caller again when the packet is dequeued, whoever does it',
    async run(t) {
      const port = sharedPort(t, { maxOperations: 2 });
      const crew = await Crew.start(t, port, 1);
      const handle = t.openFile(port, 1, t.tempFile('file', '0123456789'));
      const jobs = crew.all((w) => w.consume(w.port, 'getSync', () => void w.add('handled')), {});
      await waiting(t, port, 1);
      const operation = new t.api.Operation();
      operation.position = 0;
      const view = port.allocate(64);
      const rounds = t.count(200);
      const end = t.now() + 5000;
      for (let round = 0; round < rounds; ) {
        try {
          handle.read(view, operation);
          round++;
        } catch (error) {
          t.equal((error as { code?: string }).code, 'ERR_OPERATION_PENDING', 'what a start throws');
        }
        if (t.now() > end) t.fail(`started ${round} times within 5 s, in place of ${rounds}`);
      }
      await crew.reached('handled', rounds, 'all reads are dequeued elsewhere');
      port.close();
      await t.within(2000, Promise.all(jobs), 'the end of the other thread');
    },
  },
  {
    id: 'THREAD-10/limit',
    clause: 'THREAD-10',
    title: 'maxOperations counts what all threads have in flight',
    reference: 'The portable rule: one more than may be in flight throws EAGAIN, and nothing is started',
    async run(t) {
      const port = sharedPort(t, { maxOperations: 6 });
      const crew = await Crew.start(t, port, 2);
      const { a, b } = t.pair(port, 1, 2);
      const begun = await crew.everyone(
        (w) => {
          const socket = w.port.handleOf(w.data.id) as TcpSocket;
          const code = w.codeOf(() => {
            for (let i = 0; i < 2; i++) socket.recv(new Uint8Array(new SharedArrayBuffer(4)));
          });
          return [code, w.port.inFlight];
        },
        { id: a.id },
      );
      t.deepEqual(
        begun.map(([code]) => code),
        ['nothing', 'nothing'],
        'what two starts in each thread throw',
      );
      const own = [a.recv(port.allocate(4)), a.recv(port.allocate(4))];
      t.equal(port.inFlight, 6, 'inFlight');
      t.throws(() => a.recv(port.allocate(4)), { code: 'EAGAIN' }, 'one more, in this thread');
      const again = await crew.everyone(
        (w) => w.codeOf(() => (w.port.handleOf(w.data.id) as TcpSocket).recv(w.port.allocate(4))),
        {
          id: b.id,
        },
      );
      t.deepEqual(again, ['EAGAIN', 'EAGAIN'], 'one more, in the others');
      t.equal(a.cancel(), 6, 'operations that were pending');
      const packets: Packet[] = t.takeSync(port, 6);
      t.equal(packets.filter((packet) => packet.operation !== undefined).length, own.length, 'packets of this thread’s own');
      t.equal(port.inFlight, 0, 'inFlight when all are dequeued');
    },
  },

  ...variants(
    {
      clause: 'THREAD-13',
      title: 'what was written before it is seen by the thread that dequeues',
      reference: 'PostQueuedCompletionStatus and the completion of I/O are memory barriers, as is the dequeuing of a packet',
      timeoutMs: 15_000,
    },
    { post: 'post', start: 'start' } as const,
    async (t, how) => {
      const rounds = t.count(how === 'post' ? 10_000 : 3000);
      const port = sharedPort(t, { concurrency: 4 });
      const crew = await Crew.start(t, port, 2);
      const path = t.tempFile('file', 'x');
      // A packet wanders between two threads. Each adds to a plain number in shared memory, and looks at what the other one left.
      const plain = new Float64Array(new SharedArrayBuffer(8 * 1024));
      const jobs = crew.all(
        (w) => {
          const { plain, rounds, how, path } = w.data;
          const handle = w.api.FileHandle.openSync(path, 'r');
          w.port.associate(handle, w.index);
          return w.consume(w.port, 'getSync', (packet) => {
            const number = packet.kind === 'post' ? packet.key : packet.operationId;
            if (number === 2 ** 40) return true;
            const at = (number * 13) % 1024;
            if (plain[at] !== number) {
              w.add('failed');
              throw new Error(`round ${number}: the memory holds ${plain[at]}`);
            }
            const next = number + 1;
            plain[(next * 13) % 1024] = next;
            if (next > rounds) {
              w.set('stop', 1);
              for (let i = 0; i < 2; i++) w.port.post(2 ** 40);
            } else if (how === 'post') w.port.post(next);
            else handle.size({ id: next });
            return false;
          });
        },
        { plain, rounds, how, path },
      );
      await waiting(t, port, 2);
      plain[13] = 1;
      port.post(1);
      await crew.reached('stop', 1, 'the packet has wandered', 12_000);
      await t.within(2000, Promise.all(jobs), 'the end of both threads');
    },
  ),
  {
    id: 'THREAD-13/one-pending',
    clause: 'THREAD-13',
    title: 'one operation pending per connection, started as the handler’s last act, keeps two threads from working on it',
    reference: 'The rule that servers on completion ports rely on for per-connection state without a lock',
    timeoutMs: 15_000,
    async run(t) {
      const threads = 4;
      const files = 8;
      const each = t.count(1000);
      const port = sharedPort(t, { concurrency: threads });
      const crew = await Crew.start(t, port, threads, { cells: files });
      const path = t.tempFile('file', 'x');
      const handles = Array.from({ length: files }, (_, key) => t.openFile(port, key, path, 'r'));
      const state = new Float64Array(new SharedArrayBuffer(8 * files));
      const jobs = crew.all(
        (w) => {
          const { state, each } = w.data;
          return w.consume(w.port, 'getSync', (packet) => {
            const { key } = packet;
            // Two threads at once on one key would be seen here, or in a sum that is too small.
            if (w.add(key) !== 1) w.add('failed');
            const seen = state[key] ?? 0;
            w.spin(0.005);
            state[key] = seen + 1;
            w.add(key, -1);
            if (seen + 1 === each) w.add('handled');
            else (w.port.handleOf(packet.handleId) as ReturnType<typeof w.api.FileHandle.openSync>).size();
            return false;
          });
        },
        { state, each },
      );
      await waiting(t, port, threads);
      for (const handle of handles) handle.size();
      await crew.reached('handled', files, 'all files have had their turns', 12_000);
      t.equal(crew.at('failed'), 0, 'times that two threads were on one file');
      t.deepEqual([...state], Array(files).fill(each), 'turns by file');
      port.close();
      await t.within(2000, Promise.all(jobs), 'all threads see the close');
    },
  },
];
