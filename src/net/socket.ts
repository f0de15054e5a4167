/**
 * `Socket`: a connection as a stream.Duplex, shaped like node:net's, over a Transport that moves the bytes. This file decides
 * what a program sees: events and their order, half-close, time-outs, addresses, errors. It never touches an operation itself.
 */
import { AsyncResource } from 'node:async_hooks';
import type { AddressInfo, IpcSocketConnectOpts } from 'node:net';
import { addAbortSignal, Duplex } from 'node:stream';
import type { CompletionPort } from '../port.js';
import type { TcpSocket } from '../tcp.js';
import {
  normalizeArguments,
  rejectForeignOptions,
  validateAbortSignal,
  validateCount,
  validateDuration,
  validateFunction,
} from './arguments.js';
import { type Blocks, blocksOf } from './blocks.js';
import { type Connecting, prepareConnect, type TcpConnectOptions } from './connecting.js';
import { codedError, isPortFailure, type PortFailure, transferError } from './errors.js';
import { Inactivity } from './inactivity.js';
import { byteLength, type Piece } from './pending-write.js';
import { Transport } from './transport.js';

export interface SocketConstructorOptions {
  /** The port to use; absent: this thread's default port. */
  completionPort?: CompletionPort | undefined;
  /** True: the peer's end doesn't end this side. Default false. */
  allowHalfOpen?: boolean | undefined;
  /** Destroys the socket when aborted. */
  signal?: AbortSignal | undefined;
  highWaterMark?: number | undefined;
  readableHighWaterMark?: number | undefined;
  writableHighWaterMark?: number | undefined;
  noDelay?: boolean | undefined;
  keepAlive?: boolean | undefined;
  /** Milliseconds of silence before the first keep-alive probe; 0 leaves the system's own. */
  keepAliveInitialDelay?: number | undefined;
}

export interface SocketConnectOptions extends SocketConstructorOptions, TcpConnectOptions {
  /** As socket.setTimeout(), before connecting. */
  timeout?: number | undefined;
}

export type SocketReadyState = 'opening' | 'open' | 'readOnly' | 'writeOnly' | 'closed';

/** What a server hands its sockets. */
export interface Accepted {
  blocks: Blocks;
  handle: TcpSocket;
  paused: boolean;
  ended(): void;
}

/** node:stream's own way to use a destroyed stream again; node:net's sockets reconnect by it. */
interface Reusable {
  _undestroy(): void;
}

type WriteDone = (error?: Error | null) => void;
type LocalAddress = Partial<AddressInfo>;

// It is a TransportOwner, too, but doesn't say so: those methods are internal and not in the published declarations.
export class Socket extends Duplex {
  /** True from connect() until 'connect' or the failure. */
  connecting = false;
  /** The inactivity limit in milliseconds that was set last. */
  timeout: number | undefined;
  /** The server that accepted this connection. */
  server: unknown = null;
  /** `address:port` of the addresses that were tried, where a name has several. */
  declare autoSelectFamilyAttemptedAddresses: string[];

  #blocks: Blocks | undefined;
  readonly #portOption: CompletionPort | undefined;
  readonly #scope = new AsyncResource('CompletionPortSocket', { requireManualDestroy: true });
  #transport: Transport | null = null;
  #attempt: Connecting | null = null;
  #serverEnded: (() => void) | undefined;
  #referenced = true;
  #reset = false;
  #noDelay: boolean;
  #keepAlive: boolean;
  #keepAliveMs: number;

  #inactivity: Inactivity | undefined;

  #bytesRead = 0;
  #bytesSent = 0;
  #pendingWrite: Piece[] | null = null;
  #writeDone: WriteDone | null = null;
  readonly #onSent = (failure: PortFailure | null): void => this.#sent(failure);

  #localAddress: LocalAddress | undefined;
  #remoteAddress: LocalAddress | undefined;

  constructor(options?: SocketConstructorOptions, accepted?: Accepted) {
    rejectForeignOptions(options);
    const keepAliveMs = validateCount(options?.keepAliveInitialDelay, 'options.keepAliveInitialDelay') ?? 0;
    const signal = options?.signal;
    if (signal !== undefined) {
      validateAbortSignal(signal, 'options.signal');
    }
    super({
      allowHalfOpen: Boolean(options?.allowHalfOpen),
      autoDestroy: true,
      decodeStrings: false,
      emitClose: false,
      highWaterMark: options?.highWaterMark,
      readableHighWaterMark: options?.readableHighWaterMark,
      writableHighWaterMark: options?.writableHighWaterMark,
    });
    this.#portOption = options?.completionPort;
    this.#noDelay = Boolean(options?.noDelay);
    this.#keepAlive = Boolean(options?.keepAlive);
    this.#keepAliveMs = keepAliveMs;
    this.on('end', onEnd);
    if (accepted !== undefined) {
      this.#blocks = accepted.blocks;
      this.#serverEnded = accepted.ended;
      this.#attach(accepted.handle);
      if (accepted.paused) {
        this.pause();
      } else {
        this.read(0);
      }
    }
    // Not handed to Duplex: one that is aborted already destroys the socket at once, which takes what stands above.
    if (signal !== undefined) {
      addAbortSignal(signal, this);
    }
  }

  // ---- connecting

  connect(options: SocketConnectOptions, connectionListener?: () => void): this;
  connect(port: number | string, host: string, connectionListener?: () => void): this;
  connect(port: number | string, connectionListener?: () => void): this;
  /** A path throws ERR_NOT_SUPPORTED. Declared so that this type fits where node:net's Socket is asked for. */
  connect(options: SocketConnectOptions | IpcSocketConnectOpts, connectionListener?: () => void): this;
  connect(...values: unknown[]): this {
    const [options, callback] = normalizeArguments<SocketConnectOptions>(values);
    rejectForeignOptions(options);
    if (options.port === undefined) {
      throw codedError('ERR_MISSING_ARGS', 'The "options" or "port" or "path" argument must be specified', TypeError);
    }
    if (this.connecting || this.#transport !== null) {
      throw codedError('ERR_SOCKET_CONNECTING', 'The socket is connecting or connected already');
    }
    const blocks = blocksOf(options.completionPort ?? this.#portOption);
    const attempt = prepareConnect(blocks, options, {
      wanted: () => this.#attempt === attempt,
      emit: (event, ...details) => {
        this.emit(event, ...details);
      },
      touched: () => this.touched(),
      connected: (handle) => this.#scope.runInAsyncScope(this.#connected, this, handle),
      failed: (error) => this.#scope.runInAsyncScope(this.destroy, this, error),
      attempted: (addresses) => {
        this.autoSelectFamilyAttemptedAddresses = addresses;
      },
    });
    if (callback !== undefined) {
      this.once('connect', callback as () => void);
    }
    if (this.destroyed) {
      this.#reuse();
    }
    this.#blocks = blocks;
    this.#attempt = attempt;
    this.connecting = true;
    attempt.referenced = this.#referenced;
    this.touched();
    attempt.start();
    return this;
  }

  /** A destroyed socket connects again as if it were new. */
  #reuse(): void {
    (this as unknown as Reusable)._undestroy();
    // A peer that ended earlier put a refusing write() on the object.
    Reflect.deleteProperty(this, 'write');
    this.#localAddress = undefined;
    this.#remoteAddress = undefined;
    this.#bytesRead = 0;
    this.#bytesSent = 0;
    this.#reset = false;
  }

  #connected(handle: TcpSocket): void {
    this.connecting = false;
    this.#attempt = null;
    this.#attach(handle);
    this.touched();
    this.emit('connect');
    this.emit('ready');
    if (!this.isPaused()) {
      this.read(0);
    }
  }

  #attach(handle: TcpSocket): void {
    const transport = new Transport(this.#blocks!, handle, this, this.#scope, this.#referenced);
    this.#transport = transport;
    if (this.#noDelay) {
      setOption(() => handle.setNoDelay(true));
    }
    if (this.#keepAlive) {
      setOption(() => handle.setKeepAlive(true, this.#keepAliveMs));
    }
  }

  // ---- reading

  override _read(): void {
    if (this.#transport === null || this.connecting) {
      this.once('connect', this._read);
    } else {
      this.#transport.startReceiving();
    }
  }

  /** @internal */
  arrived(chunk: Buffer): boolean {
    return this.push(chunk);
  }

  /** @internal */
  ended(): void {
    this.touched();
    this.push(null);
    this.read(0);
  }

  /** @internal */
  failed(failure: PortFailure): void {
    this.destroy(transferError('read', failure));
  }

  // ---- writing

  override _write(chunk: Buffer | string, encoding: BufferEncoding, done: WriteDone): void {
    const transport = this.#transport;
    if (transport === null) {
      this.#writeLater([{ chunk, encoding }], done);
      return;
    }
    this.touched();
    this.#writeDone = done;
    transport.send(chunk, encoding, this.#onSent);
  }

  override _writev(pieces: Piece[], done: WriteDone): void {
    const transport = this.#transport;
    if (transport === null) {
      this.#writeLater(pieces, done);
      return;
    }
    this.touched();
    this.#writeDone = done;
    transport.sendPieces(pieces, this.#onSent);
  }

  #writeLater(pieces: Piece[], done: WriteDone): void {
    if (!this.connecting) {
      done(codedError('ERR_SOCKET_CLOSED', 'Socket is closed'));
      return;
    }
    this.#pendingWrite = pieces;
    const connected = () => {
      this.off('close', closed);
      this.#pendingWrite = null;
      this._writev(pieces, done);
    };
    const closed = () => {
      this.off('connect', connected);
      this.#pendingWrite = null;
      done(codedError('ERR_SOCKET_CLOSED_BEFORE_CONNECTION', 'Socket closed before the connection was established'));
    };
    this.once('connect', connected);
    this.once('close', closed);
  }

  #sent(failure: PortFailure | null): void {
    const done = this.#writeDone!;
    this.#writeDone = null;
    done(failure === null ? null : transferError('write', failure));
  }

  override _final(done: WriteDone): void {
    if (this.connecting || (this.#transport === null && !this.destroyed)) {
      this.once('connect', () => this._final(done));
      return;
    }
    if (this.#transport === null) {
      done();
      return;
    }
    // A failed shutdown means that the connection is gone; the read side says how.
    this.#transport.shutdown(() => done());
  }

  // ---- ending

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const wasConnecting = this.connecting;
    this.connecting = false;
    this.#inactivity?.stop();
    this.#attempt?.abort();
    this.#attempt = null;
    const hadError = error !== null && error !== undefined;
    const closed = () => {
      this.emit('close', hadError);
    };
    const transport = this.#transport;
    this.#transport = null;
    if (transport !== null) {
      this.#bytesRead = transport.bytesRead;
      this.#bytesSent = transport.bytesSent;
      this.#localAddress = undefined;
      transport.close(this.#reset, closed);
    } else if (wasConnecting) {
      setImmediate(closed);
    }
    done(error);
    if (transport === null && !wasConnecting) {
      process.nextTick(closed); // behind the 'error' that done() has scheduled
    }
    this.#serverEnded?.();
    this.#serverEnded = undefined;
  }

  override end(...values: unknown[]): this {
    super.end(...(values as [unknown, BufferEncoding, () => void]));
    return this;
  }

  /** Ends the socket once what was written is out. */
  destroySoon(): void {
    if (this.writable) {
      this.end();
    }
    if (this.writableFinished) {
      this.destroy();
    } else {
      this.once('finish', () => this.destroy());
    }
  }

  /** Closes the connection with a reset (RST): the peer gets ECONNRESET, unsent data is dropped. */
  resetAndDestroy(): this {
    if (this.connecting) {
      this.once('connect', () => this.resetAndDestroy());
    } else if (this.#transport !== null) {
      this.#reset = true;
      this.destroy();
    } else {
      this.destroy(codedError('ERR_SOCKET_CLOSED', 'Socket is closed'));
    }
    return this;
  }

  // ---- time-outs

  /** 'timeout' is emitted after this many milliseconds without a byte in either direction; 0: never. The connection stays as it is. */
  setTimeout(ms: number, callback?: () => void): this {
    if (this.destroyed) {
      return this;
    }
    this.timeout = ms;
    const duration = validateDuration(ms, 'msecs');
    if (callback !== undefined) {
      validateFunction(callback, 'callback');
    }
    if (duration > 0) {
      this.#inactivity ??= new Inactivity(() => {
        this.#scope.runInAsyncScope(this.emit, this, 'timeout');
      });
    }
    this.#inactivity?.set(duration);
    if (callback !== undefined) {
      if (duration > 0) {
        this.once('timeout', callback);
      } else {
        this.removeListener('timeout', callback);
      }
    }
    return this;
  }

  /** @internal */
  touched(): void {
    this.#inactivity?.touch();
  }

  /** node:http resets a socket's timer by this name. @internal */
  _unrefTimer(): void {
    this.touched();
  }

  // ---- options and state

  /** Switches Nagle's algorithm off (true, the default) or on. Before the connection it is remembered. */
  setNoDelay(noDelay = true): this {
    const on = Boolean(noDelay);
    if (on !== this.#noDelay) {
      this.#noDelay = on;
      setOption(() => this.#transport?.handle.setNoDelay(on));
    }
    return this;
  }

  setKeepAlive(enable = false, initialDelay = 0): this {
    const on = Boolean(enable);
    const ms = Math.max(0, Number(initialDelay) || 0);
    if (on !== this.#keepAlive || (on && ms !== this.#keepAliveMs)) {
      this.#keepAlive = on;
      this.#keepAliveMs = ms;
      setOption(() => this.#transport?.handle.setKeepAlive(on, ms));
    }
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
    if (on === this.#referenced) {
      return;
    }
    this.#referenced = on;
    if (this.#attempt !== null) {
      this.#attempt.referenced = on;
    }
    if (this.#transport !== null) {
      this.#transport.referenced = on;
    }
  }

  /** The own end of the connection; an empty object without one. */
  address(): AddressInfo | Record<string, never> {
    return this.#local() as AddressInfo;
  }

  #local(): LocalAddress {
    if (this.#transport === null) {
      return {};
    }
    this.#localAddress ??= this.#transport.handle.localAddress ?? {};
    return this.#localAddress;
  }

  #remote(): LocalAddress {
    if (this.#remoteAddress === undefined && this.#transport !== null) {
      this.#remoteAddress = this.#transport.handle.remoteAddress;
    }
    return this.#remoteAddress ?? {};
  }

  get localAddress(): string | undefined {
    return this.#local().address;
  }

  get localPort(): number | undefined {
    return this.#local().port;
  }

  get localFamily(): string | undefined {
    return this.#local().family;
  }

  get remoteAddress(): string | undefined {
    return this.#remote().address;
  }

  get remotePort(): number | undefined {
    return this.#remote().port;
  }

  get remoteFamily(): string | undefined {
    return this.#remote().family;
  }

  get bytesRead(): number {
    return this.#transport?.bytesRead ?? this.#bytesRead;
  }

  /** Bytes given to the system, and those that still wait in this socket. */
  get bytesWritten(): number {
    let bytes = this.#transport === null ? this.#bytesSent : this.#transport.bytesSent + this.#transport.unsentBytes;
    for (const list of [this.#pendingWrite ?? [], writableBuffer(this)]) {
      for (const { chunk, encoding } of list) {
        bytes += byteLength(chunk, encoding);
      }
    }
    return bytes;
  }

  /** Bytes that wait to be sent. */
  get bufferSize(): number {
    return this.writableLength;
  }

  /** True as long as there is no connection. */
  get pending(): boolean {
    return this.#transport === null || this.connecting;
  }

  get readyState(): SocketReadyState {
    if (this.connecting) {
      return 'opening';
    }
    if (this.readable) {
      return this.writable ? 'open' : 'readOnly';
    }
    return this.writable ? 'writeOnly' : 'closed';
  }
}

/** A connection that is lost already may refuse an option. That isn't news of its own: the loss itself is reported by the transfers. */
function setOption(set: () => void): void {
  try {
    set();
  } catch (error) {
    if (!isPortFailure(error) || error.code.startsWith('ERR_')) {
      throw error;
    }
  }
}

/** What Writable has queued behind the write that is under way. */
function writableBuffer(socket: Socket): readonly Piece[] {
  return (socket as unknown as { writableBuffer?: Piece[] }).writableBuffer ?? [];
}

/** After the peer's end, where that ends this side too, a write says whose doing it was. */
function onEnd(this: Socket): void {
  if (!this.allowHalfOpen) {
    this.write = writeAfterPeerEnded as typeof this.write;
  }
}

function writeAfterPeerEnded(this: Socket, chunk: unknown, encoding?: unknown, done?: unknown): boolean {
  if (!this.writableEnded) {
    return Duplex.prototype.write.call(this, chunk, encoding as BufferEncoding, done as WriteDone);
  }
  const callback = typeof encoding === 'function' ? encoding : done;
  const error = codedError('EPIPE', 'This socket has been ended by the other party');
  if (typeof callback === 'function') {
    process.nextTick(callback as (error: Error) => void, error);
  }
  this.destroy(error);
  return false;
}
