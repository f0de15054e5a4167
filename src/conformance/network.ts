// Connected sockets for the suite's cases: two of the port under test, or one and a plain `node:net` socket, which does what only a
// foreign peer does (resets, half-closes, reads nothing).

import * as net from 'node:net';
import { createAssertions, showError, showPackets } from './check.js';
import type { Taking } from './taking.js';
import type { Api, Context, Packet } from './types.js';

export interface NetworkSettings {
  readonly api: Api;
  readonly track: Context['track'];
  readonly within: Context['within'];
  readonly takeSync: Taking['takeSync'];
  cleanup(what: string, action: () => void | Promise<void>): void;
}

type Network = Pick<Context, 'listener' | 'pair' | 'peer' | 'peerServer' | 'peerClient' | 'readPeer'>;

export function createNetwork({ api, track, cleanup, within, takeSync }: NetworkSettings): Network {
  const check = createAssertions();
  const fail: (message: string) => never = check.fail;

  const listener: Context['listener'] = (port, key = 0, options = {}) => {
    const made = track(api.TcpListener.listenSync({ port: 0, host: '127.0.0.1', ...options }));
    port?.associate(made, key);
    return made;
  };

  const pair: Context['pair'] = (port, keyA = 1, keyB = 2, options = {}) => {
    const family = options.family ?? 'IPv4';
    const host = family === 'IPv4' ? '127.0.0.1' : '::1';
    const server = api.TcpListener.listenSync({ port: 0, host });
    try {
      port.associate(server, 0);
      const a = track(api.TcpSocket.openSync({ family }));
      port.associate(a, keyA);
      const connecting = a.connect({ host, port: server.address.port });
      const accepting = server.accept();
      let b: typeof a | null = null;
      for (const packet of takeSync(port, 2)) {
        if (packet.error !== null) fail(`pair(): ${packet.kind} failed: ${showError(packet.error)}`);
        if (packet.operation === accepting && packet.kind === 'accept') b = track(packet.result);
        else if (packet.operation !== connecting) fail(`pair() needs a quiet port, but met ${showPackets([packet])}`);
      }
      const accepted = check.some(b, 'the accepted socket');
      port.associate(accepted, keyB);
      return { a, b: accepted };
    } finally {
      server.close();
    }
  };

  const peerServer: Context['peerServer'] = async (onConnection, options = {}) => {
    const sockets = new Set<net.Socket>();
    const server = net.createServer({ pauseOnConnect: true, ...options }, (socket) => {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      // Resets are what many cases are about; whoever wants to see them adds a listener of their own.
      socket.on('error', () => {});
      onConnection(socket);
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    cleanup('a node:net server', async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    });
    const address = server.address();
    if (address === null || typeof address === 'string') return fail('a node:net server has no address');
    return { server, port: address.port };
  };

  const peerClient: Context['peerClient'] = async (port, options = {}) => {
    const socket = net.connect({ host: '127.0.0.1', port, ...options });
    socket.pause();
    cleanup('a node:net client', () => void socket.destroy());
    const connected = new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    await within(5000, connected, `a node:net connection to port ${port}`);
    socket.on('error', () => {});
    return socket;
  };

  const peer: Context['peer'] = async (port, key = 1, options = {}) => {
    let arrived: (socket: net.Socket) => void = () => {};
    const arrival = new Promise<net.Socket>((resolve) => {
      arrived = resolve;
    });
    const { port: number } = await peerServer((socket) => arrived(socket), options);
    const socket = track(api.TcpSocket.openSync());
    port.associate(socket, key);
    const connecting = socket.connect({ host: '127.0.0.1', port: number });
    const packet = check.some(await port.get({ timeout: 5000 }), 'the packet of a connect to node:net');
    if (packet.operation !== connecting) fail(`peer() needs a quiet port, but met ${showPackets([packet as Packet])}`);
    if (packet.error !== null) fail(`peer(): connect failed: ${showError(packet.error)}`);
    return { socket, peer: await within(5000, arrival, 'the connection’s other end') };
  };

  const readPeer: Context['readPeer'] = async (socket, n, limitMs = 5000) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const end = performance.now() + limitMs;
    while (length < n) {
      const chunk: Buffer | null = socket.read(Math.min(n - length, socket.readableLength) || undefined);
      if (chunk !== null) {
        if (length + chunk.length > n) {
          socket.unshift(chunk.subarray(n - length));
          chunks.push(chunk.subarray(0, n - length));
        } else {
          chunks.push(chunk);
        }
        length += Math.min(chunk.length, n - length);
        continue;
      }
      if (socket.readableEnded || socket.destroyed) break;
      const left = end - performance.now();
      if (left <= 0) fail(`read ${length} of ${n} bytes from a peer within ${limitMs} ms`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(next, left);
        const events = ['readable', 'end', 'close'] as const;
        function next(): void {
          clearTimeout(timer);
          for (const event of events) socket.off(event, next);
          resolve();
        }
        for (const event of events) socket.on(event, next);
      });
    }
    return Buffer.concat(chunks);
  };

  return { listener, pair, peer, peerServer, peerClient, readPeer };
}
