// What a conformance case is and what it is given. Cases are plain data, free of any test framework: they run under
// Node, Bun and Deno, under vitest, and against a port of someone else's (`--adapter`). A case may use the public names
// of `context.api`, the helpers below and `node:` modules; it imports neither the package nor a test framework.

import type { ChildProcess } from 'node:child_process';
import type * as net from 'node:net';
import type { Worker } from 'node:worker_threads';
import type * as publicNames from '../index.js';

export type Port<C = unknown> = publicNames.CompletionPort<C>;
export type Packet<C = unknown> = publicNames.Packet<C>;
export type Operation<C = unknown> = publicNames.Operation<C>;
export type CreateOptions = publicNames.CreateOptions;
export type FileHandle = publicNames.FileHandle;
export type TcpListener = publicNames.TcpListener;
export type TcpSocket = publicNames.TcpSocket;
export type Handle = publicNames.Handle;

export type PortToken = publicNames.PortToken;

/** A port that several threads may attach to, as each of them sees it. */
export type SharedPort<C = unknown> = Port<C>;

/** The public names that a case uses and an adapter offers. A name that an adapter lacks throws `unable` when it is read. */
export interface Api {
  readonly CompletionPort: typeof publicNames.CompletionPort;
  readonly FileHandle: typeof publicNames.FileHandle;
  readonly TcpListener: typeof publicNames.TcpListener;
  readonly TcpSocket: typeof publicNames.TcpSocket;
  readonly Operation: typeof publicNames.Operation;
}

/**
 * One case.
 *
 * ```ts
 * export const cases: ConformanceCase[] = [
 *   {
 *     id: 'GET-01',
 *     clause: 'GET-01',
 *     title: 'an empty port and timeout 0 give null at once',
 *     reference: 'GetQueuedCompletionStatus with dwMilliseconds 0 returns FALSE with WAIT_TIMEOUT and a NULL overlapped',
 *     run(t) {
 *       const port = t.createPort();
 *       const begin = t.now();
 *       t.equal(port.getSync(0), null, 'getSync(0) of an empty port');
 *       t.less(t.now() - begin, 50, 'milliseconds that getSync(0) took');
 *     },
 *   },
 * ];
 * ```
 *
 * Several cases of one clause come from `variants()` and `forEachWay()` in variants.ts.
 */
export interface ConformanceCase {
  /** The clause's id, or that id with `/name` behind it; unique. `--filter` is matched against it. */
  readonly id: string;
  readonly clause: string;
  /** The rule that is shown, as a sentence. */
  readonly title: string;
  /** What the reference (documented Windows behaviour, or the portable rule made of it) says, in our own words. */
  readonly reference: string;
  /** It loops long by itself: `--repeat` runs it once. */
  readonly soak?: boolean;
  /** The watchdog's limit in milliseconds; 10,000 unless told. It isn't scaled. */
  readonly timeoutMs?: number;
  /** Backends that have the facility of which the clause speaks; on others the case is `n/a`. Unset: every backend. */
  readonly backends?: readonly string[];
  /**
   * Why it says nothing about a shared port used by one thread: with `--shared`, where every port is made a shared one, the case is
   * `n/a` for this reason. Unset: it is run there, too.
   */
  readonly notShared?: string;
  /** What the machine must have; the case is `unable` without it. */
  readonly needs?: readonly Need[];
  run(context: Context): Promise<void> | void;
}

/** `proc`: Linux's /proc. `root`: to be uid 0. Others: a program on the PATH that works here (`unshare -n` is really tried). */
export type Need = 'linux' | 'proc' | 'root' | 'setpriv' | 'unshare' | 'mount' | 'ipv6';

export type Verdict = 'pass' | 'fail' | 'gated' | 'unable' | 'n/a';

/** The ways of getting packets out of a port. */
export type Way = 'getSync' | 'getManySync' | 'get' | 'getMany' | 'iterator' | 'dispatch';

/** What an error must look like; what is left out isn't looked at. `name` is the error's class name (`TypeError`). */
export interface ErrorShape {
  readonly code?: string | readonly string[];
  readonly name?: string;
  readonly by?: 'cancel' | 'signal' | 'timeout' | 'close';
  readonly message?: RegExp;
}

/** A seeded source of numbers: the same seed gives the same run. */
export interface Random {
  /** [0, 1) */
  next(): number;
  /** An integer of 0..n-1. */
  int(n: number): number;
  /** An integer of low..high, both included. */
  between(low: number, high: number): number;
  bytes(n: number): Uint8Array<ArrayBuffer>;
  pick<T>(list: readonly T[]): T;
  /** A shuffled copy. */
  shuffle<T>(list: readonly T[]): T[];
}

export interface TakeOptions {
  /** How to get; `getManySync` unless told. */
  readonly way?: Way;
  /** For the whole of it; 5,000 unless told. */
  readonly timeoutMs?: number;
  /** The `max` of getMany and getManySync; 512 unless told. */
  readonly max?: number;
}

export interface ChildOptions {
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Further flags of the runtime itself (`--no-warnings`). */
  readonly flags?: readonly string[];
  readonly args?: readonly string[];
  /** Offer `globalThis.gc()` in the child. */
  readonly gc?: boolean;
  /** A command that starts the runtime: `['unshare', '-n']`, `['setpriv', …]`. Names a need of the case as well. */
  readonly wrap?: readonly string[];
  /** Then the child is killed and the case fails; 8,000 unless told. Keep it below the case's own limit. */
  readonly timeoutMs?: number;
  readonly cwd?: string;
}

export interface ChildResult {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
  readonly durationMs: number;
}

/** A socket of the package under test connected with a plain `node:net` socket of this process. */
export interface PeerPair {
  readonly socket: TcpSocket;
  /** Paused: it reads nothing until told (`peer.resume()`, `t.readPeer`). `peer.resetAndDestroy()` sends a reset. */
  readonly peer: net.Socket;
}

/** What a case is given. Everything made through it is closed, killed or removed after the case, in reverse order. */
export interface Context {
  readonly api: Api;
  /** The module of what is under test, as a file URL, for threads: its default export, or itself, has the public names. */
  readonly moduleUrl: string;
  /** The backend under test: `createPort` asks for it by this name. */
  readonly backend: string;
  readonly runtime: { readonly name: 'node' | 'bun' | 'deno'; readonly version: string };
  readonly seed: number;
  readonly scale: number;
  /** The run makes every port a shared one (`--shared`). */
  readonly shared: boolean;
  readonly random: Random;

  // ---- Verdicts and progress
  /** This machine lacks something: the case is `unable` for this reason. */
  unable(reason: string): never;
  /** The backend hasn't the facility of which the clause speaks: the case is `n/a`. */
  notApplicable(reason: string): never;
  fail(message: string): never;
  /** Say what the case does now: the watchdog's report names it, also when the case blocks its thread. Costs a write. */
  doing(what: string): void;
  /** `n` times `--scale`, rounded, at least `least` (1 unless told). */
  count(n: number, least?: number): number;
  /** Run after the case, whatever its outcome, last one first. */
  cleanup(action: () => void | Promise<void>): void;

  // ---- Assertions. `what` names the value under test; the message adds what was expected and found.
  ok(value: unknown, what: string): void;
  equal<T>(actual: T, expected: T, what: string): void;
  notEqual<T>(actual: T, unexpected: T, what: string): void;
  /** Structural and strict; typed arrays by their bytes. */
  deepEqual(actual: unknown, expected: unknown, what: string): void;
  /** actual < limit */
  less(actual: number, limit: number, what: string): void;
  /** actual >= limit */
  atLeast(actual: number, limit: number, what: string): void;
  /** The bytes of two views are the same; the message names the first difference. */
  sameBytes(actual: ArrayBufferView, expected: ArrayBufferView, what: string): void;
  /** The value, or a failure where it is null or undefined. */
  some<T>(value: T | null | undefined, what: string): T;
  /** `action` throws such an error; returns it. */
  throws(action: () => unknown, shape: ErrorShape, what: string): Error & { code?: string };
  rejects(
    promise: Promise<unknown>,
    shape: ErrorShape,
    what: string,
    limitMs?: number,
  ): Promise<Error & { code?: string; cause?: unknown }>;
  /** The packet says success: `error` is null. */
  succeeded(packet: Packet, what: string): void;
  /** The packet's error has this shape (and is a failure at all); returns it. */
  failed(packet: Packet, shape: ErrorShape, what: string): NonNullable<Packet['error']>;

  // ---- Time
  /** Monotonic milliseconds, with a fraction. */
  now(): number;
  sleep(ms: number): Promise<void>;
  /** Block this thread without computing. */
  sleepSync(ms: number): void;
  /** Compute for so long. */
  spin(ms: number): void;
  /** One turn of the event loop. */
  turn(): Promise<void>;
  /** The promise's value, or a failure after `ms`. */
  within<T>(ms: number, promise: Promise<T>, what: string): Promise<T>;
  /** Waits, with turns of the event loop, until `condition` holds; fails after `ms` (2,000 unless told). */
  eventually(condition: () => boolean, what: string, ms?: number): Promise<void>;

  // ---- Ports and packets
  /** A port on the backend under test, with `--shared` a shared one. After the case it is closed; `closed` must be fulfilled within 2 s. */
  createPort<C = unknown>(options?: CreateOptions): Port<C>;
  /** Close this handle after the case. Handles made by the helpers below already are. */
  track<H extends { close(): void }>(handle: H): H;
  /** Exactly `n` packets, or a failure that lists those which came. */
  take<C>(port: Port<C>, n: number, options?: TakeOptions): Promise<Packet<C>[]>;
  takeOne<C>(port: Port<C>, options?: TakeOptions): Promise<Packet<C>>;
  /** The same without the event loop (`getManySync`). */
  takeSync<C>(port: Port<C>, n: number, timeoutMs?: number): Packet<C>[];
  takeOneSync<C>(port: Port<C>, timeoutMs?: number): Packet<C>;
  /** No packet comes within `ms` (0 unless told). */
  nothing(port: Port, ms?: number): void;

  /**
   * Memory to read into, all zeros, where its kind doesn't matter: of the JavaScript heap, or with `--shared` a SharedArrayBuffer's,
   * because a shared port reads into nothing that other threads can't reach.
   */
  room(bytes: number): Uint8Array;

  // ---- Files
  tempDir(): string;
  /** A path in a folder of this case; with `content` the file is made. */
  tempFile(name?: string, content?: NodeJS.ArrayBufferView | string): string;
  /** An open file, associated with `port` under `key`. */
  openFile(port: Port, key: number, path: string, flags?: string | number): FileHandle;
  /** `length` bytes that depend on their offset and `salt` only: to check any part of a stream. */
  pattern(offset: number, length: number, salt?: number): Uint8Array<ArrayBuffer>;

  // ---- TCP
  /** Listens on 127.0.0.1 and a free port; associated with `port` under `key` if they are given. */
  listener(port?: Port, key?: number, options?: { host?: string; backlog?: number }): TcpListener;
  /** Two connected sockets, both associated with `port`. Gets synchronously: call it on a quiet port, before any dispatch. */
  pair(
    port: Port,
    keyA?: number,
    keyB?: number,
    options?: { family?: 'IPv4' | 'IPv6' },
  ): { readonly a: TcpSocket; readonly b: TcpSocket };
  /** A socket connected (by `connect`) with a `node:net` socket of this process. Waits with `port.get()`. */
  peer(port: Port, key?: number, options?: { allowHalfOpen?: boolean }): Promise<PeerPair>;
  /** A listening `node:net` server on 127.0.0.1; its connections are destroyed after the case. */
  peerServer(
    onConnection: (socket: net.Socket) => void,
    options?: net.ServerOpts,
  ): Promise<{ readonly server: net.Server; readonly port: number }>;
  /** A connected `node:net` client. */
  peerClient(port: number, options?: { host?: string; allowHalfOpen?: boolean }): Promise<net.Socket>;
  /** Exactly `n` bytes from a node:net socket, or fewer where it ends before. Leaves it paused. */
  readPeer(socket: net.Socket, n: number, limitMs?: number): Promise<Uint8Array>;
  /**
   * A worker thread that runs `code` (a CommonJS script with `workerData`, `parentPort`, `net`, `fs` at hand), for peers that
   * must act while this thread blocks. Terminated after the case. Its `error` events fail the case.
   */
  worker(code: string, workerData?: unknown): Worker;

  // ---- The process
  /** Open descriptors of this process. `unable` where the OS doesn't say. */
  fdCount(): number;
  threadCount(): number;
  /** Resident bytes. */
  residentBytes(): number;
  /** Collects garbage; `unable` where the runtime offers no way. The suite's processes run with `--expose-gc`. */
  gc(): void;
  /**
   * Runs an ES module in a process of its own, with the package or adapter under test. In scope: `CompletionPort`,
   * `FileHandle`, `TcpListener`, `TcpSocket`, `Operation`, `backend`, `createPort(options)` on that backend, and `room(bytes)`,
   * both as here. Static imports of `node:` modules may be added. No port is closed for it and nothing ends it but itself and the limit.
   */
  child(code: string, options?: ChildOptions): Promise<ChildResult>;
  /** The same, not waited for: to talk to it or to end it. Killed after the case. Its stdio are pipes. */
  startChild(code: string, options?: ChildOptions): ChildProcess;
  /** From here on, uncaught exceptions and unhandled rejections don't fail the case but are collected. */
  expectUncaught(): unknown[];
  /** From here on, process warnings are collected. */
  warnings(): Error[];
  /**
   * The package's own native module (the object that `native/addon` exports), for the cases that call it directly.
   * `unable` with an adapter that doesn't offer it as `native`.
   */
  native(): Promise<Readonly<Record<string, unknown>>>;
}

// ---- Reports: the shape of `--json` (fixed: others rely on it)

export interface CaseReport {
  id: string;
  clause: string;
  title: string;
  verdict: Verdict;
  reason: string | null;
  error: string | null;
  runs: number;
  failedRuns: number;
  failingSeed: number | null;
  durationMs: number;
}

/** What keeps a report from being one of the whole suite on the package as it is. The scale stands in the report anyway. */
export interface Restrictions {
  /** The cases whose id this matches. */
  filter?: string;
  /** Another port than the package's own: the file's name. */
  adapter?: string;
  /** Names and values of the environment variables that change what was tested. */
  environment?: Record<string, string>;
}

export interface SuiteReport {
  suite: string;
  seed: number;
  scale: number;
  /** Only of a run with `--shared`. */
  shared?: boolean;
  /** Only of a run that says less than a full one on the package itself; see `Restrictions`. */
  restrictions?: Restrictions;
  /** Only where the port's own choice was a lesser backend: why. */
  fallbackReason?: string;
  /** Only over the stand-in for kqueue: the kernel that it behaves as; under Wine: `wine_8.0`, its version. */
  standIn?: string;
  started: string;
  durationMs: number;
  runtime: { name: string; version: string };
  os: { platform: string; release: string; arch: string };
  backend: { name: string; features: Record<string, boolean> };
  totals: Record<Verdict, number>;
  cases: CaseReport[];
}

/** A known, sourced difference: on `backend` the case `id` (or all of the clause) fails. One that passes is an error. */
export interface Gate {
  readonly id: string;
  readonly backend: string;
  /** Only where the backend reports this feature: `wine`, a stand-in for Windows that differs from it. */
  readonly feature?: string;
  readonly reason: string;
  readonly source: string;
  /** The case is run up to so many times: one failure keeps the gate. 1 unless it is a race. */
  readonly repeat?: number;
}
