// TCP-10, TCP-11 and TCP-13: listening, a listener that closes under its accepts, and connections that die in the backlog.

import type { ConformanceCase, Context, Operation, TcpListener, TcpSocket } from '../types.js';
import { forEachWay, variants } from '../variants.js';
import { drive, errnoOf, moved, packetOf } from './buffers.js';
import { accepted, connect, connected, type Family, hosts, needIPv6, receive } from './tcp-common.js';

const listening = 'bind and listen as Winsock documents them, with SO_EXCLUSIVEADDRUSE; an address in use: WSAEADDRINUSE (10048)';

function listen(t: Context, options: Parameters<Context['api']['TcpListener']['listenSync']>[0]): TcpListener {
  return t.track(t.api.TcpListener.listenSync(options));
}

/** One connection to `host`, accepted at the other end: returns both ends, their bytes checked. */
function through(t: Context, listener: TcpListener, host: string): TcpSocket {
  const port = t.createPort();
  port.associate(listener, 1);
  const socket = t.track(t.api.TcpSocket.openSync({ family: host.includes(':') ? 'IPv6' : 'IPv4' }));
  port.associate(socket, 2);
  moved(t, port, socket.connect({ host, port: listener.address.port }), 0, `connect to ${host}`);
  const server = accepted(t, packetOf(t, port, listener.accept(), 'accept'));
  port.associate(server, 3);
  moved(t, port, socket.send(Buffer.from('through')), 7, 'send');
  t.equal(receive(t, port, server, 7).bytes.toString(), 'through', 'what arrived');
  return server;
}

/** How a connect to `host` ends. */
function outcome(t: Context, host: string, number: number): string {
  const port = t.createPort();
  for (;;) {
    const socket = t.track(t.api.TcpSocket.openSync({ family: host.includes(':') ? 'IPv6' : 'IPv4' }));
    port.associate(socket, 2);
    const { error } = packetOf(t, port, socket.connect({ host, port: number }), 'connect');
    if (error !== null) return error.code;
    // A socket that the system has bound to the very number that is free again finds itself there (RFC 9293, 3.5, simultaneous synchronization).
    if (socket.localAddress?.port !== number) return 'connected';
    socket.close({ reset: true });
  }
}

const listens: ConformanceCase[] = [
  ...variants<Family>(
    { clause: 'TCP-10', title: 'a port in use: EADDRINUSE, whoever has it; free again after the close', reference: listening },
    { used: 'IPv4', 'used-IPv6': 'IPv6' },
    async (t, family) => {
      if (family === 'IPv6') needIPv6(t);
      const host = hosts[family];
      const first = listen(t, { port: 0, host });
      const { port } = first.address;
      const before = t.fdCount();
      for (let i = 0; i < 3; i++) {
        const error = t.throws(() => listen(t, { port, host }), { code: 'EADDRINUSE' }, 'listening on a used port');
        t.equal(Reflect.get(error, 'errno'), errnoOf(t, 'EADDRINUSE'), 'errno');
        t.ok(/port/.test(error.message), `the message says what to do: ${error.message}`);
      }
      t.throws(
        () => listen(t, { port, host, reusePort: true }),
        { code: t.backend === 'iocp' ? 'ENOTSUP' : 'EADDRINUSE' },
        'reusePort beside a listener without it',
      );
      t.equal(t.fdCount(), before, 'descriptors after the refusals');
      first.close();
      const again = listen(t, { port, host });
      t.equal(again.address.port, port, 'the same port again');
      const foreign = await t.peerServer(() => {});
      if (family === 'IPv4') {
        t.throws(() => listen(t, { port: foreign.port, host }), { code: 'EADDRINUSE' }, 'a port of node:net');
      }
    },
  ),

  {
    id: 'TCP-10/free',
    clause: 'TCP-10',
    title: 'port 0 gives a free port, another one each time; the address says which',
    reference: listening,
    run(t) {
      const numbers = new Set<number>();
      for (let i = 0; i < 20; i++) {
        const { address } = listen(t, { port: 0 });
        t.equal(address.address, '127.0.0.1', 'the address unless told');
        t.equal(address.family, 'IPv4', 'family');
        t.ok(Number.isInteger(address.port) && address.port > 0 && address.port < 65_536, `port ${address.port}`);
        numbers.add(address.port);
      }
      t.equal(numbers.size, 20, 'different ports');
    },
  },

  ...variants<{ host: string; family: Family; good: string[]; bad: string[]; ipv6Only?: boolean }>(
    { clause: 'TCP-10', title: 'what a listener takes: its own address, every address, both families', reference: listening },
    {
      IPv4: { host: '127.0.0.1', family: 'IPv4', good: ['127.0.0.1'], bad: ['127.0.0.2'] },
      'IPv4-any': { host: '0.0.0.0', family: 'IPv4', good: ['127.0.0.1', '127.0.0.2'], bad: ['::1'] },
      IPv6: { host: '::1', family: 'IPv6', good: ['::1'], bad: ['127.0.0.1'] },
      'dual-stack': { host: '::', family: 'IPv6', good: ['::1', '127.0.0.1'], bad: [] },
      ipv6Only: { host: '::', family: 'IPv6', good: ['::1'], bad: ['127.0.0.1'], ipv6Only: true },
    },
    (t, { host, family, good, bad, ipv6Only }) => {
      if ([host, ...good, ...bad].some((each) => each.includes(':'))) needIPv6(t);
      for (const from of good) {
        const listener = listen(t, ipv6Only === undefined ? { port: 0, host } : { port: 0, host, ipv6Only });
        t.equal(listener.address.family, family, 'the listener’s family');
        t.equal(listener.address.address, host, 'the listener’s address');
        const server = through(t, listener, from);
        // An IPv4 client of a dual-stack listener has a mapped address.
        const mapped = family === 'IPv6' && !from.includes(':');
        t.equal(server.localAddress?.address, mapped ? `::ffff:${from}` : from, 'the own address of the accepted socket');
        t.equal(server.remoteAddress?.family, family, 'the family of the peer’s address');
        for (const other of bad) t.equal(outcome(t, other, listener.address.port), 'ECONNREFUSED', `a connect to ${other}`);
        if (ipv6Only === true) {
          const both = listen(t, { port: listener.address.port, host: '0.0.0.0' });
          t.equal(both.address.port, listener.address.port, 'an IPv4 listener on the same port');
        }
      }
    },
  ),

  {
    id: 'TCP-10/address',
    clause: 'TCP-10',
    title: 'an address that isn’t this machine’s: EADDRNOTAVAIL; a name or a wrong port is misuse',
    reference: listening,
    run(t) {
      const before = t.fdCount();
      const error = t.throws(() => listen(t, { port: 0, host: '192.0.2.7' }), { code: 'EADDRNOTAVAIL' }, 'a foreign address');
      t.equal(Reflect.get(error, 'errno'), errnoOf(t, 'EADDRNOTAVAIL'), 'errno');
      t.throws(() => listen(t, { port: 0, host: 'localhost' }), { code: 'ERR_INVALID_ARG_VALUE', message: /node:dns/ }, 'a name');
      for (const port of [-1, 65_536, 0.5, Number.NaN]) {
        t.throws(() => listen(t, { port }), { name: 'RangeError', code: 'ERR_OUT_OF_RANGE' }, `port ${port}`);
      }
      for (const backlog of [-1, 1.5])
        t.throws(() => listen(t, { port: 0, backlog }), { code: 'ERR_OUT_OF_RANGE' }, `backlog ${backlog}`);
      t.equal(t.fdCount(), before, 'descriptors');
    },
  },

  {
    id: 'TCP-10/backlog',
    clause: 'TCP-10',
    title: 'the backlog is how many connections may wait: a small one is full soon, a large one takes them all',
    reference: listening,
    run(t) {
      const port = t.createPort();
      const waiting = (backlog: number | undefined): number => {
        const listener = t.listener(undefined, 0, backlog === undefined ? {} : { backlog });
        const started = new Set<Operation>();
        const sockets: TcpSocket[] = [];
        for (let i = 0; i < 30; i++) {
          const { socket, connecting } = connect(t, port, listener, i);
          sockets.push(socket);
          started.add(connecting);
        }
        const most = backlog === undefined || backlog >= 30 ? 30 : 31;
        let done = 0;
        // Whoever finds the backlog full tries again after a second at the earliest: 100 ms tell the two apart.
        for (let packet = port.getSync(100); packet !== null; packet = done < most ? port.getSync(100) : null) {
          t.succeeded(packet, 'a connect into the backlog');
          if (packet.operation !== undefined && started.delete(packet.operation)) done++;
        }
        for (const socket of sockets) socket.close();
        for (const packet of t.takeSync(port, started.size))
          t.failed(packet, { code: 'ECANCELED', by: 'close' }, 'a connect that waited');
        return done;
      };
      t.equal(waiting(64), 30, 'connections of 30 that wait in a backlog of 64');
      t.equal(waiting(undefined), 30, 'connections of 30 that wait in the backlog unless told');
      const small = waiting(4);
      t.ok(small >= 4 && small < 15, `${small} connections of 30 wait in a backlog of 4`);
    },
  },

  {
    id: 'TCP-10/reusePort',
    clause: 'TCP-10',
    title: 'reusePort: several listeners share a port, each connection reaches exactly one; ENOTSUP where the OS has none',
    reference: 'Winsock has no equivalent that balances: ENOTSUP there',
    run(t) {
      const port = t.createPort();
      let first: TcpListener;
      try {
        first = listen(t, { port: 0, reusePort: true });
      } catch (error) {
        if (error instanceof Error && Reflect.get(error, 'code') === 'ENOTSUP') t.notApplicable('this OS has no reusePort');
        throw error;
      }
      const listeners = [first, listen(t, { port: first.address.port, reusePort: true })];
      t.throws(() => listen(t, { port: first.address.port }), { code: 'EADDRINUSE' }, 'a listener without reusePort beside them');
      const taken = [0, 0];
      const connecting = new Set<Operation>();
      for (const [i, listener] of listeners.entries()) {
        t.equal(listener.address.port, first.address.port, 'the shared port');
        port.associate(listener, i);
        for (let n = 0; n < 64; n++) listener.accept();
      }
      const peers = new Set<number>();
      for (let n = 0; n < 64; n++) connecting.add(connect(t, port, first, 100).connecting);
      for (const packet of t.takeSync(port, 128)) {
        t.succeeded(packet, packet.kind);
        if (packet.kind !== 'accept') continue;
        taken[packet.key] = (taken[packet.key] ?? 0) + 1;
        peers.add(accepted(t, packet).remoteAddress?.port ?? 0);
      }
      t.equal(peers.size, 64, 'different peers that were accepted');
      // The kernel chooses by a hash of the addresses: all 64 at one of two happens once in 2^63.
      t.ok((taken[0] ?? 0) > 0 && (taken[1] ?? 0) > 0, `both listeners took some: ${taken.join(' and ')}`);
      for (const listener of listeners) listener.close();
      for (const packet of t.takeSync(port, 64)) t.failed(packet, { code: 'ECANCELED', by: 'close' }, 'an accept that was left');
    },
  },
];

const closing: ConformanceCase[] = [
  ...forEachWay(
    {
      clause: 'TCP-11',
      title: 'accepts that wait when their listener closes: ECANCELED each, once, and no descriptor is left',
      reference: 'closesocket of a listener ends its AcceptEx with ERROR_OPERATION_ABORTED (995)',
    },
    async (t, way) => {
      const port = t.createPort();
      const before = t.fdCount();
      const listener = t.api.TcpListener.listenSync({ port: 0 });
      const { port: number } = listener.address;
      port.associate(listener, 2 ** 50);
      const pending = new Map<Operation, number>();
      for (let i = 0; i < 25; i++) pending.set(listener.accept({ id: i }), i);
      // Some are in the kernel when it closes, some were never flushed.
      t.nothing(port);
      for (let i = 25; i < 30; i++) pending.set(listener.accept({ id: i }), i);
      listener.close();
      t.ok(listener.closed, 'listener.closed');
      t.throws(() => listener.accept(), { code: 'ERR_HANDLE_CLOSED' }, 'a further accept');
      await drive(
        t,
        port,
        way,
        (packet) => {
          const operation = t.some(packet.operation, 'packet.operation');
          t.equal(packet.kind, 'accept', 'kind');
          t.equal(packet.key, 2 ** 50, 'key');
          t.equal(packet.operationId, pending.get(operation), 'operationId, of an accept without a packet yet');
          t.failed(packet, { code: 'ECANCELED', by: 'close' }, 'the accept');
          t.equal(packet.result, undefined, 'result');
          pending.delete(operation);
        },
        () => pending.size === 0,
      );
      t.equal(port.inFlight, 0, 'operations in flight');
      await t.eventually(() => t.fdCount() === before, 'the listener’s descriptor is gone');
      t.equal(outcome(t, '127.0.0.1', number), 'ECONNREFUSED', 'a connect to the closed listener');
    },
  ),

  {
    id: 'TCP-11/race',
    clause: 'TCP-11',
    title:
      'a close while connections come in: each accept has its socket or ECANCELED, each connection is answered, nothing leaks',
    reference: 'closesocket and AcceptEx: the packet says which came first',
    async run(t) {
      const port = t.createPort();
      const before = t.fdCount();
      let won = 0;
      let lost = 0;
      for (let round = 0; round < t.count(60, 5); round++) {
        const listener = t.api.TcpListener.listenSync({ port: 0 });
        port.associate(listener, 1);
        const accepts = new Set<Operation>();
        const connects = new Set<Operation>();
        const sockets: TcpSocket[] = [];
        for (let i = 0; i < 6; i++) accepts.add(listener.accept());
        for (let i = t.random.int(9); i > 0; i--) {
          const socket = t.api.TcpSocket.openSync();
          port.associate(socket, 2);
          connects.add(socket.connect({ host: '127.0.0.1', port: listener.address.port }));
          sockets.push(socket);
        }
        if (t.random.int(2) === 0) port.flush();
        listener.close();
        for (const packet of t.takeSync(port, accepts.size + connects.size)) {
          const operation = t.some(packet.operation, 'packet.operation');
          if (connects.delete(operation)) {
            // Flushed with the close they are refused, behind it; before it they are connected, and then reset.
            if (packet.error !== null) t.failed(packet, { code: ['ECONNREFUSED', 'ECONNRESET', 'ECONNABORTED'] }, 'a connect');
            continue;
          }
          t.ok(accepts.delete(operation), 'each accept has one packet');
          if (packet.kind === 'accept' && packet.error === null) {
            won++;
            packet.result.close();
          } else {
            lost++;
            t.failed(packet, { code: 'ECANCELED', by: 'close' }, 'an accept that lost');
          }
        }
        for (const socket of sockets) socket.close();
      }
      t.ok(lost > 0, `accepts that were ended by the close: ${lost}, that won: ${won}`);
      await t.eventually(() => t.fdCount() === before, 'every descriptor is gone');
      t.nothing(port, 5);
    },
  },
];

const dead: ConformanceCase[] = [
  ...variants<{ good: number; bad: number; early: boolean }>(
    {
      clause: 'TCP-13',
      title: 'a connection that was reset in the backlog fails no accept: the living ones are all accepted',
      reference: 'AcceptEx completes for the next connection; a connection that is gone is not the listener’s error',
    },
    {
      one: { good: 1, bad: 1, early: false },
      many: { good: 8, bad: 20, early: false },
      'accepts-wait': { good: 5, bad: 15, early: true },
    },
    (t, { good, bad, early }) => {
      for (let round = 0; round < 5; round++) {
        const port = t.createPort();
        const clients = t.createPort();
        const listener = t.listener(port, 4);
        const accepts = new Set<Operation>();
        const most = good + bad;
        // Not flushed: they reach the kernel when the connections have come and gone.
        if (early) for (let i = 0; i < most; i++) accepts.add(listener.accept());
        const living = new Map<number, TcpSocket>();
        for (const alive of t.random.shuffle([...Array(good).fill(true), ...Array(bad).fill(false)]) as boolean[]) {
          const client = connected(t, clients, listener, 1);
          if (alive) living.set(t.some(client.localAddress, 'the own address').port, client);
          else client.close({ reset: true });
        }
        if (!early) for (let i = 0; i < most; i++) accepts.add(listener.accept());
        // An OS may give the dead ones too (Linux does), or drop them (the BSDs do); none may be an error.
        let taken = 0;
        while (living.size > 0) {
          const packet = t.takeOneSync(port);
          t.ok(packet.operation !== undefined && accepts.delete(packet.operation), 'each accept has one packet');
          const server = accepted(t, packet);
          const client = living.get(server.remoteAddress?.port ?? 0);
          if (client === undefined) continue;
          living.delete(server.remoteAddress?.port ?? 0);
          port.associate(server, 5);
          moved(t, clients, client.send(Uint8Array.of(++taken)), 1, 'a send of a living one');
          // Other accepts' packets may come first: they are looked at in their turn.
          const recv = server.recv(t.room(1));
          for (let bytes = -1; bytes < 0; ) {
            const next = t.takeOneSync(port);
            if (next.operation === recv) {
              t.succeeded(next, 'its recv');
              bytes = next.bytesTransferred;
              t.equal(bytes, 1, 'bytes');
            } else {
              t.ok(next.operation !== undefined && accepts.delete(next.operation), 'each accept has one packet');
              const other = accepted(t, next);
              living.delete(other.remoteAddress?.port ?? 0);
            }
          }
        }
        for (const packet of port.getManySync(512, 0)) accepted(t, packet);
        // The listener is as good as new.
        const last = connected(t, clients, listener, 1);
        accepts.add(listener.accept());
        for (let found = false; !found; ) {
          const packet = t.takeOneSync(port);
          found = accepted(t, packet).remoteAddress?.port === last.localAddress?.port;
        }
        listener.close();
      }
    },
  ),
];

export const cases: readonly ConformanceCase[] = [...listens, ...closing, ...dead];
