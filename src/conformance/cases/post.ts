// The family POST: packets put in the queue by hand. They carry what they were given and touch nothing.

import { checkPost } from '../support/getting.js';
import type { ConformanceCase, Operation, Packet, Port } from '../types.js';
import { forEachWay, variants } from '../variants.js';

const range = (end: number): number[] => Array.from({ length: end }, (_, i) => i);

/** Where a smaller type, a sign or a float of 32 bits would show. */
const carried = [0, 1, 127, 128, 2 ** 16, 2 ** 24 + 1, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 2, 2 ** 32 - 1];
const wide = [...carried, 2 ** 32, 2 ** 32 + 1, 2 ** 40 + 1, 2 ** 52 + 1, 2 ** 53 - 2, 2 ** 53 - 1];

const outside = [-1, -(2 ** 31), 0.5, 1.5, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 2 ** 53, 1e300];
const noNumber = [null, '1', 1n, {}, [1], true, Symbol('1')];

/** One number of a post, put in its place. */
const fields: Record<string, { post: (port: Port, value: number) => void; mayBeAbsent: boolean; tooLarge: number[] }> = {
  key: { post: (port, value) => port.post(value), mayBeAbsent: false, tooLarge: [] },
  bytes: { post: (port, value) => port.post(1, value), mayBeAbsent: true, tooLarge: [2 ** 32, 2 ** 53 - 1] },
  id: { post: (port, value) => port.post(1, 0, { id: value }), mayBeAbsent: false, tooLarge: [] },
};

export const cases: ConformanceCase[] = [
  ...forEachWay(
    {
      clause: 'POST-01',
      title: 'key, bytes and operation id come back as given, to the ends of their ranges',
      reference: 'PostQueuedCompletionStatus: the three values are returned as they were passed, unexamined',
    },
    async (t, way) => {
      const port = t.createPort();
      const posts: [number, number, number][] = [];
      for (const key of wide) posts.push([key, t.random.pick(carried), t.random.pick(wide)]);
      for (const bytes of carried) posts.push([t.random.pick(wide), bytes, t.random.pick(wide)]);
      for (const id of wide) posts.push([t.random.pick(wide), t.random.pick(carried), id]);
      for (const [key, bytes, id] of posts) port.post(key, bytes, { id });
      for (const [i, packet] of (await t.take(port, posts.length, { way })).entries()) {
        const [key, bytes, id] = posts[i] as [number, number, number];
        checkPost(t, packet, key, bytes, undefined, id);
      }
      t.nothing(port);
    },
  ),
  {
    id: 'POST-01/operation',
    clause: 'POST-01',
    title: 'with an operation, with an id alone, with none at all',
    reference: 'lpOverlapped may be NULL or any value',
    run(t) {
      const port = t.createPort();
      const operation = new t.api.Operation('mine', { id: 42 });
      const plain = new t.api.Operation();
      port.post(1);
      port.post(2, 3);
      port.post(4, 5, null);
      port.post(6, 7, undefined);
      port.post(8, 9, { id: 10 });
      port.post(11, 12, operation);
      port.post(13, undefined, operation);
      port.post(14, 0, plain);
      const packets = t.takeSync(port, 8);
      const wanted: [number, number, Operation | undefined, number][] = [
        [1, 0, undefined, 0],
        [2, 3, undefined, 0],
        [4, 5, undefined, 0],
        [6, 7, undefined, 0],
        [8, 9, undefined, 10],
        [11, 12, operation, 42],
        [13, 0, operation, 42],
        [14, 0, plain, plain.id],
      ];
      for (const [i, [key, bytes, of, id]] of wanted.entries()) checkPost(t, packets[i] as Packet, key, bytes, of, id);
      t.equal(operation.context, 'mine', 'context of the operation');
      t.equal(operation.pending, false, 'pending of an operation that was only posted');
      t.equal(operation.kind, null, 'kind of an operation that was only posted');
      // The id is read at the post, not at the get.
      operation.id = 43;
      port.post(1, 0, operation);
      operation.id = 44;
      t.equal(t.takeOneSync(port).operationId, 43, 'operationId as it was at the post');
    },
  },
  ...variants(
    {
      clause: 'POST-01',
      title: 'out of range is ERR_OUT_OF_RANGE, and nothing is posted',
      reference: 'the portable rule: what can’t come back as given is refused',
    },
    Object.fromEntries(Object.entries(fields).map(([name, field]) => [`range of ${name}`, field])),
    (t, { post, mayBeAbsent, tooLarge }) => {
      const port = t.createPort();
      for (const value of [...outside, ...tooLarge]) {
        t.throws(() => post(port, value), { code: 'ERR_OUT_OF_RANGE', name: 'RangeError' }, `a post with ${value}`);
      }
      for (const value of mayBeAbsent ? noNumber : [...noNumber, undefined]) {
        const wrong = value as unknown as number;
        t.throws(() => post(port, wrong), { code: 'ERR_INVALID_ARG_TYPE', name: 'TypeError' }, `a post with ${String(value)}`);
      }
      for (const value of [1, 'id', true, 1n, Symbol('id')]) {
        const wrong = value as unknown as { id: number };
        t.throws(() => port.post(1, 0, wrong), { code: 'ERR_INVALID_ARG_TYPE' }, `a post with the operation ${String(value)}`);
      }
      t.nothing(port);
      t.equal(port.stats().queued, 0, 'stats().queued');
    },
  ),
  {
    id: 'POST-01/nothing-is-read',
    clause: 'POST-01',
    title: 'nothing is read or written through key, bytes or id, whatever they look like',
    reference: 'the values are the program’s own: often pointers, never followed',
    run(t) {
      const port = t.createPort({ maxOperations: 16 });
      const file = t.openFile(port, 5, t.tempFile('file', 'abcd'), 'r');
      // Slots, generations, handle ids and addresses that are real, or were.
      const first = file.read(t.room(1), { position: 0 });
      t.equal(t.takeOneSync(port).operation, first, 'operation');
      const view = port.allocate(64).fill(9);
      const lookalikes = [
        0,
        1,
        2,
        15,
        16,
        file.id,
        file.id + 1,
        2 ** 20,
        2 ** 20 + 1,
        2 ** 32,
        0x7fff_ffff_f000,
        2 ** 47,
        2 ** 53 - 1,
      ];
      const live = file.read(view, { position: 0, offset: 0, length: 4 });
      for (const value of lookalikes) port.post(value, value % 2 ** 32, { id: value });
      const packets = t.takeSync(port, lookalikes.length + 1);
      const posts = packets.filter((packet) => packet.kind === 'post');
      for (const [i, value] of lookalikes.entries()) checkPost(t, posts[i] as Packet, value, value % 2 ** 32, undefined, value);
      t.equal(packets.filter((packet) => packet.operation === live).length, 1, 'packets of the operation in flight');
      t.equal(Buffer.from(view.subarray(0, 5)).toString('latin1'), 'abcd\t', 'the operation’s memory');
    },
  },

  {
    id: 'POST-02',
    clause: 'POST-02',
    title: 'a million unread posts are only memory, and come out in order',
    reference: 'the queue has no limit but non-paged pool',
    soak: true,
    timeoutMs: 60_000,
    async run(t) {
      const port = t.createPort({ maxOperations: 1 });
      const count = t.count(1_000_000, 1000);
      for (let i = 0; i < count; i++) port.post(i * 8191, i % 2 ** 32, { id: 2 ** 53 - 1 - i });
      t.equal(port.inFlight, 0, 'inFlight: posts are no operations');
      t.equal(port.stats().queued, count, 'stats().queued');
      for (let i = 0; i < count; ) {
        const packets = port.getManySync(1 + t.random.int(4000), 0);
        if (packets.length === 0) t.fail(`only ${i} of ${count} posts came`);
        for (const packet of packets) {
          if (packet.key !== i * 8191 || packet.bytesTransferred !== i % 2 ** 32 || packet.operationId !== 2 ** 53 - 1 - i) {
            t.fail(`packet ${i}: key ${packet.key}, bytes ${packet.bytesTransferred}, id ${packet.operationId}`);
          }
          i++;
        }
      }
      t.nothing(port);
    },
  },
  {
    id: 'POST-02/memory',
    clause: 'POST-02',
    title: 'posts that were read take no memory, and unread ones go with their port',
    reference: 'a dequeued packet is freed',
    soak: true,
    timeoutMs: 60_000,
    async run(t) {
      const fill = (port: Port, count: number): void => {
        const operation = new t.api.Operation();
        for (let i = 0; i < count; i++) port.post(i, 0, i % 3 === 0 ? operation : null);
      };
      const round = async (): Promise<void> => {
        const port = t.api.CompletionPort.create({ backend: t.backend as 'auto', arenaBytes: 65_536 });
        fill(port, 50_000);
        for (let taken = 0; taken < 50_000; ) taken += port.getManySync(5000, 0).length;
        fill(port, 50_000);
        port.close();
        await t.within(2000, port.closed, 'port.closed');
        t.gc();
        await t.turn();
      };
      for (let i = 0; i < 4; i++) await round();
      const before = t.residentBytes();
      for (let i = 0; i < t.count(20, 2); i++) await round();
      // 20 rounds of 100,000 packets; kept, they would be 128 MB at 64 bytes each.
      t.less(t.residentBytes() - before, 32 * 2 ** 20, 'resident bytes that came');
    },
  },
  {
    id: 'POST-02/full',
    clause: 'POST-02',
    title: 'posting never fails for lack of a waiter or of room for operations',
    reference: 'posts need no outstanding request',
    run(t) {
      const port = t.createPort({ maxOperations: 1, ringEntries: 8, arenaBytes: 0 });
      t.listener(port, 1).accept();
      for (const key of range(10_000)) port.post(key);
      for (const key of range(10_000)) {
        const packet = t.some(port.getSync(0), `post ${key}`);
        if (packet.key !== key) t.fail(`packet ${key} has the key ${packet.key}`);
      }
      t.equal(port.inFlight, 1, 'inFlight');
      t.nothing(port);
    },
  },

  ...forEachWay(
    {
      clause: 'POST-04',
      title: "posting while a packet is handled is allowed; the handler's posts come after what was queued",
      reference: 'the queue is first in, first out, whoever posts',
    },
    async (t, way) => {
      const port = t.createPort();
      for (const key of range(300)) port.post(key);
      const keys: number[] = [];
      const handle = (packet: Packet): void => {
        keys.push(packet.key);
        if (packet.key < 600) port.post(packet.key + 300);
      };
      while (keys.length < 900) {
        if (way === 'dispatch') {
          const consumer = port.dispatch(handle);
          await t.eventually(() => keys.length >= 900, '900 packets');
          consumer.stop();
        } else if (way === 'iterator') {
          for await (const packet of port) {
            handle(packet);
            if (keys.length === 900) break;
          }
        } else for (const packet of await t.take(port, Math.min(900 - keys.length, 7), { way })) handle(packet);
      }
      t.deepEqual(keys, range(900), 'keys');
      t.nothing(port);
    },
  ),
  {
    id: 'POST-04/many-each',
    clause: 'POST-04',
    title: 'several posts of one handler keep their order, behind all that was queued',
    reference: 'the queue is first in, first out',
    async run(t) {
      const port = t.createPort();
      const expected = range(20);
      const keys: number[] = [];
      let next = 20;
      for (const key of expected) port.post(key);
      port.dispatch((packet) => {
        keys.push(packet.key);
        for (let i = t.random.int(3); i > 0 && next < 5000; i--) {
          expected.push(next);
          port.post(next++);
        }
        if (keys.length === expected.length && next < 5000) {
          expected.push(next);
          port.post(next++);
        }
      });
      await t.eventually(() => keys.length >= 5000, 'all packets');
      t.deepEqual(keys, expected, 'keys');
    },
  },

  {
    id: 'POST-05',
    clause: 'POST-05',
    title: 'posting to a closed port throws ERR_PORT_CLOSED and never crashes while the close runs',
    reference: 'a closed handle is ERROR_INVALID_HANDLE',
    async run(t) {
      const operation = new t.api.Operation();
      for (let round = 0; round < 100; round++) {
        const port = t.createPort({ arenaBytes: 0 });
        // With an accept in flight the close takes a while; posts go on meanwhile, from every kind of job.
        if (round % 2 === 0) t.listener(port, 1).accept();
        for (let i = t.random.int(5); i > 0; i--) port.post(i, 0, t.random.pick([operation, null]));
        if (round % 3 === 0) await t.turn();
        const refused = (when: string): void => {
          t.throws(() => port.post(1), { code: 'ERR_PORT_CLOSED' }, when);
          t.throws(() => port.post(1, 2, operation), { code: 'ERR_PORT_CLOSED' }, when);
        };
        let running = true;
        const during = (): void => {
          refused('a post while the close runs');
          if (running) setImmediate(during);
        };
        port.close();
        refused('a post in the job of the close');
        queueMicrotask(() => refused('a post in a microtask of that job'));
        setImmediate(during);
        await t.within(2000, port.closed, 'port.closed');
        running = false;
        refused('a post after port.closed');
      }
    },
  },
  {
    id: 'POST-06',
    clause: 'POST-06',
    title: 'a posted packet says so; otherwise it is what the poster put in it, whatever its operation did before',
    reference: 'a posted packet can’t be told from another but by its contents; here `kind` tells it',
    run(t) {
      const port = t.createPort();
      const file = t.openFile(port, 5, t.tempFile('file', 'x'), 'r');
      const operation = new t.api.Operation({ state: 1 }, { id: 3 });
      port.post(1, 2, operation);
      checkPost(t, t.takeOneSync(port), 1, 2, operation, 3);
      operation.position = 0;
      file.read(t.room(1), operation);
      const read = t.takeOneSync(port);
      t.equal(read.kind, 'read', 'kind of the read');
      t.notEqual(read.handleId, 0, 'handleId of the read');
      // After a success and after a failure: neither its kind nor its error is the post's.
      port.post(5, 9, operation);
      checkPost(t, t.takeOneSync(port), 5, 9, operation, 3);
      file.write(new Uint8Array(1), operation);
      t.failed(t.takeOneSync(port), { code: 'EBADF' }, 'a write to a file opened for reading');
      port.post(5, 9, operation);
      const packet = t.takeOneSync(port);
      checkPost(t, packet, 5, 9, operation, 3);
      t.deepEqual(packet.operation?.context, { state: 1 }, 'context');
    },
  },
];
