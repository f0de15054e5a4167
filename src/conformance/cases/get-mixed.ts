// GET-05 and GET-06: gets that wait beside others, beside timers and under an AbortSignal. Whatever happens, a packet goes to
// exactly one of them. Races are seeded: the invariant is looked at, never the order of luck.

import { getEventListeners } from 'node:events';
import { asyncGetters, Ledger, waitFor } from '../support/getting.js';
import { alsoInverted } from '../support/inverted.js';
import { ownTime } from '../support/starved.js';
import type { ConformanceCase, Packet, Port } from '../types.js';
import { forEachWay, variants, waysAsync } from '../variants.js';

export const cases: ConformanceCase[] = alsoInverted([
  ...forEachWay(
    {
      clause: 'GET-05',
      title: 'timers and immediates run while it waits',
      reference: 'the portable rule: only methods named …Sync block',
    },
    async (t, way) => {
      const port = t.createPort();
      const { packet } = waitFor(port, way);
      const ran: string[] = [];
      setTimeout(() => ran.push('timer'), 10);
      setImmediate(() => ran.push('immediate'));
      // The loop's longest standstill within a window, but for what it lacked a processor: a get that waits in the kernel stops it for the
      // length of its wait, at least for a slice of some 20 ms, and needs no processor for that. What else a busy machine does to us is
      // shorter in at least one of the windows.
      let best = Number.POSITIVE_INFINITY;
      for (let window = 0; window < 30 && best > 8; window++) {
        let longest = 0;
        let last = ownTime();
        const end = t.now() + 40;
        do {
          await t.turn();
          const now = ownTime();
          longest = Math.max(longest, now - last);
          last = now;
        } while (t.now() < end);
        best = Math.min(best, longest);
      }
      // A window of a starved thread may be a single turn, its time passed within it. The timer is due by now: one more turn runs it.
      await t.turn();
      t.deepEqual(ran.sort(), ['immediate', 'timer'], 'what ran before any packet came');
      t.less(best, 16, 'milliseconds of the longest standstill of the event loop, in the best of 30 windows');
      port.post(1);
      t.equal((await t.within(2000, packet, 'the packet')).key, 1, 'key');
    },
    waysAsync,
  ),
  ...variants(
    {
      clause: 'GET-05',
      title: 'a timer that is due before the timeout fires before the get gives up',
      reference: 'the portable rule: only methods named …Sync block',
    },
    { 'timeout get': asyncGetters.get, 'timeout getMany': asyncGetters.getMany },
    async (t, get) => {
      const port = t.createPort();
      const order: string[] = [];
      const waiting = get(port, 200).then((packets) => order.push(`get ${packets.length}`));
      for (const ms of [1, 20, 50]) setTimeout(() => order.push(`timer ${ms}`), ms);
      await t.within(2000, waiting, 'the get');
      t.deepEqual(order, ['timer 1', 'timer 20', 'timer 50', 'get 0'], 'order of events');
    },
  ),
  ...variants(
    {
      clause: 'GET-05',
      title: 'an AbortSignal ends it with AbortError, at its start or while it waits, and takes no packet',
      reference: 'the portable rule, as Node’s own functions that take a signal',
    },
    {
      'abort get': (port: Port, signal: AbortSignal): Promise<unknown> => port.get({ signal }),
      'abort getMany': (port: Port, signal: AbortSignal): Promise<unknown> => port.getMany(4, { signal, timeout: 5000 }),
    },
    async (t, get) => {
      const port = t.createPort();
      const reason = new Error('enough');
      const before = new AbortController();
      before.abort(reason);
      port.post(1);
      const atStart = await t.rejects(get(port, before.signal), { name: 'AbortError' }, 'a get with an aborted signal');
      t.equal(atStart.code, 'ABORT_ERR', 'code');
      t.equal(atStart.cause, reason, 'cause');
      t.equal(t.takeOneSync(port).key, 1, 'key of the packet that was there');

      const later = new AbortController();
      const waiting = get(port, later.signal);
      const second = get(port, later.signal);
      await t.turn();
      later.abort(reason);
      t.equal((await t.rejects(waiting, { name: 'AbortError' }, 'the aborted get')).cause, reason, 'cause');
      await t.rejects(second, { name: 'AbortError' }, 'the other get with this signal');
      port.post(2);
      await t.turn();
      t.equal(t.takeOneSync(port).key, 2, 'key of the packet posted afterwards');

      // A signal that outlives many gets must not collect their listeners; aborting it when all are done does nothing.
      const long = new AbortController();
      for (let i = 0; i < 20; i++) {
        // Half of them find their packet there, the others have to wait for it.
        if (i % 2 === 0) port.post(i);
        const ending = get(port, long.signal);
        if (i % 4 === 1) await t.turn();
        if (i % 2 === 1) port.post(i);
        await t.within(2000, ending, 'a get');
      }
      await t.within(2000, port.get({ timeout: 2, signal: long.signal }), 'a get that gives up');
      t.equal(getEventListeners(long.signal, 'abort').length, 0, 'listeners left on the signal');
      long.abort();
      for (const wrong of [1, 'signal', null, {}]) {
        const refused = (async () => get(port, wrong as unknown as AbortSignal))();
        await t.rejects(refused, { code: 'ERR_INVALID_ARG_TYPE' }, `signal ${String(wrong)}`);
      }
      t.nothing(port);
    },
  ),
  {
    id: 'GET-05/abort-race',
    clause: 'GET-05',
    title: 'an abort that races with a post loses no packet: either the get has it or it stays in the queue',
    reference: 'the portable rule: an aborted get has taken nothing',
    async run(t) {
      const port = t.createPort();
      const ledger = new Ledger(t);
      for (let round = 0; round < t.count(400, 20); round++) {
        const abort = new AbortController();
        const options = { signal: abort.signal };
        const many = t.random.int(2) === 0;
        const waiting: Promise<(Packet | null)[]> = (
          many ? port.getMany(2, options) : port.get(options).then((one) => [one])
        ).catch((error: unknown) => {
          if (!(error instanceof Error) || error.name !== 'AbortError') throw error;
          return [];
        });
        if (t.random.int(3) === 0) await t.turn();
        const acts = t.random.shuffle([
          () => ledger.post(port, 10 * round),
          () => ledger.post(port, 10 * round + 1),
          () => abort.abort(),
        ]);
        for (const act of acts) {
          act();
          const pause = t.random.int(5);
          if (pause === 0) await t.turn();
          else if (pause === 1) await null;
        }
        for (const packet of await t.within(2000, waiting, 'the get')) ledger.take(t.some(packet, 'a packet'), 'the get');
        for (const packet of port.getManySync(10, 0)) ledger.take(packet, 'the queue');
        t.deepEqual([...ledger.missing], [], `packets lost in round ${round}`);
      }
    },
  },

  {
    id: 'GET-06/one-each',
    clause: 'GET-06',
    title: 'a packet ends exactly one of the waiting gets',
    reference: 'each packet satisfies one outstanding call of GetQueuedCompletionStatus',
    async run(t) {
      const port = t.createPort();
      let settled = 0;
      const keys: number[] = [];
      const waiting = Array.from({ length: 10 }, async (_, i) => {
        const packets = i % 2 === 0 ? [await port.get()] : await port.getMany(5);
        settled++;
        for (const packet of packets) keys.push(t.some(packet, 'a packet').key);
      });
      await t.turn();
      port.post(0);
      await t.eventually(() => settled > 0, 'a get has ended');
      await t.turn();
      t.equal(settled, 1, 'gets that one packet ended');
      // One at a time, so that a getMany can't take what another get is to have.
      for (let key = 1; key < 10; key++) {
        port.post(key);
        await t.eventually(() => settled > key, `get ${key + 1} has ended`);
      }
      await t.within(2000, Promise.all(waiting), 'all gets');
      t.deepEqual(keys, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 'keys in the order of their gets’ end');
      t.nothing(port);
    },
  },
  {
    id: 'GET-06/two-iterators',
    clause: 'GET-06',
    title: 'two iterators share the packets, none of them twice',
    reference: 'each packet satisfies one outstanding call',
    async run(t) {
      const port = t.createPort();
      const ledger = new Ledger(t);
      const keys: number[] = [];
      const loops = [1, 2].map(async (name) => {
        for await (const packet of port) {
          keys.push(packet.key);
          ledger.take(packet, `iterator ${name}`);
          if (ledger.missing.size === 0 && keys.length === 200) return;
        }
      });
      for (let i = 0; i < 200; i++) {
        ledger.post(port, i);
        if (t.random.int(10) === 0) await t.turn();
      }
      await t.within(5000, Promise.race(loops), 'one of the iterators has the last packet');
      port.close();
      await t.within(2000, Promise.all(loops), 'the end of both iterators');
      t.deepEqual(
        [...keys].sort((a, b) => a - b),
        Array.from({ length: 200 }, (_, i) => i),
        'keys',
      );
    },
  },
  {
    id: 'GET-06/mix',
    clause: 'GET-06',
    title: 'whatever mix of sync, async, iterator and dispatch waits, each packet goes to exactly one',
    reference: 'each packet satisfies one outstanding call',
    timeoutMs: 30_000,
    async run(t) {
      for (let round = 0; round < t.count(20, 2); round++) {
        const port = t.createPort();
        const ledger = new Ledger(t);
        const file = t.openFile(port, 0, t.tempFile(undefined, 'x'), 'r');
        const reads = new Set<unknown>();
        const take = (packet: Packet, from: string): void => {
          if (packet.kind === 'post') ledger.take(packet, from);
          else if (!reads.delete(packet.operation)) t.fail(`${from} gave the packet of a read a second time`);
        };
        const ended: Promise<void>[] = [];
        let consumer: { stop(): void } | null = null;
        for (let step = 0; step < 60; step++) {
          const act = t.random.int(10);
          if (act < 4) ledger.post(port, step);
          else if (act === 4) reads.add(file.read(t.room(1), { position: 0 }));
          else if (act === 5) ended.push(port.get({ timeout: t.random.int(5) }).then((one) => void (one && take(one, 'get'))));
          else if (act === 6) {
            const max = 1 + t.random.int(4);
            const from = (packets: Packet[]): void => {
              for (const packet of packets) take(packet, 'getMany');
            };
            ended.push(port.getMany(max, { timeout: t.random.int(5) }).then(from));
          } else if (act === 7) {
            const waiting = waitFor(port, 'iterator');
            ended.push(waiting.packet.then((packet) => take(packet, 'an iterator')));
            // It must have a packet of its own to end, now or later.
            ledger.post(port, 1000 + step);
          } else if (act === 8) {
            if (consumer === null) consumer = port.dispatch((packet) => take(packet, 'dispatch'));
            else {
              consumer.stop();
              consumer = null;
            }
          } else {
            for (const packet of port.getManySync(1 + t.random.int(3), t.random.int(2))) take(packet, 'getManySync');
          }
          if (t.random.int(4) === 0) await t.turn();
        }
        consumer?.stop();
        // An iterator may still wait because others took the packets: it gets posts until all have ended.
        let done = false;
        const all = Promise.all(ended).then(() => {
          done = true;
        });
        for (let i = 0; !done && i < 200; i++) {
          ledger.post(port, 10_000 + i);
          await t.turn();
          await t.sleep(1);
        }
        await t.within(2000, all, 'the end of every get');
        while (ledger.missing.size + reads.size > 0) {
          const packets = port.getManySync(64, 1000);
          if (packets.length === 0)
            t.fail(`lost: ${ledger.missing.size} posts (${[...ledger.missing].slice(0, 5)}), ${reads.size} reads`);
          for (const packet of packets) take(packet, 'the queue');
        }
        t.nothing(port);
        port.close();
      }
    },
  },
]);
