// The family EX: getting many packets at once. The reference is GetQueuedCompletionStatusEx.

import { finished } from '../support/getting.js';
import type { ConformanceCase, Operation, Packet, Port } from '../types.js';
import { variants } from '../variants.js';

type GetMany = (port: Port, max: number, timeout?: number) => Promise<Packet[]>;

const both: Record<'getManySync' | 'getMany', GetMany> = {
  getManySync: async (port, max, timeout) => port.getManySync(max, timeout),
  getMany: async (port, max, timeout) => port.getMany(max, timeout === undefined ? undefined : { timeout }),
};

const keysOf = (packets: readonly Packet[]): number[] => packets.map((packet) => packet.key);
const range = (begin: number, end: number): number[] => Array.from({ length: end - begin }, (_, i) => begin + i);

export const cases: ConformanceCase[] = [
  ...variants(
    {
      clause: 'EX-01',
      title: "up to max packets in queue order, and it doesn't wait to fill up",
      reference: 'GetQueuedCompletionStatusEx removes up to ulCount entries, and returns as soon as there is one',
    },
    both,
    async (t, getMany) => {
      const port = t.createPort();
      for (const key of range(0, 10)) port.post(key);
      t.deepEqual(keysOf(await getMany(port, 4)), [0, 1, 2, 3], 'keys of the first four');
      t.deepEqual(keysOf(await getMany(port, 1)), [4], 'key of the next');
      // No limit of time: it may not wait for 100 packets where five are there.
      t.deepEqual(
        keysOf(await t.within(2000, getMany(port, 100), 'a getMany that can’t fill up')),
        [5, 6, 7, 8, 9],
        'keys of the rest',
      );
      t.deepEqual(await getMany(port, 4, 0), [], 'packets of the empty port');
    },
  ),
  ...variants(
    {
      clause: 'EX-01',
      title: 'operations and posts come out together, in queue order',
      reference: 'an array of OVERLAPPED_ENTRY, in the order of the queue',
    },
    { 'mixed getManySync': both.getManySync, 'mixed getMany': both.getMany },
    async (t, getMany) => {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const wanted: (Operation | number)[] = [];
      // A socket's second send begins when the first one's end has been seen, which only a post or a get is sure to do: so each
      // socket sends at most once between two posts.
      let idle = [a, b];
      for (let i = 0; i < 30; i++) {
        const sender = t.random.int(2) === 0 ? undefined : idle[t.random.int(idle.length)];
        if (sender === undefined) {
          port.post(100 + i);
          wanted.push(100 + i);
          idle = [a, b];
        } else {
          // A byte into an empty buffer of the kernel: the send is done as soon as it is submitted.
          wanted.push(sender.send(new Uint8Array(1)));
          finished(t, port, wanted.length);
          idle = idle.filter((socket) => socket !== sender);
        }
      }
      const found: (Operation | number | undefined)[] = [];
      while (found.length < wanted.length) {
        const max = 1 + t.random.int(9);
        const packets = await getMany(port, max, 2000);
        t.atLeast(packets.length, 1, 'packets of a batch');
        t.less(packets.length, max + 1, 'packets of a batch');
        found.push(...packets.map((packet) => (packet.kind === 'post' ? packet.key : packet.operation)));
      }
      for (const [i, entry] of wanted.entries()) t.equal(found[i], entry, `packet ${i} of ${wanted.length}`);
      t.nothing(port);
    },
  ),
  {
    id: 'EX-01/at-least-one',
    clause: 'EX-01',
    title: 'it waits for at least one, and gives none only when its time runs out',
    reference: 'with no entry it waits until one is there or dwMilliseconds have passed',
    async run(t) {
      const port = t.createPort();
      for (let round = 0; round < 10; round++) {
        const waiting = port.getMany(5);
        await (round % 2 === 0 ? t.turn() : t.sleep(2));
        port.post(round);
        const packets = await t.within(2000, waiting, 'the waiting getMany');
        t.deepEqual(keysOf(packets), [round], 'keys');
      }
      const begin = t.now();
      t.deepEqual(await port.getMany(5, { timeout: 20 }), [], 'packets of an empty port');
      t.deepEqual(port.getManySync(5, 20), [], 'packets of an empty port');
      t.atLeast(t.now() - begin, 40, 'milliseconds of two gets with timeout 20');
    },
  },
  {
    id: 'EX-01/waits-for-an-operation',
    clause: 'EX-01',
    title: 'a blocking getManySync waits for an operation and returns with it, not with the time',
    reference: 'with no entry it waits until one is there',
    run(t) {
      const port = t.createPort();
      const file = t.openFile(port, 3, t.tempFile('file', t.pattern(0, 4096)));
      for (let round = 0; round < 50; round++) {
        const operation = file.read(t.room(4096), { position: 0 });
        const packets = port.getManySync(8);
        t.deepEqual(keysOf(packets), [3], 'keys');
        t.equal(packets[0]?.operation, operation, 'operation');
      }
    },
  },

  ...variants(
    {
      clause: 'EX-02',
      title: 'a max of 0, negative, fractional or no number at all is refused, and takes nothing',
      reference: 'ulCount 0 is ERROR_INVALID_PARAMETER',
    },
    both,
    async (t, getMany) => {
      const port = t.createPort();
      port.post(1);
      for (const max of [0, -1, -(2 ** 31), 0.5, 1.5, Number.NaN, Number.NEGATIVE_INFINITY, 2 ** 53]) {
        const refused = (async () => getMany(port, max, 0))();
        await t.rejects(refused, { code: 'ERR_OUT_OF_RANGE', name: 'RangeError' }, `max ${max}`);
      }
      for (const max of [undefined, null, '1', {}, 1n, true]) {
        const refused = (async () => getMany(port, max as unknown as number, 0))();
        await t.rejects(refused, { code: 'ERR_INVALID_ARG_TYPE', name: 'TypeError' }, `max ${String(max)}`);
      }
      t.equal(t.takeOneSync(port).key, 1, 'key of the packet that was there');
    },
  ),
  ...variants(
    {
      clause: 'EX-02',
      title: "a max above the queue's length returns the queue, however long",
      reference: 'ulNumEntriesRemoved is what was there',
    },
    { 'queue getManySync': both.getManySync, 'queue getMany': both.getMany },
    async (t, getMany) => {
      const port = t.createPort();
      // Beyond any batch that an implementation moves at once inside, too.
      for (const length of [1, 2, 511, 512, 513, 700, 1024, 1025, 5000]) {
        for (const key of range(0, length)) port.post(key);
        const max = t.random.pick([length, length + 1, 100_000, 2 ** 31 - 1]);
        t.deepEqual(keysOf(await getMany(port, max, 2000)), range(0, length), `keys of a queue of ${length} with max ${max}`);
        t.nothing(port);
      }
    },
  ),

  ...variants(
    {
      clause: 'EX-03',
      title: 'the packets of one batch are its caller’s alone: all delivered, and nobody else’s',
      reference: 'the entries that one call removes are returned to the thread that called',
    },
    both,
    async (t, getMany) => {
      const port = t.createPort({ concurrency: 1 });
      const path = t.tempFile('file', 'x');
      const files = range(0, 20).map((key) => t.openFile(port, key, path, 'r'));
      const operations = files.map((file) => file.read(t.room(1), { position: 0 }));
      const owner = new Map<Operation, number>();
      for (let call = 0; owner.size < operations.length; call++) {
        const packets = await getMany(port, 6, 2000);
        t.atLeast(packets.length, 1, 'packets of a batch');
        // A batch counts once towards the concurrency, and all of it is delivered now.
        for (const packet of packets) {
          const operation = t.some(packet.operation, 'operation');
          t.equal(owner.has(operation), false, 'an earlier call had this packet');
          owner.set(operation, call);
          t.equal(operation.pending, false, 'pending of each operation of the batch');
        }
        t.equal(port.inFlight, operations.length - owner.size, 'inFlight: operations of which no call had the packet');
        for (const operation of operations) t.equal(operation.pending, !owner.has(operation), 'pending of every operation');
      }
      t.nothing(port);
    },
  ),
  {
    id: 'EX-03/waiting-together',
    clause: 'EX-03',
    title: 'of two that wait, each gets batches of its own, in queue order',
    reference: 'the entries that one call removes are returned to the thread that called',
    async run(t) {
      const port = t.createPort();
      for (let round = 0; round < 50; round++) {
        const waiting = [port.getMany(4), port.getMany(4), port.get().then((packet) => [t.some(packet, 'a packet')])];
        if (t.random.int(2) === 0) await t.turn();
        const count = 3 + t.random.int(20);
        for (const key of range(0, count)) port.post(key);
        const keys: number[] = [];
        let open = waiting.length;
        const all = waiting.map(async (one) => {
          const batch = keysOf(await one);
          open--;
          t.deepEqual(batch, range(batch[0] ?? 0, (batch[0] ?? 0) + batch.length), 'keys of one batch');
          keys.push(...batch);
        });
        // Whoever came too late for these packets gets one more.
        for (let key = count; open > 0 && key < count + 100; key++) {
          await t.turn();
          if (open > 0) port.post(key);
        }
        await t.within(2000, Promise.all(all), 'all three gets');
        keys.push(...keysOf(port.getManySync(200, 0)));
        t.deepEqual(
          [...keys].sort((a, b) => a - b),
          range(0, keys.length),
          'keys of all batches',
        );
        t.atLeast(keys.length, count, 'packets in all');
      }
    },
  },

  ...variants(
    {
      clause: 'EX-04',
      title: 'a thousand queued packets come out in batches of 64 without loss, repetition or reordering',
      reference: 'up to ulCount entries a call, in the order of the queue',
    },
    both,
    async (t, getMany) => {
      const port = t.createPort();
      for (const key of range(0, 1000)) port.post(key, 2 * key, { id: 3 * key });
      const sizes: number[] = [];
      const packets: Packet[] = [];
      while (packets.length < 1000) {
        const batch = await getMany(port, 64, 2000);
        if (batch.length === 0) t.fail(`only ${packets.length} of 1000 packets came`);
        sizes.push(batch.length);
        packets.push(...batch);
      }
      t.deepEqual(sizes, [...Array.from({ length: 15 }, () => 64), 40], 'sizes of the batches');
      for (const [i, packet] of packets.entries()) {
        if (packet.key !== i || packet.bytesTransferred !== 2 * i || packet.operationId !== 3 * i) {
          t.fail(`packet ${i}: key ${packet.key}, bytes ${packet.bytesTransferred}, id ${packet.operationId}`);
        }
      }
      t.nothing(port);
    },
  ),
  ...variants(
    {
      clause: 'EX-04',
      title: 'so do operations in flight: each packet once, whole batches at a time',
      reference: 'up to ulCount entries a call',
    },
    { 'operations getManySync': both.getManySync, 'operations getMany': both.getMany },
    async (t, getMany) => {
      const port = t.createPort();
      const file = t.openFile(port, 4, t.tempFile('file', t.pattern(0, 1000)), 'r');
      const buffers = range(0, 1000).map(() => t.room(1));
      const open = new Map(buffers.map((buffer, i) => [file.read(buffer, { position: i, id: i }), i]));
      while (open.size > 0) {
        const batch = await getMany(port, 64, 2000);
        if (batch.length === 0) t.fail(`${open.size} of 1000 packets are missing`);
        t.less(batch.length, 65, 'packets of a batch');
        for (const packet of batch) {
          const operation = t.some(packet.operation, 'operation');
          const index = t.some(open.get(operation), 'an operation whose packet has not come yet');
          open.delete(operation);
          t.succeeded(packet, 'a read');
          t.equal(packet.operationId, index, 'operationId');
        }
      }
      t.sameBytes(Buffer.concat(buffers), t.pattern(0, 1000), 'what the reads gave');
      t.nothing(port);
    },
  ),
];
