// DISP-03: the port takes turns with everything else of the event loop, however much there is for it to do.

import * as fs from 'node:fs';
import * as net from 'node:net';
import { alsoInverted } from '../support/inverted.js';
import type { ConformanceCase, Port } from '../types.js';
import { variants } from '../variants.js';

const range = (end: number): number[] => Array.from({ length: end }, (_, i) => i);

/** Keeps a port from running dry, by an asynchronous way, until told. */
const floods: Record<'dispatch' | 'get' | 'getMany' | 'iterator', (port: Port, onPacket: () => boolean) => void> = {
  dispatch(port, onPacket) {
    const consumer = port.dispatch(() => {
      if (onPacket()) port.post(1);
      else consumer.stop();
    });
  },
  async get(port, onPacket) {
    while ((await port.get()) !== null && onPacket()) port.post(1);
  },
  async getMany(port, onPacket) {
    for (;;) {
      for (const _ of await port.getMany(16)) {
        if (!onPacket()) return;
        port.post(1);
      }
    }
  },
  async iterator(port, onPacket) {
    for await (const _ of port) {
      if (!onPacket()) return;
      port.post(1);
    }
  },
};

export const cases: ConformanceCase[] = alsoInverted([
  {
    id: 'DISP-03/microtasks',
    clause: 'DISP-03',
    title: 'promise continuations and nextTick run after each batch, of at most 512 packets',
    reference: 'the portable rule, as Node does after each callback',
    async run(t) {
      const port = t.createPort();
      const file = t.openFile(port, 1, t.tempFile('file', 'x'), 'r');
      const wanted = 5000;
      let handled = 0;
      let promises = 0;
      let ticks = 0;
      let longest = 0;
      let next = (): void => {};
      port.dispatch(() => {
        handled++;
        // Everything that earlier batches left behind has run, or this is still their batch.
        longest = Math.max(longest, handled - promises, handled - ticks);
        Promise.resolve().then(() => promises++);
        process.nextTick(() => ticks++);
        next();
      });
      const check = async (what: string): Promise<void> => {
        await t.eventually(() => handled >= wanted, `all packets of ${what} have been handled`);
        t.less(longest, 513, `packets of ${what} that were handled before the first continuation of their batch`);
        await t.turn();
        t.equal(promises, handled, `promise continuations, ${what}`);
        t.equal(ticks, handled, `nextTick callbacks, ${what}`);
        handled = promises = ticks = 0;
      };
      for (let i = 0; i < wanted; i++) port.post(1);
      await check('posts');
      // Done at once, each started by the one before: what the handlers of a batch start may belong to it, but not without end.
      const start = () => file.read(t.room(1), { position: 0 });
      let started = 50;
      next = () => {
        if (started++ < wanted) start();
      };
      for (let i = 0; i < started; i++) start();
      await check('operations that handlers start');
    },
  },
  {
    id: 'DISP-03/one-packet',
    clause: 'DISP-03',
    title: 'a single packet’s continuations run at once, not with the next packet or timer',
    reference: 'the portable rule, as Node does after each callback',
    async run(t) {
      const port = t.createPort();
      const file = t.openFile(port, 1, t.tempFile('file', 'x'), 'r');
      const order: string[] = [];
      port.dispatch(async (packet) => {
        if (packet.kind === 'post') return;
        order.push('handler');
        setImmediate(() => order.push('immediate'));
        await null;
        order.push('continuation');
      });
      for (let round = 0; round < 20; round++) {
        order.length = 0;
        file.read(t.room(1), { position: 0 });
        await t.eventually(() => order.includes('immediate'), 'the immediate');
        t.deepEqual(order, ['handler', 'continuation', 'immediate'], 'order of events');
      }
    },
  },
  ...variants(
    {
      clause: 'DISP-03',
      title: "timers and other I/O of the loop aren't starved by a flood of posts",
      reference: 'the portable rule: the port takes turns with everything else of the loop',
    },
    floods,
    async (t, flood) => {
      const port = t.createPort();
      let count = 0;
      let running = true;
      flood(port, () => {
        count++;
        return running;
      });
      // More than one turn's worth, so that the port is never dry.
      for (let i = 0; i < 1500; i++) port.post(1);
      const { port: number } = await t.peerServer((socket) => socket.pipe(socket));
      const seen = async (what: string, promise: Promise<unknown>): Promise<void> => {
        const before = count;
        const begin = t.now();
        await t.within(3000, promise, `${what} beside a flood of posts`);
        // A starved loop's own timers are late as well, the limit above among them.
        t.less(t.now() - begin, 800, `milliseconds that ${what} took beside a flood of posts`);
        await t.eventually(() => count > before, `the flood goes on after ${what}`);
      };
      for (let round = 0; round < 3; round++) {
        await seen('a timer', new Promise((resolve) => setTimeout(resolve, 1)));
        await seen('an immediate', new Promise((resolve) => setImmediate(resolve)));
        await seen('reading a file', fs.promises.readFile(new URL(import.meta.url)));
        await seen(
          'an echo over node:net',
          new Promise((resolve, reject) => {
            const client = net.connect(number, '127.0.0.1', () => client.write('x'));
            client.once('data', () => client.destroy());
            client.once('close', resolve);
            client.once('error', reject);
          }),
        );
      }
      running = false;
      await t.turn();
    },
  ),
  {
    id: 'DISP-03/inline-operations',
    clause: 'DISP-03',
    title: "nor by operations that finish as soon as they are started, each handler's last act another",
    reference: 'the portable rule: the port takes turns with everything else of the loop',
    async run(t) {
      const port = t.createPort();
      const path = t.tempFile('file', 'x');
      let count = 0;
      let running = true;
      port.dispatch((packet) => {
        count++;
        if (running) files[packet.key]?.read(t.room(1), { position: 0 });
      });
      const files = range(64).map((key) => t.openFile(port, key, path, 'r'));
      for (const file of files) for (let i = 0; i < 20; i++) file.read(t.room(1), { position: 0 });
      for (let round = 0; round < 10; round++) {
        const before = count;
        await t.within(3000, new Promise((resolve) => setTimeout(resolve, 1)), 'a timer beside a flood of reads');
        await t.eventually(() => count > before, 'the flood goes on');
      }
      running = false;
      await t.eventually(() => port.inFlight === 0, 'the last read');
    },
  },
]);
