// CONC-05 and CONC-06: a thread that blocks frees its place: where it says so with port.blocking, and where it is seen asleep in the kernel.

import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import { type Act, relays } from '../support/places.js';
import { Crew, floodWithin, mostly, sharedPort, waiting } from '../support/threads.js';
import type { ConformanceCase, Context, SharedPort } from '../types.js';
import { variants } from '../variants.js';

const blocks =
  'A thread that waits for something else than the port doesn’t count: the kernel releases another one, and the count may exceed the limit for a moment when it resumes';

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

/** Ways of sleeping in the kernel that nobody told the port of. Each ends when the other thread has its packet, or by itself
 * after three times as long as it may take until it is noticed. */
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
  // From the moment at which the child runs: making it is the thread's own work, and of a large process no quick one.
  'child process': (w, _, file) => {
    w.until('go', 1);
    const [command, ...args] =
      process.platform === 'win32'
        ? [process.execPath, '-e', 'fs.writeFileSync(process.argv[1], ""); setTimeout(() => {}, 150)', file]
        : ['sh', '-c', ': > "$0"; sleep 0.15', file];
    w.require('node:child_process').execFileSync(command, args, { stdio: 'ignore' });
    return w.clock() - (Date.now() - w.require('node:fs').statSync(file).mtimeMs);
  },
  'event loop': async (w) => {
    w.until('go', 1);
    const at = w.clock();
    // One wait, not many short ones: between them it would run.
    await new Promise((resolve) => setTimeout(resolve, 150));
    return at;
  },
};

/** One thread sleeps with the only place, another takes it, then the first one computes: a third must have to wait for both. */
async function resumes(t: Context, crew: Crew): Promise<{ wrong: string | null; excused: boolean }> {
  crew.clear();
  const port = sharedPort(t, { concurrency: 1 });
  const { token } = port;
  // 0 sleeps with the place, 1 takes it and leaves it; then 0 computes, and 2 must have to wait.
  const sleeper = crew.run(
    0,
    (w) => {
      const port = w.attach(w.data.token);
      port.getSync(5000);
      w.set('held', 1);
      w.sleepUntil('go', 1, 5000);
      w.set('busy', 1);
      w.until('go', 2);
      w.spin(60);
      w.set('busy', 2);
      const key = port.getSync(5000)?.key;
      const { sleepsNoticed } = port.stats();
      return { key, sleepsNoticed };
    },
    { token },
  );
  await waiting(t, port, 1);
  port.post(1);
  await crew.reached('held', 1, 'the first thread has its place');
  const second = crew.run(
    1,
    (w) => {
      const port = w.attach(w.data.token);
      const packet = port.getSync(5000);
      w.set('got', 1);
      w.until('go', 2);
      port.detach();
      return packet?.key;
    },
    { token },
  );
  await waiting(t, port, 1);
  port.post(2);
  await crew.reached('got', 1, 'the second thread has the place of the first, which sleeps');
  const third = crew.run(2, (w) => ({ key: w.attach(w.data.token).getSync(5000)?.key, busy: w.at('busy') }), { token });
  await waiting(t, port, 1);
  crew.set('go', 1);
  await crew.reached('busy', 1, 'the first thread runs again');
  port.post(3);
  port.post(4);
  // It has been seen when both count. Where that isn't said, after a time that is long enough.
  if (typeof port.stats().running === 'number')
    await t.eventually(() => port.stats().running === 2, 'the first thread counts again', 5000);
  else await t.sleep(80);
  const { queued } = port.stats();
  crew.set('go', 2);
  t.equal(await t.within(3000, second, 'the second thread leaves'), 2, 'the second thread’s packet');
  const first = await t.within(3000, sleeper, 'the first thread comes back');
  const last = await t.within(3000, third, 'the third thread, when the first sleeps in its event loop');
  port.close();
  const holds = queued === 2 && first.key === 3 && last.key === 4 && last.busy === 2;
  const wrong = `${queued} packets of 2 waited; the first thread, which came back, got ${first.key}, not 3; the third got ${last.key}, not 4`;
  // One sleep is the case's own.
  return { wrong: holds ? null : wrong, excused: first.sleepsNoticed !== 1 };
}

export const cases: readonly ConformanceCase[] = [
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
      await mostly(
        t,
        7,
        async () => {
          const wrong: string[] = [];
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
              w.awake(() => {
                w.set('resumed', 1);
                w.until('go', 1);
              });
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
              w.awake(() => {
                w.set('got', 1);
                w.until('go', 2);
                w.set('busy', 2);
              });
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
          const { running = 2 } = port.stats();
          if (running !== 2) wrong.push(`${running} threads count while two run`);
          await t.sleep(40);
          if (crew.at('busy') === 0 && port.stats().queued === 0) wrong.push('a third thread was released while two ran');
          crew.set('go', 1);
          await t.sleep(40);
          if (wrong.length === 0 && port.stats().queued === 0) wrong.push('a second thread was released while one ran');
          crew.set('go', 2);
          const got = await t.within(3000, third, 'the third thread is released');
          t.equal(got.key, 3, 'key of the third thread’s packet');
          if (got.before !== 2) wrong.push('the third thread had its packet while others ran');
          crew.set('stop', 1);
          await t.within(2000, Promise.all([first, second]), 'the end of the round');
          return wrong.length === 0 ? null : wrong.join(', ');
        },
        () => crew.at('slept') !== 0,
      );
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
            if (inside - resumed > 2) w.add('failed');
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
      await floodWithin(t, port, crew, total, 'packets at whose start too many ran that hadn’t resumed', async () => {
        for (let key = 0; key < total; ) {
          for (let burst = t.random.between(1, 60); burst > 0 && key < total; burst--) port.post(key++);
          await t.turn();
        }
        await crew.reached('handled', total, 'all packets are handled', 15_000);
      });
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
      let argument = '';
      if (name === 'child process') argument = t.tempFile('started');
      if (name === 'pipe') {
        const fifo = t.tempFile('fifo');
        argument = fifo;
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
      await relays(t, crew, act, 50, { argument });
    },
  ),
  {
    id: 'CONC-06/resumes',
    clause: 'CONC-06',
    title: 'once it runs again it counts again: no more are released than may run',
    reference: blocks,
    needs: ['proc'],
    async run(t) {
      const crew = await Crew.start(t, null, 3);
      let excused = false;
      const attempt = async (): Promise<string | null> => {
        const { wrong, ...rest } = await resumes(t, crew);
        excused = rest.excused;
        return wrong;
      };
      await mostly(t, 7, attempt, () => excused);
    },
  },
];
