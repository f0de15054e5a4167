// CONC-07 to CONC-09, and CONC-02 for a thread that computes: when a thread counts, and when it frees its place: at its end, at its next
// get on any port, after a get that returned nothing, and at the end of the job that received a packet.

import { type Act, relay, relays } from '../support/places.js';
import { Crew, sharedPort, waiting } from '../support/threads.js';
import type { ConformanceCase } from '../types.js';
import { forEachWay, variants } from '../variants.js';

const counts = 'A thread counts from the return of its GetQueuedCompletionStatus to its next one, whatever that returned';
const leaves = 'A thread is bound to the port that it got from last, until it gets from another, exits, or the port is closed';

/** Computes with the place, and then frees it by leaving: nothing may come before. */
const computes: Act = (w, port) => {
  w.compute(70);
  port.detach();
  return w.clock();
};

/** Ends of a thread's work with a port. */
const leaving: Record<string, Act> = {
  detach: (w, port) => {
    w.until('go', 1);
    const at = w.clock();
    port.detach();
    w.until('got', 1);
    return at;
  },
  'get from a shared port': (w, _) => {
    const other = w.api.CompletionPort.create({ backend: w.backend as 'io_uring', shared: true });
    w.until('go', 1);
    const at = w.clock();
    other.getSync(0);
    w.until('got', 1);
    other.close();
    return at;
  },
  'get from a private port': (w, _) => {
    const other = w.api.CompletionPort.create({ backend: w.backend as 'io_uring' });
    w.until('go', 1);
    const at = w.clock();
    other.getSync(0);
    w.until('got', 1);
    other.close();
    return at;
  },
  'async get from another port': async (w, _) => {
    const other = w.api.CompletionPort.create({ backend: w.backend as 'io_uring', shared: true });
    w.until('go', 1);
    const at = w.clock();
    const wait = other.get({ timeout: 2000 });
    w.until('got', 1);
    other.post(1);
    await wait;
    other.close();
    return at;
  },
};

export const cases: readonly ConformanceCase[] = [
  {
    id: 'CONC-02/computing',
    clause: 'CONC-02',
    title: 'a thread that computes keeps its place: the packet waits, however long it takes',
    reference: counts,
    async run(t) {
      const crew = await Crew.start(t, null, 2);
      await relays(t, crew, computes, 100, { tries: 3, computes: true });
    },
  },

  ...variants(
    { clause: 'CONC-07', title: 'a thread that leaves the port frees its place at once', reference: leaves },
    leaving,
    async (t, act) => {
      const crew = await Crew.start(t, null, 2);
      await relays(t, crew, act, 20);
    },
  ),
  ...variants(
    { clause: 'CONC-07', title: 'a thread that ends frees its place', reference: leaves, timeoutMs: 15_000 },
    { exit: 'exit', terminate: 'terminate', throw: 'throw' } as const,
    async (t, how) => {
      const rounds = 3;
      const crew = await Crew.start(t, null, rounds + 1);
      for (let round = 0; round < rounds; round++) {
        const port = sharedPort(t, { concurrency: 1 });
        const { token } = port;
        crew.clear();
        const worker = crew.worker(round);
        const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
        if (how === 'throw') worker.removeAllListeners('error').on('error', () => {});
        void crew.run(
          round,
          (w) => {
            w.attach(w.data.token).getSync(5000);
            w.set('held', 1);
            w.until('go', 1);
            if (w.data.how === 'exit') process.exit(0);
            if (w.data.how === 'terminate') for (;;) w.spin(1);
            setImmediate(() => {
              throw new Error('of the case');
            });
            w.spin(5);
          },
          { how, token },
        );
        await waiting(t, port, 1);
        port.post(1);
        await crew.reached('held', 1, 'the first thread has the place');
        const taker = crew.run(rounds, (w) => ({ key: w.attach(w.data.token).getSync(5000)?.key, at: w.clock() }), { token });
        await waiting(t, port, 1);
        port.post(2);
        await t.sleep(10);
        t.equal(port.stats().waiting, 1, 'threads that wait while the first one computes');
        crew.set('go', 1);
        if (how === 'terminate') void crew.terminate(round);
        t.equal((await t.within(2000, taker, 'the second thread is released')).key, 2, 'its packet');
        await t.within(2000, ended, 'the end of the first thread');
        const { threads } = port.stats();
        if (typeof threads === 'number') t.equal(threads, 2, 'threads attached: this one, and the second');
        port.close();
      }
    },
  ),

  ...variants(
    { clause: 'CONC-08', title: 'a thread whose get returned nothing counts until its next get', reference: counts },
    { null: 'null', 'null-many': 'null-many', empty: 'empty' } as const,
    async (t, by) => {
      const crew = await Crew.start(t, null, 2);
      await relays(t, crew, computes, 100, { by, tries: 3, computes: true });
    },
  ),
  {
    id: 'CONC-08/next-get',
    clause: 'CONC-08',
    title: 'its next get takes the packet that has waited for it, and not the thread that waits',
    reference: counts,
    async run(t) {
      const port = sharedPort(t, { concurrency: 1 });
      const crew = await Crew.start(t, port, 2);
      const first = crew.run(
        0,
        (w) => {
          const none = w.port.getSync(0);
          w.set('held', 1);
          w.until('go', 1);
          const key = w.port.getSync(2000)?.key;
          w.until('go', 2);
          w.port.detach();
          return { none, key };
        },
        {},
      );
      await crew.reached('held', 1, 'the first thread’s get has returned null');
      const second = crew.run(1, (w) => w.port.getSync(5000)?.key, {});
      await waiting(t, port, 1);
      port.post(1);
      port.post(2);
      await t.sleep(30);
      t.equal(port.stats().queued, 2, 'packets that wait while the thread computes whose get returned null');
      crew.set('go', 1);
      await t.eventually(() => port.stats().queued === 1, 'the first thread has taken a packet');
      t.equal(port.stats().waiting, 1, 'threads that wait');
      crew.set('go', 2);
      t.deepEqual(await t.within(3000, first, 'the first thread'), { none: null, key: 1 }, 'what the first thread got');
      t.equal(await t.within(3000, second, 'the second thread'), 2, 'what the second thread got');
    },
  },

  ...forEachWay(
    {
      clause: 'CONC-09',
      title: 'an async consumer frees its place at the end of the job that received the packet, and not before',
      reference: 'the portable rule: an event loop has no next get that would say when it is done; the end of the job says it',
    },
    async (t, way) => {
      const crew = await Crew.start(t, null, 2);
      await relays(
        t,
        crew,
        (w) => {
          w.compute(30);
          // The job ends, the work goes on: it waits for a message that comes when the other thread has its packet.
          return w.turnUntil('got', 1).then(() => 0);
        },
        200,
        { by: way, computes: true },
      );
      const late = await relay(
        t,
        crew,
        (w) => {
          w.until('go', 1);
          return w.clock();
        },
        { by: way },
      );
      t.less(late.delay, 500, 'milliseconds from the end of the job until the second thread was released');
    },
    ['get', 'getMany', 'iterator', 'dispatch'],
  ),
];
