// CLOSE-01: the close of a port ends every wait for its packets, and no packet comes after it, whatever waited and whoever closed.

import type { ConformanceCase, Context, Port } from '../types.js';
import { variants, waysAsync } from '../variants.js';

const closing = 'CloseHandle of a port ends waits with FALSE and ERROR_ABANDONED_WAIT_0 (735) and a NULL overlapped';
const closed = { code: 'ERR_PORT_CLOSED' };

/** What closes the port, from inside and outside of its own delivery. */
const closers: Readonly<Record<string, (t: Context, port: Port) => void | Promise<void>>> = {
  'from-a-job': (_, port) => port.close(),
  'from-a-timer': async (t, port) => {
    await t.sleep(5);
    port.close();
  },
  'by-dispose': (_, port) => port[Symbol.dispose](),
};

export const cases: readonly ConformanceCase[] = [
  ...variants(
    {
      clause: 'CLOSE-01',
      title: 'every waiting async get ends with ERR_PORT_CLOSED, every iterator with its loop',
      reference: closing,
    },
    closers,
    async (t, close) => {
      const port = t.createPort();
      const controller = new AbortController();
      const ended: string[] = [];
      const waits = [
        port.get(),
        port.get({ timeout: 60_000 }),
        port.get({ signal: controller.signal }),
        port.getMany(8),
        port.getMany(1, { timeout: 2 ** 40 }),
      ].map((wait, index) => t.rejects(wait, closed, `waiting get ${index}`).then(() => ended.push(`get ${index}`)));
      const loops = [1, 2].map(async (number) => {
        for await (const packet of port) t.fail(`the iterator gave a ${packet.kind} of a port without packets`);
        ended.push(`loop ${number}`);
      });
      await t.turn();
      t.equal(ended.length, 0, 'waits that ended before the close');
      await close(t, port);
      await t.within(1000, Promise.all([...waits, ...loops]), 'all waits of a closed port');
      t.equal(ended.length, 7, 'waits that ended');
      controller.abort();
      t.throws(() => port.getSync(0), closed, 'getSync after the close');
      t.throws(() => port.getManySync(1, 0), closed, 'getManySync after the close');
      await t.rejects(port.get(), closed, 'get after the close');
    },
  ),

  {
    id: 'CLOSE-01/queued',
    clause: 'CLOSE-01',
    title: 'packets that are queued, or fetched with others, reach no get after the close',
    reference: closing,
    async run(t) {
      for (const taken of [0, 1, 3]) {
        const port = t.createPort();
        for (let i = 0; i < 100; i++) port.post(i);
        for (let i = 0; i < taken; i++) t.equal(port.getSync(0)?.key, i, 'key of a packet before the close');
        const iterator = port[Symbol.asyncIterator]();
        port.close();
        t.throws(() => port.getSync(0), closed, 'getSync with packets queued');
        t.throws(() => port.getManySync(10, 0), closed, 'getManySync with packets queued');
        await t.rejects(port.get(), closed, 'get with packets queued');
        t.deepEqual(await iterator.next(), { done: true, value: undefined }, 'the iterator’s next step');
      }
    },
  },

  {
    id: 'CLOSE-01/dispatch',
    clause: 'CLOSE-01',
    title: 'a dispatch gets no further packet once its port is closed: by its handler, or between two turns',
    reference: closing,
    async run(t) {
      for (const [inHandler, expected] of [
        [true, 4],
        [false, 0],
      ] as const) {
        const port = t.createPort();
        for (let i = 0; i < 1000; i++) port.post(i);
        let count = 0;
        const consumer = port.dispatch((packet) => {
          t.equal(packet.key, count, 'key');
          count++;
          if (inHandler && count === expected) port.close();
        });
        t.equal(consumer.active, true, 'active of a dispatch');
        if (!inHandler) port.close();
        await t.within(1000, port.closed, 'closed');
        for (let i = 0; i < 5; i++) await t.turn();
        t.equal(count, expected, 'packets that the handler got');
        t.equal(consumer.active, false, 'active of a closed port’s dispatch');
        consumer.stop();
      }
    },
  },

  ...variants(
    {
      clause: 'CLOSE-01',
      title: 'a port closed by a promise’s continuation while packets wait gives none of them',
      reference: closing,
    },
    Object.fromEntries(waysAsync.map((way) => [`after-${way}`, way])),
    async (t, way) => {
      const port = t.createPort();
      const rest = new Set<number>();
      for (let i = 0; i < 50; i++) port.post(i);
      await t.take(port, 2, { way, max: 2 });
      port.close();
      const gone = port.get().then((packet) => rest.add(packet?.key ?? -1));
      await t.rejects(gone, closed, 'a get after the close');
      t.equal(rest.size, 0, 'packets after the close');
    },
  ),
];
