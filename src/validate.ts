// Checks of what users pass in. Each throws misuse with the argument's name, and returns the value with its type known.

import { outOfRange, wrongType } from './errors.js';
import { AbortSignalAborted, NumberIsSafeInteger } from './primordials.js';

const SAFE_MAX = Number.MAX_SAFE_INTEGER;

/** An integer between two bounds, both included. */
export function integer(value: unknown, name: string, min: number, max: number): number {
  if (typeof value !== 'number') throw wrongType(name, 'a number', value);
  if (!NumberIsSafeInteger(value) || value < min || value > max)
    throw outOfRange(name, `an integer from ${min} to ${max}`, value);
  return value;
}

/** A key, an id, a file position: an integer from 0 to 2^53-1. */
export function safeInteger(value: unknown, name: string): number {
  if (typeof value !== 'number') throw wrongType(name, 'a number', value);
  if (!NumberIsSafeInteger(value) || value < 0) throw outOfRange(name, `an integer from 0 to ${SAFE_MAX}`, value);
  return value;
}

/** Milliseconds: 0 or more, fractions and Infinity included; undefined is Infinity. */
export function milliseconds(value: unknown, name: string): number {
  if (value === undefined) return Number.POSITIVE_INFINITY;
  if (typeof value !== 'number') throw wrongType(name, 'a number of milliseconds', value);
  if (!(value >= 0)) throw outOfRange(name, '0 or more milliseconds', value);
  return value;
}

/** An options object that may be left out. */
export function optionsObject(value: unknown, name: string): void {
  if (value !== undefined && (typeof value !== 'object' || value === null)) throw wrongType(name, 'an object', value);
}

export function boolean(value: unknown, name: string, fallback: boolean): boolean {
  if (value === undefined) return fallback;
  if (typeof value !== 'boolean') throw wrongType(name, 'a boolean', value);
  return value;
}

/** An AbortSignal; returns whether it is aborted. */
export function abortedSignal(value: unknown, name: string): boolean {
  if (typeof value === 'object' && value !== null) {
    try {
      return AbortSignalAborted(value);
    } catch {
      // The getter throws for any other object.
    }
  }
  throw wrongType(name, 'an AbortSignal', value);
}
