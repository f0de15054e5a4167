// POST-03, POST-05 and GET-04 with threads: a post of any thread reaches whoever waits, however it waits, and none is missed between
// a waiter's last look and its sleep; and posts run into a close without harm.

import { Crew, clock, median, type Scope, sharedPort, tokenOf, waiting } from '../support/threads.js';
import type { ConformanceCase, Packet, Way } from '../types.js';
import { forEachWay, variants } from '../variants.js';

const reaches = 'PostQueuedCompletionStatus may be called by any thread; a waiting thread is released by it';
const closes = 'PostQueuedCompletionStatus on a closed port’s handle fails with ERROR_INVALID_HANDLE';

/**
 * Of two threads: a function that says how many milliseconds they have stood in the scheduler's queues so far, both together, ready to run and without
 * a processor. That is no port's doing. Linux counts it (the second number of /proc/PID/task/TID/schedstat; Documentation/scheduler/sched-stats.rst);
 * always 0 where nobody does.
 */
function queueing(w: Scope): { ms(): number; end(): void } {
  const fs = w.require('node:fs');
  const record = new Uint8Array(64);
  let files: number[] = [];
  try {
    w.set(2 + w.index, Number(/\d+$/.exec(fs.readlinkSync('/proc/thread-self'))));
    files = [2, 3].map((cell) => {
      w.until(cell, 1);
      return fs.openSync(`/proc/self/task/${w.at(cell)}/schedstat`, 'r');
    });
  } catch {
    // no such record here
  }
  return {
    ms() {
      let sum = 0;
      for (const file of files) {
        fs.readSync(file, record, 0, record.length, 0);
        // In nanoseconds, behind the first space. Read byte by byte: it is done at each packet, and strings would have to be collected.
        let value = 0;
        for (let at = record.indexOf(32) + 1; record[at] !== 32 && at < record.length; at++)
          value = value * 10 + (record[at] ?? 0) - 48;
        sum += value / 1e6;
      }
      return sum;
    },
    end() {
      for (const file of files) fs.closeSync(file);
    },
  };
}

export const cases: readonly ConformanceCase[] = [
  ...forEachWay(
    {
      clause: 'GET-04',
      title: 'a get that waits is ended by a packet that another thread posts, within milliseconds',
      reference: 'GetQueuedCompletionStatus waits until a packet comes, whoever queues it',
    },
    async (t, way) => {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 1);
      const delays: number[] = [];
      for (let round = 1; round <= 7; round++) {
        const pause = 5 + t.random.int(45);
        const job = crew.run(
          0,
          (w) => {
            w.sleepUntil('stop', 1, w.data.pause);
            const at = w.clock();
            w.port.post(w.data.round);
            return at;
          },
          { pause, round },
        );
        const packet = await t.takeOne(port, { way });
        const at = clock();
        t.equal(packet.key, round, 'key');
        delays.push(at - (await job));
      }
      t.less(
        median(delays),
        15,
        `milliseconds from the post to the end of the get (${delays.map((d) => d.toFixed(2)).join(', ')})`,
      );
    },
  ).map((entry) => ({ ...entry, id: entry.id.replace('/', '/threads-') })),

  ...forEachWay(
    { clause: 'POST-03', title: 'a post of this thread and of others reaches a thread that waits', reference: reaches },
    async (t, way) => {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 3);
      const job = crew.run(
        0,
        (w) =>
          w.consume(w.port, w.data.way, (packet) => {
            w.set(packet.key, packet.bytesTransferred);
            w.add('handled');
            return packet.key === 9;
          }),
        { way },
      );
      for (let round = 1; round <= t.count(10); round++) {
        await waiting(t, port, 1);
        const begin = clock();
        if (round % 3 === 0) port.post(3, round);
        else await crew.run(round % 3, (w) => w.port.post(w.index, w.data.round), { round });
        await crew.reached('handled', round, 'the post is handled');
        t.equal(crew.at(round % 3 === 0 ? 3 : round % 3), round, 'what the post said');
        t.less(clock() - begin, 1000, 'milliseconds that it took');
      }
      port.post(9);
      await t.within(3000, job, 'the end of the consumer');
    },
  ),
  {
    id: 'POST-03/all-blocked',
    clause: 'POST-03',
    title: 'so it does where every attached thread, this one too, waits in a blocking get',
    reference: reaches,
    async run(t) {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 4);
      // Three wait; the fourth posts when this thread waits as well.
      const jobs = [0, 1, 2].map((index) =>
        crew.run(
          index,
          (w) => {
            w.add('arrived');
            return w.port.getSync(5000)?.key;
          },
          {},
        ),
      );
      await waiting(t, port, 3);
      const poster = crew.run(
        3,
        (w) => {
          w.sleepUntil('stop', 1, 60);
          for (let key = 0; key < 4; key++) w.port.post(key);
          return w.port.getSync(0);
        },
        {},
      );
      const own = port.getSync(5000);
      const keys = [own?.key, ...(await t.within(5000, Promise.all(jobs), 'all blocked threads are released'))];
      t.deepEqual([...keys].sort(), [0, 1, 2, 3], 'what the four threads got');
      t.equal(own?.key, 0, 'what this thread got, which began to wait last');
      t.equal(await poster, null, 'what is left');
    },
  },
  ...variants(
    {
      clause: 'POST-03',
      title: 'no post is missed between a waiter’s last look and its sleep',
      reference: reaches,
      timeoutMs: 25_000,
    },
    {
      'no miss blocking': ['getSync', 'getSync'],
      'no miss batches': ['getManySync', 'getSync'],
      'no miss event loops': ['get', 'dispatch'],
      'no miss mixed': ['getSync', 'dispatch'],
    } as Record<string, readonly [Way, Way]>,
    async (t, ways) => {
      const rounds = t.count(ways.includes('getSync') ? 4000 : 1500);
      // A port for each direction, so that each thread gets what the other one posts.
      const there = sharedPort(t);
      const back = sharedPort(t);
      const crew = await Crew.start(t, null, 2);
      const data = { tokens: [tokenOf(there), tokenOf(back)] as const, ways, rounds, seed: t.seed, queueing: `${queueing}` };
      const [found] = await crew.everyone(
        async (w) => {
          const { tokens, ways, rounds, seed } = w.data;
          const me = w.index as 0 | 1;
          const own = w.attach(tokens[me]);
          const other = w.attach(tokens[(1 - me) as 0 | 1]);
          const random = w.random(seed + me);
          // Between the packets the two threads wake one another by Atomics as often: what is late there is the machine's doing.
          const chunk = 40;
          let late = 0;
          let machine = 0;
          let last = 0;
          let before = 0;
          const queued = w.call(w.data.queueing) as ReturnType<typeof queueing>;
          w.add('arrived');
          w.until('arrived', 2);
          for (let begin = 0; begin < rounds; begin += chunk) {
            const end = begin + chunk;
            before = queued.ms();
            last = w.clock();
            if (me === 0) other.post(begin);
            await w.consume(own, ways[me], (packet) => {
              const now = w.clock();
              // The other side has just posted, and goes to wait: the answer comes at about the moment of its falling asleep.
              if (now - last > 8 && now - last - (queued.ms() - before) > 8) late++;
              // To look takes some microseconds: now the one, now the other of the two gets to its wait later for it.
              const early = random() < 0.5;
              if (early) before = queued.ms();
              w.spin(random() * 0.02);
              last = w.clock();
              if (packet.key < end - 1) other.post(packet.key + 1);
              if (!early) before = queued.ms();
              return packet.key >= end - 2;
            });
            for (let n = (begin + 2) / 2; n <= end / 2; n++) {
              before = queued.ms();
              w.spin(random() * 0.02);
              last = w.clock();
              if (me === 0) w.set(0, n);
              if (!w.sleepUntil((1 - me) as 0 | 1, n, 5000)) throw new Error('the other thread does not answer');
              const took = w.clock() - last;
              if (took > 8 && took - (queued.ms() - before) > 8) machine++;
              if (me === 1) w.set(1, n);
            }
          }
          queued.end();
          return { late, machine };
        },
        data,
        20_000,
      );
      // Waits are cut into slices: a post that was missed would be found at the end of one, many times of thousands.
      const most = Math.max(6, rounds / 100) + 2 * (found?.machine ?? 0);
      t.less(found?.late ?? Number.NaN, most, `rounds of ${rounds} that took longer than 8 ms`);
    },
  ),
  {
    id: 'POST-03/flood',
    clause: 'POST-03',
    title: 'threads that post as fast as they can lose nothing to threads that get',
    reference: reaches,
    async run(t) {
      const each = t.count(10_000);
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 4, { cells: 2 * each });
      const posters = [0, 1].map((index) =>
        crew.run(
          index,
          (w) => {
            for (let n = 0; n < w.data.each; n++) w.port.post(w.index * w.data.each + n);
          },
          { each },
        ),
      );
      const getters = [2, 3].map((index) =>
        crew.run(
          index,
          (w) =>
            w.consume(w.port, w.index === 2 ? 'getManySync' : 'dispatch', (packet) => {
              if (w.add(packet.key) !== 1) w.add('failed');
              w.add('handled');
              return false;
            }),
          {},
        ),
      );
      await t.within(8000, Promise.all(posters), 'all is posted');
      await crew.reached('handled', 2 * each, 'all is handled');
      t.equal(crew.at('failed'), 0, 'packets that came twice');
      port.close();
      await t.within(2000, Promise.all(getters), 'the consumers see the close');
    },
  },

  ...variants(
    {
      clause: 'POST-05',
      title: 'posting to a port that another thread closes throws ERR_PORT_CLOSED from then on, and never crashes',
      reference: closes,
    },
    { 'threads closed by the creator': 'creator', 'threads closed by one of them': 'other' } as const,
    async (t, closer) => {
      const crew = await Crew.start(t, null, 3);
      const rounds = t.count(20);
      for (let round = 0; round < rounds; round++) {
        crew.clear();
        const port = sharedPort(t, { arenaBytes: 65_536 });
        const jobs = crew.all(
          (w) => {
            const port = w.attach(w.data.token);
            w.add('arrived');
            w.until('arrived', 3);
            const end = w.clock() + 4000;
            let posted = 0;
            for (;;) {
              if (w.data.closer === 'other' && w.index === 1 && posted === w.data.after) {
                port.close();
                w.set('stop', 1);
              }
              const closed = w.at('stop') === 1;
              const code = w.codeOf(() => port.post(posted));
              if (code === 'ERR_PORT_CLOSED') break;
              if (code !== 'nothing') return code;
              if (closed) return 'a post behind the close was taken';
              posted++;
              if (w.clock() > end) return `no close was seen in 4 s and ${posted} posts`;
            }
            return w.codeOf(() => port.getSync(0));
          },
          { token: tokenOf(port), closer, after: 1 + t.random.int(400) },
        );
        await crew.reached('arrived', 3, 'all threads post');
        if (closer === 'creator') {
          t.spin(t.random.next() * 2);
          port.close();
          crew.set('stop', 1);
        }
        const codes = await t.within(5000, Promise.all(jobs), 'all threads see the close');
        t.deepEqual(codes, Array(3).fill('ERR_PORT_CLOSED'), 'what a get threw behind the post that did');
        t.throws(() => port.post(1), { code: 'ERR_PORT_CLOSED' }, 'a post of the creator');
        await t.within(2000, port.closed, 'closed');
      }
    },
  ),

  {
    id: 'GET-11/threads',
    clause: 'GET-11',
    title: 'a thread that gets from several shared ports starves none of them, though others post all the time',
    reference: 'A thread may wait on one port after the other; each has a queue of its own',
    async run(t) {
      const ports = [sharedPort(t), sharedPort(t), sharedPort(t)];
      const crew = await Crew.start(t, null, 2);
      const poster = crew.run(
        0,
        (w) => {
          const ports = w.data.tokens.map((token) => w.attach(token));
          for (let n = 0; n < w.data.count; n++) for (const port of ports) port.post(n);
        },
        { tokens: ports.map(tokenOf), count: t.count(2000) },
      );
      const seen = ports.map(() => 0);
      const take = (packet: Packet, index: number): void => {
        t.equal(packet.key, seen[index], `key of the next packet of port ${index}`);
        seen[index] = packet.key + 1;
      };
      const consumer = ports[2]?.dispatch((packet) => take(packet, 2));
      const loop = (async () => {
        for await (const packet of ports[1] ?? []) take(packet, 1);
      })();
      const end = t.now() + 6000;
      while (seen.some((count) => count < t.count(2000))) {
        const packet = await (ports[0] as (typeof ports)[0]).get({ timeout: 5 });
        if (packet !== null) take(packet, 0);
        if (t.now() > end) t.fail(`packets by port after 6 s: ${seen.join(', ')}`);
      }
      await t.within(2000, poster, 'the poster');
      consumer?.stop();
      ports[1]?.close();
      await t.within(2000, loop, 'the end of the iterator');
    },
  },
];
