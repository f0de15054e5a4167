// CONC-01 and CONC-04: who gets a packet. Waiting threads are a stack, so the one that waited last is released first, and a thread
// that comes for the next packet takes it itself. The order in which threads began to wait is made sure of with port.stats().

import * as fs from 'node:fs';
import { Crew, type Scope, sharedPort, waiting } from '../support/threads.js';
import type { ConformanceCase } from '../types.js';
import { variants } from '../variants.js';

const lifo = 'The kernel queue (KQUEUE) releases waiting threads last in, first out: the newest one has its stack in the cache';
const returning =
  'KeRemoveQueue: a thread that comes back takes the next entry at once if the number of running threads is below the limit';

/** Counts what each thread handles, in the numbered cells, until the port closes. */
function consumer(w: Scope<object>): Promise<string> {
  return w.consume(w.port, 'getSync', () => {
    w.add(w.index);
    w.add('handled');
    return false;
  });
}

/** The tid in `/proc/thread-self`. */
function tidOf(link: string): string {
  return link.split('/').at(-1) ?? '';
}

/** How often a thread has gone to sleep by itself. */
function sleeps(tid: string): number {
  const status = fs.readFileSync(`/proc/self/task/${tid}/status`, 'utf8');
  return Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(status)?.[1] ?? Number.NaN);
}

export const cases: readonly ConformanceCase[] = [
  ...variants(
    { clause: 'CONC-01', title: 'the thread that began to wait last is released first', reference: lifo },
    { getSync: 'getSync', 'getSync-long': 'getSync', getManySync: 'getManySync' } as const,
    async (t, way, name) => {
      const port = sharedPort(t, { concurrency: 16 });
      const crew = await Crew.start(t, port, 5);
      for (let round = 0; round < t.count(6); round++) {
        const order = t.random.shuffle([0, 1, 2, 3, 4]);
        const jobs = await crew.lineUp(
          port,
          order,
          (w) => {
            const packet = w.data.way === 'getSync' ? w.port.getSync(5000) : w.port.getManySync(1, 5000)[0];
            return packet?.key ?? -1;
          },
          { way },
        );
        // Longer than several slices of a wait: the thread must keep its place over them.
        if (name.endsWith('long')) await t.sleep(90);
        for (let key = 0; key < order.length; key++) port.post(key);
        const keys = await t.within(5000, Promise.all(order.map((index) => jobs.get(index))), 'all threads get a packet');
        t.deepEqual(keys, [4, 3, 2, 1, 0], `what the threads got, in the order in which they began to wait (round ${round})`);
      }
    },
  ),

  {
    id: 'CONC-01/one-thread',
    clause: 'CONC-01',
    title: 'a packet at a time: the thread that comes back to wait is the newest, and gets all of them',
    reference: lifo,
    async run(t) {
      const port = sharedPort(t, { concurrency: 2 });
      const crew = await Crew.start(t, port, 4);
      const jobs = await crew.lineUp(port, [0, 1, 2, 3], consumer, {});
      const total = t.count(200);
      for (let n = 1; n <= total; n++) {
        port.post(n);
        await crew.reached('handled', n, 'a packet is handled');
        await waiting(t, port, 4);
      }
      t.deepEqual(
        [0, 1, 2, 3].map((index) => crew.at(index)),
        [0, 0, 0, total],
        'packets by thread',
      );
      port.close();
      await t.within(2000, Promise.all(jobs.values()), 'all threads see the close');
    },
  },

  {
    id: 'CONC-01/timeouts',
    clause: 'CONC-01',
    title: 'threads that leave the stack because their time ran out change nobody’s place',
    reference: lifo,
    async run(t) {
      const port = sharedPort(t, { concurrency: 32 });
      const crew = await Crew.start(t, port, 6);
      for (let round = 0; round < t.count(3); round++) {
        const order = t.random.shuffle([0, 1, 2, 3, 4, 5]);
        const short = t.random.shuffle([0, 1, 2, 3, 4, 5]).slice(0, 3);
        const jobs = await crew.lineUp(
          port,
          order,
          (w) => w.port.getSync(w.data.short.includes(w.index) ? 150 : 5000)?.key ?? -1,
          {
            short,
          },
        );
        await waiting(t, port, 3);
        for (let key = 0; key < 3; key++) port.post(key);
        const keys = await t.within(5000, Promise.all(order.map((index) => jobs.get(index))), 'all gets end');
        let next = 2;
        const expected = order.map((index) => (short.includes(index) ? -1 : next--));
        t.deepEqual(keys, expected, 'what the threads got, in the order in which they began to wait (-1: time ran out)');
      }
    },
  },

  {
    id: 'CONC-01/one-leaves',
    clause: 'CONC-01',
    title: 'eight threads wait, one packet comes: exactly one leaves its wait, the others sleep on',
    reference: lifo,
    needs: ['proc'],
    async run(t) {
      const port = sharedPort(t, { concurrency: 8 });
      const crew = await Crew.start(t, port, 8);
      const tids = (await crew.everyone((w) => w.require('node:fs').readlinkSync('/proc/thread-self'), {})).map(tidOf);
      const order = [0, 1, 2, 3, 4, 5, 6, 7];
      const jobs = await crew.lineUp(port, order, consumer, {});
      const counted = typeof port.stats().releases === 'number';
      const before = port.stats().releases;
      const slept = tids.map(sleeps);
      const begin = t.now();
      const total = t.count(300, 100);
      for (let n = 1; n <= total; n++) {
        port.post(n);
        if (counted) t.atLeast(port.stats().waiting, 7, 'threads that wait while one packet is on its way');
        await crew.reached('handled', n, 'a packet is handled');
        await waiting(t, port, 8);
      }
      const took = t.now() - begin;
      if (counted) t.equal(port.stats().releases - before, total, 'releases of a waiting thread');
      const more = tids.map((tid, index) => sleeps(tid) - (slept[index] ?? 0));
      // A wait that is cut into slices wakes now and then by itself, every 10 ms at most, but not once for each packet.
      const limit = 20 + took / 10;
      if (limit > total / 2) t.unable(`this machine is too busy: ${total} packets took ${Math.round(took)} ms`);
      for (const index of order.slice(0, 7)) t.less(more[index] ?? Number.NaN, limit, `how often thread ${index} was woken`);
      port.close();
      await t.within(2000, Promise.all(jobs.values()), 'all threads see the close');
    },
  },

  {
    id: 'CONC-01/event-loops',
    clause: 'CONC-01',
    title: 'event loops that wait are woken last in, first out, too',
    reference: lifo,
    async run(t) {
      const port = sharedPort(t, { concurrency: 16 });
      const crew = await Crew.start(t, port, 3);
      let inOrder = 0;
      const rounds = 7;
      for (let round = 0; round < rounds; round++) {
        const order = t.random.shuffle([0, 1, 2]);
        crew.clear();
        const jobs = await crew.lineUp(
          port,
          order,
          async (w) => {
            const packet = await w.port.get({ timeout: 5000 });
            w.add('arrived');
            return packet?.key ?? -1;
          },
          {},
        );
        for (let key = 0; key < 3; key++) {
          port.post(key);
          await crew.reached('arrived', key + 1, 'a packet is taken');
        }
        const keys = await t.within(5000, Promise.all(order.map((index) => jobs.get(index))), 'all gets end');
        t.deepEqual([...keys].sort(), [0, 1, 2], 'the packets, each once');
        if (keys.join() === '2,1,0') inOrder++;
      }
      // An event loop that doesn't come within a tick of the watcher loses its turn: on a busy machine that may happen.
      t.atLeast(inOrder, Math.ceil(rounds / 2), `rounds of ${rounds} in which the newest came first`);
    },
  },

  {
    id: 'CONC-01/blocked-first',
    clause: 'CONC-01',
    title: 'threads in a blocking get come before event loops: they are certainly free',
    reference: 'the portable rule: no packet waits behind a busy event loop while another thread is free',
    async run(t) {
      const port = sharedPort(t, { concurrency: 16 });
      const crew = await Crew.start(t, port, 4);
      for (let round = 0; round < t.count(3); round++) {
        const jobs = await crew.lineUp(
          port,
          [0, 1, 2, 3],
          async (w) => {
            const packet = w.index < 2 ? w.port.getSync(5000) : await w.port.get({ timeout: 5000 });
            return packet?.key ?? -1;
          },
          {},
        );
        // One at a time, and all of them asked: a packet that waits for a woken event loop could still go to a blocked thread later.
        const open = new Map([0, 1, 2, 3].map((index) => [index, jobs.get(index)?.then((key) => ({ index, key }))]));
        const order: { index: number; key: unknown }[] = [];
        for (let key = 0; key < 4; key++) {
          port.post(key);
          const got = await t.within(5000, Promise.race(open.values()), `the end of a get after post ${key}`);
          const ended = t.some(got, 'a get that ended');
          open.delete(ended.index);
          order.push(ended);
        }
        t.deepEqual(
          order.map(({ key }) => key),
          [0, 1, 2, 3],
          'the packets, in the order of their posts',
        );
        t.deepEqual(
          order.slice(0, 2).map(({ index }) => index),
          [1, 0],
          'the blocked threads, which come first, the newest before the older',
        );
      }
    },
  },

  ...variants(
    {
      clause: 'CONC-04',
      title: 'a thread that comes back takes the next packet itself, although others wait',
      reference: returning,
    },
    { getSync: 'getSync', getManySync: 'getManySync' } as const,
    async (t, way) => {
      const port = sharedPort(t, { concurrency: 1 });
      const crew = await Crew.start(t, port, 3);
      const total = t.count(1000);
      const jobs = await crew.lineUp(
        port,
        [1, 2, 0],
        (w) => {
          const { way, total } = w.data;
          let held = false;
          return w.consume(w.port, way, (packet) => {
            w.add(w.index);
            w.add('handled');
            if (!held) {
              held = true;
              w.until('go', 1); // the queue is full by then
            }
            return packet.key === total;
          });
        },
        { way, total },
      );
      port.post(0);
      await crew.reached('handled', 1, 'the newest thread has its first packet');
      const before = port.stats().releases;
      for (let key = 1; key <= total; key++) port.post(key);
      t.equal(crew.at('handled'), 1, 'packets that were handled while the newest thread runs');
      crew.set('go', 1);
      t.equal(await t.within(5000, t.some(jobs.get(0), 'the job'), 'the newest thread takes all packets'), 'stopped', 'its end');
      t.deepEqual(
        [0, 1, 2].map((index) => crew.at(index)),
        [total + 1, 0, 0],
        'packets by thread',
      );
      if (typeof before === 'number') t.equal(port.stats().releases, before, 'releases of a waiting thread meanwhile');
    },
  ),
];
