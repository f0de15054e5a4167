// THREAD-03, and GET-06, EX-03 and ORDER-02 with threads: many at one port. Each packet goes to exactly one of them, and each thread's
// posts keep their order.

import { Crew, type Scope, sharedPort, waiting } from '../support/threads.js';
import type { ConformanceCase, Context, Way } from '../types.js';
import { forEachWay } from '../variants.js';

const once = 'A packet is removed from the queue by exactly one of the threads that wait for it';

/** Counts each packet in the cell of its number, and starts a read of its own for each as long as there are any; ends with the close. */
function counter(w: Scope<{ ways: readonly Way[]; path: string; reads: number }>): Promise<string> {
  const { ways, path, reads } = w.data;
  const handle = w.api.FileHandle.openSync(path, 'r');
  w.port.associate(handle, 1);
  const view = w.port.allocate(64);
  let next = 0;
  const start = (): void => {
    if (next === reads) return;
    w.add('started');
    handle.read(view, { position: 0, id: w.index * reads + next++ });
  };
  for (let i = 0; i < 8; i++) start();
  w.add('arrived');
  return w.consume(w.port, ways[w.index % ways.length] as Way, (packet) => {
    if (packet.error !== null) throw packet.error;
    if (w.add(packet.kind === 'post' ? packet.key : packet.operationId) !== 1) w.add('failed');
    start();
    w.add('handled');
    return false;
  });
}

/** Eight threads, so many posts and reads, each exactly once. */
async function exactlyOnce(t: Context, total: number, ways: readonly Way[], limitMs: number): Promise<void> {
  const threads = 8;
  const reads = Math.round(total / 2 / threads);
  const allReads = reads * threads;
  const port = sharedPort(t, { concurrency: 3 });
  const crew = await Crew.start(t, port, threads, { cells: allReads + total });
  const jobs = crew.all(counter, { ways, path: t.tempFile('file', t.pattern(0, 64)), reads });
  await crew.reached('arrived', threads, 'all threads have begun');
  let posted = 0;
  const post = async (count: number): Promise<void> => {
    for (const end = posted + count; posted < end; await t.turn()) {
      for (let burst = t.random.between(1, 500); burst > 0 && posted < end; burst--) port.post(allReads + posted++);
    }
    const all = (): boolean => crew.at('handled') === posted + crew.at('started');
    t.doing('waiting for all packets');
    await t.eventually(all, 'all packets are handled', limitMs);
  };
  await post(total - allReads);
  // A thread that got few packets has started few reads: as many posts more.
  if (posted + crew.at('started') < total) await post(total - posted - crew.at('started'));
  t.equal(crew.at('failed'), 0, 'packets that came twice');
  let read = 0;
  for (let id = 0; id < allReads; id++) read += crew.at(id);
  t.equal(read, crew.at('started'), 'reads that came, of those started');
  for (let id = 0; id < posted; id++) if (crew.at(allReads + id) !== 1) t.fail(`post ${id} came ${crew.at(allReads + id)} times`);
  port.close();
  await t.within(3000, Promise.all(jobs), 'all threads see the close');
}

export const cases: readonly ConformanceCase[] = [
  {
    id: 'THREAD-03',
    clause: 'THREAD-03',
    title: 'eight threads, one port, 100,000 posts and reads: each packet exactly once',
    reference: once,
    soak: true,
    timeoutMs: 60_000,
    run: (t) => exactlyOnce(t, t.count(100_000), ['getSync', 'getManySync'], 45_000),
  },
  {
    id: 'THREAD-03/all-ways',
    clause: 'THREAD-03',
    title: 'so it is with all ways of getting at once',
    reference: once,
    timeoutMs: 20_000,
    run: (t) => exactlyOnce(t, t.count(8000), ['getSync', 'getManySync', 'get', 'getMany', 'iterator', 'dispatch'], 12_000),
  },

  {
    id: 'GET-06/threads',
    clause: 'GET-06',
    title: 'a packet goes to exactly one get, whatever threads wait for it in whatever way',
    reference: once,
    async run(t) {
      const total = t.count(600);
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 6, { cells: total });
      const ways: Way[] = ['getSync', 'getManySync', 'get', 'getMany', 'iterator', 'dispatch'];
      const jobs = crew.all(
        (w) =>
          w.consume(w.port, w.data.ways[w.index] as Way, (packet) => {
            if (w.add(packet.key) !== 1) w.add('failed');
            w.add('handled');
            return false;
          }),
        { ways },
      );
      await waiting(t, port, 6);
      for (let key = 0; key < total; ) {
        for (let burst = t.random.between(1, 12); burst > 0 && key < total; burst--) port.post(key++);
        if (t.random.int(2) === 0) await crew.reached('handled', key, 'what was posted is handled');
      }
      await crew.reached('handled', total, 'all packets are handled');
      await t.sleep(25);
      t.equal(crew.at('handled'), total, 'packets that came, of those posted');
      t.equal(crew.at('failed'), 0, 'packets that came twice');
      port.close();
      await t.within(2000, Promise.all(jobs), 'all threads see the close');
    },
  },
  {
    id: 'EX-03/threads',
    clause: 'EX-03',
    title: 'one getMany’s packets all belong to the thread that called it, in the queue’s order',
    reference: 'GetQueuedCompletionStatusEx removes its entries for the calling thread',
    async run(t) {
      const total = t.count(2000);
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 4, { cells: total });
      const jobs = crew.all(async (w) => {
        let disorder = 0;
        let most = 0;
        try {
          for (;;) {
            const packets = w.index < 2 ? w.port.getManySync(16) : await w.port.getMany(16);
            most = Math.max(most, packets.length);
            let last = -1;
            for (const packet of packets) {
              if (packet.key <= last) disorder++;
              last = packet.key;
              if (w.add(packet.key) !== 1) w.add('failed');
            }
            w.add('handled', packets.length);
            w.spin(0.05);
          }
        } catch (error) {
          if ((error as { code?: string }).code !== 'ERR_PORT_CLOSED') throw error;
        }
        return { disorder, most };
      }, {});
      await waiting(t, port, 4);
      for (let key = 0; key < total; key++) port.post(key);
      await crew.reached('handled', total, 'all packets are handled');
      t.equal(crew.at('failed'), 0, 'packets that came twice');
      port.close();
      for (const { disorder, most } of await t.within(2000, Promise.all(jobs), 'all threads see the close')) {
        t.equal(disorder, 0, 'packets of a batch that came before an earlier one');
        t.less(most, 17, 'packets of a batch of 16 at most');
      }
    },
  },

  ...forEachWay(
    {
      clause: 'ORDER-02',
      title: 'posts of several threads interleave, and each thread’s own order holds (with threads, got by',
      reference: 'the queue of a completion port is first in, first out',
    },
    async (t, way) => {
      const each = t.count(1500);
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 4);
      const jobs = crew.all(
        (w) => {
          const random = w.random(w.data.seed + w.index);
          w.add('arrived');
          w.until('arrived', 4);
          for (let n = 0; n < w.data.each; n++) {
            w.port.post(w.index, n);
            if (random() < 0.02) w.spin(random() * 0.2);
          }
        },
        { each, seed: t.seed },
      );
      const next = [0, 0, 0, 0];
      let changes = 0;
      let last = -1;
      for (const packet of await t.take(port, 4 * each, { way, max: 64, timeoutMs: 8000 })) {
        t.equal(packet.bytesTransferred, next[packet.key], `number of the next post of thread ${packet.key}`);
        next[packet.key] = packet.bytesTransferred + 1;
        if (packet.key !== last) changes++;
        last = packet.key;
      }
      await t.within(2000, Promise.all(jobs), 'all threads have posted');
      t.atLeast(changes, 4, 'changes from one thread’s posts to another’s');
      t.nothing(port);
    },
  ).map((entry) => ({
    ...entry,
    id: entry.id.replace('/', '/threads-'),
    title: entry.title.replace(' (with threads, got by (', ' (with threads, '),
  })),
];
