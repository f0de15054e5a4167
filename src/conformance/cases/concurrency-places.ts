// CONC-05 to CONC-09: when a thread counts, and when it frees its place: with port.blocking, asleep in the kernel, at its end, at its
// next get on any port, after a get that returned nothing, and at the end of the job that received a packet.

import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { type Act, relay, relays } from '../support/places.js';
import { Crew, sharedPort, waiting } from '../support/threads.js';
import type { ConformanceCase, Context, SharedPort } from '../types.js';
import { forEachWay, variants } from '../variants.js';

const blocks =
  'A thread that waits for something else than the port doesn’t count: the kernel releases another one, and the count may exceed the limit for a moment when it resumes';
const counts = 'A thread counts from the return of its GetQueuedCompletionStatus to its next one, whatever that returned';
const leaves = 'A thread is bound to the port that it got from last, until it gets from another, exits, or the port is closed';

/** Computes with the place, and then frees it by leaving: nothing may come before. */
const computes: Act = (w, port) => {
  w.set('busy', 1);
  w.until('go', 1);
  w.spin(70);
  w.set('busy', 0);
  port.detach();
  return w.clock();
};

/** What a thread does in port.blocking while another takes its place. */
const blocking: Record<string, Act> = {
  computing: (w, port) => {
    w.until('go', 1);
    const at = w.clock();
    const answer = port.blocking(() => {
      w.until('got', 1);
      return 'an answer';
    });
    if (answer !== 'an answer') throw new Error(`port.blocking returned ${answer}`);
    return at;
  },
  sleeping: (w, port) => {
    w.until('go', 1);
    const at = w.clock();
    port.blocking(() => w.sleepUntil('got', 1, 3000));
    return at;
  },
  throwing: (w, port) => {
    w.until('go', 1);
    const at = w.clock();
    const code = w.codeOf(() =>
      port.blocking(() => {
        w.until('got', 1);
        throw Object.assign(new Error('of the function'), { code: 'MINE' });
      }),
    );
    if (code !== 'MINE') throw new Error(`port.blocking threw ${code}`);
    return at;
  },
  nested: (w, port) => {
    w.until('go', 1);
    const at = w.clock();
    port.blocking(() => {
      port.blocking(() => {});
      // Still inside of the outer one.
      w.until('got', 1);
    });
    return at;
  },
};

/** Ways of sleeping in the kernel that nobody told the port of. Each ends when the other thread has its packet, or by itself. */
const asleep: Record<string, Act> = {
  futex: (w) => {
    w.until('go', 1);
    const at = w.clock();
    w.sleepUntil('got', 1, 2000);
    return at;
  },
  pipe: (w, _, fifo) => {
    const fs = w.require('node:fs');
    const fd = fs.openSync(fifo, 'r+');
    w.until('go', 1);
    const at = w.clock();
    fs.readSync(fd, new Uint8Array(1));
    fs.closeSync(fd);
    return at;
  },
  'child process': (w) => {
    w.until('go', 1);
    const at = w.clock();
    w.require('node:child_process').execFileSync('sleep', ['0.25']);
    return at;
  },
  'event loop': async (w) => {
    w.until('go', 1);
    const at = w.clock();
    // One wait, not many short ones: between them it would run.
    await new Promise((resolve) => setTimeout(resolve, 250));
    return at;
  },
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
      await relays(t, crew, computes, 100, { tries: 3 });
    },
  },

  ...variants(
    { clause: 'CONC-05', title: 'port.blocking frees the place until its function returns', reference: blocks },
    blocking,
    async (t, act) => {
      const crew = await Crew.start(t, null, 2);
      await relays(t, crew, act, 20);
    },
  ),
  {
    id: 'CONC-05/excess',
    clause: 'CONC-05',
    title: 'on return the count may exceed the limit, and nobody is released until it falls below',
    reference: blocks,
    async run(t) {
      const crew = await Crew.start(t, null, 3);
      for (let round = 0; round < 3; round++) {
        crew.clear();
        const port = sharedPort(t, { concurrency: 1 });
        const { token } = port;
        // 0 holds the place, gives it up, and has it again; 1 takes it meanwhile; 2 must have to wait for both of them.
        const first = crew.run(
          0,
          (w) => {
            const port = w.attach(w.data.token);
            port.getSync(5000);
            port.blocking(() => {
              w.set('held', 1);
              w.until('got', 1);
            });
            w.set('resumed', 1);
            w.until('go', 1);
            port.blocking(() => w.until('stop', 1));
          },
          { token },
        );
        await waiting(t, port, 1);
        port.post(1);
        await crew.reached('held', 1, 'the first thread is in port.blocking');
        const second = crew.run(
          1,
          (w) => {
            const port = w.attach(w.data.token);
            port.getSync(5000);
            w.set('got', 1);
            w.until('go', 2);
            w.set('busy', 2);
            port.blocking(() => w.until('stop', 1));
          },
          { token },
        );
        await waiting(t, port, 1);
        port.post(2);
        await crew.reached('resumed', 1, 'the first thread has come back from port.blocking');
        const third = crew.run(
          2,
          (w) => {
            const packet = w.attach(w.data.token).getSync(5000);
            return { key: packet?.key, before: w.at('busy') };
          },
          { token },
        );
        await waiting(t, port, 1);
        port.post(3);
        const { running } = port.stats();
        if (typeof running === 'number') t.equal(running, 2, 'threads that count while two run');
        await t.sleep(40);
        t.equal(port.stats().waiting, 1, 'threads that wait while two run, one more than may');
        crew.set('go', 1);
        await t.sleep(40);
        t.equal(port.stats().waiting, 1, 'threads that wait while one runs, as many as may');
        crew.set('go', 2);
        const got = await t.within(3000, third, 'the third thread is released');
        t.deepEqual(got, { key: 3, before: 2 }, 'the third thread’s packet, and how far the others were');
        crew.set('stop', 1);
        await t.within(2000, Promise.all([first, second]), 'the end of the round');
      }
    },
  },
  {
    id: 'CONC-05/random',
    clause: 'CONC-05',
    title: 'with random work and random sleeps in port.blocking, only threads that resumed exceed the limit',
    reference: blocks,
    timeoutMs: 20_000,
    async run(t) {
      const total = t.count(3000);
      const port = sharedPort(t, { concurrency: 2 });
      const crew = await Crew.start(t, port, 5, { cells: total });
      const jobs = crew.all(
        (w) => {
          const random = w.random(w.data.seed + w.index);
          return w.consume(w.port, 'getSync', (packet) => {
            // One cell holds both numbers: threads inside, and 65,536 times those of them that have resumed.
            const state = w.add('inside');
            const inside = state & 0xffff;
            const resumed = state >> 16;
            w.raise('most', inside - resumed);
            w.add(packet.key);
            w.spin(random() * 0.1);
            let mine = 0;
            if (random() < 0.3) {
              w.add('inside', -1);
              w.port.blocking(() => w.sleepUntil('stop', 1, random() * 2));
              w.add('inside', 65_537);
              mine = 65_536;
              w.spin(random() * 0.1);
            }
            w.add('inside', -1 - mine);
            w.add('handled');
            return false;
          });
        },
        { seed: t.seed },
      );
      await waiting(t, port, 5);
      for (let key = 0; key < total; ) {
        for (let burst = t.random.between(1, 60); burst > 0 && key < total; burst--) port.post(key++);
        await t.turn();
      }
      await crew.reached('handled', total, 'all packets are handled', 15_000);
      for (let key = 0; key < total; key++) if (crew.at(key) !== 1) t.fail(`packet ${key} was handled ${crew.at(key)} times`);
      t.less(crew.at('most'), 3, 'threads that ran at once without having resumed, at most');
      port.close();
      await t.within(2000, Promise.all(jobs), 'all threads see the close');
    },
  },
  ...variants(
    { clause: 'CONC-05', title: 'outside of a place of its own, port.blocking only calls its function', reference: blocks },
    {
      'private port': (t: Context) => t.createPort() as SharedPort,
      'no place': (t: Context) => sharedPort(t, { concurrency: 1 }),
    },
    async (t, make) => {
      const port = make(t);
      if (typeof port.blocking !== 'function') t.unable('what is under test has no port.blocking');
      t.equal(
        port.blocking(() => 7),
        7,
        'what it returns',
      );
      t.throws(
        () =>
          port.blocking(() => {
            throw Object.assign(new Error('mine'), { code: 'MINE' });
          }),
        { code: 'MINE' },
        'what its function throws',
      );
      t.throws(() => port.blocking(7 as unknown as () => void), { code: 'ERR_INVALID_ARG_TYPE' }, 'a number for a function');
      for (let key = 1; key <= 3; key++) port.post(key);
      const keys = port.blocking(() => [port.getSync(0)?.key, port.getSync(0)?.key]);
      t.deepEqual([...keys, port.getSync(0)?.key, port.getSync(0)], [1, 2, 3, null], 'gets inside of it and behind it');
      const running = port.stats().running;
      if (port.shared && typeof running === 'number') t.equal(running, 1, 'threads that count at the end');
    },
  ),

  ...variants(
    {
      clause: 'CONC-06',
      title: 'a thread that sleeps in the kernel without saying so is noticed within 50 ms if packets wait',
      reference: blocks,
      needs: ['proc'],
      timeoutMs: 15_000,
    },
    asleep,
    async (t, act, name) => {
      const crew = await Crew.start(t, null, 2);
      let fifo = '';
      if (name === 'pipe') {
        fifo = t.tempFile('fifo');
        if (spawnSync('mkfifo', [fifo]).status !== 0) t.unable('mkfifo doesn’t work here');
        // Its reader sleeps until the other thread has the packet.
        const fd = fs.openSync(fifo, 'r+');
        let seen = 0;
        const feed = setInterval(() => {
          const got = crew.at('got');
          if (got > seen) fs.writeSync(fd, 'x');
          seen = got;
        }, 1);
        t.cleanup(() => {
          clearInterval(feed);
          fs.writeSync(fd, 'x');
          fs.closeSync(fd);
        });
      }
      await relays(t, crew, act, 50, { argument: fifo });
    },
  ),
  {
    id: 'CONC-06/resumes',
    clause: 'CONC-06',
    title: 'once it runs again it counts again: no more are released than may run',
    reference: blocks,
    needs: ['proc'],
    async run(t) {
      const port = sharedPort(t, { concurrency: 1 });
      const crew = await Crew.start(t, port, 3);
      // 0 sleeps with the place, 1 takes it and leaves it; then 0 computes, and 2 must have to wait.
      const sleeper = crew.run(
        0,
        (w) => {
          w.port.getSync(5000);
          w.set('held', 1);
          w.sleepUntil('go', 1, 5000);
          w.set('busy', 1);
          w.until('go', 2);
          w.spin(60);
          w.set('busy', 2);
          return w.port.getSync(5000)?.key;
        },
        {},
      );
      await waiting(t, port, 1);
      port.post(1);
      await crew.reached('held', 1, 'the first thread has its place');
      const second = crew.run(
        1,
        (w) => {
          const packet = w.port.getSync(5000);
          w.set('got', 1);
          w.until('go', 2);
          w.port.detach();
          return packet?.key;
        },
        {},
      );
      await waiting(t, port, 1);
      port.post(2);
      await crew.reached('got', 1, 'the second thread has the place of the first, which sleeps');
      const third = crew.run(2, (w) => ({ key: w.port.getSync(5000)?.key, busy: w.at('busy') }), {});
      await waiting(t, port, 1);
      crew.set('go', 1);
      await crew.reached('busy', 1, 'the first thread runs again');
      port.post(3);
      port.post(4);
      // Long enough for it to be seen.
      await t.sleep(80);
      t.equal(port.stats().queued, 2, 'packets that wait while the first thread and the second one run');
      crew.set('go', 2);
      t.equal(await t.within(3000, second, 'the second thread leaves'), 2, 'the second thread’s packet');
      t.equal(await t.within(3000, sleeper, 'the first thread comes back'), 3, 'what the first thread takes when it comes back');
      const last = await t.within(3000, third, 'the third thread, when the first sleeps in its event loop');
      t.deepEqual(last, { key: 4, busy: 2 }, 'the third thread’s packet, and how far the first one was');
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
      for (let round = 0; round < 3; round++) {
        const port = sharedPort(t, { concurrency: 1 });
        const crew = await Crew.start(t, port, 2);
        const worker = crew.worker(0);
        const ended = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
        if (how === 'throw') worker.removeAllListeners('error').on('error', () => {});
        void crew.run(
          0,
          (w) => {
            w.port.getSync(5000);
            w.set('held', 1);
            w.until('go', 1);
            if (w.data.how === 'exit') process.exit(0);
            if (w.data.how === 'terminate') for (;;) w.spin(1);
            setImmediate(() => {
              throw new Error('of the case');
            });
            w.spin(5);
          },
          { how },
        );
        await waiting(t, port, 1);
        port.post(1);
        await crew.reached('held', 1, 'the first thread has the place');
        const taker = crew.run(1, (w) => ({ key: w.port.getSync(5000)?.key, at: w.clock() }), {});
        await waiting(t, port, 1);
        port.post(2);
        await t.sleep(10);
        t.equal(port.stats().waiting, 1, 'threads that wait while the first one computes');
        crew.set('go', 1);
        if (how === 'terminate') void worker.terminate();
        t.equal((await t.within(2000, taker, 'the second thread is released')).key, 2, 'its packet');
        await t.within(2000, ended, 'the end of the first thread');
        const { threads } = port.stats();
        if (typeof threads === 'number') t.equal(threads, 2, 'threads attached: this one, and the second');
      }
    },
  ),

  ...variants(
    { clause: 'CONC-08', title: 'a thread whose get returned nothing counts until its next get', reference: counts },
    { null: 'null', 'null-many': 'null-many', empty: 'empty' } as const,
    async (t, by) => {
      const crew = await Crew.start(t, null, 2);
      await relays(t, crew, computes, 100, { by, tries: 3 });
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
          w.set('busy', 1);
          w.until('go', 1);
          w.spin(30);
          w.set('busy', 0);
          // The job ends, the work goes on: it waits for a message that comes when the other thread has its packet.
          return w.turnUntil('got', 1).then(() => 0);
        },
        200,
        { by: way },
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
