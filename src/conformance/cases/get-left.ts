// GET-08 and GET-11: gets that are given up, and gets on several ports. Neither loses a packet, or keeps another from its own.

import { Ledger } from '../support/getting.js';
import { alsoInverted } from '../support/inverted.js';
import type { ConformanceCase, Context, Packet, Port, Way } from '../types.js';
import { forEachWay, variants, waysAsync } from '../variants.js';

/** The ways to leave a `for await` with a packet in hand. */
const leaving: Record<string, (port: Port, count: number, seen: number[]) => Promise<void>> = {
  async break(port, count, seen) {
    for await (const packet of port) {
      seen.push(packet.key);
      if (seen.length >= count) break;
    }
  },
  async throw(port, count, seen) {
    const thrown = new Error('out of the loop');
    try {
      for await (const packet of port) {
        seen.push(packet.key);
        if (seen.length >= count) throw thrown;
      }
    } catch (error) {
      if (error !== thrown) throw error;
    }
  },
  async return(port, count, seen) {
    await (async () => {
      for await (const packet of port) {
        seen.push(packet.key);
        if (seen.length >= count) return;
      }
    })();
  },
};

/** Asynchronous consumers that run until they are stopped, for ports that never run dry. */
function consume(
  t: Context,
  port: Port,
  way: Way,
  onPacket: (packet: Packet) => void,
): { stop: () => void; ended: Promise<void> } {
  let running = true;
  if (way === 'dispatch') {
    const consumer = port.dispatch(onPacket);
    return { stop: () => consumer.stop(), ended: Promise.resolve() };
  }
  const abort = new AbortController();
  const loop = async (): Promise<void> => {
    if (way === 'iterator') {
      for await (const packet of port) {
        onPacket(packet);
        if (!running) return;
      }
      return;
    }
    while (running) {
      const packets =
        way === 'get' ? [await port.get({ signal: abort.signal })] : await port.getMany(16, { signal: abort.signal });
      for (const packet of packets) onPacket(t.some(packet, 'a packet of a get without a limit'));
    }
  };
  const stop = (): void => {
    running = false;
    if (way === 'iterator') port.post(0);
    abort.abort();
  };
  const ended = loop().catch((error: unknown) => {
    if (!(error instanceof Error) || error.name !== 'AbortError') throw error;
  });
  return { stop, ended };
}

export const cases: ConformanceCase[] = alsoInverted([
  ...variants(
    {
      clause: 'GET-08',
      title: 'leaving a `for await` loses no packet, and the next get goes on where it ended',
      reference: 'a packet is dequeued only by a call that returns it',
    },
    leaving,
    async (t, leave) => {
      const port = t.createPort();
      const file = t.openFile(port, 9, t.tempFile('file', 'x'), 'r');
      for (let key = 0; key < 10; key++) port.post(key);
      const operation = file.read(t.room(1), { position: 0 });
      for (const count of [1, 3, 2]) {
        const seen: number[] = [];
        await leave(port, count, seen);
        t.equal(seen.length, count, 'packets before it was left');
        t.equal(operation.pending, true, 'pending of the operation behind them');
      }
      const rest = t.takeSync(port, 5);
      t.deepEqual(
        rest.slice(0, 4).map((packet) => packet.key),
        [6, 7, 8, 9],
        'keys of what is left, in order',
      );
      t.equal(rest[4]?.operation, operation, 'operation of the last packet');
      t.equal(operation.pending, false, 'pending after its packet');
      t.nothing(port);
    },
  ),
  {
    id: 'GET-08/return-while-waiting',
    clause: 'GET-08',
    title: 'an iterator that is returned while its next() waits takes no later packet',
    reference: 'a packet is dequeued only by a call that returns it',
    async run(t) {
      const port = t.createPort();
      const ledger = new Ledger(t);
      for (let round = 0; round < t.count(200, 10); round++) {
        const iterator = port[Symbol.asyncIterator]();
        const nexts = Array.from({ length: 1 + t.random.int(3) }, () => iterator.next());
        const acts: (() => unknown)[] = [() => ledger.post(port, 2 * round), () => iterator.return?.()];
        if (t.random.int(2) === 0) acts.push(() => ledger.post(port, 2 * round + 1));
        if (t.random.int(3) === 0) await t.turn();
        for (const act of t.random.shuffle(acts)) {
          act();
          if (t.random.int(4) === 0) await t.turn();
          else if (t.random.int(2) === 0) await null;
        }
        for (const result of await t.within(2000, Promise.all(nexts), 'every next()')) {
          if (result.done !== true) ledger.take(result.value, 'next()');
        }
        t.equal((await iterator.next()).done, true, 'done of a next() after return()');
        for (const packet of port.getManySync(8, 0)) ledger.take(packet, 'the queue');
        t.deepEqual([...ledger.missing], [], `packets lost in round ${round}`);
      }
    },
  },
  {
    id: 'GET-08/abort',
    clause: 'GET-08',
    title: 'an aborted get loses no packet of an operation that finishes meanwhile',
    reference: 'a packet is dequeued only by a call that returns it',
    async run(t) {
      const port = t.createPort();
      const file = t.openFile(port, 9, t.tempFile('file', 'x'), 'r');
      for (let round = 0; round < t.count(100, 10); round++) {
        const abort = new AbortController();
        const waiting = port.get({ signal: abort.signal });
        const operation = file.read(t.room(1), { position: 0 });
        if (t.random.int(2) === 0) port.flush();
        if (t.random.int(2) === 0) await t.turn();
        abort.abort();
        const got = await t.within(2000, waiting, 'the get').catch((error: unknown) => {
          if (!(error instanceof Error) || error.name !== 'AbortError') throw error;
          return null;
        });
        t.equal(operation.pending, got === null, 'pending of the operation where the get had no packet');
        const packet = got ?? t.takeOneSync(port);
        t.equal(packet.operation, operation, 'operation of the packet');
        t.succeeded(packet, 'the read');
        t.nothing(port);
      }
    },
  },
  ...forEachWay(
    {
      clause: 'GET-11',
      title: 'gets on several ports in one thread don’t starve each other, one that never runs dry included',
      reference: 'the portable rule: ports are independent',
    },
    async (t, way) => {
      const flooded = t.createPort();
      let floods = 0;
      let running = true;
      const flood = consume(t, flooded, way, () => {
        floods++;
        if (running) flooded.post(1);
      });
      for (let i = 0; i < 600; i++) flooded.post(1);
      const others = waysAsync.map((other) => {
        const port = t.createPort();
        const file = t.openFile(port, 5, t.tempFile(undefined, 'x'), 'r');
        let packets = 0;
        const next = (): void => {
          if (packets % 2 === 0) port.post(1);
          else file.read(t.room(1), { position: 0 });
        };
        const consumer = consume(t, port, other, () => {
          packets++;
          if (packets < 50) next();
        });
        next();
        return { other, consumer, count: () => packets };
      });
      for (const { other, count } of others)
        await t.eventually(() => count() >= 50, `50 packets by ${other} beside the flood`, 4000);
      const seen = floods;
      await t.eventually(() => floods > seen, 'the flood goes on');
      running = false;
      for (const { consumer } of [...others, { consumer: flood }]) {
        consumer.stop();
        await t.within(2000, consumer.ended, 'the end of a consumer');
      }
    },
    waysAsync,
  ),
  {
    id: 'GET-11/sync',
    clause: 'GET-11',
    title: 'a blocking get on one port neither takes nor loses what belongs to the others',
    reference: 'the portable rule: ports are independent',
    async run(t) {
      const ports = Array.from({ length: 8 }, () => t.createPort());
      const waiting = ports.map((port) => port.get());
      const path = t.tempFile('file', 'x');
      for (const [i, port] of ports.entries()) t.openFile(port, i, path, 'r').read(t.room(1), { position: 0 });
      const blocking = t.createPort();
      for (let round = 0; round < 5; round++) {
        t.equal(blocking.getSync(5), null, 'a blocking get on an empty port');
        blocking.post(round);
        t.equal(t.takeOneSync(blocking).key, round, 'key on the port that blocks');
      }
      for (const [i, packet] of (await t.within(2000, Promise.all(waiting), 'the gets of the other ports')).entries()) {
        t.equal(packet?.key, i, 'key on another port');
      }
    },
  },
]);
