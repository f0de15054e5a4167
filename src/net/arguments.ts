/**
 * The many forms in which connect() and listen() take their arguments, brought into one: an options object and a callback.
 * Only shapes are dealt with here; ranges are checked by validators beside them, before anything is started.
 */
import { codedError, invalidType, notSupported } from './errors.js';

export type Callback = (...values: never[]) => void;

/** Digits only, so that a path is not taken for a port. */
function isPortNumber(value: unknown): value is number | string {
  return typeof value === 'number' || (typeof value === 'string' && /^\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*$/.test(value));
}

/** (options, callback), (port, host, callback), (port, callback) … become [options, callback]. */
export function normalizeArguments<T extends object>(
  values: readonly unknown[],
): [T & { port?: unknown; host?: unknown }, Callback | undefined] {
  const last = values[values.length - 1];
  const callback = typeof last === 'function' ? (last as Callback) : undefined;
  const first = values[0];
  if (typeof first === 'object' && first !== null) {
    return [{ ...(first as T) }, callback];
  }
  const options: { port?: unknown; host?: unknown; path?: unknown } = {};
  if (typeof first === 'string' && !isPortNumber(first)) {
    options.path = first;
  } else if (first !== undefined && first !== null && typeof first !== 'function') {
    options.port = first;
    if (typeof values[1] === 'string') {
      options.host = values[1];
    }
  }
  return [options as T & { port?: unknown; host?: unknown }, callback];
}

/** A TCP port: 0 to 65535, as a number or digits. */
export function validatePort(value: unknown, name = 'options.port'): number {
  if (typeof value !== 'number' && typeof value !== 'string') {
    throw invalidType(name, 'of type number or string', value);
  }
  const port = typeof value === 'string' && value.trim() === '' ? Number.NaN : Number(value);
  if (!Number.isInteger(port) || port < 0 || port > 65_535) {
    throw codedError(
      'ERR_SOCKET_BAD_PORT',
      `${name} should be >= 0 and < 65536. Received type ${typeof value} (${String(value)}).`,
      RangeError,
    );
  }
  return port;
}

/** A duration in milliseconds: a finite number from 0 up. What a timer can't hold is cut to what it can. */
export function validateDuration(value: unknown, name: string): number {
  if (typeof value !== 'number') {
    throw invalidType(name, 'of type number', value);
  }
  if (!(value >= 0 && Number.isFinite(value))) {
    throw codedError(
      'ERR_OUT_OF_RANGE',
      `The value of "${name}" is out of range. It must be a non-negative finite number. Received ${value}`,
      RangeError,
    );
  }
  return Math.min(value, TIMER_MS_MAX);
}

/** The longest delay of a Node timer. */
export const TIMER_MS_MAX = 2 ** 31 - 1;

export function validateFunction(value: unknown, name: string): void {
  if (typeof value !== 'function') {
    throw invalidType(name, 'of type function', value);
  }
}

/** A whole number from 0 up, or undefined. */
export function validateCount(value: unknown, name: string): number | undefined {
  if (value === undefined || value === null) {
    return undefined;
  }
  if (typeof value !== 'number') {
    throw invalidType(name, 'of type number', value);
  }
  if (Number.isNaN(value)) {
    throw codedError('ERR_OUT_OF_RANGE', `The value of "${name}" is out of range. Received NaN`, RangeError);
  }
  return Math.max(0, Math.trunc(value));
}

export function validateAbortSignal(value: unknown, name: string): asserts value is AbortSignal {
  if (typeof value !== 'object' || value === null || !('aborted' in value)) {
    throw invalidType(name, 'an instance of AbortSignal', value);
  }
}

/** What node:net can be asked for, and this can't be: said, not ignored. */
export function rejectForeignOptions(options: object | undefined): void {
  const given = options as
    | { fd?: unknown; handle?: unknown; onread?: unknown; objectMode?: unknown; path?: unknown; blockList?: unknown }
    | undefined;
  if (given === undefined || given === null) {
    return;
  }
  if (given.fd !== undefined || given.handle) {
    throw notSupported('sockets made of a descriptor or handle (options.fd, options.handle)');
  }
  if (given.onread) {
    throw notSupported('options.onread');
  }
  if (given.path) {
    throw notSupported('Unix domain sockets or pipes (options.path)');
  }
  if (given.blockList) {
    throw notSupported('options.blockList');
  }
  if (given.objectMode) {
    throw codedError('ERR_INVALID_ARG_VALUE', "The property 'options.objectMode' is not supported", TypeError);
  }
}
