/**
 * The byte pump of one connected socket: one reusable operation for receiving, one for sending, and the blocks of the arena
 * that the bytes pass through. It knows nothing of streams; it calls its owner with what came and is told what to send. At most
 * one receive and one send are in flight, and each keeps hold of its block until its packet is there, also after close().
 *
 * Where the port can (Blocks.movesNow), bulk data is only waited for by an operation, then received at once right into the
 * reader's own memory; and a write goes out at once right from the writer's, as far as the kernel takes it. Ends and errors
 * are always told by an operation.
 */
import type { AsyncResource } from 'node:async_hooks';
import { type OperationKind, SettledOperation } from '../operation.js';
import type { TcpSocket } from '../tcp.js';
import { type BlockHolder, type Blocks, copyOut, LARGE_BYTES, SMALL_BYTES } from './blocks.js';
import { cutOff, type PortFailure } from './errors.js';
import { PendingWrite, type Piece } from './pending-write.js';

export type Done = (failure: PortFailure | null) => void;

/** Who gets what arrives. All calls come in the owner's async context. */
export interface TransportOwner {
  /** Bytes have arrived; the chunk is the owner's. False: receive no more until asked. */
  arrived(chunk: Buffer): boolean;
  /** The peer ended its side. */
  ended(): void;
  /** Receiving failed, for good. */
  failed(failure: PortFailure): void;
  /** Bytes moved: the connection is alive. */
  touched(): void;
}

/** After this many receives in a row that would have fitted a small block, a large one is exchanged for a small one. */
const SHRINK_AFTER = 16;

/** A chunk from this size on is sent at once whatever else goes on, since that spares its copy. */
const SEND_NOW_BYTES = 4 * 1024;

/** How a receive is in flight: not; for zero bytes, which waits for readability and needs no memory; into a block. */
const NONE = 0;
const WAITING = 1;
const FILLING = 2;
type Receiving = typeof NONE | typeof WAITING | typeof FILLING;

class ReceiveOperation extends SettledOperation {
  constructor(readonly transport: Transport) {
    super();
  }

  override settle(_kind: OperationKind, bytes: number, error: PortFailure | null): void {
    this.transport.received(bytes, error);
  }
}

class SendOperation extends SettledOperation {
  constructor(readonly transport: Transport) {
    super();
  }

  override settle(kind: OperationKind, bytes: number, error: PortFailure | null): void {
    this.transport.sent(kind, bytes, error);
  }
}

/**
 * Memory beside the arena for up to so many bytes, or the first of them. One byte more, so that it isn't full before the last piece, which may be
 * empty. A large one is used again for what comes then, so it is no part of Buffer's pool, which a script can take away; a small one is filled once.
 */
function ownBlock(most: number): Buffer {
  return most < SMALL_BYTES ? Buffer.allocUnsafe(most + 1) : Buffer.allocUnsafeSlow(Math.min(most + 1, LARGE_BYTES));
}

export class Transport implements BlockHolder {
  readonly handle: TcpSocket;
  bytesRead = 0;
  bytesSent = 0;
  heldBytes = 0;

  readonly #blocks: Blocks;
  readonly #owner: TransportOwner;
  readonly #scope: AsyncResource;

  readonly #receive: ReceiveOperation;
  #receiving: Receiving = NONE;
  /** Where the receive in flight puts its bytes. Kept from one to the next (heldBytes > 0), or for just the one. */
  #receiveBlock: Buffer | null = null;
  /** The arena was full: the block is memory of our own, which the port copies into. */
  #receiveBlockIsOwn = false;
  #large = false;
  #smallInARow = 0;
  #heardSinceSweep = false;
  #retreating = false;

  #send: SendOperation | undefined;
  #sendBlock: Buffer | null = null;
  #sendBlockIsOwn = false;
  readonly #write = new PendingWrite();
  #sendDone: Done | null = null;
  #inSend = 0;

  #referenced: boolean;
  #inFlight = 0;
  #closing = false;
  #closed: (() => void) | null = null;

  constructor(blocks: Blocks, handle: TcpSocket, owner: TransportOwner, scope: AsyncResource, referenced: boolean) {
    this.#blocks = blocks;
    this.handle = handle;
    this.#owner = owner;
    this.#scope = scope;
    this.#receive = new ReceiveOperation(this);
    this.#referenced = referenced;
    this.#receive.setReferenced(referenced);
  }

  // ---- receiving

  /** Sees to it that a receive is in flight. */
  startReceiving(): void {
    if (this.#receiving !== NONE || this.#closing) {
      return;
    }
    if (this.heldBytes === 0) {
      // A listener asks for more while a block that was lent for once is still here; its bytes have been copied out already.
      this.#dropBlock();
      // Bulk data is waited for without a block where it can be received right into the reader's own memory.
      if (!this.#receivesBare) {
        this.#holdBlock();
      }
    }
    if (this.#receiveBlock !== null) {
      this.#startReceive(FILLING, this.#receiveBlock);
    } else {
      this.#startReceive(WAITING, this.#blocks.nothing);
    }
  }

  /** Gives the block of a pending receive back if nothing came since the last sweep, and waits without memory instead. */
  sweep(): void {
    if (this.#heardSinceSweep) {
      this.#heardSinceSweep = false;
    } else if (this.#receiving === FILLING && !this.#retreating) {
      // The cancel may lose against data: then the packet brings that, and the connection wasn't silent after all.
      this.#retreating = true;
      this.#receive.cancel();
    }
  }

  /** Takes a block to keep, if receivers don't have their share of the arena already. */
  #holdBlock(): void {
    if (!this.#blocks.mayHold(this.#wantedBytes)) {
      return;
    }
    const block = this.#blocks.take(this.#large);
    if (block !== null) {
      this.#receiveBlock = block;
      this.heldBytes = block.length;
      this.#heardSinceSweep = true;
      this.#blocks.hold(this);
    }
  }

  #dropBlock(): void {
    const block = this.#receiveBlock;
    if (block === null) {
      return;
    }
    this.#receiveBlock = null;
    if (this.heldBytes > 0) {
      this.#blocks.unhold(this);
      this.heldBytes = 0;
    }
    if (this.#receiveBlockIsOwn) {
      this.#receiveBlockIsOwn = false;
    } else {
      this.#blocks.give(block);
    }
  }

  #startReceive(mode: Receiving, target: Uint8Array): void {
    this.#receiving = mode;
    this.#begin();
    try {
      this.handle.recv(target, this.#receive);
    } catch (error) {
      this.#receiving = NONE;
      this.#end();
      this.#dropBlock();
      this.#scope.runInAsyncScope(this.#owner.failed, this.#owner, error as PortFailure);
    }
  }

  /** Something is there to be received: at once; else into a block to keep, one for just this once, or memory beside the arena. */
  #receiveArrived(): void {
    if (this.#blocks.movesNow) {
      const chunk = this.#blocks.receiveNow(this.handle);
      if (chunk !== null) {
        this.#deliver(chunk, LARGE_BYTES);
        return;
      }
    }
    if (!this.#receivesBare) {
      this.#holdBlock();
    }
    let block = this.#receiveBlock;
    if (block === null) {
      block = this.#blocks.take(this.#large);
      this.#receiveBlockIsOwn = block === null;
      block ??= Buffer.allocUnsafeSlow(this.#wantedBytes);
      this.#receiveBlock = block;
    }
    this.#startReceive(FILLING, block);
  }

  /** The receive's packet. */
  received(bytes: number, error: PortFailure | null): void {
    const mode = this.#receiving;
    this.#receiving = NONE;
    try {
      if (this.#closing) {
        this.#dropBlock();
      } else if (error !== null) {
        this.#dropBlock();
        if (this.#retreating && error.code === 'ECANCELED') {
          this.#retreating = false;
          this.#startReceive(WAITING, this.#blocks.nothing);
        } else {
          this.#scope.runInAsyncScope(this.#owner.failed, this.#owner, error);
        }
      } else if (mode === WAITING) {
        this.#receiveArrived();
      } else if (bytes === 0) {
        this.#dropBlock();
        this.#scope.runInAsyncScope(this.#owner.ended, this.#owner);
      } else {
        const block = this.#receiveBlock!;
        this.#deliver(copyOut(block, bytes), block.length);
      }
    } finally {
      this.#end();
    }
  }

  /** Hands over what came into `room` bytes. */
  #deliver(chunk: Buffer, room: number): void {
    const bytes = chunk.length;
    this.bytesRead += bytes;
    this.#heardSinceSweep = true;
    this.#retreating = false;
    // If a listener throws, the packet's drain reports it; the connection is as able as before and goes on, as node:net's does.
    let more = true;
    try {
      this.#owner.touched();
      more = this.#scope.runInAsyncScope(this.#owner.arrived, this.#owner, chunk);
    } finally {
      this.#adapt(bytes, room);
      if (this.#receiving === NONE) {
        if (!more || this.#closing || this.heldBytes !== this.#wantedBytes) {
          this.#dropBlock();
        }
        if (more) {
          this.startReceiving();
        }
      }
    }
  }

  /** Bulk data of a port that can receive it at once: no block is kept for it. */
  get #receivesBare(): boolean {
    return this.#large && this.#blocks.movesNow;
  }

  get #wantedBytes(): number {
    return this.#large ? LARGE_BYTES : SMALL_BYTES;
  }

  /** Chooses the size of the next block by what came into this one. */
  #adapt(bytes: number, size: number): void {
    if (bytes === size) {
      this.#large = true;
      this.#smallInARow = 0;
    } else if (this.#large) {
      this.#smallInARow = bytes <= SMALL_BYTES ? this.#smallInARow + 1 : 0;
      if (this.#smallInARow >= SHRINK_AFTER) {
        this.#large = false;
        this.#smallInARow = 0;
      }
    }
  }

  // ---- sending

  /** Bytes of the current write that the kernel hasn't taken yet. */
  get unsentBytes(): number {
    return this.#inSend + this.#write.bytes;
  }

  /** Sends one chunk; `done` is called when the kernel has it all. One write at a time. */
  send(chunk: Buffer | string, encoding: BufferEncoding, done: Done): void {
    this.#sendDone = done;
    let sent = 0;
    if (
      typeof chunk !== 'string' &&
      (chunk.length >= SEND_NOW_BYTES ? this.#blocks.movesNow : this.#blocks.sendsNow(chunk.length))
    ) {
      // Right out of the writer's memory, which a script can't take away before this returns: no copy of it is made.
      sent = this.#sendNow(chunk, chunk.length);
      if (sent === chunk.length) {
        this.#finishAtOnce();
        return;
      }
    }
    this.#sendSome(this.#write.setChunk(chunk, encoding, sent), typeof chunk === 'string');
  }

  /** Sends several chunks, gathered into as few sends as their size allows. */
  sendPieces(pieces: Piece[], done: Done): void {
    this.#sendDone = done;
    this.#sendSome(this.#write.setPieces(pieces, LARGE_BYTES), true);
  }

  #sendNow(from: Buffer, bytes: number): number {
    const sent = this.#blocks.sendNow(this.handle, from, bytes);
    this.bytesSent += sent;
    return sent;
  }

  /** The one operation of this direction; made when first needed, many connections never send. */
  #sendOperation(): SendOperation {
    if (this.#send === undefined) {
      this.#send = new SendOperation(this);
      this.#send.setReferenced(this.#referenced);
    }
    return this.#send;
  }

  /**
   * Fills a block with what comes next, `most` bytes at most, and sends it; `now`, in the caller's own call: at once, if that is worth it. One block
   * only: the rest goes by operations, so that other connections have their turns between them.
   */
  #sendSome(most: number, now: boolean): void {
    let block = this.#sendBlock;
    if (block === null) {
      block = this.#blocks.takeForSend(most);
      this.#sendBlockIsOwn = block === null;
      block ??= ownBlock(most);
      this.#sendBlock = block;
    }
    let filled = 0;
    let sent = 0;
    try {
      filled = this.#write.fill(block);
      if (now && (this.#sendBlockIsOwn ? this.#blocks.movesNow : this.#blocks.sendsNow(most))) {
        sent = this.#sendNow(block, filled);
      }
      if (sent === filled && sent > 0 && !this.#write.empty) {
        filled = this.#write.fill(block);
        sent = 0;
      }
    } catch (error) {
      this.#finishSend(error as PortFailure);
      return;
    }
    if (now && sent === filled && this.#write.empty) {
      this.#finishAtOnce();
      return;
    }
    const bytes = filled - sent;
    const operation = this.#sendOperation();
    operation.offset = sent;
    operation.length = bytes;
    this.#inSend = bytes;
    this.#begin();
    try {
      this.handle.send(block, operation);
    } catch (error) {
      this.#end();
      this.#finishSend(error as PortFailure);
    }
  }

  /** Ends the write side, after what was sent before. */
  shutdown(done: Done): void {
    this.#sendDone = done;
    const operation = this.#sendOperation();
    operation.how = 'write';
    this.#begin();
    try {
      this.handle.shutdown(operation);
    } catch (error) {
      this.#end();
      this.#finishSend(error as PortFailure);
    }
  }

  /** The packet of the send or the shutdown. */
  sent(kind: OperationKind, bytes: number, error: PortFailure | null): void {
    try {
      if (kind !== 'shutdown') {
        this.bytesSent += bytes;
        this.#inSend -= bytes;
      }
      if (error !== null || this.#write.empty) {
        this.#finishSend(error);
      } else if (this.#closing) {
        this.#finishSend(cutOff());
      } else {
        this.#owner.touched();
        this.#sendSome(LARGE_BYTES, false);
      }
    } finally {
      this.#end();
    }
  }

  #finishSend(error: PortFailure | null): void {
    const done = this.#endSend();
    this.#owner.touched();
    this.#scope.runInAsyncScope(done, undefined, error);
  }

  /** Within send() or sendPieces(): the caller's own async context is the right one. */
  #finishAtOnce(): void {
    const done = this.#endSend();
    done(null);
  }

  /** The send is over: gives its block back; returns whom to tell. */
  #endSend(): Done {
    const block = this.#sendBlock;
    if (block !== null) {
      this.#sendBlock = null;
      if (!this.#sendBlockIsOwn) {
        this.#blocks.giveFromSend(block);
      }
    }
    const done = this.#sendDone!;
    this.#sendDone = null;
    this.#write.clear();
    this.#inSend = 0;
    return done;
  }

  // ---- life

  /** Whether what is in flight here keeps the process alive. */
  set referenced(on: boolean) {
    this.#referenced = on;
    this.#receive.setReferenced(on);
    this.#send?.setReferenced(on);
  }

  /**
   * Closes the socket, with a reset if asked for. What is in flight is cancelled; `closed` is called in a later turn of the
   * event loop, when the last of it has let go.
   */
  close(reset: boolean, closed: () => void): void {
    this.#closing = true;
    this.#closed = closed;
    this.handle.close({ reset });
    if (this.#receiving === NONE) {
      this.#dropBlock();
    }
    if (this.#inFlight === 0) {
      this.#announceClose();
    }
  }

  #announceClose(): void {
    const closed = this.#closed!;
    this.#closed = null;
    setImmediate(() => {
      this.#scope.runInAsyncScope(closed);
      this.#scope.emitDestroy();
    });
  }

  #begin(): void {
    this.#inFlight++;
  }

  #end(): void {
    this.#inFlight--;
    if (this.#inFlight === 0 && this.#closed !== null) {
      this.#announceClose();
    }
  }
}
