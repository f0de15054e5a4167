/**
 * Errors in the shape that node:net gives them. A program that looks at `code`, `errno`, `syscall`, `address` and `port` of an
 * error must not notice which implementation it came from; the packet's own error stays reachable as `cause`.
 */
import { constants } from 'node:os';
import { getSystemErrorMap, inspect } from 'node:util';

/** What the port reports of a failure: the fields this layer passes on. */
export interface PortFailure {
  code: string;
  errno?: number;
  message: string;
}

/** What is left of a write when its socket is closed between two of its sends. */
export function cutOff(): PortFailure {
  const failure = new Error('the socket was closed before all of the write was sent') as Error & PortFailure;
  failure.code = 'ECANCELED';
  failure.errno = -constants.errno.ECANCELED;
  return failure;
}

/** A system error as node:net shapes it. */
export interface NetError extends Error {
  code: string;
  errno?: number;
  syscall?: string;
  address?: string;
  port?: number;
  localAddress?: string;
  localPort?: number;
}

/** Whether a caught value has a code, as all errors of this package and of Node do. */
export function isPortFailure(value: unknown): value is PortFailure {
  return value instanceof Error && typeof (value as { code?: unknown }).code === 'string';
}

/** `read ECONNRESET`: a failure of a transfer. Misuse and a closed port (`ERR_…`) are no system errors and pass unchanged. */
export function transferError(syscall: string, failure: PortFailure): Error {
  if (failure.code.startsWith('ERR_')) {
    return failure as PortFailure & Error;
  }
  const error = new Error(`${syscall} ${failure.code}`, { cause: failure }) as NetError;
  error.errno = failure.errno;
  error.code = failure.code;
  error.syscall = syscall;
  return error;
}

/** `connect ECONNREFUSED 127.0.0.1:80`: a failure that names the end point it was about. */
export function endpointError(
  syscall: 'connect' | 'bind',
  failure: PortFailure,
  address: string,
  port: number,
  local?: { address: string; port: number },
): Error {
  if (failure.code.startsWith('ERR_')) {
    return failure as PortFailure & Error;
  }
  const suffix = local === undefined ? '' : ` - Local (${local.address}:${local.port})`;
  const place = port > 0 ? `${address}:${port}` : address;
  const error = new Error(`${syscall} ${failure.code} ${place}${suffix}`, { cause: failure }) as NetError;
  error.errno = failure.errno;
  error.code = failure.code;
  error.syscall = syscall;
  error.address = address;
  if (port > 0) {
    error.port = port;
  }
  if (local !== undefined) {
    error.localAddress = local.address;
    error.localPort = local.port;
  }
  return error;
}

/** `listen EADDRINUSE: address already in use 127.0.0.1:80`: node:net puts the words in for this one call. */
export function listenError(failure: PortFailure, address: string, port: number): Error {
  if (failure.code.startsWith('ERR_')) {
    return failure as PortFailure & Error;
  }
  const words = failure.errno === undefined ? undefined : getSystemErrorMap().get(failure.errno)?.[1];
  const place = port > 0 ? `${address}:${port}` : address;
  const error = new Error(`listen ${failure.code}: ${words ?? failure.message} ${place}`, { cause: failure }) as NetError;
  error.code = failure.code;
  error.errno = failure.errno;
  error.syscall = 'listen';
  error.address = address;
  if (port > 0) {
    error.port = port;
  }
  return error;
}

/** The error of a connect whose every address failed: the first failure's code, all of them in `errors`. */
export function attemptsError(errors: Error[]): AggregateError & { code?: string } {
  const error = new AggregateError(errors) as AggregateError & { code?: string };
  const first = errors[0];
  if (first !== undefined && isPortFailure(first)) {
    error.code = first.code;
  }
  return error;
}

/** An error with one of Node's own codes. */
export function codedError(
  code: string,
  message: string,
  Base: ErrorConstructor | TypeErrorConstructor | RangeErrorConstructor = Error,
): NetError {
  const error = new Base(message) as NetError;
  error.code = code;
  return error;
}

/** A wrong type of an argument, worded as Node words it. */
export function invalidType(name: string, expected: string, value: unknown): NetError {
  const what = name.includes('.') ? 'property' : 'argument';
  return codedError(
    'ERR_INVALID_ARG_TYPE',
    `The "${name}" ${what} must be ${expected}. Received ${inspect(value, { depth: 0 })}`,
    TypeError,
  );
}

/** An option that only node:net has. */
export function notSupported(what: string): NetError {
  return codedError('ERR_NOT_SUPPORTED', `completion-port/net has no ${what}; use node:net for it`);
}
