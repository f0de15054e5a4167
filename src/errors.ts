// The two kinds of errors. A CompletionError is what an operation ended with: it stands in a packet, is never thrown by us, and is
// made without a stack trace, because ten thousand connections that close at once are ten thousand of them. Misuse is thrown at
// once, with a stack trace and an ERR_… code, before anything is started.

import type { NativeError } from './native.js';

/** Who ended an operation that ends in ECANCELED or ETIMEDOUT of ours. */
export type CancelledBy = 'cancel' | 'signal' | 'timeout' | 'close';

/**
 * What a failed operation ended with. It stands in `packet.error`, or a promise of `completion-port/promises` rejects with it.
 *
 * `code` is the same on every OS for the same event. Where something can be done about it the message says what.
 */
export class CompletionError extends Error {
  /** The portable, Node-style name: 'ECONNRESET', 'ECANCELED', 'ERR_BUFFER_DETACHED' … */
  readonly code: string;
  /** The number that Node gives that name on this OS, negative; 0 for a name that Node has no number for. */
  readonly errno: number;
  /** The OS's own number of the error (errno on POSIX, a Win32 code on Windows). */
  readonly nativeCode: number;
  /** The system call that failed, as an operation's name. */
  readonly syscall: string;
  /** Only for ECANCELED and ETIMEDOUT that came from this process: who ended the operation. */
  declare readonly by?: CancelledBy;
  /** With `by: 'signal'`: the signal's reason. */
  declare readonly cause?: unknown;

  /** @internal */
  constructor(message: string, code: string, errno: number, nativeCode: number, syscall: string) {
    super(message);
    this.code = code;
    this.errno = errno;
    this.nativeCode = nativeCode;
    this.syscall = syscall;
  }
}
Object.defineProperty(CompletionError.prototype, 'name', { value: 'CompletionError', configurable: true, writable: true });

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

const byNames: readonly (CancelledBy | undefined)[] = [undefined, 'cancel', 'signal', 'timeout', 'close'];
const byWords: readonly string[] = ['', ' (by cancel)', ' (by its AbortSignal)', ' (by its timeout)', ' (by close)'];

/** What the user can do, by code, where the native table's words (native/core/errors.h) don't say it. */
const advice: Readonly<Record<string, string>> = {
  ENFILE: 'close some, or raise fs.file-max',
  ENOBUFS: 'close connections, or lower their buffer sizes',
  ENOMEM: 'the limit of locked memory (ulimit -l) counts, too',
  ECONNREFUSED: 'is the server running?',
  ECONNRESET: 'the peer ended the connection without a clean close',
  ETIMEDOUT: 'the peer, or the network, did not answer in time',
  EACCES: 'this user lacks the permission',
  ENOSPC: 'packet.bytesTransferred says how much was written',
  ENOTCONN: 'connect it first',
};

// The message made last, and of what: errors that come by the thousand are the same ones.
let lastError: NativeError | null = null;
let lastSyscall = '';
let lastBy = 0;
let lastMessage = '';

function messageOf(error: NativeError, syscall: string, by: number): string {
  if (error !== lastError || syscall !== lastSyscall || by !== lastBy) {
    lastMessage = makeMessage(error, syscall, by);
    lastError = error;
    lastSyscall = syscall;
    lastBy = by;
  }
  return lastMessage;
}

function makeMessage(error: NativeError, syscall: string, by: number): string {
  const hint = by === 0 ? advice[error.code] : undefined;
  return `${error.code}: ${error.message}, ${syscall}${byWords[by] ?? ''}${hint === undefined ? '' : `; ${hint}`}`;
}

/** Sets Error.stackTraceLimit; false where the intrinsics are frozen, and then errors cost their stack trace. */
function limitStack(limit: number): boolean {
  try {
    Error.stackTraceLimit = limit; // half the time of Reflect.set
    return true;
  } catch {
    return false;
  }
}

/** Makes the error of a packet: no stack trace is taken. */
export function completionError(
  error: NativeError,
  nativeCode: number,
  syscall: string,
  by: number,
  cause: unknown,
): CompletionError {
  const limit = Error.stackTraceLimit;
  const limited = limitStack(0);
  const made = new CompletionError(
    messageOf(error, syscall, by),
    error.code,
    error.errno,
    nativeCode,
    syscall,
  ) as Mutable<CompletionError>;
  if (limited) limitStack(limit);
  const name = byNames[by];
  if (name !== undefined) {
    made.by = name;
    if (by === 2) made.cause = cause;
  }
  return made;
}

/** Makes the error of a synchronous call that the OS refused; it is thrown, so it has its stack trace. */
export function systemError(error: NativeError, nativeCode: number, syscall: string, detail = ''): CompletionError {
  return new CompletionError(messageOf(error, syscall, 0) + detail, error.code, error.errno, nativeCode, syscall);
}

type ErrorClass = new (message: string, options?: ErrorOptions) => Error;

/** An error for misuse: the class that Node would use, with a code that a program can test. */
export function misuse(Class: ErrorClass, code: string, message: string, cause?: unknown): Error & { code: string } {
  const error = new Class(message, cause === undefined ? undefined : { cause }) as Error & { code: string };
  error.code = code;
  return error;
}

/** Shows a value in an error message, shortly and without running its code. */
export function shown(value: unknown): string {
  switch (typeof value) {
    case 'string':
      return value.length > 40 ? `'${value.slice(0, 40)}…'` : `'${value}'`;
    case 'number':
    case 'boolean':
    case 'undefined':
      return String(value);
    case 'bigint':
      return `${value}n`;
    case 'symbol':
      return 'a symbol';
    case 'function':
      return 'a function';
    default:
      return value === null ? 'null' : 'an object';
  }
}

export function wrongType(name: string, expected: string, value: unknown): Error {
  return misuse(TypeError, 'ERR_INVALID_ARG_TYPE', `${name} must be ${expected}, but is ${shown(value)}`);
}

export function wrongValue(name: string, problem: string): Error {
  return misuse(TypeError, 'ERR_INVALID_ARG_VALUE', `${name} ${problem}`);
}

export function outOfRange(name: string, range: string, value: unknown): Error {
  return misuse(RangeError, 'ERR_OUT_OF_RANGE', `${name} must be ${range}, but is ${shown(value)}`);
}

/** For `new` of a class that only this package makes objects of. */
export function illegalConstructor(instead: string): Error {
  return misuse(TypeError, 'ERR_ILLEGAL_CONSTRUCTOR', `Illegal constructor: ${instead}`);
}

/** For a method that is called on something else than what it is a method of. */
export function invalidThis(expected: string, value: unknown): Error {
  return misuse(TypeError, 'ERR_INVALID_THIS', `the receiver must be ${expected}, but is ${shown(value)}`);
}

export function portClosed(): Error {
  return misuse(Error, 'ERR_PORT_CLOSED', 'the completion port is closed');
}

/**
 * Node forbids native calls to a thread that is being terminated (`Environment::can_call_into_js`) a moment before its script is
 * stopped (`Environment::ExitEnv`, src/env.cc). What is called in between gives nothing, or an empty array, and can't throw either.
 */
export function threadEnding(): Error {
  return misuse(Error, 'ERR_PORT_CLOSED', 'this thread is being terminated: it has no port any more');
}

export function handleClosed(): Error {
  return misuse(Error, 'ERR_HANDLE_CLOSED', 'the handle is closed');
}

export function operationPending(closing: boolean): Error {
  const problem = closing
    ? 'its port is closed, but the kernel has not yet let go of it; wait for port.closed, or use another Operation'
    : 'it can be started again once its packet is delivered';
  return misuse(Error, 'ERR_OPERATION_PENDING', `the operation is pending: ${problem}`);
}

export function bufferDetached(name: string): Error {
  return misuse(
    TypeError,
    'ERR_BUFFER_DETACHED',
    `${name} lies in an ArrayBuffer that was detached, or made smaller than the view`,
  );
}

/** What a waiting get rejects with when its AbortSignal fires, shaped as Node's. */
export class AbortError extends Error {
  readonly code = 'ABORT_ERR';
  constructor(reason: unknown) {
    super('The operation was aborted', reason === undefined ? undefined : { cause: reason });
    this.name = 'AbortError';
  }
}
