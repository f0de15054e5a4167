/**
 * The part of a write that hasn't gone out yet: chunks, as Duplex hands them over, and how far into them the sends have come. It
 * gives them out in blocks; strings are encoded right into the block where they fit. No operation and no event is known here.
 */

import { NATIVE_COPY_MIN } from '../memory.js';
import { native } from '../native.js';
import { codedError } from './errors.js';

/** A chunk of a write with its encoding, which means something only for a string. */
export interface Piece {
  chunk: Buffer | string;
  encoding: BufferEncoding;
}

export class PendingWrite {
  #pieces: Piece[] | null = null;
  #index = 0;
  #chunk: Buffer | string | null = null;
  #encoding: BufferEncoding = 'utf8';
  /** Bytes of the chunk, a Buffer by then, that have been given out. */
  #offset = 0;

  /** Nothing is left to be given out. */
  get empty(): boolean {
    return this.#chunk === null;
  }

  /** Bytes that are left to be given out. */
  get bytes(): number {
    let bytes = this.#chunk === null ? 0 : Math.max(0, byteLength(this.#chunk, this.#encoding) - this.#offset);
    if (this.#pieces !== null) {
      for (let i = this.#index + 1; i < this.#pieces.length; i++) {
        const piece = this.#pieces[i]!;
        bytes += byteLength(piece.chunk, piece.encoding);
      }
    }
    return bytes;
  }

  /** Takes one chunk in, of a Buffer what comes from `offset` on; returns at most how many bytes that is. */
  setChunk(chunk: Buffer | string, encoding: BufferEncoding, offset: number): number {
    this.#pieces = null;
    this.#chunk = chunk;
    this.#encoding = encoding;
    this.#offset = offset;
    return bytesAtMost(chunk, encoding) - offset;
  }

  /** Takes several in; returns at most how many bytes they have, counted only up to beyond `enough`. */
  setPieces(pieces: Piece[], enough: number): number {
    let total = 0;
    for (let i = 0; i < pieces.length && total <= enough; i++) {
      const piece = pieces[i]!;
      total += bytesAtMost(piece.chunk, piece.encoding);
    }
    this.#pieces = pieces;
    this.#index = -1;
    this.#next();
    return total;
  }

  clear(): void {
    this.#pieces = null;
    this.#chunk = null;
  }

  /** Copies what comes next into the block, as much as fits; returns how many bytes that is. Throws if what was begun is there no longer. */
  fill(block: Buffer): number {
    let used = 0;
    while (this.#chunk !== null && used < block.length) {
      const room = block.length - used;
      const chunk = this.#chunk;
      if (typeof chunk === 'string') {
        const most = bytesAtMost(chunk, this.#encoding);
        if (most <= room) {
          used += block.write(chunk, used, this.#encoding);
          this.#next();
        } else if (used > 0 && most <= block.length) {
          // It will fit an empty block: cheaper than encoding it into memory of its own first.
          break;
        } else {
          this.#chunk = Buffer.from(chunk, this.#encoding);
        }
        continue;
      }
      const rest = chunk.length - this.#offset;
      if (rest < 0) {
        throw codedError('ERR_BUFFER_DETACHED', 'the buffer was detached or shrunk before all of it was sent');
      }
      if (rest > room) {
        copy(block, used, chunk, this.#offset, room);
        this.#offset += room;
        return block.length;
      }
      copy(block, used, chunk, this.#offset, rest);
      used += rest;
      this.#next();
    }
    return used;
  }

  #next(): void {
    const piece = this.#pieces === null ? undefined : this.#pieces[++this.#index];
    if (piece === undefined) {
      this.clear();
    } else {
      this.#chunk = piece.chunk;
      this.#encoding = piece.encoding;
      this.#offset = 0;
    }
  }
}

function copy(block: Buffer, at: number, chunk: Buffer, offset: number, length: number): void {
  if (length >= NATIVE_COPY_MIN) native.copy(block, at, chunk, offset, length);
  else if (offset === 0 && length === chunk.length) block.set(chunk, at);
  else chunk.copy(block, at, offset, offset + length);
}

/** How many bytes a chunk has. */
export function byteLength(chunk: Buffer | string, encoding: BufferEncoding): number {
  return typeof chunk === 'string' ? Buffer.byteLength(chunk, encoding) : chunk.length;
}

/**
 * An upper bound of a chunk's bytes that needs no look at the characters: three for each code unit in UTF-8, fewer in the others. The
 * encoding may be spelled in any way that Node takes (`UTF-8`, `Utf8`), so only names that stand here get a smaller bound.
 */
function bytesAtMost(chunk: Buffer | string, encoding: BufferEncoding): number {
  if (typeof chunk !== 'string') {
    return chunk.length;
  }
  if (encoding === 'latin1' || encoding === 'binary' || encoding === 'ascii') {
    return chunk.length;
  }
  return chunk.length * 3;
}
