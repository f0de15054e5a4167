/**
 * `Server`: listens and turns each accepted connection into a Socket, shaped like node:net's. It keeps a few accepts in flight
 * and starts each again from its packet, so that a burst of connections is taken in one turn of the event loop.
 */
import dns from 'node:dns';
import { EventEmitter } from 'node:events';
import { type AddressInfo, isIP } from 'node:net';
import { type OperationKind, SettledOperation } from '../operation.js';
import type { CompletionPort } from '../port.js';
import { TcpListener, type TcpSocket } from '../tcp.js';
import { normalizeArguments, validateAbortSignal, validateCount, validatePort } from './arguments.js';
import { type Blocks, blocksOf } from './blocks.js';
import { codedError, invalidType, isPortFailure, listenError, notSupported, type PortFailure, transferError } from './errors.js';
import { Socket } from './socket.js';

export interface ServerOptions {
  /** The port that the server and its sockets use; absent: this thread's default port. */
  completionPort?: CompletionPort | undefined;
  allowHalfOpen?: boolean | undefined;
  /** Sockets start paused: nothing is read before resume() or a 'data' listener and resume(). */
  pauseOnConnect?: boolean | undefined;
  noDelay?: boolean | undefined;
  keepAlive?: boolean | undefined;
  keepAliveInitialDelay?: number | undefined;
  highWaterMark?: number | undefined;
}

export interface ListenOptions {
  port?: number | string | undefined;
  /** Name or address; absent: every address, IPv6 and IPv4 where both are there. */
  host?: string | undefined;
  /** Connections that may wait to be accepted. Default 511. */
  backlog?: number | undefined;
  ipv6Only?: boolean | undefined;
  reusePort?: boolean | undefined;
  /** Closes the server when aborted. */
  signal?: AbortSignal | undefined;
  /** Of use with node:cluster only, which this server doesn't take part in: accepted and ignored. */
  exclusive?: boolean | undefined;
}

/** What 'drop' says of a connection that was closed because of maxConnections. */
export interface DropArgument {
  localAddress?: string;
  localPort?: number;
  localFamily?: string;
  remoteAddress?: string;
  remotePort?: number;
  remoteFamily?: string;
}

/** Accepts kept in flight: what one turn of the event loop can take of a burst. */
const ACCEPTS = 8;
/** A failed accept is tried again after this long, if the port doesn't pace it anyway. */
const ACCEPT_RETRY_MS = 100;
const BACKLOG = 511;
/** Shortages that pass: the port delays their packets, so an accept can be started again at once. */
const SHORTAGES = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM']);

class AcceptOperation extends SettledOperation {
  constructor(readonly server: Server) {
    super();
  }

  override settle(_kind: OperationKind, _bytes: number, error: PortFailure | null, result: unknown): void {
    this.server.accepted(this, error, result as TcpSocket | undefined);
  }
}

export class Server extends EventEmitter {
  allowHalfOpen: boolean;
  pauseOnConnect: boolean;
  noDelay: boolean;
  keepAlive: boolean;
  keepAliveInitialDelay: number;
  highWaterMark: number | undefined;
  /** Above this many connections new ones are closed at once, and 'drop' is emitted. */
  maxConnections: number | undefined;

  readonly #portOption: CompletionPort | undefined;
  #blocks: Blocks | undefined;
  #listener: TcpListener | null = null;
  #accepts: AcceptOperation[] = [];
  /** Tells a listen() whose lookup comes back late from the current one. */
  #listening = 0;
  #connections = 0;
  #referenced = true;
  #warned = false;
  readonly #connectionEnded = (): void => {
    this.#connections--;
    this.#closeIfDone();
  };

  constructor(options?: ServerOptions | ((socket: Socket) => void), connectionListener?: (socket: Socket) => void) {
    super();
    let listener = connectionListener;
    let given: ServerOptions = {};
    if (typeof options === 'function') {
      listener = options;
    } else if (options !== undefined && options !== null) {
      if (typeof options !== 'object') {
        throw invalidType('options', 'of type object', options);
      }
      given = options;
    }
    if ((given as { blockList?: unknown }).blockList) {
      throw notSupported('options.blockList');
    }
    this.allowHalfOpen = Boolean(given.allowHalfOpen);
    this.pauseOnConnect = Boolean(given.pauseOnConnect);
    this.noDelay = Boolean(given.noDelay);
    this.keepAlive = Boolean(given.keepAlive);
    this.keepAliveInitialDelay = validateCount(given.keepAliveInitialDelay, 'options.keepAliveInitialDelay') ?? 0;
    this.highWaterMark = validateCount(given.highWaterMark, 'options.highWaterMark');
    this.#portOption = given.completionPort;
    if (typeof listener === 'function') {
      this.on('connection', listener);
    }
  }

  // ---- listening

  /**
   * Begins to listen; 'listening' follows, or 'error' (EADDRINUSE, EACCES, a name that isn't found).
   * Throws ERR_SERVER_ALREADY_LISTEN, ERR_SOCKET_BAD_PORT, and ERR_NOT_SUPPORTED for paths and descriptors.
   */
  listen(options: ListenOptions, listeningListener?: () => void): this;
  listen(port?: number | string, host?: string, backlog?: number, listeningListener?: () => void): this;
  listen(port?: number | string, host?: string, listeningListener?: () => void): this;
  listen(port?: number | string, backlog?: number, listeningListener?: () => void): this;
  listen(port?: number | string, listeningListener?: () => void): this;
  listen(listeningListener?: () => void): this;
  listen(...values: unknown[]): this {
    const [options, callback] = normalizeArguments<ListenOptions>(values);
    if (this.#listener !== null) {
      throw codedError('ERR_SERVER_ALREADY_LISTEN', 'Listen method has been called more than once without closing.');
    }
    const { path, fd, handle } = options as { path?: unknown; fd?: unknown; handle?: unknown };
    if (path !== undefined || fd !== undefined || handle !== undefined) {
      throw notSupported('servers on paths, descriptors or handles');
    }
    const anyPort =
      values.length === 0 ||
      typeof values[0] === 'function' ||
      options.port === null ||
      ('port' in options && options.port === undefined);
    if (!anyPort && !('port' in options)) {
      if (values[0] !== undefined && values[0] !== null) {
        throw codedError('ERR_INVALID_ARG_VALUE', 'The argument \'options\' must have the property "port" or "path".', TypeError);
      }
    }
    const port = anyPort || options.port === undefined ? 0 : validatePort(options.port);
    const backlog = backlogOf(options.backlog) ?? backlogOf(values[1]) ?? backlogOf(values[2]) ?? BACKLOG;
    const { host, signal } = options;
    if (signal !== undefined) {
      this.#closeOnAbort(signal);
    }
    if (callback !== undefined) {
      this.once('listening', callback as () => void);
    }
    const turn = ++this.#listening;
    const where = {
      port,
      backlog,
      ...(options.ipv6Only ? { ipv6Only: true } : {}),
      ...(options.reusePort ? { reusePort: true } : {}),
    };
    if (!host) {
      this.#listenAnywhere(where);
    } else if (isIP(host) !== 0) {
      this.#listenOn(host, where);
    } else {
      dns.lookup(host, (error, address) => {
        if (turn !== this.#listening) {
          return;
        }
        if (error) {
          this.emit('error', error);
        } else {
          this.#listenOn(address, where);
        }
      });
    }
    return this;
  }

  #closeOnAbort(signal: AbortSignal): void {
    validateAbortSignal(signal, 'options.signal');
    const close = () => {
      this.close();
    };
    if (signal.aborted) {
      process.nextTick(close);
      return;
    }
    signal.addEventListener('abort', close, { once: true });
    this.once('close', () => signal.removeEventListener('abort', close));
  }

  /** The unspecified address of IPv6, which takes IPv4 too; where there is no IPv6, that of IPv4. */
  #listenAnywhere(where: ListenWhere): void {
    try {
      this.#begin(TcpListener.listenSync({ ...where, host: '::' }));
    } catch (error) {
      if (!isPortFailure(error) || error.code.startsWith('ERR_')) {
        throw error;
      }
      this.#listenOn('0.0.0.0', where, '::');
    }
  }

  #listenOn(host: string, where: ListenWhere, named = host): void {
    try {
      this.#begin(TcpListener.listenSync({ ...where, host }));
    } catch (error) {
      if (!isPortFailure(error) || error.code.startsWith('ERR_')) {
        throw error;
      }
      process.nextTick(() => this.emit('error', listenError(error, named, where.port)));
    }
  }

  #begin(listener: TcpListener): void {
    const blocks = blocksOf(this.#portOption);
    try {
      blocks.port.associate(listener, 0);
    } catch (error) {
      listener.close();
      throw error;
    }
    this.#blocks = blocks;
    this.#listener = listener;
    this.#accepts = [];
    for (let i = 0; i < ACCEPTS; i++) {
      const operation = new AcceptOperation(this);
      operation.setReferenced(this.#referenced);
      this.#accepts.push(operation);
      this.#accept(operation);
    }
    process.nextTick(() => {
      if (this.#listener === listener) {
        this.emit('listening');
      }
    });
  }

  // ---- accepting

  #accept(operation: AcceptOperation): void {
    try {
      this.#listener!.accept(operation);
    } catch (error) {
      if (!isPortFailure(error)) {
        throw error;
      }
      if (error.code === 'EAGAIN') {
        // The port's operations are all in use. The connection waits in the backlog until some are free.
        this.#acceptLater(operation);
        this.#report(error);
      } else {
        this.#lose(error);
      }
    }
  }

  #acceptLater(operation: AcceptOperation): void {
    const listener = this.#listener;
    const timer = setTimeout(() => {
      if (this.#listener === listener && listener !== null) {
        this.#accept(operation);
      }
    }, ACCEPT_RETRY_MS);
    if (!this.#referenced) {
      timer.unref();
    }
  }

  /** The accept's packet. @internal */
  accepted(operation: AcceptOperation, error: PortFailure | null, handle: TcpSocket | undefined): void {
    const current = this.#listener !== null && this.#accepts.includes(operation);
    if (error !== null) {
      if (!current) {
        return;
      }
      if (error.code === 'ECANCELED') {
        // Nobody cancels an accept of a server that listens: the port was closed.
        this.#lose(error);
        return;
      }
      if (SHORTAGES.has(error.code)) {
        this.#accept(operation);
      } else {
        this.#acceptLater(operation);
      }
      this.#report(error);
      return;
    }
    if (!current) {
      handle!.close();
      return;
    }
    // Started before the listeners run: one that throws must not cost the server an accept.
    this.#accept(operation);
    if (this.#listener === null) {
      handle!.close();
    } else {
      this.#connection(handle!);
    }
  }

  #connection(handle: TcpSocket): void {
    if (
      this.maxConnections !== undefined &&
      this.maxConnections !== null &&
      this.maxConnections > 0 &&
      this.#connections >= this.maxConnections
    ) {
      const local = handle.localAddress;
      const remote = handle.remoteAddress;
      handle.close();
      this.emit('drop', {
        localAddress: local?.address,
        localPort: local?.port,
        localFamily: local?.family,
        remoteAddress: remote?.address,
        remotePort: remote?.port,
        remoteFamily: remote?.family,
      });
      return;
    }
    const blocks = this.#blocks!;
    try {
      blocks.port.associate(handle, 0);
    } catch (error) {
      handle.close();
      if (!isPortFailure(error)) {
        throw error;
      }
      this.#report(error);
      return;
    }
    this.#connections++;
    const socket = new Socket(
      {
        allowHalfOpen: this.allowHalfOpen,
        keepAlive: this.keepAlive,
        keepAliveInitialDelay: this.keepAliveInitialDelay,
        noDelay: this.noDelay,
        readableHighWaterMark: this.highWaterMark,
        writableHighWaterMark: this.highWaterMark,
      },
      { blocks, handle, paused: this.pauseOnConnect, ended: this.#connectionEnded },
    );
    socket.server = this;
    this.emit('connection', socket);
  }

  /**
   * A failed accept. The server goes on: connections wait in the backlog until the shortage is over. So it is an 'error' event
   * for those who listen, and one warning, not the end of the process, where nobody does.
   */
  #report(failure: PortFailure): void {
    const error = transferError('accept', failure);
    if (this.listenerCount('error') > 0) {
      this.emit('error', error);
    } else if (!this.#warned) {
      this.#warned = true;
      process.emitWarning(
        `${error.message}: connections wait until this has passed (further ones aren't reported)`,
        'CompletionPortWarning',
      );
    }
  }

  /** The port was closed under the server. */
  #lose(failure: PortFailure): void {
    this.#stopListening();
    this.#closeIfDone();
    this.emit('error', transferError('accept', failure));
  }

  // ---- closing

  /** Stops listening; 'close', and the callback, follow when the last connection has ended. */
  close(callback?: (error?: Error) => void): this {
    this.#listening++;
    const wasListening = this.#listener !== null;
    if (typeof callback === 'function') {
      this.once('close', () =>
        wasListening ? callback() : callback(codedError('ERR_SERVER_NOT_RUNNING', 'Server is not running.')),
      );
    }
    this.#stopListening();
    this.#closeIfDone();
    return this;
  }

  #stopListening(): void {
    const listener = this.#listener;
    this.#listener = null;
    this.#accepts = [];
    listener?.close();
  }

  #closeIfDone(): void {
    if (this.#listener === null && this.#connections === 0) {
      process.nextTick(() => this.emit('close'));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#listener === null) {
      return;
    }
    await new Promise<void>((resolve, reject) => {
      this.close((error) => (error ? reject(error) : resolve()));
    });
  }

  // ---- state

  get listening(): boolean {
    return this.#listener !== null;
  }

  /** Where the server listens; null while it doesn't. */
  address(): AddressInfo | null {
    return this.#listener === null ? null : this.#listener.address;
  }

  getConnections(callback: (error: Error | null, count: number) => void): this {
    const count = this.#connections;
    process.nextTick(() => callback(null, count));
    return this;
  }

  ref(): this {
    this.#setReferenced(true);
    return this;
  }

  unref(): this {
    this.#setReferenced(false);
    return this;
  }

  #setReferenced(on: boolean): void {
    this.#referenced = on;
    for (const operation of this.#accepts) {
      operation.setReferenced(on);
    }
  }
}

interface ListenWhere {
  port: number;
  backlog: number;
  ipv6Only?: boolean;
  reusePort?: boolean;
}

function backlogOf(value: unknown): number | undefined {
  if (typeof value === 'function' || value === undefined || value === null || typeof value === 'boolean') {
    return undefined;
  }
  const number = Number(value);
  return number > 0 ? Math.trunc(number) : undefined;
}
