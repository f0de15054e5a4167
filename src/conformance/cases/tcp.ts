// TCP-01 and TCP-03: accepting, and receiving what is there.

import { reasons } from '../support/shared.js';
import type { ConformanceCase, Context, Packet, Port, TcpSocket } from '../types.js';
import { forEachWay, variants } from '../variants.js';
import { type BufferKind, bufferKindList, bufferKinds, drive, makeBuffer, moved, packetOf, untouched } from './buffers.js';
import { accepted, apart, connect, connected, type Family, hosts, needIPv6, receive } from './tcp-common.js';

const accepting =
  'AcceptEx completes with a connected socket; GetAcceptExSockaddrs and SO_UPDATE_ACCEPT_CONTEXT give both addresses';
const receiving = 'WSARecv on a stream completes as soon as there are bytes, with those; 0 bytes mean that the peer closed';

/** Both directions of a connection work, and the ends name each other. */
function checkConnection(t: Context, port: Port, client: TcpSocket, server: TcpSocket, family: Family): void {
  const own = t.some(client.localAddress, 'the client’s own address');
  const far = t.some(client.remoteAddress, 'the client’s peer address');
  t.deepEqual(server.remoteAddress, own, 'the accepted socket’s peer address is the client’s own');
  t.deepEqual(server.localAddress, far, 'the accepted socket’s own address is the client’s peer');
  t.equal(own.address, hosts[family], 'address');
  t.equal(own.family, family, 'family');
  t.ok(own.port > 0 && own.port !== far.port, `the client’s port, ${own.port}`);
  for (const [from, to, text] of [
    [client, server, 'to the server'],
    [server, client, 'to the client'],
  ] as const) {
    moved(t, port, from.send(Buffer.from(text)), text.length, 'send');
    t.equal(receive(t, port, to, text.length).bytes.toString(), text, 'what arrived');
  }
}

const accepts: ConformanceCase[] = [
  ...variants<{ family: Family; early: boolean }>(
    {
      clause: 'TCP-01',
      title: 'accept gives a connected socket with its peer’s and own address, not associated yet',
      reference: accepting,
    },
    {
      'accept-first': { family: 'IPv4', early: true },
      backlog: { family: 'IPv4', early: false },
      'accept-first-IPv6': { family: 'IPv6', early: true },
      'backlog-IPv6': { family: 'IPv6', early: false },
    },
    (t, { family, early }) => {
      if (family === 'IPv6') needIPv6(t);
      const port = t.createPort();
      const listener = t.listener(port, 500, { host: hosts[family] });
      t.equal(listener.address.address, hosts[family], 'the listener’s address');
      t.equal(listener.address.family, family, 'the listener’s family');
      let accept: Packet | null = null;
      let client: TcpSocket;
      if (early) {
        const operation = listener.accept();
        t.nothing(port, 5);
        const attempt = connect(t, port, listener, 1, family);
        client = attempt.socket;
        for (const packet of t.takeSync(port, 2)) {
          t.succeeded(packet, packet.kind);
          if (packet.operation === operation) accept = packet;
        }
      } else {
        client = connected(t, port, listener, 1, family);
        const begin = t.now();
        accept = packetOf(t, port, listener.accept(), 'accept');
        t.less(t.now() - begin, 500, 'milliseconds until a waiting connection was accepted');
      }
      const packet = t.some<Packet>(accept, 'the packet of the accept');
      t.equal(packet.key, 500, 'the key is the listener’s');
      t.equal(packet.handleId, listener.id, 'the handle is the listener');
      const server = accepted(t, packet);
      t.equal(server.key, undefined, 'the key of the accepted socket');
      t.throws(() => server.recv(t.room(1)), { code: 'ERR_NOT_ASSOCIATED' }, 'a recv before it is associated');
      port.associate(server, 501);
      t.deepEqual(server.localAddress, listener.address, 'the accepted socket’s own address is the listener’s');
      checkConnection(t, port, client, server, family);
    },
  ),

  {
    id: 'TCP-01/backlog-many',
    clause: 'TCP-01',
    title: 'every connection that waits in the backlog is taken once, at once, with the bytes that it has sent',
    reference: accepting,
    run(t) {
      const port = t.createPort();
      const listener = t.listener(port, 9);
      const clients = new Map<number, number>();
      for (let i = 0; i < 30; i++) {
        const client = connected(t, port, listener, i);
        moved(t, port, client.send(Uint8Array.of(i)), 1, 'a send into the backlog');
        clients.set(t.some(client.localAddress, 'the own address').port, i);
      }
      const started = Array.from({ length: 31 }, () => listener.accept());
      const begin = t.now();
      const packets = t.takeSync(port, 30);
      t.less(t.now() - begin, 1000, 'milliseconds that 30 waiting connections took');
      for (const [i, packet] of packets.entries()) {
        t.ok(packet.operation === started[i], `accept ${i} completes in starting order`);
        const server = accepted(t, packet);
        port.associate(server, 100);
        const number = t.some(clients.get(t.some(server.remoteAddress, 'the peer’s address').port), 'a client not seen before');
        clients.delete(server.remoteAddress?.port ?? 0);
        t.deepEqual([...receive(t, port, server, 1).bytes], [number], 'what that client had sent');
      }
      t.ok(started[30]?.pending, 'the accept without a connection is pending');
    },
  },

  ...forEachWay(
    { clause: 'TCP-01', title: 'accepts that wait each take one connection, however they are dequeued', reference: accepting },
    async (t, way) => {
      const port = t.createPort();
      const listener = t.listener(port, 9);
      const pending = new Set<unknown>(Array.from({ length: 12 }, () => listener.accept()));
      const connecting = new Set<unknown>();
      const clients = new Set<string>();
      for (let i = 0; i < 12; i++) connecting.add(connect(t, port, listener, 100 + i).connecting);
      await drive(
        t,
        port,
        way,
        (packet) => {
          t.succeeded(packet, packet.kind);
          if (connecting.delete(packet.operation)) return;
          t.ok(pending.delete(packet.operation), 'each accept has one packet');
          const { address, port: number } = t.some(accepted(t, packet).remoteAddress, 'the peer’s address');
          clients.add(`${address} ${number}`);
        },
        () => pending.size + connecting.size === 0,
      );
      t.equal(clients.size, 12, 'different peers');
      t.equal(port.inFlight, 0, 'operations in flight');
    },
  ),

  {
    id: 'TCP-01/peer',
    clause: 'TCP-01',
    title: 'the addresses agree with what a plain client and a bound one say',
    reference: accepting,
    async run(t) {
      const port = t.createPort();
      const listener = t.listener(port, 9);
      const client = await t.peerClient(listener.address.port);
      const first = accepted(t, packetOf(t, port, listener.accept(), 'accept'));
      t.deepEqual(
        first.remoteAddress,
        { address: client.localAddress, family: 'IPv4', port: client.localPort },
        'the peer’s address',
      );
      t.deepEqual(first.localAddress, { address: '127.0.0.1', family: 'IPv4', port: listener.address.port }, 'the own address');

      const bound = t.track(t.api.TcpSocket.openSync({ localAddress: '127.0.0.3' }));
      port.associate(bound, 1);
      moved(t, port, bound.connect({ host: '127.0.0.1', port: listener.address.port }), 0, 'connect of a bound socket');
      const second = accepted(t, packetOf(t, port, listener.accept(), 'accept'));
      t.equal(second.remoteAddress?.address, '127.0.0.3', 'the address of a bound client');
      t.deepEqual(second.remoteAddress, bound.localAddress, 'its own address');
    },
  },
];

const receives: ConformanceCase[] = [
  ...variants<BufferKind>(
    {
      clause: 'TCP-03',
      title: 'recv completes with what is there and doesn’t wait for more; the rest stays',
      reference: receiving,
      notShared: { heap: reasons.heap },
    },
    bufferKinds,
    (t, kind) => {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      for (let round = 0; round < 30; round++) {
        const sent = t.pattern(0, t.random.between(1, 3000), round);
        const room = t.random.between(1, 4000);
        const view = makeBuffer(port, kind, room + 16);
        // Begun before the bytes come it completes with at least one of them; where all are there already, with all that fit.
        const early = t.random.int(2) === 0;
        let recv = early ? b.recv(view, { offset: 8, length: room }) : null;
        if (early) t.nothing(port);
        const send = a.send(sent);
        if (recv === null) {
          moved(t, port, send, sent.length, 'the send');
          recv = b.recv(view, { offset: 8, length: room });
        }
        let length = 0;
        for (const packet of t.takeSync(port, early ? 2 : 1)) {
          t.succeeded(packet, packet.kind);
          if (packet.operation === send) t.equal(packet.bytesTransferred, sent.length, 'bytes of the send');
          else {
            t.ok(packet.operation === recv, 'the packet is of the recv');
            length = packet.bytesTransferred;
          }
        }
        t.ok(length >= 1 && length <= Math.min(room, sent.length), `${length} bytes came into ${room} of ${sent.length} sent`);
        if (!early) t.equal(length, Math.min(room, sent.length), 'bytes received of those that were there');
        t.sameBytes(view.subarray(8, 8 + length), sent.subarray(0, length), 'the bytes');
        untouched(t, view.subarray(0, 8), 'before the buffer');
        untouched(t, view.subarray(8 + length), 'behind what was received');
        const rest = receive(t, port, b, sent.length - length, { kind });
        t.sameBytes(rest.bytes, sent.subarray(length), 'the rest');
        if (kind === 'arena') port.release(view);
      }
    },
  ),

  {
    id: 'TCP-03/waits',
    clause: 'TCP-03',
    title: 'a recv stays pending as long as nothing is there: it never completes with 0 bytes instead',
    reference: receiving,
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const view = t.room(10);
      const recv = b.recv(view);
      t.nothing(port, 30);
      t.ok(recv.pending, 'the recv is pending');
      a.send(Buffer.from('now'));
      const packets = t.takeSync(port, 2);
      const packet = t.some(
        packets.find(({ operation }) => operation === recv),
        'the packet of the recv',
      );
      t.equal(packet.bytesTransferred, 3, 'bytes');
      t.equal(Buffer.from(view).toString('latin1', 0, 3), 'now', 'the bytes');
    },
  },

  ...variants<(socket: TcpSocket) => void>(
    {
      clause: 'TCP-03',
      title: 'the peer’s orderly end: the bytes before it, then 0 bytes without an error, again and again',
      reference: receiving,
    },
    {
      'end-close': (socket) => socket.close(),
      'end-shutdown': (socket) => void socket.shutdown(),
      'end-shutdown-both': (socket) => void socket.shutdown({ how: 'both' }),
    },
    (t, end) => {
      const port = t.createPort();
      for (const kind of bufferKindList) {
        // The peer lives on another port: its own packets don't matter here.
        const { socket: b, far, peer } = apart(t, port);
        moved(t, far, peer.send(t.pattern(0, 5000)), 5000, 'send');
        end(peer);
        far.flush();
        const stream = receive(t, port, b, 1_000_000, { kind, chunk: 999 });
        t.sameBytes(stream.bytes, t.pattern(0, 5000), 'what was sent before the end');
        t.equal(stream.error, null, 'the error of the recv at the end');
        t.ok(stream.ended, 'the stream ended');
        for (let i = 0; i < 3; i++) {
          const view = makeBuffer(port, kind, 50);
          moved(t, port, b.recv(view), 0, 'a recv after the end');
          untouched(t, view, 'its buffer');
        }
      }
    },
  ),

  {
    id: 'TCP-03/end-pending',
    clause: 'TCP-03',
    title: 'recvs that wait when the peer ends complete with 0 bytes, each once, in starting order',
    reference: receiving,
    async run(t) {
      const port = t.createPort();
      const { socket, peer } = await t.peer(port, 7);
      const started = Array.from({ length: 5 }, () => socket.recv(t.room(8)));
      t.nothing(port, 5);
      peer.end('tail');
      const packets = await t.take(port, 5, { way: 'getMany' });
      for (const [i, packet] of packets.entries()) {
        t.ok(packet.operation === started[i], `packet ${i} is of recv ${i}`);
        t.succeeded(packet, 'a recv');
        t.equal(packet.key, 7, 'key');
        t.equal(packet.bytesTransferred, i === 0 ? 4 : 0, `bytes of recv ${i}`);
      }
      moved(t, port, socket.send(Buffer.from('late')), 4, 'a send after the peer’s end');
      t.equal(Buffer.from(await t.readPeer(peer, 4)).toString(), 'late', 'what it still receives');
    },
  },

  ...forEachWay(
    {
      clause: 'TCP-03',
      title: 'a stream in odd pieces arrives in order, to its end, however it is dequeued',
      reference: receiving,
    },
    async (t, way) => {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const total = 200_000;
      const content = t.pattern(0, total);
      let sent = 0;
      const sendMore = (): void => {
        const length = Math.min(t.random.between(1, 9000), total - sent);
        if (length > 0) a.send(content.subarray(sent, sent + length));
        else a.shutdown();
        sent += length;
      };
      const parts: Buffer[] = [];
      let view = t.room(0);
      let ended = false;
      const recvMore = (): void => {
        view = t.room(t.random.between(1, 9000));
        b.recv(view);
      };
      sendMore();
      recvMore();
      await drive(
        t,
        port,
        way,
        (packet) => {
          t.succeeded(packet, packet.kind);
          if (packet.kind === 'send') sendMore();
          else if (packet.kind === 'recv') {
            t.equal(packet.key, 2, 'the key of a recv');
            t.less(packet.bytesTransferred, view.length + 1, 'bytes of a recv');
            parts.push(Buffer.from(view.slice(0, packet.bytesTransferred)));
            if (packet.bytesTransferred === 0) ended = true;
            else recvMore();
          }
        },
        () => ended,
      );
      t.sameBytes(Buffer.concat(parts), content, 'the stream');
    },
  ),

  {
    id: 'TCP-03/IPv6',
    clause: 'TCP-03',
    title: 'over IPv6 the same: what is there, then the end',
    reference: receiving,
    needs: ['ipv6'],
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2, { family: 'IPv6' });
      moved(t, port, a.send(t.pattern(0, 70)), 70, 'send');
      t.sameBytes(receive(t, port, b, 70).bytes, t.pattern(0, 70), 'the bytes');
      a.close();
      t.ok(receive(t, port, b, 1).ended, 'the stream ended');
    },
  },
];

export const cases: readonly ConformanceCase[] = [...accepts, ...receives];
