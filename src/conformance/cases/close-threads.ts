// CLOSE-01, CLOSE-05 and CANCEL-03 with threads: what one thread ends, for all of them: a port with every wait on it, a handle on which
// others are starting operations, and the operations of every thread.

import { Crew, sharedPort, tokenOf, waiting } from '../support/threads.js';
import type { ConformanceCase, Context, FileHandle, Handle, Packet, SharedPort, TcpListener, TcpSocket, Way } from '../types.js';
import { variants } from '../variants.js';

const closing = 'CloseHandle of a port ends waits with FALSE and ERROR_ABANDONED_WAIT_0 (735) and a NULL overlapped';
const closed = { code: 'ERR_PORT_CLOSED' };

/** Handles that ten threads start operations on at once: how the case makes one, and what a thread starts. */
const targets: Record<string, { make(t: Context, port: SharedPort): Handle; start: string }> = {
  file: {
    make: (t, port) => t.openFile(port, 1, t.tempFile(undefined, t.pattern(0, 4096))),
    start: '(w, handle, view, id) => id % 3 === 0 ? handle.size({ id }) : handle.read(view, { position: 0, id })',
  },
  'file written': {
    make: (t, port) => t.openFile(port, 1, t.tempFile(undefined, '')),
    start: '(w, handle, view, id) => handle.write(view, { position: 64 * id, id })',
  },
  socket: {
    make: (t, port) => t.pair(port, 1, 2).a,
    start: '(w, handle, view, id) => id % 2 === 0 ? handle.recv(view, { id }) : handle.send(view, { id })',
  },
  listener: { make: (t, port) => t.listener(port, 1), start: '(w, handle, view, id) => handle.accept({ id })' },
};

export const cases: readonly ConformanceCase[] = [
  ...variants(
    {
      clause: 'CLOSE-01',
      title: 'closing the port ends every waiting get, sync and async, in every thread, with ERR_PORT_CLOSED',
      reference: closing,
    },
    { 'threads closed by the creator': 'creator', 'threads closed by another': 'other' } as const,
    async (t, closer) => {
      const crew = await Crew.start(t, null, 7);
      for (let round = 0; round < 3; round++) {
        const port = sharedPort(t);
        const jobs = crew.all(
          async (w) => {
            const port = w.attach(w.data.token);
            w.add('attached');
            const ways: Way[] = ['getSync', 'getManySync', 'get', 'getMany', 'iterator', 'dispatch'];
            const way = ways[w.index];
            let code = 'none';
            switch (way) {
              case 'getSync':
                code = w.codeOf(() => port.getSync());
                break;
              case 'getManySync':
                code = w.codeOf(() => port.getManySync(8, 60_000));
                break;
              case 'get':
                code = await w.codeOfAsync(() => port.get());
                break;
              case 'getMany':
                code = await w.codeOfAsync(() => port.getMany(8, { timeout: 60_000 }));
                break;
              case 'iterator':
                for await (const packet of port) throw new Error(`a packet: ${packet.kind}`);
                code = 'its loop ends';
                break;
              case 'dispatch': {
                const consumer = port.dispatch((packet) => {
                  throw new Error(`a packet: ${packet.kind}`);
                });
                await port.closed;
                code = consumer.active ? 'active' : 'stopped';
                break;
              }
              default:
                if (w.data.closer === 'other') {
                  await w.turnUntil('go', w.data.round);
                  port.close();
                }
                break;
            }
            await port.closed;
            return [code, port.isClosed, w.codeOf(() => port.getSync(0)), await w.codeOfAsync(() => port.get())].join();
          },
          { token: tokenOf(port), closer, round: round + 1 },
        );
        await waiting(t, port, 6);
        await crew.reached('attached', 7 * (round + 1), 'the thread that doesn’t wait has attached, too');
        const own = t.rejects(port.get(), closed, 'this thread’s own waiting get', 4000);
        if (closer === 'creator') port.close();
        else crew.set('go', round + 1);
        const ends = await t.within(4000, Promise.all(jobs), 'all waits end');
        await own;
        const rest = 'true,ERR_PORT_CLOSED,ERR_PORT_CLOSED';
        const first = [...Array(4).fill('ERR_PORT_CLOSED'), 'its loop ends', 'stopped', 'none'];
        t.deepEqual(
          ends,
          first.map((code) => `${code},${rest}`),
          'how the waits ended, by way; and isClosed, getSync and get afterwards',
        );
        t.equal(port.isClosed, true, 'isClosed in the creator’s thread');
        await t.within(2000, port.closed, 'closed in the creator’s thread');
      }
    },
  ),
  {
    id: 'CLOSE-01/threads-queued',
    clause: 'CLOSE-01',
    title: 'packets that are queued, or about to be handed over, reach no get of any thread behind the close',
    reference: closing,
    async run(t) {
      const crew = await Crew.start(t, null, 3);
      for (let round = 0; round < t.count(10); round++) {
        const port = sharedPort(t, { arenaBytes: 65_536 });
        crew.clear();
        const jobs = crew.all(
          (w) => {
            const port = w.attach(w.data.token);
            return w.consume(port, w.index === 2 ? 'dispatch' : 'getSync', () => {
              // The closer has returned from close() by the time that it says so.
              if (w.at('stop') === 1 && w.at('busy') === 0) w.add('failed');
              w.add('handled');
              w.set('busy', 1);
              w.spin(0.02);
              w.set('busy', 0);
              return false;
            });
          },
          { token: tokenOf(port) },
        );
        await waiting(t, port, 3);
        for (let key = 0; key < 400; key++) port.post(key);
        t.spin(t.random.next());
        port.close();
        const handled = crew.at('handled');
        await t.within(3000, Promise.all(jobs), 'all threads see the close');
        // Each may have had one in its hands.
        t.less(crew.at('handled') - handled, 4, 'packets that were handled behind the close');
        await t.within(2000, port.closed, 'closed');
      }
    },
  },

  ...variants(
    {
      clause: 'CLOSE-05',
      title: 'close while ten threads start operations on the handle: each start throws closed or ends in exactly one packet',
      reference: 'CloseHandle races with ReadFile and WSARecv: either the handle is invalid, or the request completes, once',
      timeoutMs: 20_000,
    },
    targets,
    async (t, { make, start }) => {
      const threads = 10;
      const most = 400;
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, threads, { cells: threads * most });
      for (let round = 0; round < t.count(12, 2); round++) {
        crew.clear();
        const handle = make(t, port);
        const byOther = round % 3 === 2;
        const jobs = crew.all(
          (w) => {
            const { id, most, start, closeAfter } = w.data;
            const view = w.port.allocate(64);
            let handle: Handle;
            let begun = 0;
            let code = 'nothing';
            try {
              handle = w.port.handleOf(id);
              w.add('arrived');
              for (; begun < most; begun++) {
                if (w.index === 0 && begun === closeAfter) handle.close();
                w.call(start, handle, view, w.index * most + begun);
                w.add('started');
              }
            } catch (error) {
              code = (error as { code?: string }).code ?? String(error);
            }
            w.port.release(view);
            return { begun, code };
          },
          { id: handle.id, most, start, closeAfter: byOther ? t.random.int(100) : -1 },
        );
        let taken = 0;
        const take = (packets: Packet[]): void => {
          for (const packet of packets) {
            taken++;
            if (packet.error !== null) t.failed(packet, { code: 'ECANCELED', by: 'close' }, 'an operation on the closed handle');
            const count = crew.add(packet.operationId);
            if (count !== 1) t.fail(`operation ${packet.operationId} has had ${count} packets`);
            if (packet.kind === 'accept' && packet.error === null) packet.result.close();
          }
        };
        if (!byOther) {
          const until = t.now() + t.random.next() * 4;
          while (crew.at('arrived') < 1 || t.now() < until) take(port.getManySync(64, 0));
          handle.close();
        }
        const results = await t.within(6000, Promise.all(jobs), 'all threads are through');
        for (const { begun, code } of results)
          t.ok(code === 'ERR_HANDLE_CLOSED' || (code === 'nothing' && begun === most), `the end of the starts, which is ${code}`);
        const started = results.reduce((sum, { begun }) => sum + begun, 0);
        const end = t.now() + 4000;
        while (taken < started) {
          take(port.getManySync(512, 20));
          if (t.now() > end) t.fail(`${started} operations were started, ${taken} packets came within 4 s`);
        }
        t.nothing(port, 2);
        t.equal(taken, started, 'packets, of so many starts');
        t.equal(port.inFlight, 0, 'inFlight');
        // What each of them used is free again.
        for (const [index, { begun }] of results.entries()) {
          for (let n = 0; n < begun; n++) {
            if (crew.at(index * most + n) !== 1) t.fail(`start ${n} of thread ${index} had ${crew.at(index * most + n)} packets`);
          }
        }
      }
    },
  ),
  {
    id: 'CLOSE-05/port',
    clause: 'CLOSE-05',
    title: 'so it is where the whole port closes: each start throws closed, or its memory is let go of',
    reference: 'Closing the port’s handles cancels their I/O; the queue and its packets go with the last reference',
    timeoutMs: 20_000,
    async run(t) {
      const crew = await Crew.start(t, null, 4);
      const path = t.tempFile('file', t.pattern(0, 4096));
      for (let round = 0; round < t.count(10, 2); round++) {
        crew.clear();
        const port = sharedPort(t, { arenaBytes: 131_072 });
        const handle = t.openFile(port, 1, path);
        const { a } = t.pair(port, 2, 3);
        const jobs = crew.all(
          (w) => {
            const port = w.attach(w.data.token);
            const view = new Uint8Array(new SharedArrayBuffer(64));
            return w.codeOf(() => {
              const file = port.handleOf(w.data.file) as FileHandle;
              const socket = port.handleOf(w.data.socket) as TcpSocket;
              w.add('arrived');
              for (let n = 0; n < 5000; n++) {
                file.read(view, { position: 0 });
                socket.recv(view);
                if (n % 7 === 0) port.getManySync(16, 0);
              }
            });
          },
          { token: tokenOf(port), file: handle.id, socket: a.id },
        );
        await crew.reached('arrived', 4, 'all threads start operations');
        t.spin(t.random.next() * 3);
        port.close();
        for (const code of await t.within(5000, Promise.all(jobs), 'all threads see the close'))
          t.ok(['ERR_PORT_CLOSED', 'ERR_HANDLE_CLOSED', 'nothing'].includes(code), `the end of the starts, which is ${code}`);
        await t.within(3000, port.closed, 'closed');
      }
    },
  },

  {
    id: 'CANCEL-03/threads',
    clause: 'CANCEL-03',
    title: 'handle.cancel() cancels the operations of every thread and says how many were pending; other handles are untouched',
    reference: 'CancelIoEx with a NULL overlapped cancels all I/O of the handle, whatever thread issued it',
    async run(t) {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 3);
      const { a, b } = t.pair(port, 1, 2);
      const other = t.pair(port, 3, 4).a;
      for (let round = 0; round < t.count(5); round++) {
        await crew.everyone(
          (w) => {
            const [a, other] = w.data.ids.map((id) => w.port.handleOf(id) as TcpSocket);
            for (let n = 0; n < 3; n++) a?.recv(new Uint8Array(new SharedArrayBuffer(8)), { id: 10 * w.index + n });
            other?.recv(new Uint8Array(new SharedArrayBuffer(8)), { id: 100 + w.index });
          },
          { ids: [a.id, other.id] },
        );
        const own = a.recv(port.allocate(8), { id: 90 });
        const byThread = round % 2 === 1;
        const count = byThread
          ? await crew.run(1, (w) => w.port.handleOf(w.data.id).cancel(), { id: a.id })
          : port.handleOf(a.id).cancel();
        t.equal(count, 10, 'how many were pending, as cancel() says');
        const packets = t.takeSync(port, 10);
        for (const packet of packets) t.failed(packet, { code: 'ECANCELED', by: 'cancel' }, 'a cancelled recv');
        t.deepEqual(
          packets.map((packet) => packet.operationId).sort((x, y) => x - y),
          [0, 1, 2, 10, 11, 12, 20, 21, 22, 90],
          'ids of the cancelled operations',
        );
        t.equal(packets.find((packet) => packet.operationId === 90)?.operation, own, 'operation of this thread’s own packet');
        t.nothing(port, 2);
        t.equal(port.inFlight, 3, 'operations of the other socket');
        t.equal(a.cancel(), 0, 'cancel() when nothing is pending');
        t.equal(other.cancel(), 3, 'cancel() of the other socket');
        t.takeSync(port, 3);
        // The streams have lost nothing.
        b.send(new Uint8Array([round]));
        const view = port.allocate(8);
        a.recv(view);
        t.takeSync(port, 2);
        t.equal(view[0], round, 'what the next recv gets');
        port.release(view);
      }
    },
  },
  {
    id: 'CANCEL-03/threads-race',
    clause: 'CANCEL-03',
    title: 'threads that cancel and close while others start: each operation has one packet',
    reference: 'A cancel is a request: whichever comes first decides, and there is one packet',
    async run(t) {
      const most = 300;
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 4, { cells: 2 * most });
      const listener = t.listener(port, 1);
      for (let round = 0; round < t.count(6, 2); round++) {
        crew.clear();
        const jobs = crew.all(
          (w) => {
            const listener = w.port.handleOf(w.data.id) as TcpListener;
            const random = w.random(w.data.seed + w.index);
            w.add('arrived');
            w.until('arrived', 4);
            if (w.index >= 2) {
              let cancelled = 0;
              while (w.at('stop') < 2) {
                cancelled += listener.cancel();
                w.spin(random() * 0.05);
              }
              return cancelled;
            }
            for (let n = 0; n < w.data.most; n++) listener.accept({ id: w.index * w.data.most + n });
            w.add('stop');
            return 0;
          },
          { id: listener.id, most, seed: t.seed + round },
        );
        const counts = await t.within(6000, Promise.all(jobs), 'all threads are through');
        const rest = listener.cancel();
        const packets = t.takeSync(port, 2 * most);
        const ids = new Set(packets.map((packet) => packet.operationId));
        t.equal(ids.size, 2 * most, 'operations that have had their packet');
        for (const packet of packets) t.failed(packet, { code: 'ECANCELED', by: 'cancel' }, 'a cancelled accept');
        // One that was cancelled is pending until its packet comes: several calls may count it, and each is counted.
        const sum = counts.reduce((sum, count) => sum + count, rest);
        t.atLeast(sum, 2 * most, 'the sum of what all cancel() calls said');
        t.nothing(port);
      }
    },
  },
];
