// CONC-02, CONC-03 and GET-09: how many threads run on packets of a port at once. It is measured between the return of a get and the
// next one, in memory that all threads share: never more than the concurrency value, and no fewer where there is work.

import { Crew, clock, floodWithin, mostly, type Scope, sharedPort, sleepsNoticed, waiting } from '../support/threads.js';
import type { ConformanceCase, Context, SharedPort, Way } from '../types.js';
import { forEachWay, variants } from '../variants.js';

const limits =
  'NumberOfConcurrentThreads: the system lets no more threads than that run on packets of the port; a waiting thread isn’t released meanwhile';

/** Handles packets in one way, in between counted as inside, until the port closes; works for a random time up to `work` ms. */
function work(w: Scope<{ n: number; ways: readonly Way[]; seed: number; work: number; marks: number }>): Promise<string> {
  const { n, ways, seed, work, marks } = w.data;
  const random = w.random(seed + w.index);
  return w.consume(w.port, ways[w.index % ways.length] ?? 'getSync', (packet) => {
    const inside = w.add('inside');
    w.raise('most', inside);
    if (inside > n) w.add('failed');
    if (packet.key < marks) w.add(packet.key);
    w.spin(random() * work);
    w.add('inside', -1);
    w.add('handled');
    return false;
  });
}

/** Posts so many packets in bursts of random size, and waits until all are handled, each once; see floodWithin. */
function flood(t: Context, port: SharedPort, crew: Crew, total: number): Promise<void> {
  return floodWithin(t, port, crew, total, 'packets at whose start too many threads ran', async () => {
    for (let key = 0; key < total; ) {
      for (let burst = t.random.between(1, 400); burst > 0 && key < total; burst--) port.post(key++);
      await t.turn();
    }
    await crew.reached('handled', total, 'all packets are handled', 20_000);
  });
}

export const cases: readonly ConformanceCase[] = [
  ...forEachWay(
    {
      clause: 'CONC-02',
      title: 'concurrency 1 and four waiting threads: four packets are handled one at a time while handlers compute',
      reference: limits,
    },
    async (t, way) => {
      const port = sharedPort(t, { concurrency: 1 });
      const crew = await Crew.start(t, port, 4);
      const jobs = crew.all(work, { n: 1, ways: [way], seed: t.seed, work: 12, marks: 4 });
      await waiting(t, port, 4);
      let round = 0;
      let before: number | null = null;
      await mostly(
        t,
        5,
        async () => {
          before = sleepsNoticed(port);
          crew.set('most', 0);
          for (let key = 0; key < 4; key++) port.post(key);
          await crew.reached('handled', 4 * ++round, 'four packets are handled');
          return crew.at('most') === 1 ? null : `${crew.at('most')} threads ran at once`;
        },
        () => before === null || sleepsNoticed(port) !== before,
      );
      port.close();
      await t.within(2000, Promise.all(jobs), 'all threads see the close');
    },
  ),

  ...variants(
    {
      clause: 'CONC-03',
      title: 'no thread is released while `concurrency` others run, over 10,000 packets of random work',
      reference: limits,
      timeoutMs: 25_000,
    },
    { '1': 1, '2': 2, '4': 4 },
    async (t, n) => {
      const total = t.count(10_000);
      const port = sharedPort(t, { concurrency: n });
      const crew = await Crew.start(t, port, 6, { cells: total });
      const jobs = crew.all(
        (w) => {
          const random = w.random(w.data.seed + w.index);
          const max = w.index % 3 === 2 ? 3 : 1;
          for (;;) {
            let packets: ReturnType<typeof w.port.getManySync>;
            try {
              if (max === 1) {
                const packet = w.port.getSync();
                packets = packet === null ? [] : [packet];
              } else packets = w.port.getManySync(max);
            } catch (error) {
              if ((error as { code?: string }).code === 'ERR_PORT_CLOSED') return;
              throw error;
            }
            // A batch counts once.
            const inside = w.add('inside');
            w.raise('most', inside);
            if (inside > w.data.n) w.add('failed');
            for (const packet of packets) {
              w.add(packet.key);
              w.spin(random() < 0.01 ? 1 : random() * 0.06);
            }
            w.add('inside', -1);
            w.add('handled', packets.length);
          }
        },
        { n, seed: t.seed },
      );
      await waiting(t, port, 6);
      await flood(t, port, crew, total);
      port.close();
      await t.within(2000, Promise.all(jobs), 'all threads see the close');
    },
  ),
  {
    id: 'CONC-03/all-ways',
    clause: 'CONC-03',
    title: 'so it is with blocking gets, async gets, iterators and dispatches on one port',
    reference: limits,
    timeoutMs: 25_000,
    async run(t) {
      const total = t.count(10_000);
      const port = sharedPort(t, { concurrency: 2 });
      const crew = await Crew.start(t, port, 6, { cells: total });
      const ways: Way[] = ['getSync', 'getManySync', 'get', 'getMany', 'iterator', 'dispatch'];
      const jobs = crew.all(work, { n: 2, ways, seed: t.seed, work: 0.08, marks: total });
      await waiting(t, port, 6);
      await flood(t, port, crew, total);
      port.close();
      await t.within(2000, Promise.all(jobs), 'all threads see the close');
    },
  },

  ...variants(
    {
      clause: 'CONC-03',
      title: 'where there is work, as many threads run as may, and not one more',
      reference: limits,
    },
    {
      'reaches 1': { n: 1, way: 'getSync' },
      'reaches 2': { n: 2, way: 'getSync' },
      'reaches 4': { n: 4, way: 'getSync' },
      'reaches 2 get': { n: 2, way: 'get' },
      'reaches 3 dispatch': { n: 3, way: 'dispatch' },
    } as const,
    async (t, { n, way }) => {
      const crew = await Crew.start(t, null, n + 2);
      let noticed: number | null = null;
      const attempt = async (): Promise<string | null> => {
        const port = sharedPort(t, { concurrency: n });
        crew.clear();
        const jobs = crew.all(
          (w) =>
            w.consume(w.attach(w.data.token), w.data.way, () => {
              w.raise('most', w.add('inside'));
              // Not by `inside`: a thread that comes in between `go` and the close may be alone by then.
              w.add('arrived');
              w.until('arrived', w.data.n);
              w.spin(40); // time for one more to come in
              w.add('handled');
              // All leave together: otherwise the last one would wait for the first.
              w.until('go', 1);
              w.add('inside', -1);
              return true;
            }),
          { n, way, token: port.token },
        );
        await waiting(t, port, n + 2);
        for (let key = 0; key < n + 2; key++) port.post(key);
        await crew.reached('handled', n, `${n} threads run at once`);
        const { queued, running = n } = port.stats();
        const found = [crew.at('most'), queued, running];
        noticed = sleepsNoticed(port);
        crew.set('go', 1);
        port.close();
        await t.within(5000, Promise.all(jobs), 'all threads see the end');
        const expected = [n, 2, n];
        return found.join() === expected.join()
          ? null
          : `threads at once, packets that wait, stats().running: expected ${expected}, got ${found}`;
      };
      await mostly(t, 7, attempt, () => noticed !== 0);
    },
  ),

  ...forEachWay(
    {
      clause: 'GET-09',
      title: 'concurrency reached, packets queued, timeout 0: nothing; once the place is free, a packet',
      reference:
        'GetQueuedCompletionStatus with dwMilliseconds 0 returns WAIT_TIMEOUT although packets are queued, if as many threads run as may',
    },
    async (t, way) => {
      const port = sharedPort(t, { concurrency: 1 });
      const crew = await Crew.start(t, port, 2);
      const runner = crew.run(
        0,
        (w) => {
          const packet = w.port.getSync(5000);
          w.set('held', 1);
          w.until('go', 1);
          w.port.detach();
          return packet?.key;
        },
        {},
      );
      await waiting(t, port, 1);
      port.post(1);
      await crew.reached('held', 1, 'a thread runs');
      for (let key = 2; key < 5; key++) port.post(key);
      const tried = await crew.run(
        1,
        async (w) => {
          const get = async (timeout: number): Promise<number[]> => {
            const list = (packet: { key: number } | null): number[] => (packet === null ? [] : [packet.key]);
            const keys = (packets: { key: number }[]): number[] => packets.map((packet) => packet.key);
            switch (w.data.way) {
              case 'getManySync':
                return keys(w.port.getManySync(8, timeout));
              case 'get':
                return list(await w.port.get({ timeout }));
              case 'getMany':
                return keys(await w.port.getMany(8, { timeout }));
              default:
                return list(w.port.getSync(timeout));
            }
          };
          const empty = [await get(0), await get(0), await get(0)];
          const begin = w.clock();
          const late = await get(25);
          return { empty: [...empty, late], waited: w.clock() - begin };
        },
        { way },
      );
      t.deepEqual(tried.empty, [[], [], [], []], 'what the gets found while another thread runs');
      t.atLeast(tried.waited, 24.9, 'milliseconds that a get waited at the limit');
      t.equal(port.stats().queued, 3, 'packets queued');
      const free = clock();
      crew.set('go', 1);
      t.equal(await t.within(2000, runner, 'the running thread leaves'), 1, 'its packet');
      const [first] = await t.within(
        5000,
        crew.run(1, async (w) => [w.port.getSync(5000)?.key, w.port.getSync(0)?.key, w.port.getSync(0)?.key], {}),
        'packets',
      );
      t.equal(first, 2, 'the packet that came when the place was free');
      t.less(clock() - free, 2000, 'milliseconds until then');
    },
    ['getSync', 'getManySync', 'get', 'getMany'],
  ),
];
