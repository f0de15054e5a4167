// What the TCP cases share: hosts by family, connecting, receiving a stream by the port itself, listeners whose backlog is full.
// Not a family: it exports no cases.

import type { Context, Operation, Packet, Port, TcpListener, TcpSocket } from '../types.js';
import { type BufferKind, makeBuffer, packetOf } from './buffers.js';

export type Family = 'IPv4' | 'IPv6';
export const hosts: Readonly<Record<Family, string>> = { IPv4: '127.0.0.1', IPv6: '::1' };

/** A socket on its way to a listener. */
export function connect(
  t: Context,
  port: Port,
  listener: TcpListener,
  key: number,
  family: Family = 'IPv4',
): { socket: TcpSocket; connecting: Operation } {
  const socket = t.track(t.api.TcpSocket.openSync({ family }));
  port.associate(socket, key);
  return { socket, connecting: socket.connect({ host: hosts[family], port: listener.address.port }) };
}

/** A connected socket whose other end waits in the listener's backlog. */
export function connected(t: Context, port: Port, listener: TcpListener, key: number, family: Family = 'IPv4'): TcpSocket {
  const { socket, connecting } = connect(t, port, listener, key, family);
  const packet = t.takeOneSync(port);
  t.ok(packet.operation === connecting, 'the packet is of the connect');
  t.succeeded(packet, 'connect');
  return socket;
}

/** The socket of an accept's packet, put away after the case. */
export function accepted(t: Context, packet: Packet): TcpSocket {
  if (packet.kind !== 'accept') return t.fail(`expected an accept, got a ${packet.kind}`);
  t.succeeded(packet, 'accept');
  const socket = t.track(t.some(packet.result, 'the accepted socket'));
  t.ok(socket instanceof t.api.TcpSocket, 'the accepted socket is a TcpSocket');
  t.equal(packet.bytesTransferred, 0, 'bytes of an accept');
  return socket;
}

/** A socket on `port` and its peer, which lives on a port of its own so that its packets are out of the way. */
export function apart(t: Context, port: Port, far = t.createPort()): { socket: TcpSocket; far: Port; peer: TcpSocket } {
  const listener = t.listener(far, 0);
  const socket = connected(t, port, listener, 1);
  const peer = accepted(t, packetOf(t, far, listener.accept(), 'accept'));
  far.associate(peer, 2);
  return { socket, far, peer };
}

export interface Stream {
  readonly bytes: Buffer;
  /** It ended with 0 bytes and no error. */
  readonly ended: boolean;
  readonly error: Packet['error'];
}

/**
 * Receives until `n` bytes are there, or the end, or an error; other operations' packets go to `other`. Every recv's packet
 * is checked: between 1 byte and its buffer's length, and nothing behind them changed.
 */
export function receive(
  t: Context,
  port: Port,
  socket: TcpSocket,
  n: number,
  options: { kind?: BufferKind; chunk?: number; other?: (packet: Packet, received: number) => void; limitMs?: number } = {},
): Stream {
  const { kind = 'heap', chunk = 65_536, limitMs = 8000 } = options;
  const other = options.other ?? ((packet) => t.fail(`met a packet of kind ${packet.kind} while receiving`));
  const parts: Buffer[] = [];
  let length = 0;
  const view = makeBuffer(port, kind, chunk);
  const end = t.now() + limitMs;
  while (length < n) {
    const wanted = Math.min(chunk, n - length);
    const operation = socket.recv(view, { length: wanted });
    let packet: Packet;
    for (;;) {
      packet = t.takeOneSync(port, Math.max(1, end - t.now()));
      if (packet.operation === operation) break;
      other(packet, length);
    }
    t.equal(packet.kind, 'recv', 'kind');
    if (packet.error !== null) return { bytes: Buffer.concat(parts), ended: false, error: packet.error };
    if (packet.bytesTransferred === 0) return { bytes: Buffer.concat(parts), ended: true, error: null };
    t.less(packet.bytesTransferred, wanted + 1, 'bytes of a recv');
    parts.push(Buffer.from(view.slice(0, packet.bytesTransferred)));
    length += packet.bytesTransferred;
  }
  if (kind === 'arena') port.release(view);
  return { bytes: Buffer.concat(parts), ended: false, error: null };
}

/** Small kernel buffers at both ends, so that a few hundred KiB don't fit into them. Before the first byte. */
export function narrow(sender: TcpSocket, receiver: TcpSocket): void {
  sender.sendBufferSize = 32_768;
  receiver.recvBufferSize = 32_768;
}

/** More than any kernel here keeps for a connection that was made narrow. */
export const narrowLimit = 1.5 * 2 ** 20;

/**
 * A connect that stays pending: the listener's backlog is full, so the kernel ignores further connections (Linux drops their
 * SYN, which is sent again after a second). The sockets that fill it stay open for the case.
 */
export function pendingConnect(
  t: Context,
  port: Port,
  key: number,
): { socket: TcpSocket; connecting: Operation; listener: TcpListener } {
  // Its accepts are never started: it needs no port.
  const listener = t.listener(undefined, 0, { backlog: 1 });
  for (let i = 0; i < 20; i++) {
    const attempt = connect(t, port, listener, key);
    const packet = port.getSync(150);
    if (packet === null) return { ...attempt, listener };
    t.ok(packet.operation === attempt.connecting, 'the packet is of the connect');
    t.succeeded(packet, 'a connect into the backlog');
  }
  return t.unable('this kernel took 20 connections into a backlog of 1');
}

/**
 * A port of this machine that nobody listens at, and that nobody gets meanwhile: that of a connection whose listener is closed. One that was merely free
 * a moment ago may be given to the very socket that connects to it, which TCP then connects with itself.
 */
export function unusedPort(t: Context, family: Family = 'IPv4'): number {
  const port = t.createPort();
  const listener = t.listener(port, 0, { host: hosts[family] });
  const number = listener.address.port;
  connected(t, port, listener, 0, family);
  accepted(t, packetOf(t, port, listener.accept(), 'accept'));
  listener.close();
  return number;
}

/** For the variants of a clause over IPv6. */
export function needIPv6(t: Context): void {
  try {
    t.api.TcpListener.listenSync({ port: 0, host: hosts.IPv6 }).close();
  } catch (error) {
    const code = error instanceof Error ? Reflect.get(error, 'code') : undefined;
    if (code === 'EADDRNOTAVAIL' || code === 'EAFNOSUPPORT') t.unable('no IPv6 loopback address (::1)');
    throw error;
  }
}
