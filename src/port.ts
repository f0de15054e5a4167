// CompletionPort: the public face of the engine. It checks arguments and turns waits into promises and iterators; everything else
// is the engine's.

import { AsyncResource } from 'node:async_hooks';
import * as abi from './abi.js';
import type { Dispatch, Handler } from './engine.js';
import { Engine } from './engine.js';
import {
  AbortError,
  illegalConstructor,
  invalidThis,
  misuse,
  portClosed,
  threadEnding,
  wrongType,
  wrongValue,
} from './errors.js';
import { appends, flagsArgument, modeArgument, pathArgument } from './files.js';
import type { Handle } from './handle.js';
import { disown, handleArgument } from './handle.js';
import type { BackendName, BackendReport, NativePort, NativePortError } from './native.js';
import { native, require } from './native.js';
import type { Operation, OperationOptions } from './operation.js';
import { isOperation, operationFor } from './operation.js';
import type { CompletionPacket, Packet } from './packet.js';
import { MapDelete, MapGet, MapSet, NativePromise, ObjectHasOwn, SharedArrayBufferByteLength } from './primordials.js';
import { listen, reasonOf, unlisten } from './signals.js';
import { startOpen } from './start.js';
import { errorOfResult } from './status.js';
import { abortedSignal, boolean, integer, milliseconds, optionsObject, safeInteger } from './validate.js';
import { Waiter } from './waiters.js';

/** What the native `associate` answers beside 0 and negative errnos. */
const HANDLE_CLOSED = -10_001;
const HANDLE_ASSOCIATED = -10_002;

const MAX_INT32 = 2 ** 31 - 1;
const MAX_UINT32 = 2 ** 32 - 1;
const OPERATIONS_MAX = 1_048_576;
const OPERATIONS_DEFAULT = 65_536;
const ARENA_MAX = 2 ** 31;
const ARENA_DEFAULT = 16 * 2 ** 20;
const ARENA_STEP = 64 * 2 ** 10;
/** No runtime says where a SharedArrayBuffer begins in memory: with a page more there are arenaBytes from a page's beginning on. */
const ARENA_ALIGNMENT = 4096;
const RING_MIN = 8;
const RING_MAX = 4096;
const RING_DEFAULT = 1024;
const POOL_THREADS_MAX = 1024;
const POOL_THREADS_DEFAULT = 4;
/** What a port lacks on any backend: none is fallen back to for want of it. The numbers are the same on every POSIX system. */
const SCARCE: Readonly<Record<number, 'ENOMEM' | 'ENFILE' | 'EMFILE'>> = { 12: 'ENOMEM', 23: 'ENFILE', 24: 'EMFILE' };
const INFINITE = Number.POSITIVE_INFINITY;

const backendNames: readonly string[] = ['io_uring', 'epoll', 'kqueue', 'iocp'];

/** Options of CompletionPort.create. */
export interface CreateOptions {
  /** How many threads may run on packets of the port at once; 0, the default: os.availableParallelism(). 0 to 2^31-1. */
  concurrency?: number | undefined;
  /**
   * 'auto', the default, takes what suits this machine (or what COMPLETION_PORT_BACKEND names); a name takes that backend or throws
   * ERR_BACKEND_UNAVAILABLE.
   */
  backend?: BackendName | 'auto' | undefined;
  /**
   * A port for several threads: others join by its `token`. It has a native I/O thread of its own, and its packets go to whichever thread
   * waits. `eventLoop: 'inverted'` is not for it: ERR_NOT_SUPPORTED.
   */
  shared?: boolean | undefined;
  /** Operations in flight at most, 1 to 1,048,576; 65,536 unless given. One more throws EAGAIN. */
  maxOperations?: number | undefined;
  /**
   * What the arena can hand out, in bytes, 0 to 2^31, taken up to a multiple of 64 KiB; 16 MiB unless given. Pages cost nothing until
   * touched.
   */
  arenaBytes?: number | undefined;
  /**
   * 'plain', the default: libuv waits, and watches the port. 'inverted': the port waits, and watches libuv. That is faster with few
   * connections, makes eventLoopUtilization read 1, and must not be used in an embedder that runs the loop without waiting. A thread
   * can wait in one port only: while another of its ports is inverted, this one is plain. `port.backend.features.inverted` says which.
   */
  eventLoop?: 'plain' | 'inverted' | undefined;
  /**
   * How many of the port's operations may block a thread of their own at once, where the system can only block: on 'epoll' and 'kqueue' what a
   * file doesn't have in memory, its writes, syncs, truncations and opens; on 'io_uring' what an older kernel has no request for. 1 to 1,024
   * threads; 4 unless given. Others wait for their turn, in the order of their start, and can be cancelled. The threads are the process's: as
   * many as the largest `poolThreads` of its open ports at most, started on demand, so that ports which ask for as many share them; while all of
   * those stand still for 100 ms and more, one besides for each port that has none. Out of range: ERR_OUT_OF_RANGE. Where no thread can be
   * started an operation ends with ENOMEM.
   */
  poolThreads?: number | undefined;
  /** Entries of the kernel's submission ring, 8 to 4,096, taken up to a power of two. For tests: any size works. */
  ringEntries?: number | undefined;
}

/** Options of get and getMany. */
export interface GetOptions {
  /** Milliseconds, fractions and Infinity (the default) included. */
  timeout?: number | undefined;
  /** Ends the wait with an AbortError; no packet is lost. */
  signal?: AbortSignal | undefined;
}

/** Figures of a port, since its creation unless said otherwise. */
export interface Stats {
  operationsStarted: number;
  /** Packets delivered, posts and those of promises and streams included. */
  packets: number;
  posts: number;
  bytesRead: number;
  bytesWritten: number;
  /** Now: operations started whose packet isn't delivered. */
  inFlight: number;
  /** Now: packets that wait for a get. */
  queued: number;
  /** System calls into the ring. */
  enters: number;
  /** Times that the port woke the event loop. */
  wakeups: number;
  /** Bytes copied through memory outside the arena, because it was full or the buffer large. */
  bounceBytes: number;
  arenaBytes: number;
  /** Now: bytes of the arena that are handed out, the port's own blocks for copies included. */
  arenaUsed: number;
  /** The kernel holds the arena as a registered buffer. */
  arenaRegistered: boolean;
  ringEntries: number;
  completionEntries: number;
  /** Now: operations that wait in user space for room in the ring. */
  backlog: number;
  /** Now: attached threads; 1 of a private port. */
  threads: number;
  /** Now, of a shared port: threads that wait in a get, blocked or in their event loops. */
  waiting: number;
  /** Now, of a shared port: threads that run on its packets, as `concurrency` counts them. */
  running: number;
  /** Of a shared port: times that a waiting thread was released for a packet. */
  releases: number;
  /**
   * Of a shared port: times that a thread was noticed to sleep in the kernel while packets waited, so that another ran in its place; each
   * is a place for `port.blocking`.
   */
  sleepsNoticed: number;
}

/** What another thread attaches to a shared port with: for postMessage or workerData. Its parts mean nothing to anybody else. */
export interface PortToken {
  readonly index: number;
  readonly generation: number;
  readonly secret: string;
  readonly arena: SharedArrayBuffer;
}

/** What runs a port's operations. */
export interface Backend {
  readonly name: BackendName;
  /** What was probed on this machine, by name; with `eventLoop: 'inverted'` also `inverted`: whether this port's loop is. */
  readonly features: Readonly<Record<string, boolean>>;
  /** With backend 'auto': why a better one was not taken; the same in each thread of a shared port. */
  readonly fallbackReason?: string;
}

let consumerStopped: (consumer: Consumer) => boolean;

/** What dispatch returns. */
export class Consumer {
  readonly #engine: Engine;
  readonly #dispatch: Dispatch;

  static {
    consumerStopped = (consumer) => {
      if (typeof consumer !== 'object' || consumer === null || !(#engine in consumer)) throw invalidThis('a Consumer', consumer);
      return consumer.#engine.dispatch !== consumer.#dispatch;
    };
  }

  /** @internal */
  constructor(engine: Engine, dispatch: Dispatch) {
    if (!(engine instanceof Engine)) throw illegalConstructor('use port.dispatch');
    this.#engine = engine;
    this.#dispatch = dispatch;
  }

  /** True until stop(), or the port's close. */
  get active(): boolean {
    return !consumerStopped(this);
  }

  /** No more packets from now on: what isn't delivered stays queued. Stopping twice is harmless. */
  stop(): void {
    if (consumerStopped(this)) return;
    this.#engine.dispatch = null;
    this.#engine.poke();
  }

  [Symbol.dispose](): void {
    this.stop();
  }
}

/** What COMPLETION_PORT_DISABLE asks to leave unused. */
function disabledFeatures(): string {
  const wanted = process.env.COMPLETION_PORT_DISABLE ?? '';
  // Bun has libuv's names, and node's, but not what they stand for.
  return process.versions.bun === undefined ? wanted : `${wanted},uv_poll`;
}

/** The names to try, in their order; more than one is a choice of ours. */
function chooseBackends(given: unknown): readonly string[] {
  if (given !== undefined && given !== 'auto') {
    if (typeof given !== 'string') throw wrongType('options.backend', 'a string', given);
    if (!backendNames.includes(given))
      throw wrongValue('options.backend', `must be 'auto', 'io_uring', 'epoll', 'kqueue' or 'iocp', but is '${given}'`);
    return [given];
  }
  const wanted = process.env.COMPLETION_PORT_BACKEND;
  if (wanted === undefined || wanted === '' || wanted === 'auto') return native.backends;
  if (!backendNames.includes(wanted)) {
    throw wrongValue('COMPLETION_PORT_BACKEND', `must be 'auto', 'io_uring', 'epoll', 'kqueue' or 'iocp', but is '${wanted}'`);
  }
  return [wanted];
}

function newArena(bytes: number): SharedArrayBuffer {
  try {
    return new SharedArrayBuffer(bytes);
  } catch (cause) {
    throw misuse(
      Error,
      'ENOMEM',
      `there is no memory for an arena of ${bytes} bytes; create the port with smaller arenaBytes`,
      cause,
    );
  }
}

/** The error for what is short on any backend; null: it is something else. */
function shortage({ errno, reason }: NativePortError['error']): Error | null {
  const scarce = SCARCE[Math.abs(errno)];
  if (scarce === undefined) return null;
  return misuse(Error, scarce, `no ${scarce === 'ENOMEM' ? 'memory' : 'descriptor'} for the port: ${reason}`);
}

/** Its own property: a script may have given every object one of that name. */
const isRefused = (answer: NativePort | NativePortError): answer is NativePortError => ObjectHasOwn(answer, 'error');

function answered<T>(answer: T | undefined): T {
  if (answer === undefined) throw threadEnding();
  return answer;
}

const unavailable = (message: string): Error => misuse(Error, 'ERR_BACKEND_UNAVAILABLE', message);

function openBackend(
  options: CreateOptions,
  concurrency: number,
  shared: boolean,
): { engine: Engine; concurrency: number; maxOperations: number } {
  const maxOperations =
    options.maxOperations === undefined
      ? OPERATIONS_DEFAULT
      : integer(options.maxOperations, 'options.maxOperations', 1, OPERATIONS_MAX);
  const arenaBytes =
    options.arenaBytes === undefined ? ARENA_DEFAULT : integer(options.arenaBytes, 'options.arenaBytes', 0, ARENA_MAX);
  const ringEntries =
    options.ringEntries === undefined ? RING_DEFAULT : integer(options.ringEntries, 'options.ringEntries', RING_MIN, RING_MAX);
  const poolThreads =
    options.poolThreads === undefined
      ? POOL_THREADS_DEFAULT
      : integer(options.poolThreads, 'options.poolThreads', 1, POOL_THREADS_MAX);
  const { eventLoop } = options;
  if (eventLoop !== undefined && eventLoop !== 'plain' && eventLoop !== 'inverted') {
    throw wrongValue('options.eventLoop', "must be 'plain' or 'inverted'");
  }
  if (shared && eventLoop === 'inverted') {
    throw misuse(Error, 'ERR_NOT_SUPPORTED', "an inverted event loop waits in a ring of its own thread's: not on a shared port");
  }
  const names = chooseBackends(options.backend);
  const arena = newArena(arenaBytes === 0 ? 0 : Math.ceil(arenaBytes / ARENA_STEP) * ARENA_STEP + ARENA_ALIGNMENT);
  const arenaView = new Uint8Array(arena);
  const control = new SharedArrayBuffer(abi.BLOCK_BYTES);
  const refused: string[] = [];
  for (const name of names) {
    const answer = native.createPort(new Uint8Array(control), arenaView, {
      backend: name,
      maxOperations,
      ringEntries: 2 ** Math.ceil(Math.log2(ringEntries)),
      concurrency,
      poolThreads,
      inverted: eventLoop === 'inverted',
      shared,
      disable: disabledFeatures(),
      fallbackReason: refused.join('; '),
    });
    const port = answered(answer);
    if (!isRefused(port)) {
      const engine = new Engine(port, {
        maxOperations,
        arena,
        arenaView,
        control,
        inverted: port.features.inverted === true,
        shared,
      });
      return { engine, concurrency, maxOperations };
    }
    const short = shortage(port.error);
    if (short !== null) throw short;
    refused.push(`${name} can't be used here: ${port.error.reason}`);
  }
  throw unavailable(
    names.length === 1
      ? `the backend ${refused[0]}`
      : `no backend works here, so there is no other backend to fall back to: ${refused.join('; ')}`,
  );
}

let engineOf: (port: CompletionPort) => Engine;

/** This thread's objects of shared ports, so that a second attach gives the same one. */
const attached = new Map<string, WeakRef<CompletionPort>>();

const SECRET = /^[0-9a-f]{32}$/;

function tokenArgument(given: unknown): PortToken {
  if (typeof given !== 'object' || given === null) throw wrongType('token', "a shared port's token", given);
  const { index, generation, secret, arena } = given as PortToken;
  const right =
    Number.isInteger(index) &&
    index >= 0 &&
    index <= MAX_UINT32 &&
    Number.isInteger(generation) &&
    generation >= 0 &&
    generation <= MAX_UINT32 &&
    typeof secret === 'string' &&
    SECRET.test(secret) &&
    isShared(arena);
  if (!right) throw wrongValue('token', 'is not a token of a shared port of this process');
  return { index, generation, secret, arena };
}

function isShared(value: unknown): value is SharedArrayBuffer {
  try {
    SharedArrayBufferByteLength(value as SharedArrayBuffer);
    return true;
  } catch {
    return false;
  }
}

const nameOf = (token: PortToken): string => `${token.index}:${token.generation}`;

function attachNative(
  control: Uint8Array | null,
  arena: Uint8Array,
  { index, generation, secret }: PortToken,
): NativePort | NativePortError | number {
  const word = (at: number): number => Number.parseInt(secret.slice(at, at + 8), 16);
  return answered(native.attachPort(control, arena, index, generation, word(0), word(8), word(16), word(24), disabledFeatures()));
}

const freezeToken = (parts: PortToken): PortToken => Object.freeze({ ...parts });

function tokenOf(words: number[], arena: SharedArrayBuffer): PortToken {
  const [index, generation, ...secret] = words as [number, number, ...number[]];
  const hex = secret.map((word) => word.toString(16).padStart(8, '0')).join('');
  return freezeToken({ index, generation, secret: hex, arena });
}

function notShared(): never {
  throw misuse(Error, 'ERR_NOT_SHARED', 'a private port belongs to the thread that created it; only shared ports have a token');
}

type Result = CompletionPacket | CompletionPacket[] | null;

/** A wait for packets, as a promise. */
function waitFor(engine: Engine, max: number, options: GetOptions | undefined, owner: object | null): Promise<Result> {
  return new NativePromise<Result>((resolve, reject) => {
    // What this throws rejects the promise.
    engine.checkOpen();
    if (max !== 0) integer(max, 'max', 1, MAX_INT32);
    optionsObject(options, 'options');
    const timeout = milliseconds(options?.timeout, 'options.timeout');
    const signal = options?.signal;
    if (signal !== undefined && abortedSignal(signal, 'options.signal')) throw new AbortError(reasonOf(signal));
    const found = max === 0 ? engine.takeAtOnce() : engine.takeManyAtOnce(max);
    if (found !== null) {
      engine.poke();
      resolve(found);
      return;
    }
    engine.checkOpen(); // a promise that was settled on the way may have closed it
    const deadline = timeout === INFINITE ? INFINITE : native.now() + timeout;
    const waiter = new Waiter(max, deadline, owner, resolve, reject);
    if (signal !== undefined) {
      const aborted = (): void => engine.abortWaiter(waiter, reasonOf(signal));
      listen(signal, aborted);
      waiter.forget = () => unlisten(signal, aborted);
    }
    engine.wait(waiter);
  });
}

class PacketIterator<C> implements AsyncIterableIterator<Packet<C>> {
  readonly #engine: Engine;
  #done = false;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  async next(): Promise<IteratorResult<Packet<C>, undefined>> {
    if (this.#done || this.#engine.closed) {
      this.#done = true;
      return { done: true, value: undefined };
    }
    try {
      const packet = await waitFor(this.#engine, 0, undefined, this);
      if (packet !== null) return { done: false, value: packet as Packet<C> };
    } catch (error) {
      if (!this.#engine.closed) throw error;
    }
    this.#done = true;
    return { done: true, value: undefined };
  }

  async return(): Promise<IteratorResult<Packet<C>, undefined>> {
    this.#done = true;
    // Waits that nobody will look at must take no packet.
    const engine = this.#engine;
    for (let waiter = engine.waiters.first; waiter !== null; ) {
      const { next } = waiter;
      if (waiter.owner === this) engine.endWaiter(waiter, null);
      waiter = next;
    }
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/**
 * A completion port: the one queue that the completions of files, sockets and posts arrive in.
 *
 * A port is created by `CompletionPort.create` and belongs to the thread that created it, or, with `shared: true`, to all threads that attach
 * to it. Handles are associated with it, operations
 * are started on handles, and each operation ends in exactly one packet, which one get, iterator or dispatch receives. After `close()`
 * every method but `close` throws ERR_PORT_CLOSED.
 *
 * @typeParam C - the type of the operations' `context`
 */
export class CompletionPort<C = unknown> {
  /** What runs the port's operations. */
  readonly backend: Backend;
  /** How many threads may run on packets at once. */
  readonly concurrency: number;
  /** How many operations may be in flight. */
  readonly maxOperations: number;
  /** Whether other threads may attach. */
  readonly shared: boolean;
  readonly #engine: Engine;
  #token: PortToken | null;

  static {
    engineOf = (port) => {
      if (typeof port !== 'object' || port === null || !(#engine in port)) throw invalidThis('a CompletionPort', port);
      return port.#engine;
    };
  }

  private constructor(engine: Engine, concurrency: number, maxOperations: number, token: PortToken | null) {
    if (!(engine instanceof Engine)) throw illegalConstructor('use CompletionPort.create');
    this.#engine = engine;
    const { name, features, fallbackReason } = engine.native;
    this.backend = Object.freeze({
      name,
      features: Object.freeze({ ...features }),
      ...(fallbackReason === undefined ? {} : { fallbackReason }),
    });
    this.concurrency = concurrency;
    this.maxOperations = maxOperations;
    this.shared = engine.shared;
    this.#token = token;
    if (token === null) return;
    const tokenName = nameOf(token);
    // Weakly: an engine must not keep a port alive that nobody has any more.
    const weak = new WeakRef<CompletionPort>(this);
    MapSet(attached, tokenName, weak);
    engine.watchClose(() => {
      const port = weak.deref();
      if (port !== undefined) port.#token = null;
      const known = MapGet(attached, tokenName)?.deref();
      if (known === undefined || known === port) MapDelete(attached, tokenName);
    });
  }

  /**
   * Creates a port. It holds a ring of the kernel's and the arena until it is closed.
   *
   * @throws ERR_BACKEND_UNAVAILABLE with the likely cause; ENOMEM, EMFILE, ENFILE; ERR_NOT_SUPPORTED for an inverted shared port;
   * ERR_PORT_CLOSED in a worker that is being terminated; misuse
   */
  static create<C = unknown>(options: CreateOptions = {}): CompletionPort<C> {
    if (typeof options !== 'object' || options === null) throw wrongType('options', 'an object', options);
    const given = options.concurrency === undefined ? 0 : integer(options.concurrency, 'options.concurrency', 0, MAX_INT32);
    const shared = boolean(options.shared, 'options.shared', false);
    const made = openBackend(
      options,
      given === 0 ? (require('node:os') as typeof import('node:os')).availableParallelism() : given,
      shared,
    );
    const { engine } = made;
    const words = engine.native.token();
    return new CompletionPort<C>(
      engine,
      made.concurrency,
      made.maxOperations,
      words === undefined ? null : tokenOf(words, engine.memory.arena),
    );
  }

  /**
   * Joins a shared port, in any thread of its process; twice in one thread gives the same object. The port goes on until `close`, or until its
   * last thread detaches or ends.
   *
   * @param token - a port's `token`, as it is or structured-cloned
   * @throws ERR_PORT_CLOSED if the port is closed; ERR_INVALID_ARG_VALUE for what isn't a token of this process; EMFILE, ENFILE,
   * ENOMEM; EAGAIN beyond 4,096 threads; misuse
   */
  static attach<C = unknown>(token: PortToken): CompletionPort<C> {
    const given = tokenArgument(token);
    const name = nameOf(given);
    const arenaView = new Uint8Array(given.arena);
    const known = MapGet(attached, name)?.deref();
    // One that this thread has left may be joined again; the same goes for one that was collected.
    const open = known !== undefined && !known.isClosed ? known : undefined;
    const control = new SharedArrayBuffer(open === undefined ? abi.BLOCK_BYTES : 0);
    const port = attachNative(open === undefined ? new Uint8Array(control) : null, arenaView, given);
    if (port === 0) return open as CompletionPort<C>;
    if (port === -1) throw portClosed();
    if (port === -3)
      throw misuse(Error, 'EAGAIN', '4,096 threads are at the port, or have left packets there that nobody has taken');
    if (typeof port !== 'number' && isRefused(port)) throw shortage(port.error) ?? unavailable(port.error.reason);
    if (typeof port === 'number') throw wrongValue('token', 'is not a token of a shared port of this process');
    const engine = new Engine(port, {
      maxOperations: port.maxOperations,
      arena: given.arena,
      arenaView,
      control,
      inverted: false,
      shared: true,
    });
    return new CompletionPort<C>(engine, port.concurrency, port.maxOperations, freezeToken(given));
  }

  /** What this machine says to each backend; starts nothing that lasts. */
  static probe(): BackendReport[] {
    return native.probe(disabledFeatures());
  }

  /** Operations started whose packet isn't delivered yet; of a shared port, by any thread. */
  get inFlight(): number {
    return engineOf(this).allInFlight;
  }

  /**
   * The port's own memory: `arenaBytes`, and a page more, since blocks are aligned in memory and it may itself begin anywhere. Views of
   * it are used by operations in place, without a copy.
   */
  get arena(): SharedArrayBuffer {
    engineOf(this).checkOpen();
    return engineOf(this).memory.arena;
  }

  /** Fulfilled after close(), when the last operation has let go of its memory. */
  get closed(): Promise<void> {
    return engineOf(this).closedPromise;
  }

  /** True from close() on. */
  get isClosed(): boolean {
    return engineOf(this).looksClosed();
  }

  /** What another thread attaches with, structured-cloneable. Throws ERR_NOT_SHARED on a private port, ERR_PORT_CLOSED. */
  get token(): PortToken {
    const engine = engineOf(this);
    engine.checkOpen();
    return this.#token ?? notShared();
  }

  /**
   * This thread leaves a shared port: its waiting gets end with ERR_PORT_CLOSED, as does each later use of this object. What it started goes on,
   * but for operations in memory of its own (a SharedArrayBuffer, a copied buffer) and those of promises and streams, which end with ECANCELED.
   * With its last thread the port closes. May wait for a device, never for a peer.
   *
   * @throws ERR_NOT_SHARED on a private port
   */
  detach(): void {
    const engine = engineOf(this);
    if (!this.shared) notShared();
    engine.detach();
  }

  /**
   * Calls a function that blocks: meanwhile this thread's place is another's. When it returns, more than `concurrency` threads may run for a
   * moment; none is released until it is fewer. What this thread has started on private ports, and asked to end, is submitted before; else a
   * private port just calls the function.
   */
  blocking<T>(fn: () => T): T {
    const engine = engineOf(this);
    engine.checkOpen();
    if (typeof fn !== 'function') throw wrongType('fn', 'a function', fn);
    return engine.blocking(fn);
  }

  /** Has the operations that a function starts submitted together, when it returns: one native call in place of one each. */
  defer<T>(fn: () => T): T {
    const engine = engineOf(this);
    engine.checkOpen();
    if (typeof fn !== 'function') throw wrongType('fn', 'a function', fn);
    return engine.defer(fn);
  }

  /**
   * An object of this thread for a handle of this shared port, by a packet's `handleId`. Several objects may stand for one handle; close any.
   *
   * @throws ERR_HANDLE_CLOSED; ERR_NOT_ASSOCIATED for a handle of another port, or of none
   */
  handleOf(id: number): Handle {
    const engine = engineOf(this);
    engine.checkOpen();
    if (!this.shared) notShared();
    return engine.handleOf(safeInteger(id, 'id'));
  }

  /**
   * Binds a handle to this port, for its whole life; all its packets carry the key.
   *
   * @param key - an integer from 0 to 2^53-1
   * @throws ERR_ALREADY_ASSOCIATED, ERR_HANDLE_CLOSED, ERR_PORT_CLOSED, misuse; CompletionError where the system lacks memory for it
   */
  associate(handle: Handle, key: number): void {
    const engine = engineOf(this);
    engine.checkOpen();
    const state = handleArgument(handle);
    const checked = safeInteger(key, 'key');
    if (state.closed) throw misuse(Error, 'ERR_HANDLE_CLOSED', 'the handle is closed');
    const result = state.engine === null ? engine.native.associate(state.index, state.generation, checked) : HANDLE_ASSOCIATED;
    if (result === HANDLE_ASSOCIATED)
      throw misuse(Error, 'ERR_ALREADY_ASSOCIATED', 'the handle is associated with a port already, for its whole life');
    if (result === HANDLE_CLOSED) throw misuse(Error, 'ERR_HANDLE_CLOSED', 'the handle is closed');
    if (result !== 0) throw errorOfResult(result, 0, 'associate', '');
    state.engine = engine;
    state.key = checked;
    if (engine.shared) disown(handle); // it is the port's now, and any thread may use it
  }

  /**
   * Puts a packet of kind 'post' in the queue, behind everything that has finished.
   *
   * @param key - an integer from 0 to 2^53-1, only carried
   * @param bytesTransferred - an integer from 0 to 2^32-1, only carried
   * @param operation - an Operation, which the packet will carry and which is not changed by it, or an object with an `id`
   */
  post(key: number, bytesTransferred = 0, operation?: Operation<C> | { id: number } | null): void {
    const engine = engineOf(this);
    engine.checkOpen();
    safeInteger(key, 'key');
    integer(bytesTransferred, 'bytesTransferred', 0, MAX_UINT32);
    if (operation === undefined || operation === null) {
      engine.post(key, bytesTransferred, null, 0);
      return;
    }
    if (typeof operation !== 'object') throw wrongType('operation', 'an Operation, or an object with an id', operation);
    const id = safeInteger(operation.id, 'operation.id');
    engine.post(key, bytesTransferred, isOperation(operation) ? operation : null, id);
  }

  /**
   * Takes one packet, waiting for it: for worker threads, and programs that do nothing else, because it blocks the event loop.
   *
   * @param timeout - milliseconds, fractions and Infinity (the default) included; 0 doesn't wait
   * @returns null if time ran out
   * @throws ERR_PORT_CLOSED, misuse
   */
  getSync(timeout?: number): Packet<C> | null {
    const engine = engineOf(this);
    engine.checkOpen();
    return engine.getOneSync(milliseconds(timeout, 'timeout')) as Packet<C> | null;
  }

  /**
   * Takes up to `max` packets, in the queue's order; waits for the first only.
   *
   * @returns an empty array if time ran out
   */
  getManySync(max: number, timeout?: number): Packet<C>[] {
    const engine = engineOf(this);
    engine.checkOpen();
    integer(max, 'max', 1, MAX_INT32);
    return engine.getManySync(max, milliseconds(timeout, 'timeout')) as Packet<C>[];
  }

  /**
   * Takes one packet without blocking the event loop. Waiting gets are served first come, first served, before a dispatch.
   *
   * @returns null if time ran out; rejects with AbortError, ERR_PORT_CLOSED, misuse; EMFILE, ENFILE, ENOMEM or, for a thread, EAGAIN where
   *   nothing is left to wake the event loop by (each port without libuv, as on Bun and Deno, has a thread and descriptors of its own)
   */
  get(options?: GetOptions): Promise<Packet<C> | null> {
    return waitFor(engineOf(this), 0, options, null) as Promise<Packet<C> | null>;
  }

  /** As get, for up to `max` packets: an empty array if time ran out. */
  getMany(max: number, options?: GetOptions): Promise<Packet<C>[]> {
    // 0 would mean one packet to the wait below.
    return waitFor(engineOf(this), max === 0 ? Number.NaN : max, options, null) as Promise<Packet<C>[]>;
  }

  /** Packets as they come, until the port closes. Leaving the loop loses no packet. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Packet<C>> {
    engineOf(this).checkOpen();
    return new PacketIterator<C>(engineOf(this));
  }

  /**
   * Has a function called for each packet, from the event loop: the fastest form. Microtasks run after each batch: what was there, and
   * what its handlers have started and is done at once, at most 512 packets. After as many, timers and other I/O have their turn. What the handler throws is reported as an uncaught exception, and the rest still arrives.
   * Handlers run in the async context of this call.
   *
   * @throws ERR_ALREADY_DISPATCHING: a port has one dispatch at a time
   */
  dispatch(handler: (packet: Packet<C>) => void): Consumer {
    const engine = engineOf(this);
    engine.checkOpen();
    if (typeof handler !== 'function') throw wrongType('handler', 'a function', handler);
    if (engine.dispatch !== null)
      throw misuse(Error, 'ERR_ALREADY_DISPATCHING', 'the port has a dispatch already; stop it first');
    const dispatch: Dispatch = { handler: handler as Handler, resource: new AsyncResource('COMPLETIONPORT') };
    engine.dispatch = dispatch;
    engine.poke();
    return new Consumer(engine, dispatch);
  }

  /**
   * Hands out memory of the arena: operations use it in place.
   *
   * @param bytes - at least 1; blocks are 64-byte aligned in memory, from 4 KiB up 4,096-byte aligned, as O_DIRECT asks for
   * @throws ENOBUFS if the arena has no piece of that size left
   */
  allocate(bytes: number): Uint8Array<SharedArrayBuffer> {
    engineOf(this).checkOpen();
    return engineOf(this).allocate(bytes);
  }

  /**
   * Gives memory of `allocate` back, at any time: it is handed out again after the last operation that uses it.
   *
   * @throws ERR_INVALID_ARG_VALUE for a view that allocate didn't return, or a second release
   */
  release(view: ArrayBufferView): void {
    engineOf(this).checkOpen();
    engineOf(this).release(view);
  }

  /**
   * Starts opening a file; the packet's kind is 'open', its key the given one, and its result a FileHandle that is associated with
   * this port and key already.
   *
   * @param path - a string, a Buffer, or a file: URL
   * @param flags - as for node:fs: a name such as 'r+', or a number
   * @param options - `key`, `mode` (permissions of a file that is created) and an operation's options; or an Operation with these
   * @throws EAGAIN, ERR_PORT_CLOSED, ERR_OPERATION_PENDING, misuse
   */
  open(
    path: string | Uint8Array | URL,
    flags: string | number = 'r',
    options?: Operation<C> | (OperationOptions<C> & { key: number; mode?: number | undefined }),
  ): Operation<C> {
    const engine = engineOf(this);
    engine.checkOpen();
    const checked = pathArgument(path);
    const numeric = flagsArgument(flags);
    const operation = operationFor<C>(options);
    const mode = modeArgument(operation.mode);
    const { key } = operation;
    if (key === undefined) throw wrongType('options.key', 'a number', key);
    startOpen(engine, checked, numeric, mode, safeInteger(key, 'options.key'), appends(numeric), operation);
    return operation;
  }

  /** Has the kernel begin what was started. It would at the latest at the end of the current job, or with the next get. */
  flush(): void {
    engineOf(this).checkOpen();
    engineOf(this).flush();
  }

  /** Figures about the port. */
  stats(): Stats {
    const engine = engineOf(this);
    engine.checkOpen();
    engine.native.stats();
    const { f64, u32, memory } = engine;
    const at = (index: number): number => f64[abi.STATS_F64 + index] as number;
    return {
      operationsStarted: engine.shared ? at(0) : engine.started,
      packets: engine.shared ? at(1) : engine.delivered,
      posts: engine.shared ? at(2) : engine.posts,
      bytesRead: at(3),
      bytesWritten: at(4),
      inFlight: engine.shared ? (u32[abi.IN_FLIGHT_U32] as number) : engine.inFlight,
      queued: (u32[abi.QUEUED_U32] as number) + engine.fetched,
      enters: at(5),
      wakeups: at(6),
      bounceBytes: memory.bounceBytes,
      arenaBytes: at(7),
      arenaUsed: at(8),
      arenaRegistered: at(9) !== 0,
      ringEntries: at(10),
      completionEntries: at(11),
      backlog: at(12),
      threads: at(13),
      waiting: at(14),
      running: at(15),
      releases: at(16),
      sleepsNoticed: at(17),
    };
  }

  /** The port keeps the process alive while it waits for something: the default. */
  ref(): this {
    engineOf(this).checkOpen();
    engineOf(this).ref();
    return this;
  }

  /** The port doesn't keep the process alive. */
  unref(): this {
    engineOf(this).checkOpen();
    engineOf(this).unref();
    return this;
  }

  /**
   * Closes the port and returns at once: waiting gets end with ERR_PORT_CLOSED, iterators end, queued packets are dropped, what is in
   * flight is cancelled. `closed` is fulfilled when the kernel has let go of all memory. Its handles can be closed, not used.
   */
  close(): void {
    engineOf(this).close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

export { engineOf };

/**
 * Internal operations have the event loop drain them from their start on; nothing has to be switched on.
 *
 * @internal
 */
export function startDispatchIfNone(port: CompletionPort): void {
  engineOf(port).poke();
}
