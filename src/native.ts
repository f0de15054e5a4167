// The native module: its types, with what each function relies on, and the loader. Nothing else in the package touches the file
// system for it. The functions trust no argument (they check and answer with a negative number or throw), but only this package is
// meant to call them.

import { createRequire } from 'node:module';
import { ABI_VERSION, COMPLETIONS_MAX, CONTROL_BYTES, ENTRY_BYTES, SUBMISSIONS_MAX } from './abi.js';
import { misuse } from './errors.js';

/** The names of the backends that there are, or will be. */
export type BackendName = 'io_uring' | 'epoll' | 'kqueue' | 'iocp';

/** What this machine says to one backend. */
export interface BackendReport {
  name: BackendName;
  available: boolean;
  /** Why it isn't available, in words; null if it is. */
  reason: string | null;
  /** Probed features; one that is masked by COMPLETION_PORT_DISABLE is false. */
  features: Record<string, boolean>;
}

/** One entry of the error table: a status in a completion entry is an index into it. */
export interface NativeError {
  /** The portable name, such as 'ECONNRESET'. */
  code: string;
  /** Negative, as Node's. */
  errno: number;
  message: string;
}

/** In place of a port: the OS's number of what went wrong, or 0, and what is likely behind it. */
export interface NativePortError {
  error: { errno: number; reason: string };
}

export interface NativePortOptions {
  backend: string;
  maxOperations: number;
  ringEntries: number;
  concurrency: number;
  poolThreads: number;
  inverted: boolean;
  shared: boolean;
  /** Comma-separated features to leave unused. */
  disable: string;
  /** Why better backends were not taken, for threads that attach; '' if none was refused. */
  fallbackReason: string;
}

/** The native half of one port. Its parameters and results lie in the control block (abi.ts). Only the thread that made it may call it. */
export interface NativePort {
  readonly name: BackendName;
  readonly features: Record<string, boolean>;
  readonly maxOperations: number;
  readonly concurrency: number;
  /** As its creator gave it. */
  readonly fallbackReason?: string;
  /** A wait in `enter` ends soon if the thread's script is to be terminated, however long it may last. */
  readonly looksForEnd: boolean;
  /** `receiveNow` and `sendNow` can move bytes of its sockets. */
  readonly movesNow: boolean;
  /** Takes the submission entries, submits, waits as the control block says, fills completion entries; returns their number. */
  enter(): number;
  /** Appends the post that the control block describes to the one queue, behind what is already finished. */
  post(): void;
  /** Asks for the operation's end; false: it had finished or the slot's generation is another. */
  cancel(slot: number, generation: number, by: number): boolean;
  /** The same for all of a handle's operations; returns how many were pending. */
  cancelHandle(index: number, generation: number, by: number): number;
  /** 0, -10001: stale handle, -10002: it has a port already, or a negative errno. */
  associate(index: number, generation: number, key: number): number;
  /** Takes a Uint8Array over a whole SharedArrayBuffer, keeps it alive, and returns its memory id; 0: no more ids. */
  registerMemory(view: Uint8Array): number;
  /** Lets go of it after the last operation that uses it. */
  unregisterMemory(id: number): void;
  /** An offset into the arena, or -1. */
  arenaAllocate(bytes: number): number;
  /** 0, or -1: no block starts there. The block is used again only after the last operation that uses it. */
  arenaRelease(offset: number): number;
  /** Starts opening a file; 0, or negative if the slot was refused. */
  open(
    slot: number,
    slotGeneration: number,
    path: string | Uint8Array,
    flags: number,
    mode: number,
    key: number,
    timeoutMs: number,
    operationId: number,
    entryFlags: number,
  ): number;
  /**
   * Calls `onWake` from the event loop when something may be there, again at once for as long as it returns true, and once more if a
   * tick or continuation behind the call throws. It may not throw itself.
   */
  startLoop(onWake: () => boolean): void;
  ref(): void;
  unref(): void;
  /** Schedules onWake. */
  wake(): void;
  /** Writes the statistics into the control block. */
  stats(): void;
  /** Cancels everything; `onClosed` is called when the last operation has let go of its memory. */
  close(onClosed: () => void): void;

  // Of a shared port; of a private one they do nothing.

  /** Index, generation and the four words of the secret; undefined of a private port. */
  token(): number[] | undefined;
  /** This thread leaves: waits until its own memory isn't used any more. No function may be called after it. */
  detach(): void;
  /** The job that received packets of an async get has ended; `all`: the thread's place is free however it came by it. */
  endJob(all: boolean): void;
  setBlocking(on: boolean): void;
  /** Promises one operation its room before it is submitted. */
  reserve(): boolean;
  unreserve(count: number): void;
  /** [kind, key, append]; undefined: closed; null: another port's, or none's; []: this thread is being terminated. */
  handleInfo(index: number, generation: number): [kind: number, key: number, append: boolean] | [] | undefined | null;
}

export interface ProcessCounts {
  /** Files, sockets, pipes, completion ports. */
  descriptors: number;
  /** The same and all else: threads, what they wait for. */
  handles: number;
  threads: number;
}

export interface NativeModule {
  readonly abi: { version: number; controlBytes: number; entryBytes: number; maxSubmissions: number; maxCompletions: number };
  readonly version: string;
  readonly errors: readonly NativeError[];
  /** The backends that were compiled in, the best first. */
  readonly backends: readonly BackendName[];
  /** The monotonic clock, in milliseconds with fractions. */
  now(): number;
  probe(disable: string): BackendReport[];
  /** Undefined here and of `attachPort`: this thread is being terminated. */
  createPort(control: Uint8Array, arena: Uint8Array, options: NativePortOptions): NativePort | NativePortError | undefined;
  /**
   * Joins a shared port. -1: it is closed; -2: there is no such token; -3: no room for one more thread. Without a control block: whether the
   * token is good, 0 if it is.
   */
  attachPort(
    control: Uint8Array | null,
    arena: Uint8Array,
    index: number,
    generation: number,
    s0: number,
    s1: number,
    s2: number,
    s3: number,
    disable: string,
  ): NativePort | NativePortError | number | undefined;
  /** A handle's id, or the negated native error, or one of abi.ts's OPENED_… */
  openFile(path: string | Uint8Array, flags: number, mode: number): number;
  listen(family: number, address: Uint8Array, backlog: number, reusePort: boolean, ipv6Only: boolean): number;
  socket(family: number, bind: Uint8Array | null): number;
  /** 0, or -1: stale. */
  closeHandle(index: number, generation: number, reset: boolean): number;
  /** Writes the own or the peer's address; 0, or the negated native error. */
  address(index: number, generation: number, peer: boolean, out: Uint8Array): number;
  setOption(index: number, generation: number, option: number, value: number): number;
  getOption(index: number, generation: number, option: number): number;
  /** 4, 6, or 0: not a literal address. */
  parseAddress(host: string, out: Uint8Array): number;
  formatAddress(address: Uint8Array): string;
  /** Copies `length` bytes; throws, and copies nothing, where one of the views doesn't have them (a detached one has none). */
  copy(to: Uint8Array, toAt: number, from: Uint8Array, fromAt: number, length: number): void;
  /**
   * Receives what is there at once, without an operation, into any memory, which is used until the return and no longer. Returns how many
   * bytes came; 0: start an operation, which waits, and which tells an end or an error. Only while no recv of the handle is under way.
   */
  receiveNow(index: number, generation: number, to: Uint8Array, at: number, length: number): number;
  /** The same for sending: only while no send or shutdown of the handle is under way. */
  sendNow(index: number, generation: number, from: Uint8Array, at: number, length: number): number;
  /** The index into `errors` that a native error of that operation has. */
  mapError(nativeCode: number, opcode: number): number;
  /** Reports an uncaught exception, as if thrown out of an event-loop callback. */
  fatalException(error: unknown): void;
  /** What this process has at the kernel; -1: this system lists it in /proc or /dev/fd, or doesn't tell. */
  countProcess(): ProcessCounts;
}

/** Loads the addon, and modules of Node's that most programs don't need from the start: an import of node:fs costs 2 ms. */
export const require: NodeJS.Require = createRequire(import.meta.url);

/** This package's version, which the addon must share. */
export const version: string = (require('../package.json') as { version: string }).version;

const rebuild = "run 'npx completion-port build'";

function load(): NativeModule {
  const platform = `${process.platform}-${process.arch}`;
  // Documented hooks of the tests: narrow generations and mutants live in an addon of their own, and so does the kqueue backend over a
  // stand-in for kqueue.
  const test = process.env.COMPLETION_PORT_BUILD === 'test';
  const shim = (process.env.COMPLETION_PORT_KQUEUE_SHIM ?? '') !== '';
  const folder = shim ? `${platform}-kqueue` : test ? `${platform}-test` : platform;
  const file = `../build/${folder}/${test ? 'completion_port_test' : 'completion_port'}.node`;
  const { fileURLToPath } = require('node:url') as typeof import('node:url');
  const path = fileURLToPath(new URL(file, import.meta.url));
  let module: NativeModule;
  try {
    module = require(path) as NativeModule;
  } catch (cause) {
    const missing = (cause as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND';
    const what = missing
      ? `there is no native addon for ${platform} (${path})`
      : `the native addon ${path} can't be loaded (${String(cause)})`;
    throw misuse(Error, 'ERR_NO_NATIVE', `${what}; ${rebuild} to build it`, cause);
  }
  const { abi } = module;
  if (
    module.version !== version ||
    abi?.version !== ABI_VERSION ||
    abi.controlBytes !== CONTROL_BYTES ||
    abi.entryBytes !== ENTRY_BYTES ||
    abi.maxSubmissions !== SUBMISSIONS_MAX ||
    abi.maxCompletions !== COMPLETIONS_MAX
  ) {
    const has = `version ${module.version}, ABI ${abi?.version}`;
    throw misuse(
      Error,
      'ERR_NATIVE_MISMATCH',
      `the native addon ${path} has ${has}, the package is version ${version}, ABI ${ABI_VERSION}; ${rebuild} to build it anew`,
    );
  }
  if (process.platform !== 'linux') numberErrors(module);
  return module;
}

/** The table has Linux's numbers; elsewhere an error has that of Node.js, so that `util.getSystemErrorName(error.errno)` is its code. */
function numberErrors(module: NativeModule): void {
  const { getSystemErrorMap } = require('node:util') as Partial<typeof import('node:util')>;
  if (getSystemErrorMap === undefined) return;
  const numbers = new Map<string, number>();
  for (const [number, [code]] of getSystemErrorMap()) numbers.set(code, number);
  for (const error of module.errors) error.errno = numbers.get(error.code) ?? error.errno;
}

/** The native module of this thread. */
export const native: NativeModule = load();
