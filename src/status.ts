// From the native side's statuses to errors: the table comes with the addon, the rare errors that JavaScript itself finds are here.

import type { CompletionError } from './errors.js';
import { completionError, systemError } from './errors.js';
import type { NativeError } from './native.js';
import { native } from './native.js';
import { syscallNames } from './operation.js';

const unknownError: NativeError = { code: 'EUNKNOWN', errno: 0, message: 'unknown error' };

const detached: NativeError = {
  code: 'ERR_BUFFER_DETACHED',
  errno: 0,
  message: 'the buffer was detached or shrunk while the operation ran',
};

function entryOf(code: string): NativeError {
  const { errors } = native;
  for (let i = 0; i < errors.length; i++) {
    const entry = errors[i] as NativeError;
    if (entry.code === code) return entry;
  }
  return { code, errno: 0, message: code };
}

const canceled = entryOf('ECANCELED');

/** The error of a completion entry. */
export function errorOfStatus(status: number, nativeCode: number, opcode: number, by: number, cause: unknown): CompletionError {
  return completionError(native.errors[status] ?? unknownError, nativeCode, syscallNames[opcode] as string, by, cause);
}

/** ECANCELED, for an operation that JavaScript itself ends. */
export function canceledError(opcode: number, by: number, cause: unknown): CompletionError {
  return completionError(canceled, -canceled.errno, syscallNames[opcode] as string, by, cause);
}

/** What a read ends with whose buffer went away while it ran. */
export function detachedError(opcode: number): CompletionError {
  return completionError(detached, 0, syscallNames[opcode] as string, 0, undefined);
}

/** The error that a synchronous call throws, made of its negative result. */
export function errorOfResult(result: number, opcode: number, syscall: string, detail: string): CompletionError {
  const nativeCode = -result;
  return systemError(native.errors[native.mapError(nativeCode, opcode)] ?? unknownError, nativeCode, syscall, detail);
}

const waits: Readonly<Record<string, string>> = { io_uring: 'io_uring_enter', epoll: 'epoll_wait', kqueue: 'kevent' };

/** The error that the OS's queue itself met; the operations are untouched. */
export function queueError(errno: number, backend: string): CompletionError {
  return errorOfResult(errno, 0, waits[backend] ?? backend, '');
}
