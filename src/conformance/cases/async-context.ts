// DISP-04: whose async context (AsyncLocalStorage) a packet is handled in.

import { AsyncLocalStorage } from 'node:async_hooks';
import { alsoInverted } from '../support/inverted.js';
import type { ConformanceCase, Port, Way } from '../types.js';
import { forEachWay, variants, waysAsync } from '../variants.js';

const range = (end: number): number[] => Array.from({ length: end }, (_, i) => i);

/** Waits for one packet and calls back with it, in the async context of the call. */
const receivers: Record<string, (port: Port, onPacket: () => void) => Promise<void>> = {
  async get(port, onPacket) {
    await port.get();
    onPacket();
  },
  async getMany(port, onPacket) {
    await port.getMany(1);
    onPacket();
  },
  async iterator(port, onPacket) {
    for await (const _ of port) {
      onPacket();
      return;
    }
  },
  async 'a chain'(port, onPacket) {
    await port.get().then(() => onPacket());
  },
};

export const cases: ConformanceCase[] = alsoInverted([
  {
    id: 'DISP-04/dispatch',
    clause: 'DISP-04',
    title: 'handlers see the async context of the dispatch call, whoever started or posted',
    reference: 'the portable rule, as an event listener bound by AsyncResource.bind',
    async run(t) {
      const uncaught = t.expectUncaught();
      const storage = new AsyncLocalStorage<string>();
      const port = t.createPort();
      const file = t.openFile(port, 1, t.tempFile('file', 'x'), 'r');
      const seen: (string | undefined)[] = [];
      const later: (string | undefined)[] = [];
      const consumer = storage.run('dispatch', () =>
        port.dispatch(() => {
          seen.push(storage.getStore());
          Promise.resolve().then(() => later.push(storage.getStore()));
          // Neither what the handler enters nor what it throws is the next packet's.
          storage.enterWith('left behind');
          if (seen.length === 3) throw new Error('from a handler');
        }),
      );
      storage.run('another', () => {
        for (let i = 0; i < 5; i++) port.post(1);
        file.read(t.room(1), { position: 0 });
      });
      port.post(1);
      await t.eventually(() => later.length >= 7, 'all packets have been handled');
      t.equal(storage.getStore(), undefined, 'the store outside');
      t.deepEqual(uncaught.map(String), ['Error: from a handler'], 'uncaught exceptions');
      t.equal(seen[0], 'dispatch', 'the store in the first handler');
      // A batch may share one scope: then a later handler of it sees what an earlier one entered, but never a starter's context.
      for (const store of seen) t.ok(store === 'dispatch' || store === 'left behind', `the store in a handler (${store})`);
      for (const store of later) t.equal(store === 'another', false, 'a continuation sees the starter’s store');
      consumer.stop();
    },
  },
  ...variants(
    {
      clause: 'DISP-04',
      title: 'promises see the async context of their await',
      reference: 'the portable rule, as any other promise',
    },
    receivers,
    async (t, receive) => {
      const storage = new AsyncLocalStorage<number>();
      const port = t.createPort();
      const file = t.openFile(port, 1, t.tempFile('file', 'x'), 'r');
      const seen: (number | undefined)[] = [];
      // In half of the rounds the packet is there before anybody asks, in the others it comes later, from another context.
      for (let round = 0; round < 10; round++) {
        const send = (): void =>
          storage.run(1000, () => void (round % 4 < 2 ? port.post(1) : file.read(t.room(1), { position: 0 })));
        if (round % 2 === 0) send();
        const done = storage.run(round, () => receive(port, () => seen.push(storage.getStore())));
        if (round % 2 === 1) setImmediate(send);
        await t.within(2000, done, 'the packet');
      }
      t.deepEqual(seen, range(10), 'the stores that were seen');
    },
  ),
  ...forEachWay(
    {
      clause: 'DISP-04',
      title: 'two consumers, each in its context, don’t see each other’s',
      reference: 'the portable rule: a context is that of whoever waits, as with every API of Node',
    },
    async (t, way: Way) => {
      const storage = new AsyncLocalStorage<string>();
      const ports = ['one', 'two'].map((name) => ({ name, port: t.createPort(), stores: [] as (string | undefined)[] }));
      for (const { name, port, stores } of ports) {
        storage.run(name, async () => {
          const note = (): void => void stores.push(storage.getStore());
          if (way === 'dispatch') port.dispatch(note);
          else if (way === 'iterator') for await (const _ of port) note();
          else {
            for (let i = 0; i < 20; i++) {
              await (way === 'get' ? port.get() : port.getMany(1));
              note();
            }
          }
        });
      }
      for (let i = 0; i < 20; i++) {
        for (const { port } of t.random.shuffle(ports)) port.post(i);
        if (t.random.int(3) === 0) await t.turn();
      }
      await t.eventually(() => ports.every(({ stores }) => stores.length >= 20), 'all packets');
      for (const { name, stores } of ports)
        t.deepEqual(
          stores,
          range(20).map(() => name),
          `stores of consumer ${name}`,
        );
    },
    waysAsync,
  ).map((entry) => ({ ...entry, id: entry.id.replace('/', '/two-') })),
]);
