// TCP-04: a connection that the peer resets. Linux tells it once and then speaks of an end, so what a port has to do is remember:
// a reset must never look like the end of a whole stream.

import { reasons } from '../support/shared.js';
import type { ConformanceCase, Context, Packet, TcpSocket } from '../types.js';
import { forEachWay, variants } from '../variants.js';
import { type BufferKind, bufferOf, drive, errnoOf, makeBuffer, moved, packetOf, untouched } from './buffers.js';
import { apart, receive } from './tcp-common.js';

const resetting = 'WSARecv on a connection that the peer reset: ERROR_NETNAME_DELETED (64) or WSAECONNRESET (10054)';

function isReset(t: Context, packet: Packet, what: string): void {
  t.equal(packet.kind, 'recv', `${what}: kind`);
  const error = t.failed(packet, { code: 'ECONNRESET' }, what);
  t.equal(packet.bytesTransferred, 0, `${what}: bytes`);
  t.equal(error.errno, errnoOf(t, 'ECONNRESET'), `${what}: errno`);
  t.equal(error.syscall, 'recv', `${what}: syscall`);
  t.equal(error.by, undefined, `${what}: by`);
}

/** Recvs of every form fail for good. */
function staysReset(t: Context, port: Parameters<typeof receive>[1], socket: TcpSocket): void {
  for (let i = 0; i < 4; i++) {
    const view = makeBuffer(port, 'heap', 30);
    isReset(t, packetOf(t, port, socket.recv(view), 'recv'), `later recv ${i}`);
    untouched(t, view, 'its buffer');
  }
  isReset(t, packetOf(t, port, socket.recv(t.room(0)), 'recv'), 'a later recv of length 0');
  isReset(t, packetOf(t, port, socket.recv(new Uint8Array(new SharedArrayBuffer(9))), 'recv'), 'a later recv in place');
}

export const cases: readonly ConformanceCase[] = [
  ...variants<BufferKind>(
    {
      clause: 'TCP-04',
      title: 'every recv that waits when the peer resets, and every later one: ECONNRESET',
      reference: resetting,
      notShared: { 'pending-heap': reasons.heap },
    },
    { 'pending-arena': 'arena', 'pending-shared': 'shared', 'pending-heap': 'heap' },
    (t, kind) => {
      const port = t.createPort();
      const { socket, peer } = apart(t, port);
      const views = Array.from({ length: 5 }, () => makeBuffer(port, kind, 64));
      const started = views.map((view) => socket.recv(view));
      t.nothing(port, 5);
      peer.close({ reset: true });
      for (const [i, packet] of t.takeSync(port, 5).entries()) {
        t.ok(packet.operation === started[i], `packet ${i} is of recv ${i}`);
        t.equal(packet.key, 1, 'key');
        isReset(t, packet, `recv ${i}`);
      }
      for (const view of views) untouched(t, view, 'the buffer of a recv that failed');
      staysReset(t, port, socket);
    },
  ),

  ...forEachWay(
    { clause: 'TCP-04', title: 'a plain peer’s reset reaches each waiting recv, however it is dequeued', reference: resetting },
    async (t, way) => {
      const port = t.createPort();
      const { socket, peer } = await t.peer(port, 6);
      const started = new Set<unknown>([1, 2, 3].map(() => socket.recv(t.room(10))));
      port.flush();
      peer.resetAndDestroy();
      // The ways that block would hold up the peer's own event loop.
      await t.eventually(() => peer.closed, 'the peer has reset the connection');
      await drive(
        t,
        port,
        way,
        (packet) => {
          t.ok(started.delete(packet.operation), 'each recv has one packet');
          t.equal(packet.key, 6, 'key');
          isReset(t, packet, 'a recv');
        },
        () => started.size === 0,
      );
      staysReset(t, port, socket);
    },
  ),

  {
    id: 'TCP-04/later',
    clause: 'TCP-04',
    title: 'a reset that came while no recv waited is told to the first one, and to all after it',
    reference: resetting,
    run(t) {
      const port = t.createPort();
      const { socket, far, peer } = apart(t, port);
      peer.close({ reset: true });
      far.flush();
      t.nothing(port, 5);
      staysReset(t, port, socket);
    },
  },

  {
    id: 'TCP-04/unread',
    clause: 'TCP-04',
    title: 'a peer that closes with bytes unread resets the connection: no clean end',
    reference: resetting,
    run(t) {
      const port = t.createPort();
      const { socket, peer } = apart(t, port);
      const recv = socket.recv(t.room(10));
      moved(t, port, socket.send(Buffer.from('never read')), 10, 'send');
      peer.close();
      isReset(t, packetOf(t, port, recv, 'recv'), 'the recv');
      staysReset(t, port, socket);
    },
  },

  {
    id: 'TCP-04/prefix',
    clause: 'TCP-04',
    title: 'bytes before a reset may be lost, but what comes is a prefix of them, and it never ends cleanly',
    reference: resetting,
    run(t) {
      const port = t.createPort();
      const far = t.createPort();
      for (let round = 0; round < t.count(60, 5); round++) {
        const { socket, peer } = apart(t, port, far);
        const length = t.random.int(3) === 0 ? 0 : t.random.between(1, 20_000);
        const content = t.pattern(0, length, round);
        const view = makeBuffer(port, 'shared', t.random.between(1, 3000));
        const early = t.random.int(2) === 0 ? socket.recv(view) : null;
        if (t.random.int(2) === 0) port.flush();
        if (length > 0) moved(t, far, peer.send(content), length, 'the peer’s send');
        let at = 0;
        if (early !== null && length > 0) {
          const packet = packetOf(t, port, early, 'recv');
          t.succeeded(packet, 'the first recv');
          at = packet.bytesTransferred;
          t.sameBytes(view.subarray(0, at), content.subarray(0, at), 'the first bytes');
        }
        peer.close({ reset: true });
        if (early !== null && length === 0) isReset(t, packetOf(t, port, early, 'recv'), 'the recv that waited');
        const stream = receive(t, port, socket, length - at + 1, { chunk: t.random.between(1, 5000) });
        t.sameBytes(stream.bytes, content.subarray(at, at + stream.bytes.length), 'what came');
        t.ok(!stream.ended, 'the stream must not end cleanly');
        t.equal(stream.error?.code, 'ECONNRESET', 'how it ends');
        staysReset(t, port, socket);
        socket.close();
      }
    },
  },

  ...variants<'send' | 'sendv'>(
    {
      clause: 'TCP-04',
      title: 'a send that met the reset first doesn’t turn it into a clean end for the recvs',
      reference: resetting,
    },
    { 'after-send': 'send', 'after-sendv': 'sendv' },
    (t, form) => {
      const port = t.createPort();
      const far = t.createPort();
      for (let round = 0; round < 10; round++) {
        const { socket, peer } = apart(t, port, far);
        peer.close({ reset: true });
        const view = bufferOf(port, 'heap', t.pattern(0, 9));
        // Loopback has delivered the reset; the kernel tells it to whoever asks first, and to nobody else.
        const packet = packetOf(t, port, socket.send(form === 'send' ? view : [view, view]), form);
        t.failed(packet, { code: ['ECONNRESET', 'EPIPE'] }, `the ${form}`);
        staysReset(t, port, socket);
      }
    },
  ),

  {
    id: 'TCP-04/half-closed',
    clause: 'TCP-04',
    title: 'a reset after the own shutdown of writing is a reset as well',
    reference: resetting,
    run(t) {
      const port = t.createPort();
      const { socket, peer } = apart(t, port);
      moved(t, port, socket.shutdown(), 0, 'shutdown');
      const recv = socket.recv(t.room(10));
      t.nothing(port, 2);
      peer.close({ reset: true });
      isReset(t, packetOf(t, port, recv, 'recv'), 'the recv');
      staysReset(t, port, socket);
    },
  },

  {
    id: 'TCP-04/others',
    clause: 'TCP-04',
    title: 'a reset is its connection’s alone: others on the port go on, and the freed handle’s successor is clean',
    reference: resetting,
    run(t) {
      const port = t.createPort();
      const good = t.pair(port, 10, 11);
      const waiting = good.b.recv(t.room(4));
      for (let round = 0; round < 15; round++) {
        const { a, b } = t.pair(port, 1, 2);
        const recv = b.recv(t.room(5));
        a.close({ reset: true });
        isReset(t, packetOf(t, port, recv, 'recv'), 'a recv');
        b.close();
        // The next pair takes the same descriptors and handle slots.
        const next = t.pair(port, 3, 4);
        moved(t, port, next.a.send(Buffer.from('ok')), 2, 'a send');
        t.equal(receive(t, port, next.b, 2).bytes.toString(), 'ok', 'what arrived');
        next.a.close();
        t.ok(receive(t, port, next.b, 1).ended, 'an orderly end');
        next.b.close();
      }
      t.ok(waiting.pending, 'the recv of another connection waits on');
      good.a.send(Buffer.from('good'));
      const packets = t.takeSync(port, 2);
      t.ok(
        packets.some(({ operation, bytesTransferred }) => operation === waiting && bytesTransferred === 4),
        'and gets its bytes',
      );
    },
  },
];
