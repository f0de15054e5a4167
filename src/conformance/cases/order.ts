// The family ORDER: one queue for operations and posts, first in, first out, as one consumer sees it.

import { finished } from '../support/getting.js';
import { alsoInverted } from '../support/inverted.js';
import type { ConformanceCase, Context, Operation, Packet, Port } from '../types.js';
import { forEachWay, variants } from '../variants.js';

const range = (end: number): number[] => Array.from({ length: end }, (_, i) => i);

/** Fills the queue in a known order: posts, and operations that have finished before the next entry. Returns what must come out. */
function fillInOrder(t: Context, port: Port, count: number): (Operation | number)[] {
  const queued = port.stats().queued;
  const byte = t.room(1);
  // One byte into an empty kernel buffer, and its receive once it is there: both are finished when flush() returns. Each stream is
  // used once: the next operation of a stream would begin only when the packet of the one before has been seen.
  const ready: (() => Operation)[] = [];
  for (let i = 0; i < count / 8; i++) {
    const { a, b } = t.pair(port, 1, 2);
    for (const [from, to] of [
      [a, b],
      [b, a],
    ] as const) {
      ready.push(() => {
        ready.push(() => to.recv(byte));
        return from.send(byte);
      });
    }
  }
  const order: (Operation | number)[] = [];
  for (let i = 0; i < count; i++) {
    const act = t.random.int(2) === 0 ? ready.splice(t.random.int(ready.length), 1)[0] : undefined;
    if (act === undefined) {
      port.post(1000 + i);
      order.push(1000 + i);
    } else {
      order.push(act());
      finished(t, port, queued + order.length);
    }
  }
  return order;
}

const entryOf = (packet: Packet): Operation | number | undefined => (packet.kind === 'post' ? packet.key : packet.operation);

export const cases: ConformanceCase[] = alsoInverted(
  [
    ...forEachWay(
      {
        clause: 'ORDER-01',
        title: 'packets leave in the order of entry, posts and I/O in one queue',
        reference: 'the queue of a completion port is first in, first out',
      },
      async (t, way) => {
        const port = t.createPort();
        const order = fillInOrder(t, port, 300);
        const packets = await t.take(port, 300, { way, max: 1 + t.random.int(40) });
        for (const [i, entry] of order.entries()) t.equal(entryOf(packets[i] as Packet), entry, `packet ${i} of ${order.length}`);
        t.nothing(port);
      },
    ),
    {
      id: 'ORDER-01/mixed-ways',
      clause: 'ORDER-01',
      title: 'so it is when the ways of getting change, packet by packet, while more enters',
      reference: 'the queue of a completion port is first in, first out',
      async run(t) {
        const port = t.createPort();
        for (let round = 0; round < t.count(10); round++) {
          const order = fillInOrder(t, port, 150);
          const found: (Operation | number | undefined)[] = [];
          while (found.length < order.length) {
            const way = t.random.pick(['getSync', 'getManySync', 'get', 'getMany', 'iterator', 'dispatch'] as const);
            const count = Math.min(order.length - found.length, 1 + t.random.int(12));
            found.push(...(await t.take(port, count, { way })).map(entryOf));
            if (t.random.int(3) === 0 && order.length < 200) {
              port.post(5000 + order.length);
              order.push(5000 + order.length);
            }
          }
          for (const [i, entry] of order.entries()) t.equal(found[i], entry, `packet ${i} of round ${round}`);
          t.nothing(port);
        }
      },
    },

    ...forEachWay(
      {
        clause: 'ORDER-02',
        title: 'posts of one thread keep their order, gets in between and operations beside them',
        reference: 'the queue of a completion port is first in, first out',
      },
      async (t, way) => {
        const port = t.createPort();
        const file = t.openFile(port, 0, t.tempFile('file', 'x'), 'r');
        let posted = 0;
        let taken = 0;
        let reads = 0;
        let started = 0;
        while (taken < 5000) {
          for (let i = t.random.int(400); i > 0 && posted < 5000; i--) {
            port.post(posted++);
            if (t.random.int(20) === 0) {
              file.read(t.room(1), { position: 0 });
              started++;
            }
          }
          const there = posted - taken + started - reads;
          if (there === 0) continue;
          for (const packet of await t.take(port, 1 + t.random.int(there), { way, max: 1 + t.random.int(100) })) {
            if (packet.kind !== 'post') reads++;
            else if (packet.key !== taken++) t.fail(`post ${packet.key} came in place of ${taken - 1}`);
          }
        }
        await t.take(port, started - reads, { way });
        t.nothing(port);
      },
    ),

    ...variants(
      {
        clause: 'ORDER-03',
        title: 'per stream and direction, bytes are taken and packets enter in starting order',
        reference: 'the portable rule: overlapped receives and sends of a stream socket finish in the order of their start',
      },
      {
        'receives first': (t: Context, port: Port): number => streamOrder(t, port, 'receives'),
        'sends first': (t: Context, port: Port): number => streamOrder(t, port, 'sends'),
        'as it comes': (t: Context, port: Port): number => streamOrder(t, port, 'mixed'),
      },
      (t, run) => {
        const port = t.createPort();
        for (let round = 0; round < t.count(8); round++) t.equal(run(t, port), 0, 'bytes that are left over');
      },
    ),
    {
      id: 'ORDER-03/cancelled-between',
      clause: 'ORDER-03',
      title: 'receives that are cancelled take no byte and change nobody’s order',
      reference: 'the portable rule: overlapped receives of a stream socket finish in the order of their start',
      run(t) {
        const port = t.createPort();
        for (let round = 0; round < t.count(20); round++) {
          const { a, b } = t.pair(port, 1, 2);
          const receives = range(12).map(() => {
            const buffer = t.room(8);
            return { buffer, operation: b.recv(buffer) };
          });
          if (t.random.int(2) === 0) port.flush();
          const cancelled = new Set(
            t.random
              .shuffle(receives)
              .slice(0, 6)
              .map(({ operation }) => operation),
          );
          for (const operation of cancelled) t.equal(operation.cancel(), true, 'cancel() of a pending receive');
          a.send(t.pattern(0, 48));
          const left = receives.filter(({ operation }) => !cancelled.has(operation));
          const finished: (Operation | undefined)[] = [];
          let bytes = 0;
          while (finished.length < 6 || port.inFlight > 0) {
            const packet = t.takeOneSync(port);
            if (packet.kind === 'send') {
              t.succeeded(packet, 'the send');
              continue;
            }
            if (cancelled.has(packet.operation as Operation) && packet.error !== null) {
              t.failed(packet, { code: 'ECANCELED', by: 'cancel' }, 'a cancelled receive');
              t.equal(packet.bytesTransferred, 0, 'bytes of a cancelled receive');
              continue;
            }
            // One whose cancel lost the race takes its turn as the others do.
            t.succeeded(packet, 'a receive');
            const buffer = t.some(
              receives.find(({ operation }) => operation === packet.operation),
              'a receive of this round',
            ).buffer;
            t.sameBytes(buffer.subarray(0, packet.bytesTransferred), t.pattern(bytes, packet.bytesTransferred), 'the stream');
            bytes += packet.bytesTransferred;
            finished.push(packet.operation);
          }
          t.equal(bytes, 48, 'bytes that were received');
          const order = receives.filter(({ operation }) => finished.includes(operation)).map(({ operation }) => operation);
          for (const [i, operation] of order.entries()) t.equal(finished[i], operation, `receive ${i}`);
          t.atLeast(finished.length, left.length, 'receives that finished');
          a.close();
          b.close();
        }
      },
    },
    {
      id: 'ORDER-03/files',
      clause: 'ORDER-03',
      title: 'on files, packets may finish in any order, and each has its own data',
      reference: 'overlapped operations of a file finish in any order',
      run(t) {
        const port = t.createPort();
        const path = t.tempFile('file', t.pattern(0, 1 << 16));
        const file = t.openFile(port, 1, path);
        const open = new Map(
          range(200).map((id) => {
            const position = t.random.int(1 << 16);
            const buffer = t.room(1 + t.random.int(Math.min(512, (1 << 16) - position)));
            return [file.read(buffer, { position, id }), { id, position, buffer }] as const;
          }),
        );
        for (const packet of t.takeSync(port, 200)) {
          const operation = t.some(packet.operation, 'operation');
          const { id, position, buffer } = t.some(open.get(operation), 'a read whose packet has not come yet');
          open.delete(operation);
          t.succeeded(packet, 'a read');
          t.equal(packet.operationId, id, 'operationId');
          t.equal(packet.bytesTransferred, buffer.length, 'bytes');
          t.sameBytes(buffer, t.pattern(position, buffer.length), 'what was read');
        }
        t.nothing(port);
      },
    },
  ],
  ['ORDER-01'],
);

/**
 * Sends and receives of random sizes on both directions of one connection, many at once. Checks that packets come in starting order
 * per direction and that the bytes are the stream's; returns the bytes that nobody received.
 */
function streamOrder(t: Context, port: Port, first: 'receives' | 'sends' | 'mixed'): number {
  const { a, b } = t.pair(port, 1, 2);
  const ends = [
    { from: a, to: b },
    { from: b, to: a },
  ].map((end, salt) => ({
    ...end,
    salt,
    sent: 0,
    received: 0,
    sends: [] as Operation[],
    receives: [] as { operation: Operation; buffer: Uint8Array }[],
  }));
  const acts: (() => void)[] = [];
  for (const end of ends) {
    const send = (): void => {
      const length = 1 + t.random.int(20_000);
      end.sends.push(end.from.send(t.pattern(end.sent, length, end.salt)));
      end.sent += length;
    };
    const receive = (): void => {
      const buffer = t.room(1 + t.random.int(20_000));
      end.receives.push({ operation: end.to.recv(buffer), buffer });
    };
    for (let i = 0; i < 15; i++) {
      if (first === 'receives') acts.unshift(receive);
      else acts.push(receive);
      if (first === 'sends') acts.unshift(send);
      else acts.push(send);
    }
  }
  for (const act of first === 'mixed' ? t.random.shuffle(acts) : acts) {
    act();
    if (t.random.int(6) === 0) port.flush();
  }
  while (ends.some((end) => end.sends.length > 0 || end.received < end.sent)) {
    const packet = t.takeOneSync(port);
    t.succeeded(packet, packet.kind);
    const end = t.some(
      ends.find(({ from, to }) => (packet.kind === 'send' ? from : to).id === packet.handleId),
      'the packet’s direction',
    );
    if (packet.kind === 'send') {
      t.equal(packet.operation, end.sends.shift(), 'the oldest send of its direction');
      continue;
    }
    const oldest = t.some(end.receives.shift(), 'a receive in flight');
    t.equal(packet.operation, oldest.operation, 'the oldest receive of its direction');
    const bytes = oldest.buffer.subarray(0, packet.bytesTransferred);
    t.sameBytes(bytes, t.pattern(end.received, bytes.length, end.salt), 'the stream');
    end.received += bytes.length;
    if (end.received < end.sent && end.receives.length === 0) {
      const buffer = t.room(65_536);
      end.receives.push({ operation: end.to.recv(buffer), buffer });
    }
  }
  const left = ends.reduce((sum, end) => sum + end.sent - end.received, 0);
  a.close();
  b.close();
  t.takeSync(port, port.inFlight);
  return left;
}
