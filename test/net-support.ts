/**
 * What the tests of completion-port/net share: the two implementations that must behave alike, and pairs of connected sockets
 * that are cleaned up whatever a test did to them.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import nodeNet, {
  type AddressInfo,
  type ListenOptions,
  type Server,
  type ServerOpts,
  type Socket,
  type TcpNetConnectOpts,
} from 'node:net';
import * as completionPortNet from 'completion-port/net';
import { afterEach } from 'vitest';

/** The part of node:net that both have. */
export type Net = Pick<typeof nodeNet, 'createServer' | 'connect' | 'createConnection' | 'Socket' | 'Server'>;

export const implementations: [name: string, net: Net][] = [
  ['node:net', nodeNet],
  ['completion-port/net', completionPortNet as unknown as Net],
];

const servers = new Set<Server>();
const sockets = new Set<Socket>();

const closes = new WeakMap<Socket, Promise<boolean>>();

export function track<T extends Socket>(socket: T): T {
  sockets.add(socket);
  closes.set(socket, new Promise((resolve) => socket.once('close', resolve)));
  return socket;
}

export function trackServer<T extends Server>(server: T): T {
  servers.add(server);
  server.on('connection', (socket: Socket) => {
    track(socket).once('close', () => sockets.delete(socket));
  });
  return server;
}

afterEach(async () => {
  for (const socket of sockets) {
    // What a test left open may still fail while it is taken down.
    socket.on('error', () => undefined);
    socket.destroy();
  }
  sockets.clear();
  const open = [...servers].filter((server) => server.listening);
  servers.clear();
  await Promise.all(open.map((server) => new Promise((resolve) => server.close(resolve))));
});

export async function listen(server: Server, options: ListenOptions = {}): Promise<number> {
  trackServer(server);
  server.listen({ port: 0, host: '127.0.0.1', ...options });
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

export interface Pair {
  server: Server;
  client: Socket;
  /** The server's end. */
  peer: Socket;
}

/** A connected pair of sockets; `peer` has had no listener and reads nothing by itself. */
export async function connected(
  net: Net,
  serverOptions: ServerOpts = {},
  clientOptions: Partial<TcpNetConnectOpts> = {},
): Promise<Pair> {
  const server = net.createServer(serverOptions);
  const port = await listen(server);
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const client = track(net.connect({ port, host: '127.0.0.1', ...clientOptions }));
  await once(client, 'connect');
  const [peer] = await accepted;
  return { server, client, peer };
}

/**
 * A port that nobody listens at, and that nobody gets meanwhile, for it has a connection yet: one that was merely free a moment ago may be given to
 * the very socket that connects to it, which TCP then connects with itself.
 */
export async function unusedPort(net: Net): Promise<number> {
  const { server, peer } = await connected(net);
  server.close();
  return peer.localPort as number;
}

/** All that a socket receives until its end. (Not by `for await`, which would destroy the socket at the end.) */
export function received(socket: Socket): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.once('end', () => resolve(Buffer.concat(chunks)));
    socket.once('error', reject);
    socket.resume();
  });
}

/** hadError of a tracked socket's first 'close', whether that has been or is to come. */
export function closed(socket: Socket): Promise<boolean> {
  const close = closes.get(socket);
  if (close === undefined) {
    throw new Error('not a tracked socket');
  }
  return close;
}

/** The next `count` bytes or more; the socket is paused afterwards. */
export function receive(socket: Socket, count: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const stop = () => {
      socket.off('data', take);
      socket.off('close', lost);
      socket.pause();
    };
    const take = (chunk: Buffer) => {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes >= count) {
        stop();
        resolve(Buffer.concat(chunks));
      }
    };
    const lost = () => {
      stop();
      reject(new Error(`closed after ${bytes} of ${count} bytes`));
    };
    socket.on('data', take);
    socket.once('close', lost);
    socket.resume();
  });
}

/** Bytes that differ at every offset, so that a lost, doubled or moved piece changes the checksum. */
export function pattern(bytes: number): Buffer {
  const data = Buffer.allocUnsafe(bytes);
  for (let i = 0; i + 4 <= bytes; i += 4) {
    data.writeUInt32LE((i * 2_654_435_761) >>> 0, i);
  }
  return data;
}

export function checksum(data: Buffer): string {
  return createHash('sha256').update(data).digest('hex');
}

/** Names of the events in the order in which they come. */
export function recordEvents(socket: Socket | Server, ...names: string[]): string[] {
  const order: string[] = [];
  for (const name of names) {
    socket.on(name, () => order.push(name));
  }
  return order;
}

export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
