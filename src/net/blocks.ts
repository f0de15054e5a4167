/**
 * What the sockets and servers of one port share: the blocks of the port's arena that bytes pass through, and the sweep that
 * takes blocks back from connections that have fallen silent. One `Blocks` a port, made on first use; it belongs to the port's
 * thread. Nothing here knows about streams.
 *
 * Blocks are lent for the time of one transfer, or to a connection whose data keeps flowing. A silent connection has none: it
 * waits with a receive of zero bytes, so that its price is the socket and its objects, however many there are.
 */
import type { Engine } from '../engine.js';
import { stateOf } from '../handle.js';
import { NATIVE_COPY_MIN } from '../memory.js';
import { native } from '../native.js';
import { CompletionPort, engineOf } from '../port.js';
import type { TcpSocket } from '../tcp.js';
import { isPortFailure } from './errors.js';

/**
 * Size of a block for messages, in bytes. Requests and replies of most protocols fit, and a page of 4 KiB doesn't fill it: a receive that
 * fills its block says that bulk data comes.
 */
export const SMALL_BYTES = 8 * 1024;
/** Size of a block for bulk data, in bytes: enough that the cost of an operation vanishes beside that of the copy. */
export const LARGE_BYTES = 64 * 1024;

/** A connection that received nothing for one to two of these has its block taken back. */
const SWEEP_MS = 1_000;
/** Free blocks kept for reuse, 512 KiB and 1 MiB of them; more go back to the arena. */
const SPARE_SMALL = 64;
const SPARE_LARGE = 16;

/** A chunk with the first bytes of a block. It is the reader's own: however long it keeps it, the block is free again. */
export function copyOut(block: Buffer, bytes: number): Buffer {
  const chunk = Buffer.allocUnsafe(bytes);
  // set() over a view costs half of what Buffer's copy() costs for a message (75 against 120 ns for 64 bytes, Node 20).
  if (bytes >= NATIVE_COPY_MIN) native.copy(chunk, 0, block, 0, bytes);
  else chunk.set(new Uint8Array(block.buffer, block.byteOffset, bytes));
  return chunk;
}

/** Up to so many packets at a time no call of the kernel for all of their sends is worth having. */
const FEW_PACKETS = 4;

/** A connection that keeps a block for its pending receive. */
export interface BlockHolder {
  /** Bytes of the block it keeps. */
  readonly heldBytes: number;
  /** Called once per sweep: gives the block back if nothing came since the last call. */
  sweep(): void;
}

export class Blocks {
  readonly port: CompletionPort;
  /** Target of a receive that only waits for readability: no byte long, and not in the arena, where it would pin what lies there. */
  readonly nothing = new Uint8Array(0);
  /** Whether bytes can be moved at once, without an operation: of a private port, on systems whose sockets do that. */
  readonly movesNow: boolean;
  readonly #engine: Engine;
  /** Memory of no arena that the next receive at once goes into. */
  #scratch: Buffer | null = null;
  readonly #small: Buffer[] = [];
  readonly #large: Buffer[] = [];
  readonly #holders = new Set<BlockHolder>();
  /** Limits, in bytes of the arena: silent but not yet swept receivers, and senders whose peers don't read. */
  readonly #heldMax: number;
  readonly #sendingMax: number;
  #held = 0;
  #sending = 0;
  #sweeper: NodeJS.Timeout | undefined;

  constructor(port: CompletionPort) {
    this.port = port;
    this.#engine = engineOf(port);
    this.movesNow = this.#engine.native.movesNow;
    this.#heldMax = port.arena.byteLength / 2;
    this.#sendingMax = port.arena.byteLength / 4;
  }

  /** A block of the arena, or null if it is full. */
  take(large: boolean): Buffer | null {
    const spare = large ? this.#large.pop() : this.#small.pop();
    if (spare !== undefined) {
      return spare;
    }
    try {
      const view = this.port.allocate(large ? LARGE_BYTES : SMALL_BYTES);
      return Buffer.from(view.buffer, view.byteOffset, view.byteLength);
    } catch (error) {
      if (isPortFailure(error) && error.code === 'ENOBUFS') {
        return null;
      }
      throw error;
    }
  }

  /** Takes a block back. The operation that used it must have had its packet. */
  give(block: Buffer): void {
    const large = block.length === LARGE_BYTES;
    const spare = large ? this.#large : this.#small;
    if (spare.length < (large ? SPARE_LARGE : SPARE_SMALL)) {
      spare.push(block);
    } else if (!this.port.isClosed) {
      this.port.release(block);
    }
  }

  /** Whether the senders' share of the arena has room for one more block of this size. */
  #hasRoomForSend(bytes: number): boolean {
    return this.#sending + bytes <= this.#sendingMax;
  }

  /** A block for a send of up to so many bytes or, if they are more than a large one has, for the first of them; null if there is none for it. */
  takeForSend(most: number): Buffer | null {
    const large = most > SMALL_BYTES;
    const bytes = large ? LARGE_BYTES : SMALL_BYTES;
    if (!this.#hasRoomForSend(bytes)) {
      return null;
    }
    const block = this.take(large);
    if (block !== null) {
      this.#sending += bytes;
    }
    return block;
  }

  giveFromSend(block: Buffer): void {
    this.#sending -= block.length;
    this.give(block);
  }

  /** What has arrived at a socket, received at once into memory of the reader's own; null if that can't be: an operation tells why. */
  receiveNow(handle: TcpSocket): Buffer | null {
    const scratch = (this.#scratch ??= Buffer.allocUnsafeSlow(LARGE_BYTES));
    const { index, generation } = stateOf(handle);
    const bytes = native.receiveNow(index, generation, scratch, 0, LARGE_BYTES);
    if (bytes === 0) return null;
    // What fills most of it is handed over as it is; of anything smaller the reader isn't to keep all of this memory alive.
    if (bytes < LARGE_BYTES / 2) return copyOut(scratch, bytes);
    this.#scratch = null;
    if (bytes === LARGE_BYTES) return scratch;
    scratch.fill(0, bytes); // other connections' bytes: the reader has the whole of chunk.buffer
    return scratch.subarray(0, bytes);
  }

  /**
   * Whether a send of up to so many bytes is cheaper at once than as an operation: with few packets at a time there is no call of the kernel that it
   * could share with others. (http at one connection: 1.05 of node:net at once, 1.18 to 1.26 as an operation; at 64 connections 0.94 and 0.87.) And
   * where it would need memory beside the arena. (Echo over 8,000 connections on epoll: 1.80 of node:net with 8 KiB of it for each send, 0.90 at once.)
   */
  sendsNow(most: number): boolean {
    if (!this.movesNow) return false;
    return this.#engine.batch <= FEW_PACKETS || !this.#hasRoomForSend(most > SMALL_BYTES ? LARGE_BYTES : SMALL_BYTES);
  }

  /** Sends what the kernel takes at once of the first bytes of a chunk; returns how many that is. */
  sendNow(handle: TcpSocket, chunk: Buffer, bytes: number): number {
    const { index, generation } = stateOf(handle);
    return native.sendNow(index, generation, chunk, 0, bytes);
  }

  /** Whether a receiver may keep a block of this size while it waits. */
  mayHold(bytes: number): boolean {
    return this.#held + bytes <= this.#heldMax;
  }

  /** Registers a receiver that keeps a block. */
  hold(holder: BlockHolder): void {
    this.#held += holder.heldBytes;
    this.#holders.add(holder);
    if (this.#sweeper === undefined) {
      this.#sweeper = setInterval(() => this.#sweep(), SWEEP_MS);
      this.#sweeper.unref();
    }
  }

  /** The receiver gives its block up; heldBytes must still be what it was at hold(). */
  unhold(holder: BlockHolder): void {
    this.#held -= holder.heldBytes;
    this.#holders.delete(holder);
  }

  #sweep(): void {
    if (this.#holders.size === 0) {
      // Nobody holds anything: an idle process has no timer running for this.
      clearInterval(this.#sweeper);
      this.#sweeper = undefined;
      return;
    }
    for (const holder of this.#holders) {
      holder.sweep();
    }
  }
}

const known = new WeakMap<CompletionPort, Blocks>();
let defaultPort: CompletionPort | undefined;

/** The blocks of a port; without one, of this thread's default port, which is made on first use. */
export function blocksOf(port: CompletionPort | undefined): Blocks {
  let chosen = port;
  if (chosen === undefined) {
    if (defaultPort === undefined || defaultPort.isClosed) {
      defaultPort = CompletionPort.create();
    }
    chosen = defaultPort;
  }
  let blocks = known.get(chosen);
  if (blocks === undefined) {
    blocks = new Blocks(chosen);
    known.set(chosen, blocks);
  }
  return blocks;
}
