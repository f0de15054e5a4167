/**
 * `completion-port/net`: servers and sockets shaped like node:net's whose every byte goes through a completion port. node:http
 * and node:tls work over its sockets unchanged: `httpServer.emit('connection', socket)`, `createConnection: connect`,
 * `new TLSSocket(socket, …)`. What differs from node:net is listed in docs/net.md.
 *
 * @module
 */
import { normalizeArguments } from './net/arguments.js';
import { Server, type ServerOptions } from './net/server.js';
import { Socket, type SocketConnectOptions } from './net/socket.js';

export { isIP, isIPv4, isIPv6 } from 'node:net';
export type { LookupFunction, TcpConnectOptions } from './net/connecting.js';
export type { NetError } from './net/errors.js';
export type { DropArgument, ListenOptions, ServerOptions } from './net/server.js';
export { Server } from './net/server.js';
export type { SocketConnectOptions, SocketConstructorOptions, SocketReadyState } from './net/socket.js';
export { Socket } from './net/socket.js';

/** A new server; the listener gets its connections. */
export function createServer(options?: ServerOptions, connectionListener?: (socket: Socket) => void): Server;
export function createServer(connectionListener?: (socket: Socket) => void): Server;
export function createServer(
  options?: ServerOptions | ((socket: Socket) => void),
  connectionListener?: (socket: Socket) => void,
): Server {
  return new Server(options, connectionListener);
}

/**
 * A new socket, connecting. The host may be a literal address or a name, which is looked up by node:dns ('localhost' if absent).
 * The listener is called on 'connect'. Misuse is thrown, what fails later is the socket's 'error'.
 */
export function connect(options: SocketConnectOptions, connectionListener?: () => void): Socket;
export function connect(port: number | string, host: string, connectionListener?: () => void): Socket;
export function connect(port: number | string, connectionListener?: () => void): Socket;
export function connect(...values: unknown[]): Socket {
  const [options, callback] = normalizeArguments<SocketConnectOptions>(values);
  const socket = new Socket(options);
  if (options.timeout) {
    socket.setTimeout(options.timeout);
  }
  return socket.connect(options as SocketConnectOptions, callback as (() => void) | undefined);
}

export { connect as createConnection };

const net = { connect, createConnection: connect, createServer, Server, Socket };
export default net;
