// The suite's seeded random numbers and the byte pattern of its streams. Not for cryptography: the point is that the same
// seed gives the same run on every runtime.

import type { Random } from './types.js';

/** FNV-1a over the text's code units, continued from `seed`: gives each case a stream of numbers of its own. */
export function hash(text: string, seed: number): number {
  let value = (2166136261 ^ seed) >>> 0;
  for (let i = 0; i < text.length; i++) {
    value = Math.imul(value ^ text.charCodeAt(i), 16777619) >>> 0;
  }
  return value;
}

/** xorshift32 with a multiplicative finish: 2^32-1 numbers before it repeats, far more than a case draws. */
export function createRandom(seed: number): Random {
  let state = (seed ^ 0x9e3779b9) >>> 0 || 1;
  const next32 = (): number => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return Math.imul(state, 0x2545f491) >>> 0;
  };
  const int = (n: number): number => Math.floor((next32() / 4294967296) * n);
  return {
    next: () => next32() / 4294967296,
    int,
    between: (low, high) => low + int(high - low + 1),
    bytes(n) {
      const bytes = new Uint8Array(n);
      for (let i = 0; i < n; i++) bytes[i] = next32() >>> 24;
      return bytes;
    },
    pick(list) {
      if (list.length === 0) throw new RangeError('pick from an empty list');
      return list[int(list.length)] as (typeof list)[number];
    },
    shuffle(list) {
      const copy = [...list];
      for (let i = copy.length - 1; i > 0; i--) {
        const j = int(i + 1);
        const kept = copy[i] as (typeof copy)[number];
        copy[i] = copy[j] as (typeof copy)[number];
        copy[j] = kept;
      }
      return copy;
    },
  };
}

/**
 * Bytes that depend on their offset in the stream (to 2^53) and on `salt` alone. No short period: a piece that was lost, doubled
 * or put elsewhere is seen, even where its length is a power of two.
 */
export function pattern(offset: number, length: number, salt = 0): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  const saltHash = Math.imul(salt + 1, 0x85ebca6b);
  let word = Math.floor(offset / 4);
  let mixed = 0;
  for (let i = 0; i < length; i++) {
    const lane = (offset + i) % 4;
    if (i === 0 || lane === 0) {
      word = Math.floor((offset + i) / 4);
      mixed = Math.imul((word >>> 0) ^ saltHash ^ Math.floor(word / 4294967296), 0xcc9e2d51);
      mixed = Math.imul(mixed ^ (mixed >>> 15), 0x1b873593);
      mixed ^= mixed >>> 13;
    }
    bytes[i] = mixed >>> (8 * lane);
  }
  return bytes;
}
