// TCP-05 and TCP-07: sends that are whole, and the order of what is pending on one connection. The kernel's buffers
// are made small first, so that sends really wait for the receiver.

import { reasons } from '../support/shared.js';
import type { ConformanceCase, Context, Operation, Packet, Way } from '../types.js';
import { variants } from '../variants.js';
import { type BufferKind, bufferKindList, bufferKinds, bufferOf, drive, makeBuffer, moved, packetOf } from './buffers.js';
import { narrow, narrowLimit, receive } from './tcp-common.js';

const sending = 'An overlapped WSASend on a stream completes when the transport has taken all bytes of its buffers';
const ordering = 'Several WSARecv or WSASend pending on a socket are served in the order of the calls';

/** Bytes that repeat with a prime period: quick to make and to compare where there are many. */
const period = 1_048_573;

function largeStream(t: Context, length: number): Uint8Array<SharedArrayBuffer> {
  const block = t.pattern(0, period, t.seed % 1000);
  const view = new Uint8Array(new SharedArrayBuffer(length));
  for (let at = 0; at < length; at += period) view.set(block.subarray(0, Math.min(period, length - at)), at);
  return view;
}

const wholeSends: ConformanceCase[] = [
  ...variants<BufferKind | BufferKind[]>(
    { clause: 'TCP-05', title: 'a send waits until the kernel has taken all of it, and then says all of it', reference: sending },
    { ...bufferKinds, vectored: ['arena', 'shared', 'heap'], 'vectored-shared': ['shared', 'shared', 'shared', 'shared'] },
    (t, kind) => {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      narrow(a, b);
      const length = 4 * 2 ** 20 + t.random.int(10_000);
      const content = t.pattern(0, length);
      let operation: Operation;
      if (typeof kind === 'string') operation = a.send(bufferOf(port, kind, content));
      else {
        const part = Math.ceil(length / kind.length);
        operation = a.send(kind.map((each, i) => bufferOf(port, each, content.subarray(i * part, (i + 1) * part))));
      }
      t.nothing(port, 30);
      t.ok(operation.pending, 'the send is pending while nobody receives');
      let sent: Packet | null = null;
      const stream = receive(t, port, b, length, {
        chunk: 100_000,
        other(packet, received) {
          t.ok(packet.operation === operation && sent === null, 'the one packet of the send');
          sent = packet;
          t.atLeast(received, length - narrowLimit, 'bytes received when the send completed');
        },
      });
      const packet = sent ?? packetOf(t, port, operation, 'send');
      t.succeeded(packet, 'send');
      t.equal(packet.kind, typeof kind === 'string' ? 'send' : 'sendv', 'kind');
      t.equal(packet.bytesTransferred, length, 'bytes of the send');
      t.sameBytes(stream.bytes, content, 'what arrived');
    },
  ),

  ...variants<Way>(
    { clause: 'TCP-05', title: '100 MiB in one send arrive whole', reference: sending, soak: true, timeoutMs: 40_000 },
    { '100MiB': 'getManySync', '100MiB-dispatch': 'dispatch' },
    async (t, way) => {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const length = 100 * 2 ** 20;
      const content = largeStream(t, length);
      const send = a.send(content);
      const view = port.allocate(2 ** 20);
      b.recv(view);
      let received = 0;
      let sent = 0;
      await drive(
        t,
        port,
        way,
        (packet) => {
          t.succeeded(packet, packet.kind);
          if (packet.operation === send) {
            sent++;
            t.equal(packet.bytesTransferred, length, 'bytes of the send');
            return;
          }
          const bytes = packet.bytesTransferred;
          t.ok(bytes > 0, 'a recv before the end has bytes');
          if (Buffer.compare(view.subarray(0, bytes), content.subarray(received, received + bytes)) !== 0) {
            t.sameBytes(
              view.subarray(0, bytes),
              content.subarray(received, received + bytes),
              `the stream from byte ${received} on`,
            );
          }
          received += bytes;
          if (received < length) b.recv(view);
        },
        () => received === length && sent === 1,
        35_000,
      );
      t.nothing(port);
    },
  ),

  {
    id: 'TCP-05/random',
    clause: 'TCP-05',
    title: 'sends of any size to a slow receiver are never short',
    reference: sending,
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      narrow(a, b);
      for (let round = 0; round < 25; round++) {
        const length = Math.ceil(2 ** (t.random.next() * 20));
        const content = t.pattern(0, length, round);
        const operation = a.send(bufferOf(port, 'heap', content));
        let done = 0;
        const check = (packet: Packet): void => {
          t.ok(packet.operation === operation, 'the packet is of the send');
          t.succeeded(packet, 'send');
          t.equal(packet.bytesTransferred, length, 'bytes of the send');
          done++;
        };
        const stream = receive(t, port, b, length, { chunk: t.random.between(500, 70_000), other: check });
        t.sameBytes(stream.bytes, content, `what arrived of ${length} bytes`);
        if (done === 0) check(t.takeOneSync(port));
        t.equal(done, 1, 'packets of the send');
      }
    },
  },
];

const orders: ConformanceCase[] = [
  ...variants<BufferKind>(
    {
      clause: 'TCP-07',
      title: 'of several recvs pending the first takes the first bytes, and packets come in starting order',
      reference: ordering,
      notShared: { 'recvs-heap': reasons.heap },
    },
    { 'recvs-arena': 'arena', 'recvs-shared': 'shared', 'recvs-heap': 'heap' },
    (t, kind) => {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      let at = 0;
      for (let round = 0; round < t.count(60, 5); round++) {
        const lengths = Array.from({ length: t.random.between(2, 12) }, () => t.random.between(1, 400));
        const recvs = lengths.map((length) => {
          const view = makeBuffer(port, kind, length);
          return { view, operation: b.recv(view) };
        });
        // Sometimes they wait in the kernel before the first byte comes, sometimes they are started in one go with the send.
        if (t.random.int(2) === 0) t.nothing(port);
        let total = lengths.reduce((sum, length) => sum + length, 0);
        const sends = new Set<Operation>();
        const from = at;
        for (let to = at + total; at < to; ) {
          const length = Math.min(to - at, t.random.between(1, 600));
          sends.add(a.send(t.pattern(at, length)));
          at += length;
        }
        let next = 0;
        let position = from;
        while (next < recvs.length || sends.size > 0) {
          const packet = t.takeOneSync(port);
          t.succeeded(packet, packet.kind);
          if (packet.operation !== undefined && sends.delete(packet.operation)) continue;
          const { view, operation } = t.some(recvs[next++], 'a recv without a packet');
          t.ok(packet.operation === operation, `packet ${next - 1} is of recv ${next - 1}`);
          const bytes = packet.bytesTransferred;
          t.ok(bytes >= 1 && bytes <= view.length, `${bytes} bytes of ${view.length}`);
          t.sameBytes(view.subarray(0, bytes), t.pattern(position, bytes), `what recv ${next - 1} took`);
          position += bytes;
          total -= bytes;
        }
        // A recv may take less than it has room for, so some bytes may be left.
        t.sameBytes(receive(t, port, b, total).bytes, t.pattern(position, total), 'what is left');
        if (kind === 'arena') for (const { view } of recvs) port.release(view);
      }
    },
  ),

  ...variants<BufferKind | 'mixed'>(
    { clause: 'TCP-07', title: 'several sends pending finish in starting order, their bytes in that order', reference: ordering },
    { 'sends-arena': 'arena', 'sends-heap': 'heap', 'sends-mixed': 'mixed' },
    (t, kind) => {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      narrow(a, b);
      const lengths = Array.from({ length: 30 }, (_, i) => (i % 7 === 3 ? 0 : t.random.between(1, 150_000)));
      const total = lengths.reduce((sum, length) => sum + length, 0);
      let at = 0;
      const sends = lengths.map((length, i) => {
        const content = t.pattern(at, length);
        at += length;
        const half = length >> 1;
        const each = (): BufferKind => (kind === 'mixed' ? t.random.pick(bufferKindList) : kind);
        const view = (bytes: Uint8Array): Uint8Array => (bytes.length === 0 ? new Uint8Array(0) : bufferOf(port, each(), bytes));
        const operation =
          i % 3 === 0 ? a.send([view(content.subarray(0, half)), view(content.subarray(half))]) : a.send(view(content));
        return { operation, length };
      });
      let next = 0;
      const check = (packet: Packet): void => {
        const { operation, length } = t.some(sends[next], 'a send without a packet');
        t.ok(packet.operation === operation, `packet ${next} is of send ${next}`);
        t.succeeded(packet, `send ${next}`);
        t.equal(packet.bytesTransferred, length, `bytes of send ${next}`);
        next++;
      };
      const stream = receive(t, port, b, total, { kind: 'shared', other: check });
      t.sameBytes(stream.bytes, t.pattern(0, total), 'the stream');
      while (next < sends.length) check(t.takeOneSync(port));
    },
  ),

  ...variants<'send' | 'sendv'>(
    { clause: 'TCP-07', title: 'two large sends never mix their bytes', reference: ordering },
    { 'large-sends': 'send', 'large-vectored-sends': 'sendv' },
    (t, form) => {
      const port = t.createPort();
      for (let round = 0; round < 8; round++) {
        const { a, b } = t.pair(port, 1, 2);
        narrow(a, b);
        const length = 700_000;
        const views = [1, 2].map((mark) => new Uint8Array(new SharedArrayBuffer(length)).fill(mark));
        const started = views.map((view) => a.send(form === 'send' ? view : [view.subarray(0, 400_000), view.subarray(400_000)]));
        if (round % 2 === 0) t.nothing(port, 1);
        const done: unknown[] = [];
        const finish = (packet: Packet): void => {
          t.succeeded(packet, form);
          t.equal(packet.bytesTransferred, length, `bytes of a ${form}`);
          done.push(packet.operation);
        };
        const { bytes } = receive(t, port, b, 2 * length, { chunk: 50_000, other: finish });
        t.sameBytes(bytes.subarray(0, length), views[0] as Uint8Array, 'the first send’s bytes');
        t.sameBytes(bytes.subarray(length), views[1] as Uint8Array, 'the second send’s bytes');
        while (done.length < 2) finish(t.takeOneSync(port));
        t.ok(done[0] === started[0] && done[1] === started[1], 'packets in starting order');
        a.close();
        b.close();
      }
    },
  ),

  ...variants<Way>(
    { clause: 'TCP-07', title: 'both directions at once: neither waits for the other', reference: ordering },
    { both: 'getManySync', 'both-dispatch': 'dispatch' },
    async (t, way) => {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      narrow(a, b);
      narrow(b, a);
      const length = 600_000;
      const ends = [a, b].map((socket, i) => ({
        socket,
        // Four sends and a recv pending at each end at the same time.
        sends: Array.from({ length: 4 }, (_, part) => socket.send(t.pattern((part * length) / 4, length / 4, i))),
        sent: 0,
        view: t.room(40_000),
        expected: t.pattern(0, length, 1 - i),
        received: 0,
      }));
      for (const { socket, view } of ends) socket.recv(view);
      await drive(
        t,
        port,
        way,
        (packet) => {
          t.succeeded(packet, packet.kind);
          const end = t.some(ends[packet.key - 1], 'one of the two ends');
          if (packet.kind === 'send') {
            t.ok(packet.operation === end.sends[end.sent++], 'sends finish in starting order');
            t.equal(packet.bytesTransferred, length / 4, 'bytes of a send');
            return;
          }
          const bytes = packet.bytesTransferred;
          t.ok(bytes > 0, 'a recv has bytes');
          t.sameBytes(
            end.view.subarray(0, bytes),
            end.expected.subarray(end.received, end.received + bytes),
            `bytes from ${end.received} on`,
          );
          end.received += bytes;
          if (end.received < length) end.socket.recv(end.view);
        },
        () => ends.every(({ received, sent }) => received === length && sent === 4),
      );
    },
  ),

  {
    id: 'TCP-07/recv-beside-send',
    clause: 'TCP-07',
    title: 'a recv that waits holds back no send of its socket, a send that waits no recv',
    reference: ordering,
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      narrow(a, b);
      const waiting = a.recv(t.room(10));
      moved(t, port, a.send(Buffer.from('go')), 2, 'a send beside a pending recv');
      t.equal(receive(t, port, b, 2).bytes.toString(), 'go', 'what arrived');
      const large = a.send(new Uint8Array(3 * 2 ** 20));
      t.nothing(port, 5);
      b.send(Buffer.from('answer'));
      const packets = t.takeSync(port, 2);
      t.ok(
        packets.some(({ operation }) => operation === waiting),
        'the recv completed beside a pending send',
      );
      t.ok(large.pending, 'the send waits on');
      const answers: Packet[] = [];
      receive(t, port, b, 3 * 2 ** 20, { other: (packet) => void answers.push(packet) });
      const packet = answers[0] ?? packetOf(t, port, large, 'send');
      t.equal(packet.bytesTransferred, 3 * 2 ** 20, 'bytes of the large send');
    },
  },
];

export const cases: readonly ConformanceCase[] = [...wholeSends, ...orders];
