// TCP: TcpListener and TcpSocket. Addresses are literal; names are node:dns's business. An accepted socket has no port of its own
// until it is associated.

import * as abi from './abi.js';
import type { Engine } from './engine.js';
import { handleMakers } from './engine.js';
import { handleClosed, shown, wrongType, wrongValue } from './errors.js';
import type { HandleState } from './handle.js';
import { closeHandle, engineFor, Handle, making, stateOf } from './handle.js';
import type { View } from './memory.js';
import { native } from './native.js';
import type { Operation, OperationOptions, ShutdownHow } from './operation.js';
import { operationFor } from './operation.js';
import { ArrayIsArray, StringIncludes } from './primordials.js';
import { startBuffer, startChecked, startConnect, startPlain, startVector } from './start.js';
import { errorOfResult } from './status.js';
import { boolean, integer, milliseconds, optionsObject } from './validate.js';

/** One end of a connection. */
export interface SocketAddress {
  /** A literal IPv4 or IPv6 address. */
  readonly address: string;
  readonly family: 'IPv4' | 'IPv6';
  readonly port: number;
}

// An address on its way between the two halves, laid out as abi.h's AddressEntry.
const scratch = new Uint8Array(abi.ADDRESS_BYTES);
const scratch16 = new Uint16Array(scratch.buffer);

const ADDRESS_MAX = 256;

/** Parses a literal address into the scratch; returns 4 or 6. */
function parseAddress(host: unknown, port: unknown, hostName: string, portName: string): number {
  if (typeof host !== 'string') throw wrongType(hostName, 'a string', host);
  const number = integer(port, portName, 0, 65_535);
  // The longest literal address is 45 characters and its scope's name (inet_ntop(3), if_nametoindex(3)).
  const family = host.length > ADDRESS_MAX || StringIncludes(host, '\0') ? 0 : native.parseAddress(host, scratch);
  if (family === 0) {
    throw wrongValue(hostName, `must be a literal IPv4 or IPv6 address, but is ${shown(host)}; look names up with node:dns`);
  }
  scratch16[1] = number;
  return family;
}

function readAddress(state: HandleState, peer: boolean): SocketAddress | undefined {
  if (state.closed || native.address(state.index, state.generation, peer, scratch) !== 0) return undefined;
  return { address: native.formatAddress(scratch), family: scratch16[0] === 6 ? 'IPv6' : 'IPv4', port: scratch16[1] as number };
}

/** The failure of a synchronous call on a handle: stale, or the system's. */
function failed(state: HandleState, result: number, syscall: string): Error {
  return state.closed ? handleClosed() : errorOfResult(result, 0, syscall, '');
}

function setOption(state: HandleState, option: number, value: number): void {
  if (state.closed) throw handleClosed();
  const result = native.setOption(state.index, state.generation, option, value);
  if (result < 0) throw failed(state, result, 'setsockopt');
}

function getOption(state: HandleState, option: number): number {
  if (state.closed) throw handleClosed();
  const result = native.getOption(state.index, state.generation, option);
  if (result < 0) throw failed(state, result, 'getsockopt');
  return result;
}

/** Options of TcpListener.listenSync. */
export interface ListenOptions {
  /** 0: any free one. */
  port: number;
  /** A literal address; '127.0.0.1' unless given. '::' takes IPv4 connections, too, unless ipv6Only. */
  host?: string | undefined;
  /** Connections that may wait to be accepted; 511 unless given. */
  backlog?: number | undefined;
  /** Several listeners, of several threads or processes, share the address. ENOTSUP where the OS can't. */
  reusePort?: boolean | undefined;
  ipv6Only?: boolean | undefined;
}

/** A listening TCP socket. */
export class TcpListener extends Handle {
  readonly #address: SocketAddress;

  static {
    handleMakers[abi.HANDLE_LISTENER] = (id, engine, key): TcpListener => {
      const listener = new TcpListener(making, id, engine);
      stateOf(listener).engine = engine;
      stateOf(listener).key = key;
      return listener;
    };
  }

  private constructor(token: symbol, id: number, engine: Engine | null) {
    super(token, id, engine);
    this.#address = readAddress(stateOf(this), false) as SocketAddress;
  }

  /**
   * Binds and listens at once. It has no port yet: associate it, then start accepts.
   *
   * @throws CompletionError: EADDRINUSE, EADDRNOTAVAIL, EACCES, EMFILE, ENOTSUP …; misuse
   */
  static listenSync(options: ListenOptions): TcpListener {
    if (options === undefined) throw wrongType('options', 'an object', options);
    optionsObject(options, 'options');
    const { port, host = '127.0.0.1' } = options;
    const backlog = options.backlog === undefined ? 511 : integer(options.backlog, 'options.backlog', 0, 2 ** 31 - 1);
    const reusePort = boolean(options.reusePort, 'options.reusePort', false);
    const ipv6Only = boolean(options.ipv6Only, 'options.ipv6Only', false);
    const family = parseAddress(host, port, 'options.host', 'options.port');
    const id = native.listen(family, scratch, backlog, reusePort, ipv6Only);
    if (id < 0) throw errorOfResult(id, abi.OP_ACCEPT, 'listen', ` (${host} port ${port})`);
    return new TcpListener(making, id, null);
  }

  /** Where it listens, its port never 0. It stays readable after the close. */
  get address(): SocketAddress {
    return this.#address;
  }

  /**
   * Starts accepting one connection; `packet.result` is a TcpSocket, which is the receiver's to associate and to close.
   *
   * @throws EAGAIN, ERR_HANDLE_CLOSED, ERR_NOT_ASSOCIATED, ERR_PORT_CLOSED, ERR_OPERATION_PENDING, misuse
   */
  accept<C = unknown>(operation?: Operation<C> | OperationOptions<C>): Operation<C> {
    return startPlain(stateOf(this), abi.OP_ACCEPT, 0, operation);
  }
}

/** Options of TcpSocket.openSync. */
export interface TcpSocketOptions {
  /** 'IPv4' unless given, or the family of `localAddress`. */
  family?: 'IPv4' | 'IPv6' | undefined;
  /** A literal address of this machine to connect from. */
  localAddress?: string | undefined;
  /** The port to connect from; 0, the default: any. */
  localPort?: number | undefined;
}

const hows: Readonly<Record<ShutdownHow, number>> = { write: 0, read: 1, both: 2 };

/**
 * A TCP connection, or a socket that is to be connected. Per direction, operations are taken in the order of their starts, and any
 * number may be pending.
 */
export class TcpSocket extends Handle {
  static {
    handleMakers[abi.HANDLE_SOCKET] = (id, engine, key): TcpSocket => {
      const socket = new TcpSocket(making, id, engine);
      if (engine !== null) {
        stateOf(socket).engine = engine;
        stateOf(socket).key = key;
      }
      return socket;
    };
  }

  #localAddress: SocketAddress | undefined;
  #remoteAddress: SocketAddress | undefined;

  private constructor(token: symbol, id: number, engine: Engine | null) {
    super(token, id, engine);
  }

  /**
   * Makes a socket that isn't connected: associate it, then start a connect.
   *
   * @throws CompletionError: EMFILE, EADDRNOTAVAIL, EADDRINUSE …; misuse
   */
  static openSync(options: TcpSocketOptions = {}): TcpSocket {
    optionsObject(options, 'options');
    const { family, localAddress, localPort } = options;
    if (family !== undefined && family !== 'IPv4' && family !== 'IPv6')
      throw wrongValue('options.family', "must be 'IPv4' or 'IPv6'");
    let number = family === 'IPv6' ? 6 : 4;
    let bound = false;
    if (localAddress !== undefined || localPort !== undefined) {
      const host = localAddress === undefined ? (number === 6 ? '::' : '0.0.0.0') : localAddress;
      const parsed = parseAddress(host, localPort === undefined ? 0 : localPort, 'options.localAddress', 'options.localPort');
      if (family !== undefined && parsed !== number) throw wrongValue('options.localAddress', `must be an ${family} address`);
      number = parsed;
      bound = true;
    }
    const id = native.socket(number, bound ? scratch : null);
    if (id < 0) throw errorOfResult(id, abi.OP_CONNECT, bound ? 'bind' : 'socket', '');
    const socket = new TcpSocket(making, id, null);
    stateOf(socket).family = number;
    return socket;
  }

  /**
   * Starts connecting. The packet says ECONNREFUSED, ENETUNREACH, ETIMEDOUT … if that fails; close the socket then, and open another.
   *
   * @param address - a literal address and a port from 1 to 65535; an Operation with `host` and `port` will do
   * @throws EAGAIN, ERR_HANDLE_CLOSED, ERR_NOT_ASSOCIATED, ERR_PORT_CLOSED, ERR_OPERATION_PENDING, misuse
   */
  connect<C = unknown>(
    address: { host?: string | undefined; port?: number | undefined },
    operation?: Operation<C> | OperationOptions<C>,
  ): Operation<C> {
    const state = stateOf(this);
    const engine = engineFor(state);
    if (typeof address !== 'object' || address === null) throw wrongType('address', 'an object with host and port', address);
    const started = operationFor(operation);
    const { host, port } = address;
    const family = parseAddress(host, port, 'address.host', 'address.port');
    if (state.family !== 0 && family !== state.family) {
      throw wrongValue(
        'address.host',
        `is an IPv${family} address, but the socket was opened for IPv${state.family} (option family of openSync)`,
      );
    }
    const target = scratch.slice(); // options may have getters that use the scratch
    startConnect(engine, state, target, started);
    return started;
  }

  /**
   * Starts receiving: the packet comes with what is there, at least 1 byte; 0 bytes and no error mean that the peer has ended its
   * side. A zero-length view waits until there is something, and takes none of it.
   *
   * @param buffer - where the bytes go (`offset` and `length` of the operation choose a part); in use until the packet
   * @throws EAGAIN, ERR_HANDLE_CLOSED, ERR_NOT_ASSOCIATED, ERR_PORT_CLOSED, ERR_OPERATION_PENDING, ERR_BUFFER_DETACHED, misuse
   */
  recv<C = unknown>(buffer: View, operation?: Operation<C> | OperationOptions<C>): Operation<C> {
    return startBuffer(stateOf(this), abi.OP_RECV, false, false, buffer, operation);
  }

  /**
   * Starts sending: the packet comes when the kernel has taken all bytes, or with an error and what it took before.
   *
   * @param buffer - a view, or an array of up to 1,024 views that are sent one after the other (kind 'sendv')
   * @throws as recv
   */
  send<C = unknown>(buffer: View | readonly View[], operation?: Operation<C> | OperationOptions<C>): Operation<C> {
    if (ArrayIsArray(buffer)) return startVector(stateOf(this), abi.OP_SENDV, abi.OP_SEND, true, false, buffer, operation);
    return startBuffer(stateOf(this), abi.OP_SEND, true, false, buffer, operation);
  }

  /**
   * Starts ending a direction: 'write' (unless said otherwise in `how`), behind the sends that were started before; 'read': pending
   * and later recvs give 0 bytes; or 'both'.
   */
  shutdown<C = unknown>(operation?: Operation<C> | (OperationOptions<C> & { how?: ShutdownHow | undefined })): Operation<C> {
    const state = stateOf(this);
    const engine = engineFor(state);
    const started = operationFor(operation);
    const how = started.how ?? 'write';
    const number = how === 'write' || how === 'read' || how === 'both' ? hows[how] : undefined;
    if (number === undefined) throw wrongValue('how', "must be 'write', 'read' or 'both'");
    startChecked(engine, state, abi.OP_SHUTDOWN, number, started);
    return started;
  }

  /**
   * Closes the connection at once; sends that are pending are cancelled.
   *
   * @param options - `reset: true`: the peer gets a reset (RST) in place of an orderly end
   */
  override close(options?: { reset?: boolean | undefined }): void {
    optionsObject(options, 'options');
    closeHandle(stateOf(this), boolean(options?.reset, 'options.reset', false));
  }

  /** The own end; undefined before it has one. Once read it stays readable after the close. */
  get localAddress(): SocketAddress | undefined {
    const known = this.#localAddress;
    if (known !== undefined) return known;
    const address = readAddress(stateOf(this), false);
    // Before the connect it has no port, or the wildcard address: not to be kept.
    if (this.remoteAddress !== undefined) this.#localAddress = address;
    return address;
  }

  /** The peer's end; undefined before the connection. Once read it stays readable after the close. */
  get remoteAddress(): SocketAddress | undefined {
    this.#remoteAddress ??= readAddress(stateOf(this), true);
    return this.#remoteAddress;
  }

  /** Turns Nagle's algorithm off (true) or on. Throws ERR_HANDLE_CLOSED, or the system's error. */
  setNoDelay(on = true): this {
    setOption(stateOf(this), abi.OPTION_NO_DELAY, boolean(on, 'on', true) ? 1 : 0);
    return this;
  }

  /**
   * Has the kernel probe an idle connection.
   *
   * @param initialDelayMs - idle time before the first probe, in milliseconds, taken to whole seconds; 0: the system's default
   */
  setKeepAlive(on = false, initialDelayMs = 0): this {
    const state = stateOf(this);
    const enable = boolean(on, 'on', false);
    const delay = milliseconds(initialDelayMs, 'initialDelayMs');
    setOption(state, abi.OPTION_KEEP_ALIVE, enable ? 1 : 0);
    const seconds = Math.min(Math.ceil(delay / 1000), 32_767); // the most that Linux takes: tcp(7), TCP_KEEPIDLE
    if (enable && seconds > 0) setOption(state, abi.OPTION_KEEP_ALIVE_IDLE, seconds);
    return this;
  }

  /** The kernel's receive buffer in bytes, as the kernel counts them (Linux doubles what is set). */
  get recvBufferSize(): number {
    return getOption(stateOf(this), abi.OPTION_RECV_BUFFER);
  }

  set recvBufferSize(bytes: number) {
    setOption(stateOf(this), abi.OPTION_RECV_BUFFER, integer(bytes, 'recvBufferSize', 1, 2 ** 31 - 1));
  }

  /** The kernel's send buffer in bytes, as the kernel counts them (Linux doubles what is set). */
  get sendBufferSize(): number {
    return getOption(stateOf(this), abi.OPTION_SEND_BUFFER);
  }

  set sendBufferSize(bytes: number) {
    setOption(stateOf(this), abi.OPTION_SEND_BUFFER, integer(bytes, 'sendBufferSize', 1, 2 ** 31 - 1));
  }
}
