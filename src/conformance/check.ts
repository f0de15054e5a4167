// The suite's own assertions and the three outcomes that a case can throw: a failure, `unable` and `n/a`. Written without a
// test framework because the cases run where there is none.

import type { Context, ErrorShape, Packet } from './types.js';

export class Failure extends Error {
  override readonly name = 'Failure';
}

/** The machine (or the adapter) lacks something. */
export class Unable extends Error {
  override readonly name = 'Unable';
}

/** The backend hasn't the facility of which the clause speaks. */
export class NotApplicable extends Error {
  override readonly name = 'NotApplicable';
}

type Assertions = Pick<
  Context,
  | 'ok'
  | 'equal'
  | 'notEqual'
  | 'deepEqual'
  | 'less'
  | 'atLeast'
  | 'sameBytes'
  | 'some'
  | 'throws'
  | 'rejects'
  | 'succeeded'
  | 'failed'
  | 'fail'
  | 'unable'
  | 'notApplicable'
>;

/** A value in a message: short, on one line. */
export function show(value: unknown, depth = 2): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 200 ? `${value.slice(0, 200)}…` : value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'symbol' || typeof value !== 'object' || value === null) {
    return typeof value === 'function' ? `function ${value.name}` : Object.is(value, -0) ? '-0' : String(value);
  }
  if (value instanceof Error) return showError(value);
  if (ArrayBuffer.isView(value)) {
    const bytes = bytesOf(value);
    return `${value.constructor.name}(${bytes.length} bytes: ${[...bytes.subarray(0, 16)].join(' ')}${bytes.length > 16 ? ' …' : ''})`;
  }
  if (depth === 0) return Array.isArray(value) ? `[${value.length}]` : '{…}';
  if (Array.isArray(value)) {
    const shown = value.slice(0, 20).map((entry) => show(entry, depth - 1));
    return `[${shown.join(', ')}${value.length > 20 ? `, … ${value.length} in all` : ''}]`;
  }
  const entries = Object.entries(value).slice(0, 12);
  return `{ ${entries.map(([name, entry]) => `${name}: ${show(entry, depth - 1)}`).join(', ')} }`;
}

export function showError(error: unknown): string {
  if (!(error instanceof Error)) return `a thrown ${show(error)}`;
  const code = 'code' in error && typeof error.code === 'string' ? ` [${error.code}]` : '';
  return `${error.constructor.name}${code}: ${error.message}`;
}

export function showPacket(packet: Packet): string {
  const error = packet.error === null ? '' : ` ${packet.error.code}`;
  return `${packet.kind} key ${packet.key} bytes ${packet.bytesTransferred}${error}`;
}

export function showPackets(packets: readonly Packet[]): string {
  const shown = packets.slice(0, 8).map(showPacket).join('; ');
  return packets.length > 8 ? `${shown}; … ${packets.length} in all` : shown || 'none';
}

export function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function same(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false;
  if (ArrayBuffer.isView(a) && ArrayBuffer.isView(b)) return firstDifference(bytesOf(a), bytesOf(b)) < 0;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  if (a instanceof Set && b instanceof Set) return a.size === b.size && [...a].every((entry) => b.has(entry));
  if (a instanceof Map && b instanceof Map) return same([...a], [...b]);
  const keys = Object.keys(a);
  if (keys.length !== Object.keys(b).length) return false;
  return keys.every((key) => Object.hasOwn(b, key) && same(Reflect.get(a, key), Reflect.get(b, key)));
}

/** The first index where they differ, -1 where they don't. */
export function firstDifference(a: Uint8Array, b: Uint8Array): number {
  const common = Math.min(a.length, b.length);
  for (let i = 0; i < common; i++) {
    if (a[i] !== b[i]) return i;
  }
  return a.length === b.length ? -1 : common;
}

function shapeProblem(error: unknown, shape: ErrorShape): string | null {
  if (!(error instanceof Error)) return `not an Error: ${show(error)}`;
  const code = 'code' in error ? error.code : undefined;
  if (shape.code !== undefined) {
    const codes = typeof shape.code === 'string' ? [shape.code] : shape.code;
    if (!codes.some((wanted) => wanted === code)) return `expected the code ${codes.join(' or ')}, got ${showError(error)}`;
  }
  if (shape.name !== undefined && error.constructor.name !== shape.name && error.name !== shape.name) {
    return `expected a ${shape.name}, got ${showError(error)}`;
  }
  if (shape.by !== undefined && Reflect.get(error, 'by') !== shape.by) {
    return `expected by '${shape.by}', got ${show(Reflect.get(error, 'by'))} in ${showError(error)}`;
  }
  if (shape.message !== undefined && !shape.message.test(error.message)) {
    return `expected a message like ${shape.message}, got ${showError(error)}`;
  }
  return null;
}

export function createAssertions(): Assertions {
  const fail = (message: string): never => {
    throw new Failure(message);
  };
  const checkShape = (error: unknown, shape: ErrorShape, what: string): Error & { code?: string } => {
    const problem = shapeProblem(error, shape);
    if (problem !== null) fail(`${what}: ${problem}`);
    return error as Error & { code?: string };
  };
  return {
    fail,
    unable(reason) {
      throw new Unable(reason);
    },
    notApplicable(reason) {
      throw new NotApplicable(reason);
    },
    ok(value, what) {
      if (!value) fail(`${what}: expected something true, got ${show(value)}`);
    },
    equal(actual, expected, what) {
      if (!Object.is(actual, expected)) fail(`${what}: expected ${show(expected)}, got ${show(actual)}`);
    },
    notEqual(actual, unexpected, what) {
      if (Object.is(actual, unexpected)) fail(`${what}: expected anything but ${show(unexpected)}`);
    },
    deepEqual(actual, expected, what) {
      if (!same(actual, expected)) fail(`${what}: expected ${show(expected, 4)}, got ${show(actual, 4)}`);
    },
    less(actual, limit, what) {
      if (!(actual < limit)) fail(`${what}: expected less than ${limit}, got ${actual}`);
    },
    atLeast(actual, limit, what) {
      if (!(actual >= limit)) fail(`${what}: expected at least ${limit}, got ${actual}`);
    },
    sameBytes(actual, expected, what) {
      const found = bytesOf(actual);
      const wanted = bytesOf(expected);
      const at = firstDifference(found, wanted);
      if (at < 0) return;
      if (found.length !== wanted.length)
        fail(`${what}: expected ${wanted.length} bytes, got ${found.length}; they differ from ${at} on`);
      fail(`${what}: byte ${at} of ${found.length} is ${found[at]}, expected ${wanted[at]}`);
    },
    some(value, what) {
      return value ?? fail(`${what}: expected a value, got ${show(value)}`);
    },
    throws(action, shape, what) {
      let result: unknown;
      try {
        result = action();
      } catch (error) {
        return checkShape(error, shape, what);
      }
      return fail(`${what}: expected it to throw ${show(shape)}, but it returned ${show(result)}`);
    },
    async rejects(promise, shape, what, limitMs = 5000) {
      let timer: ReturnType<typeof setTimeout> | undefined;
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Failure(`${what}: neither fulfilled nor rejected after ${limitMs} ms`)), limitMs);
      });
      let result: unknown;
      try {
        result = await Promise.race([promise, late]);
      } catch (error) {
        if (error instanceof Failure) throw error;
        return checkShape(error, shape, what);
      } finally {
        clearTimeout(timer);
      }
      return fail(`${what}: expected it to reject with ${show(shape)}, but it gave ${show(result)}`);
    },
    succeeded(packet, what) {
      if (packet.error !== null) fail(`${what}: expected success, got ${showError(packet.error)} (${showPacket(packet)})`);
    },
    failed(packet, shape, what) {
      const { error } = packet;
      if (error === null) return fail(`${what}: expected an error ${show(shape)}, got success (${showPacket(packet)})`);
      checkShape(error, shape, what);
      return error;
    },
  };
}
