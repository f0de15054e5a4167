/**
 * What the sockets and servers of one port share: the blocks of the port's arena that bytes pass through, and the sweep that
 * takes blocks back from connections that have fallen silent. One `Blocks` a port, made on first use; it belongs to the port's
 * thread. Nothing here knows about streams.
 *
 * Blocks are lent for the time of one transfer, or to a connection whose data keeps flowing. A silent connection has none: it
 * waits with a receive of zero bytes, so that its price is the socket and its objects, however many there are.
 */
import { CompletionPort } from '../port.js';
import { isPortFailure } from './errors.js';

/** Size of a block for messages, in bytes. Requests and replies of most protocols fit. */
export const SMALL_BYTES = 4 * 1024;
/** Size of a block for bulk data, in bytes: enough that the cost of an operation vanishes beside that of the copy. */
export const LARGE_BYTES = 64 * 1024;

/** A connection that received nothing for one to two of these has its block taken back. */
const SWEEP_MS = 1_000;
/** Free blocks kept for reuse, 256 KiB and 1 MiB of them; more go back to the arena. */
const SPARE_SMALL = 64;
const SPARE_LARGE = 16;

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

  /** A block for a send, or null if senders have their share of the arena already. */
  takeForSend(large: boolean): Buffer | null {
    const bytes = large ? LARGE_BYTES : SMALL_BYTES;
    if (this.#sending + bytes > this.#sendingMax) {
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
