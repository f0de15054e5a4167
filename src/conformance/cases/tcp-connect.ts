// TCP-02: connects that succeed, that are refused, that find no way, and that are ended while they wait. What stays pending waits
// for a listener whose backlog is full; nothing ever leaves this machine.

import type { ConformanceCase, Context, Operation, Packet, TcpSocket } from '../types.js';
import { forEachWay, variants } from '../variants.js';
import { childAnswer, childCaseMs, childMs, drive, errnoOf, moved, packetOf } from './buffers.js';
import { accepted, type Family, hosts, needIPv6, pendingConnect, receive, unusedPort } from './tcp-common.js';

const connecting = 'ConnectEx completes when the connection is there; SO_UPDATE_CONNECT_CONTEXT makes it a full socket';
const refusing = 'ConnectEx to a port that nobody listens at: ERROR_CONNECTION_REFUSED (1225)';

const connects: ConformanceCase[] = [
  ...variants<Family>(
    {
      clause: 'TCP-02',
      title: 'connect completes connected: both addresses are there, and bytes go at once',
      reference: connecting,
    },
    { connected: 'IPv4', 'connected-IPv6': 'IPv6' },
    (t, family) => {
      if (family === 'IPv6') needIPv6(t);
      const port = t.createPort();
      const listener = t.listener(port, 1, { host: hosts[family] });
      const socket = t.track(t.api.TcpSocket.openSync({ family }));
      port.associate(socket, 2);
      t.equal(socket.remoteAddress, undefined, 'the peer’s address before the connect');
      const packet = packetOf(t, port, socket.connect({ host: hosts[family], port: listener.address.port }), 'connect');
      t.succeeded(packet, 'connect');
      t.equal(packet.kind, 'connect', 'kind');
      t.equal(packet.key, 2, 'key');
      t.equal(packet.bytesTransferred, 0, 'bytes');
      t.equal(packet.result, undefined, 'result');
      t.equal(packet.handleId, socket.id, 'handleId');
      t.deepEqual(socket.remoteAddress, listener.address, 'the peer’s address');
      t.equal(socket.localAddress?.address, hosts[family], 'the own address');
      moved(t, port, socket.send(Buffer.from('first')), 5, 'a send before the accept');
      const server = accepted(t, packetOf(t, port, listener.accept(), 'accept'));
      t.deepEqual(server.remoteAddress, socket.localAddress, 'the ends name each other');
      port.associate(server, 3);
      t.equal(receive(t, port, server, 5).bytes.toString(), 'first', 'what was sent before the accept');
    },
  ),

  ...forEachWay(
    {
      clause: 'TCP-02',
      title: 'many connects at once, good and refused ones: one packet each, with its own outcome',
      reference: connecting,
    },
    async (t, way) => {
      const port = t.createPort();
      const listener = t.listener(port, 1);
      const free = unusedPort(t);
      const good = new Map<Operation, TcpSocket>();
      const bad = new Set<Operation>();
      for (let i = 0; i < 40; i++) {
        const socket = t.track(t.api.TcpSocket.openSync());
        port.associate(socket, 1000 + i);
        if (t.random.int(2) === 0) bad.add(socket.connect({ host: '127.0.0.1', port: free }, { id: i }));
        else good.set(socket.connect({ host: '127.0.0.1', port: listener.address.port }, { id: i }), socket);
      }
      await drive(
        t,
        port,
        way,
        (packet) => {
          const operation = t.some(packet.operation, 'packet.operation');
          t.equal(packet.key, 1000 + packet.operationId, 'key');
          if (bad.delete(operation)) t.failed(packet, { code: 'ECONNREFUSED' }, 'a connect to nobody');
          else {
            t.succeeded(packet, 'a connect to the listener');
            t.deepEqual(good.get(operation)?.remoteAddress, listener.address, 'its peer');
            t.ok(good.delete(operation), 'each connect has one packet');
          }
        },
        () => good.size + bad.size === 0,
      );
    },
  ),
];

const failures: ConformanceCase[] = [
  ...variants<Family>(
    {
      clause: 'TCP-02',
      title: 'nobody listens: ECONNREFUSED, no address, and the socket closes without leaving anything',
      reference: refusing,
    },
    { refused: 'IPv4', 'refused-IPv6': 'IPv6' },
    (t, family) => {
      if (family === 'IPv6') needIPv6(t);
      const port = t.createPort();
      const free = unusedPort(t, family);
      const before = t.fdCount();
      for (let round = 0; round < 10; round++) {
        const socket = t.track(t.api.TcpSocket.openSync({ family }));
        port.associate(socket, 3);
        const packet = packetOf(t, port, socket.connect({ host: hosts[family], port: free }), 'connect');
        t.equal(packet.kind, 'connect', 'kind');
        t.equal(packet.key, 3, 'key');
        t.equal(packet.bytesTransferred, 0, 'bytes');
        const error = t.failed(packet, { code: 'ECONNREFUSED' }, 'connect');
        t.equal(error.errno, errnoOf(t, 'ECONNREFUSED'), 'errno');
        t.equal(error.syscall, 'connect', 'syscall');
        t.equal(error.by, undefined, 'by');
        t.equal(socket.remoteAddress, undefined, 'the peer’s address');
        socket.close();
      }
      t.equal(t.fdCount(), before, 'descriptors');
      t.nothing(port);
    },
  ),

  {
    id: 'TCP-02/unreachable',
    clause: 'TCP-02',
    title: 'no way to the network: ENETUNREACH or EHOSTUNREACH in the packet, and the port lives on',
    reference: 'ConnectEx: ERROR_NETWORK_UNREACHABLE (1231) or ERROR_HOST_UNREACHABLE (1232)',
    needs: ['root', 'unshare'],
    timeoutMs: childCaseMs,
    async run(t) {
      // In a network namespace of its own even the loopback interface is down.
      const outcome = await childAnswer<{ packets: string[]; post: number }>(
        t,
        `const port = createPort();
        const packets = [];
        for (const host of ['127.0.0.1', '192.0.2.1']) {
          const socket = TcpSocket.openSync();
          port.associate(socket, 4);
          const operation = socket.connect({ host, port: 9 });
          const packet = port.getSync(5000);
          packets.push([packet?.operation === operation, packet?.key, packet?.error?.code ?? 'connected'].join(' '));
          socket.close();
        }
        port.post(77);
        console.log(JSON.stringify({ packets, post: port.getSync(1000)?.key }));
        port.close();`,
        { wrap: ['unshare', '-n'], timeoutMs: childMs },
      );
      t.equal(outcome.packets.length, 2, 'packets');
      for (const packet of outcome.packets) t.ok(/^true 4 (ENETUNREACH|EHOSTUNREACH)$/.test(packet), `the packet: ${packet}`);
      t.equal(outcome.post, 77, 'the key of a post afterwards');
    },
  },

  {
    id: 'TCP-02/connected-already',
    clause: 'TCP-02',
    title: 'a second connect of a connected socket fails with EISCONN and leaves the connection as it is',
    reference: 'ConnectEx on a connected socket: WSAEISCONN (10056)',
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const other = t.listener();
      const operation = a.connect({ host: '127.0.0.1', port: other.address.port });
      t.failed(packetOf(t, port, operation, 'connect'), { code: 'EISCONN' }, 'a second connect');
      moved(t, port, a.send(Buffer.from('still')), 5, 'send');
      t.equal(receive(t, port, b, 5).bytes.toString(), 'still', 'what arrived');
    },
  },

  {
    id: 'TCP-02/names',
    clause: 'TCP-02',
    title: 'a name is refused with word of node:dns, a wrong port too, and nothing is started',
    reference: 'ConnectEx takes a SOCKADDR: names are the resolver’s business',
    run(t) {
      const port = t.createPort();
      const socket = t.track(t.api.TcpSocket.openSync());
      port.associate(socket, 1);
      for (const host of ['localhost', 'example.com', '', '1.2.3', '127.0.0.1:80', '127.0.0.1\0', '[::1]']) {
        t.throws(
          () => socket.connect({ host, port: 80 }),
          { code: 'ERR_INVALID_ARG_VALUE', message: /node:dns/ },
          `connect to '${host}'`,
        );
      }
      t.throws(() => socket.connect({ host: '::1', port: 80 }), { code: 'ERR_INVALID_ARG_VALUE' }, 'IPv6 from an IPv4 socket');
      for (const number of [-1, 65_536, 1.5, Number.NaN]) {
        t.throws(
          () => socket.connect({ host: '127.0.0.1', port: number }),
          { code: 'ERR_OUT_OF_RANGE' },
          `connect to port ${number}`,
        );
      }
      t.equal(port.inFlight, 0, 'operations in flight');
      t.nothing(port);
      const listener = t.listener();
      moved(t, port, socket.connect({ host: '127.0.0.1', port: listener.address.port }), 0, 'a connect of the same socket');
    },
  },
];

/** Ends a pending connect; what its packet must say. */
interface Ending {
  readonly code: string;
  readonly by: 'cancel' | 'signal' | 'timeout' | 'close';
  end(t: Context, pending: { socket: TcpSocket; connecting: Operation }): void;
}

const abandoned: ConformanceCase[] = [
  ...variants<Ending>(
    {
      clause: 'TCP-02',
      title: 'a connect that is ended while it waits: one packet, and the socket closes cleanly',
      reference: 'CancelIoEx of a ConnectEx: ERROR_OPERATION_ABORTED (995)',
    },
    {
      cancelled: { code: 'ECANCELED', by: 'cancel', end: (t, { connecting }) => t.equal(connecting.cancel(), true, 'cancel()') },
      'cancelled-handle': {
        code: 'ECANCELED',
        by: 'cancel',
        end: (t, { socket }) => t.equal(socket.cancel(), 1, 'handle.cancel()'),
      },
      closed: { code: 'ECANCELED', by: 'close', end: (_, { socket }) => socket.close() },
      reset: { code: 'ECANCELED', by: 'close', end: (_, { socket }) => socket.close({ reset: true }) },
    },
    async (t, { code, by, end }) => {
      const port = t.createPort();
      const pending = pendingConnect(t, port, 2 ** 33);
      const before = t.fdCount();
      t.ok(pending.connecting.pending, 'the connect is pending');
      end(t, pending);
      const packet = packetOf(t, port, pending.connecting, 'connect');
      t.equal(packet.kind, 'connect', 'kind');
      t.equal(packet.key, 2 ** 33, 'key');
      t.equal(packet.bytesTransferred, 0, 'bytes');
      t.failed(packet as Packet, { code, by }, 'the connect');
      t.equal(pending.connecting.cancel(), false, 'cancel() of a finished connect');
      pending.socket.close();
      t.ok(pending.socket.closed, 'the socket is closed');
      await t.eventually(() => t.fdCount() === before - 1, 'the socket’s descriptor is gone');
      t.nothing(port, 5);
    },
  ),

  ...variants<'signal' | 'timeout'>(
    {
      clause: 'TCP-02',
      title: 'a connect that its signal or its timeout ends: one packet that says so, and the socket closes',
      reference: 'As CancelIoEx of a ConnectEx',
    },
    { signal: 'signal', timeout: 'timeout' },
    async (t, by) => {
      const port = t.createPort();
      // The backlog is full: another connect to the same listener waits as well.
      const { listener } = pendingConnect(t, port, 1);
      const { port: number } = listener.address;
      const socket = t.track(t.api.TcpSocket.openSync());
      port.associate(socket, 8);
      const controller = new AbortController();
      const begin = t.now();
      const options = by === 'timeout' ? { timeout: 40 } : { signal: controller.signal };
      const operation = socket.connect({ host: '127.0.0.1', port: number }, options);
      if (by === 'signal') {
        t.nothing(port, 5);
        controller.abort(new Error('enough'));
      }
      const packet = await t.takeOne(port, { way: 'get' });
      t.ok(packet.operation === operation, 'the packet is of the connect');
      const error = t.failed(packet, { code: by === 'timeout' ? 'ETIMEDOUT' : 'ECANCELED', by }, 'the connect');
      if (by === 'timeout') t.atLeast(t.now() - begin, 40, 'milliseconds until the timeout');
      else t.equal(error.cause, controller.signal.reason, 'the error’s cause');
      socket.close();
      t.nothing(port, 5);
    },
  ),
];

export const cases: readonly ConformanceCase[] = [...connects, ...failures, ...abandoned];
