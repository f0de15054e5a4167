// CANCEL-01, -02, -03, -05, -08: what a cancel does to an operation that is pending, or isn't. Signals and timeouts are in
// cancel-signals.ts, races in cancel-races.ts.

import type { ConformanceCase, Context, Handle, Operation, Port } from '../types.js';
import { forEachWay, variants } from '../variants.js';
import { endOf, flights, mainFlights, noMore, settled } from './flight.js';
import { accepted, apart, connect } from './tcp-common.js';
import { testBuild } from './test-build.js';

const cancelled = 'CancelIoEx: the operation’s packet says ERROR_OPERATION_ABORTED (995), and there is one';
const notFound = 'CancelIoEx answers FALSE with ERROR_NOT_FOUND (1168) where there is nothing to cancel';

/** An operation under way that a cancel can’t reach any more because it is done. */
async function finishedBehindPost(t: Context, port: Port, start: () => Operation): Promise<Operation> {
  const operation = start();
  await t.turn();
  letFinish(t, port, 1);
  port.post(1); // takes what has finished to the queue, before it
  return operation;
}

/**
 * Gives `count` operations time to finish: at least 20 ms, more where the port still says that fewer are queued. A port whose packets are the
 * kernel's may say so for ever, so half a second is enough.
 */
function letFinish(t: Context, port: Port, count: number): void {
  const until = t.now() + 500;
  do {
    port.flush();
    t.sleepSync(20);
    port.flush();
  } while (port.stats().queued < count && t.now() < until);
}

export const cases: readonly ConformanceCase[] = [
  ...variants(
    {
      clause: 'CANCEL-01',
      title: 'a cancelled operation ends with ECANCELED once; its bytes are what was moved',
      reference: cancelled,
    },
    flights,
    (t, start) => {
      const port = t.createPort();
      const flight = start(t, port);
      settled(t, port, flight);
      const inFlight = port.inFlight;
      t.equal(flight.operation.cancel(), true, 'cancel() of a pending operation');
      t.equal(flight.operation.pending, true, 'pending until the packet is delivered');
      const packet = endOf(t, port, flight);
      t.failed(packet, { code: 'ECANCELED', by: 'cancel' }, 'the packet');
      if (flight.partly === true) t.atLeast(packet.bytesTransferred, 1, 'bytes of a send that was half done');
      t.equal(port.inFlight, inFlight - 1, 'inFlight after the packet');
      noMore(t, port, 'after the packet of the cancelled operation');
      t.equal(flight.operation.cancel(), false, 'cancel() after the packet');
      flight.after(packet);
    },
  ),

  ...forEachWay(
    { clause: 'CANCEL-01', title: 'each way of getting gives a cancelled operation’s packet once', reference: cancelled },
    async (t, way) => {
      const port = t.createPort();
      const { a } = t.pair(port, 1, 2);
      const all = t.count(50, 5);
      const pending = new Set<Operation>(Array.from({ length: all }, () => a.recv(t.room(1))));
      await t.turn();
      for (const operation of pending) t.equal(operation.cancel(), true, 'cancel()');
      for (const packet of await t.take(port, all, { way })) {
        t.failed(packet, { code: 'ECANCELED', by: 'cancel' }, 'a recv');
        t.ok(packet.operation !== undefined && pending.delete(packet.operation), 'each operation has one packet');
      }
      port.post(3);
      const packet = await t.takeOne(port, { way });
      t.equal(packet.key, 3, 'what comes after all of them');
      noMore(t, port, 'after all of them');
    },
  ),

  {
    id: 'CANCEL-01/twice',
    clause: 'CANCEL-01',
    title: 'cancelling again before the packet is taken makes no second one',
    reference: cancelled,
    run(t) {
      const port = t.createPort();
      for (const start of Object.values(mainFlights)) {
        const flight = start(t, port);
        settled(t, port, flight);
        for (let i = 0; i < 5; i++) {
          flight.operation.cancel();
          if (i === 2) port.flush();
        }
        flight.handle.cancel();
        const packet = endOf(t, port, flight);
        t.failed(packet, { code: 'ECANCELED', by: 'cancel' }, 'the packet');
        noMore(t, port, 'after it');
      }
    },
  },

  {
    id: 'CANCEL-02/finished',
    clause: 'CANCEL-02',
    title: 'cancelling a finished operation returns false, before and after its packet is taken, and harms nothing',
    reference: notFound,
    async run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const file = t.openFile(port, 3, t.tempFile('file', 'abc'));
      const view = t.room(8);
      const starts: [string, () => Operation, number][] = [
        ['send', () => b.send(new Uint8Array([1, 2, 3])), 3],
        ['recv', () => a.recv(view), 3],
        ['size', () => file.size(), 0],
        ['read', () => file.read(view, { position: 0 }), 3],
      ];
      for (const [name, start, bytes] of starts) {
        const operation = await finishedBehindPost(t, port, start);
        t.equal(operation.cancel(), false, `cancel() of a ${name} that has finished`);
        t.equal(operation.pending, true, 'pending until the packet is delivered');
        const packet = t.takeOneSync(port);
        t.ok(packet.operation === operation, 'the packet is of the operation');
        t.succeeded(packet, `a ${name} that had finished before it was cancelled`);
        t.equal(packet.bytesTransferred, bytes, 'bytes');
        t.equal(operation.cancel(), false, 'cancel() after the packet');
        t.equal(t.takeOneSync(port).kind, 'post', 'the next packet');
        t.equal(operation.cancel(), false, 'cancel() later');
      }
      noMore(t, port, 'after all');
    },
  },

  {
    id: 'CANCEL-02/unknown',
    clause: 'CANCEL-02',
    title: 'cancelling what was never started, was refused, or belongs to a closed port returns false and harms nothing',
    reference: notFound,
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const other = a.recv(t.room(4));
      const fresh = new t.api.Operation();
      t.equal(fresh.cancel(), false, 'cancel() of an operation that was never started');
      t.equal(fresh.pending, false, 'its pending');
      t.throws(() => a.recv(5 as never, fresh), { code: 'ERR_INVALID_ARG_TYPE' }, 'a start that is refused');
      t.equal(fresh.cancel(), false, 'cancel() of an operation whose start was refused');
      const posted = new t.api.Operation();
      port.post(1, 0, posted);
      t.equal(posted.cancel(), false, 'cancel() of an operation that was only posted');
      t.ok(t.takeOneSync(port).operation === posted, 'the post comes all the same');
      const second = t.createPort();
      const pair = t.pair(second, 1, 2);
      const gone = pair.a.recv(t.room(1));
      second.close();
      t.equal(gone.cancel(), false, 'cancel() of an operation of a closed port');
      b.send(new Uint8Array(2));
      const packets = t.takeSync(port, 2);
      t.ok(
        packets.some((packet) => packet.operation === other && packet.error === null && packet.bytesTransferred === 2),
        'the operation that was pending all the time',
      );
    },
  },

  {
    id: 'CANCEL-02/fetched',
    clause: 'CANCEL-02',
    title: 'operations whose packets are fetched, but not delivered yet, can’t be cancelled and keep their results',
    reference: notFound,
    run(t) {
      const port = t.createPort();
      const file = t.openFile(port, 3, t.tempFile('file', 'abcdef'));
      const operations = Array.from({ length: 20 }, () => file.size());
      letFinish(t, port, 20);
      port.post(0);
      const first = t.takeOneSync(port);
      for (const operation of operations) t.equal(operation.cancel(), false, 'cancel() of a finished operation');
      for (const packet of [first, ...t.takeSync(port, 19)]) {
        t.succeeded(packet, 'a size');
        t.equal(packet.result, 6, 'its result');
      }
      t.equal(t.takeOneSync(port).kind, 'post', 'the last packet');
      noMore(t, port, 'after it');
    },
  },

  {
    id: 'CANCEL-03',
    clause: 'CANCEL-03',
    title: 'handle.cancel() cancels all operations of the handle, says how many, and touches no other handle',
    reference: 'CancelIoEx with a NULL overlapped cancels all I/O of the handle, whichever thread issued it',
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const mine = new Set<Operation>();
      for (let i = 0; i < 10; i++) mine.add(a.recv(t.room(1)));
      mine.add(a.send(new Uint8Array(64 * 2 ** 20)));
      mine.add(a.send(new Uint8Array(10)));
      mine.add(a.shutdown());
      const others = t.pair(port, 3, 4);
      const stays = [others.a.recv(t.room(1)), others.b.recv(t.room(1))];
      const listener = t.listener(port, 5);
      stays.push(listener.accept());
      t.nothing(port, 5);
      // Two more that are not even flushed.
      mine.add(a.recv(t.room(1)));
      mine.add(a.recv(t.room(1)));
      const count = mine.size;
      t.equal(a.cancel(), count, 'what cancel() of the handle returned');
      for (const packet of t.takeSync(port, count)) {
        t.ok(packet.operation !== undefined && mine.delete(packet.operation), 'each operation of the handle has one packet');
        t.failed(packet, { code: 'ECANCELED', by: 'cancel' }, `a ${packet.kind}`);
      }
      noMore(t, port, 'after the packets of the cancelled handle');
      for (const operation of stays) t.equal(operation.pending, true, `pending of another handle’s ${operation.kind}`);
      t.equal(a.cancel(), 0, 'cancel() of a handle without pending operations');
      t.equal(b.cancel(), 0, 'cancel() of the other end');
      // The handle itself is as before.
      b.send(new Uint8Array([7]));
      const view = t.room(1);
      a.recv(view);
      t.takeSync(port, 2);
      t.equal(view[0], 7, 'what a recv gets after the cancel');
      t.equal(t.track(t.api.TcpSocket.openSync()).cancel(), 0, 'cancel() of a handle without a port');
    },
  },

  {
    id: 'CANCEL-03/same-address',
    clause: 'CANCEL-03',
    title: 'another listener of the same address is untouched',
    reference: 'CancelIoEx works on the handle that it is given, not on what the handle refers to',
    run(t) {
      // The OS without reusePort has no second listener of an address (TCP-10/reusePort).
      if (t.backend === 'iocp') t.notApplicable('this OS has no reusePort');
      const port = t.createPort();
      const first = t.track(t.api.TcpListener.listenSync({ port: 0, reusePort: true }));
      const second = t.track(t.api.TcpListener.listenSync({ port: first.address.port, reusePort: true }));
      port.associate(first, 1);
      port.associate(second, 2);
      const lost = [first.accept(), first.accept()];
      const stays = second.accept();
      t.nothing(port, 5);
      t.equal(first.cancel(), 2, 'what cancel() of the first listener returned');
      for (const packet of t.takeSync(port, 2))
        t.ok(lost.includes(packet.operation as Operation), 'the packet is of the first listener');
      noMore(t, port, 'after them');
      t.equal(stays.pending, true, 'pending of the second listener’s accept');
      first.close();
      connect(t, port, second, 3);
      const packets = t.takeSync(port, 2);
      accepted(
        t,
        t.some(
          packets.find((packet) => packet.operation === stays),
          'the second listener’s packet',
        ),
      );
    },
  },

  {
    id: 'CANCEL-03/same-file',
    clause: 'CANCEL-03',
    title: 'another handle of the same file is untouched',
    reference: 'CancelIoEx works on the handle that it is given, not on what the handle refers to',
    async run(t) {
      const answer = await testBuild<{ count: number; other: (string | null)[]; mine: (string | null)[]; took: number }>(
        t,
        `
        const path = ${JSON.stringify(t.tempFile('file', 'abc'))};
        const port = createPort();
        const [first, second] = [FileHandle.openSync(path, 'r+'), FileHandle.openSync(path, 'r+')];
        port.associate(first, 1);
        port.associate(second, 2);
        const begin = performance.now();
        for (let i = 0; i < 3; i++) { first.sync(); second.sync(); }
        port.flush();
        const count = first.cancel();
        const packets = [];
        while (packets.length < 6) packets.push(...port.getManySync(6, 3000));
        const codes = (key) => packets.filter((packet) => packet.key === key).map((packet) => packet.error?.code ?? null);
        console.log(JSON.stringify({ count, mine: codes(1), other: codes(2), took: performance.now() - begin }));
        `,
        { COMPLETION_PORT_TEST_STALL: '150' },
      );
      if (answer.took < 140) t.unable(`what is under test has no operation that stalls (six syncs took ${answer.took} ms)`);
      t.equal(answer.count, 3, 'what cancel() of the first handle returned');
      t.deepEqual(answer.other, [null, null, null], 'how the other handle’s operations ended');
      t.equal(answer.mine.length, 3, 'packets of the first handle');
      for (const code of answer.mine)
        t.ok(code === null || code === 'ECANCELED', `the end of a cancelled sync, which is ${code}`);
    },
  },

  ...variants(
    {
      clause: 'CANCEL-05',
      title: 'cancelled in the job that started it, before anything was flushed: its packet comes too',
      reference: cancelled,
    },
    flights,
    (t, start) => {
      const port = t.createPort();
      const flight = start(t, port);
      t.equal(flight.operation.cancel(), true, 'cancel() of an operation that was not flushed');
      const packet = endOf(t, port, flight);
      t.failed(packet, { code: 'ECANCELED', by: 'cancel' }, 'the packet');
      noMore(t, port, 'after it');
      flight.after(packet);
    },
  ),

  ...variants(
    {
      clause: 'CANCEL-05',
      title:
        'a thread that blocks behind its cancel doesn’t hold it up, on whichever port it blocks: what arrives then stays in the socket',
      reference: 'CancelIoEx has asked for the end of the request when it returns',
    },
    { 'then blocks': false, 'then blocks elsewhere': true } as const,
    (t, elsewhere) => {
      const port = t.createPort();
      const { socket, far, peer } = apart(t, port, elsewhere ? t.createPort() : port);
      for (let round = 0; round < 20; round++) {
        const recv = socket.recv(t.room(8));
        t.nothing(port, 2);
        t.equal(recv.cancel(), true, 'cancel()');
        const send = peer.send(new Uint8Array([round]));
        // The wait ends with the send, if it isn't the cancelled recv that ends it.
        const packets = [t.some(far.getSync(2000), 'the packet of the send')];
        packets.push(...t.takeSync(port, 1));
        const ended = t.some(
          packets.find((packet) => packet.operation === recv),
          'the packet of the recv',
        );
        t.failed(ended, { code: 'ECANCELED', by: 'cancel' }, 'a recv whose cancel came before the byte was sent');
        t.ok(
          packets.some((packet) => packet.operation === send),
          'the packet of the send is there',
        );
        socket.recv(t.room(8));
        t.equal(t.takeOneSync(port).bytesTransferred, 1, 'bytes of the next recv, which finds what came behind the cancel');
      }
      noMore(t, port, 'after all');
    },
  ),

  {
    id: 'CANCEL-08/one',
    clause: 'CANCEL-08',
    title: 'cancelling one operation leaves the handle’s others pending, whichever of them it is',
    reference: 'CancelIoEx with an overlapped cancels that one request',
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      for (const which of [0, 1, 2, 3, 4]) {
        const views = Array.from({ length: 5 }, () => t.room(2));
        const operations = views.map((view) => a.recv(view));
        if (which % 2 === 0) t.nothing(port, 2);
        t.equal(operations[which]?.cancel(), true, 'cancel()');
        const packet = t.takeOneSync(port);
        t.ok(packet.operation === operations[which], 'the packet is of the operation that was cancelled');
        t.failed(packet, { code: 'ECANCELED', by: 'cancel' }, 'it');
        noMore(t, port, 'after it');
        const others = operations.filter((_, index) => index !== which);
        for (const operation of others) t.equal(operation.pending, true, 'pending of the handle’s other operations');
        for (const [index, operation] of others.entries()) {
          b.send(new Uint8Array([index, which]));
          const packets = t.takeSync(port, 2);
          t.ok(
            packets.some((entry) => entry.operation === operation && entry.bytesTransferred === 2),
            'the others get their data in starting order',
          );
        }
        t.deepEqual(
          views.filter((_, index) => index !== which).map((view) => [...view]),
          [0, 1, 2, 3].map((index) => [index, which]),
          'what they got',
        );
      }
    },
  },

  {
    id: 'CANCEL-08/queue-full',
    clause: 'CANCEL-08',
    title: 'cancels work while the submission queue is full of operations that wait their turn',
    reference: 'CancelIoEx needs no room in any queue',
    run(t) {
      const port = t.createPort({ ringEntries: 8, maxOperations: 4096 });
      const listeners = Array.from({ length: 40 }, (_, index) => t.listener(port, index));
      const { a } = t.pair(port, 100, 101);
      const operations: Operation[] = [];
      for (let i = 0; i < 25; i++) for (const listener of listeners) operations.push(listener.accept());
      for (let i = 0; i < 1000; i++) operations.push(a.recv(t.room(1)));
      const chosen = t.random.shuffle(operations).slice(0, 700);
      for (const operation of chosen) t.equal(operation.cancel(), true, 'cancel()');
      const left = new Set<unknown>(chosen);
      for (const packet of t.takeSync(port, chosen.length)) {
        t.ok(left.delete(packet.operation), 'each cancelled operation has one packet, and no other');
        t.failed(packet, { code: 'ECANCELED', by: 'cancel' }, `a ${packet.kind}`);
      }
      noMore(t, port, 'after them');
      const cancelledOnes = new Set(chosen);
      for (const operation of operations) {
        t.equal(operation.pending, !cancelledOnes.has(operation), 'pending of an operation, of those that were not cancelled');
      }
      t.equal(port.inFlight, operations.length - chosen.length, 'inFlight');
      let rest = 0;
      for (const handle of [...listeners, a] as Handle[]) rest += handle.cancel();
      t.equal(rest, operations.length - chosen.length, 'operations that the handles’ cancel() found');
      t.takeSync(port, rest);
    },
  },
];
