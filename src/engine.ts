// The engine: the JavaScript half of one port. It writes submission entries, calls enter, reads completion entries, and hands
// packets to whoever waits: blocking gets, async gets, an iterator, a dispatch. CompletionPort, the handles and the operations are
// thin shells around it. All its hot functions allocate nothing but the packet.
//
// An engine of a shared port is one attached thread's side of it. It fetches no packet that it doesn't deliver at once, submits each
// start before it returns, and is told of its operations whose packets other threads took.
//
// Words: a batch is the completion entries of the last enter that reaped; what of it isn't delivered stays there, the head of the
// queue. Held entries are a batch set aside so that another could be fetched. A turn is the work of one wake-up of the event loop.

import type { AsyncResource } from 'node:async_hooks';
import * as abi from './abi.js';
import { AbortError, handleClosed, misuse, portClosed, threadEnding } from './errors.js';
import type { Handle, HandleState } from './handle.js';
import { Memory } from './memory.js';
import type { NativePort } from './native.js';
import { native } from './native.js';
import type { Operation, OperationKind, SettledOperation } from './operation.js';
import { bindOperation, isInternal, kindNames, releaseOperation } from './operation.js';
import type { PacketKind } from './packet.js';
import { CompletionPacket } from './packet.js';
import {
  clearTimeout,
  MathCeil,
  MathMax,
  MathMin,
  NativePromise,
  PromiseThen,
  SetAdd,
  SetDelete,
  setImmediate,
  setTimeout,
  settledPromise,
} from './primordials.js';
import { leaveSignal, reasonOf } from './signals.js';
import { SLOT_ABORTED, SLOT_INTERNAL, SLOT_NATIVE, SLOT_UNREFERENCED, Slot } from './slot.js';
import { canceledError, detachedError, errorOfStatus, queueError } from './status.js';
import { type Waiter, WaiterQueue } from './waiters.js';

/** Packets that one enter brings for the event loop. */
const BATCH_MAX = 128;
/** Packets of a shared port in one job: a call from native code for each would cost as much as the rest of it. */
const SHARED_BATCH_MAX = 16;
/**
 * Packets in one turn of the event loop, then timers and other I/O have theirs; also the most before microtasks run. Also async gets
 * answered without a wait.
 */
const TURN_MAX = 512;
/** Packets that a blocking get fetches at once; what it doesn't return is the head of the queue. */
const PREFETCH_MAX = 64;
/** A blocking wait is cut into slices, so that the termination of a worker is noticed. */
const SLICE_MS = 20;
/** … and into longer ones once it has lasted, which still end a terminated worker within 100 ms: idle threads cost less than half. */
const LONG_SLICE_MS = 50;
/**
 * … where native code looks for that itself, into slices that double with the wait, from the first of these to the second: JavaScript that hasn't run
 * for so long takes 1 to 2 ms, with nothing in the caches. What stops a script and doesn't send for its event loop is noticed at their end: vm's `timeout`.
 */
const LOOKED_AFTER_SLICE_MS = 2000;
const LOOKED_AFTER_SLICE_MAX_MS = 64_000;
const LONG_AFTER = 25;
/** setTimeout fires at once above this. */
const TIMER_MAX = 2 ** 31 - 1;

/** The head of a held entry that is settled. */
const SETTLED = 0xff;

const INFINITE = Number.POSITIVE_INFINITY;

/** Engines with something in flight or waiting: nothing of them is collected. */
const busyEngines = new Set<Engine>();

/** The engines of private ports in this thread, for whoever is about to block. They are collected all the same. */
let privateEngines: WeakRef<Engine>[] = [];
let rememberedMax = 16;

function remember(engine: Engine): void {
  if (privateEngines.length >= rememberedMax) {
    forgetReleased();
    rememberedMax = MathMax(16, 2 * privateEngines.length);
  }
  privateEngines[privateEngines.length] = new WeakRef(engine);
}

function forgetReleased(): void {
  const kept: WeakRef<Engine>[] = [];
  for (let i = 0; i < privateEngines.length; i++) {
    const each = privateEngines[i] as WeakRef<Engine>;
    const engine = each.deref();
    if (engine !== undefined && !engine.released) kept[kept.length] = each;
  }
  privateEngines = kept;
}

/** This thread is about to block: what it has started, and asked to end, on other ports doesn't wait for it. */
function submitOthers(blocking: Engine | null): void {
  for (let i = 0; i < privateEngines.length; i++) {
    const engine = (privateEngines[i] as WeakRef<Engine>).deref();
    if (engine !== undefined && engine !== blocking) engine.submitAsked();
  }
}

/**
 * Makes the object for a handle that native code has made or knows, by kind: files.ts and tcp.ts put theirs in. `engine`: that of the
 * port which it is associated with.
 */
export const handleMakers: ((id: number, engine: Engine | null, key: number, append: boolean) => Handle)[] = [];

/** The engine of the shared port at which this thread holds a place: a get on any other port gives that up. */
let placeAt: Engine | null = null;

export type Handler = (packet: CompletionPacket) => void;

/** What dispatch returned: one handler, in the async context of the dispatch call. */
export interface Dispatch {
  readonly handler: Handler;
  readonly resource: AsyncResource;
}

export interface EngineOptions {
  readonly maxOperations: number;
  readonly arena: SharedArrayBuffer;
  readonly arenaView: Uint8Array<SharedArrayBuffer>;
  readonly control: SharedArrayBuffer;
  readonly inverted: boolean;
  readonly shared: boolean;
}

/** An open's or accept's opcode: its result is a descriptor that somebody has to close. */
function makesHandle(opcode: number): boolean {
  return opcode === abi.OP_ACCEPT || opcode === abi.OP_OPEN;
}

/** Opcodes whose bytes go into the user's memory. */
function readsInto(opcode: number): boolean {
  return opcode === abi.OP_RECV || opcode === abi.OP_READ || opcode === abi.OP_READV;
}

export class Engine {
  readonly native: NativePort;
  // Its two functions of the hot path by themselves: the object is a dictionary to V8, where each call would look them up by name.
  readonly #nativeEnter: NativePort['enter'];
  readonly #nativePost: NativePort['post'];
  readonly memory: Memory;
  readonly maxOperations: number;
  readonly shared: boolean;

  /** close() was called. */
  closed = false;
  /** … and the last operation has let go of its memory. */
  released = false;
  readonly closedPromise: Promise<void>;
  #resolveClosed: () => void = () => undefined;

  /** Operations started whose packet isn't delivered. */
  inFlight = 0;
  started = 0;
  delivered = 0;
  posts = 0;
  #internalInFlight = 0;
  /** Of those, the ones that don't keep the loop alive. */
  #unreferenced = 0;

  // The control block, through views of each width.
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;
  readonly f64: Float64Array;
  /** Submission entries written since the last enter. */
  staged = 0;
  /** Cancels were asked for since the last enter, which go along with the next. */
  #asked = false;
  #rejected = 0;
  // Inverted loop: what handlers staged is left to the wait that follows the turn, which submits and waits in one call.
  readonly #inverted: boolean;
  #leftToWait = false;

  readonly #slots: Slot[] = [];
  #freeSlot: Slot | null = null;

  // The batch.
  #cursor = 0;
  #count = 0;
  // Held entries, in the same layout in memory of their own.
  #heldBytes: Uint8Array | null = null;
  #held32: Uint32Array | null = null;
  #heldI32: Int32Array | null = null;
  #held64: Float64Array | null = null;
  #heldCursor = 0;
  #heldCount = 0;

  readonly waiters = new WaiterQueue();
  dispatch: Dispatch | null = null;

  // Shared: depth of defer(); a look at what other threads took is under way; the end of the job is to be told.
  #deferring = 0;
  #jobEnds = false;
  #ended: (() => void) | null = null;
  /** Armed natively: this thread's event loop stands among those that wait. */
  #armed = false;

  // Posted operations, by the tag of their post. A slot in place of an operation: that slot's operation is ended by its packet.
  readonly #postTags: (Operation | Slot | null)[] = [];
  readonly #freeTags: number[] = [];
  #freeTagCount = 0;
  #ownPosts = 0;

  // The event loop.
  #loopStarted = false;
  #loopReferenced = false;
  #referenced = true;
  #busy = false;
  /** Packets are being delivered: whoever does it flushes, too. */
  #draining = false;
  /** The native side calls turn() again at once. */
  #again = false;
  #flushScheduled = false;
  #turnScheduled = false;
  /** Packets that may still be delivered before timers and other I/O have their turn, async gets answered without a wait included. */
  #budget = TURN_MAX;
  #timer: NodeJS.Timeout | null = null;
  #timerAt = INFINITE;

  readonly #flushTask = (): void => {
    this.#flushScheduled = false;
    if (!this.#draining && !this.#again) this.settleLoop();
  };
  readonly #immediateTask = (): void => {
    this.#turnScheduled = false;
    this.#run();
  };
  readonly #timerTask = (): void => {
    this.#timer = null;
    this.#timerAt = INFINITE;
    this.#run();
  };
  readonly #runDispatchTask = (current: Dispatch, limit: number): number => this.#runDispatch(current, limit);

  constructor(port: NativePort, options: EngineOptions) {
    this.native = port;
    this.#nativeEnter = port.enter;
    this.#nativePost = port.post;
    this.maxOperations = options.maxOperations;
    this.#inverted = options.inverted;
    this.shared = options.shared;
    this.memory = new Memory(port, options.arena, options.arenaView);
    this.u8 = new Uint8Array(options.control);
    this.u32 = new Uint32Array(options.control);
    this.i32 = new Int32Array(options.control);
    this.f64 = new Float64Array(options.control);
    this.closedPromise = new NativePromise((resolve) => {
      this.#resolveClosed = resolve;
    });
    if (!this.shared) remember(this);
  }

  checkOpen(): void {
    if (this.closed || (this.shared && this.looksClosed())) throw portClosed();
  }

  /** Whether it is closed, also by another thread whose close this one hasn't come to hear of. */
  looksClosed(): boolean {
    if (!this.closed && this.shared && ((this.u32[abi.FLAGS_U32] as number) & abi.CONTROL_CLOSING) !== 0) this.close();
    return this.closed;
  }

  /**
   * Of a shared port: an idle thread hears of another's close, too. `ended` is called with the end, before `closed` is fulfilled. Throws where
   * the event loop can't be woken, and has left the port then.
   */
  watchClose(ended: () => void): void {
    this.#ended = ended;
    try {
      this.#startLoop();
    } catch (error) {
      this.detach(); // nobody will have the port
      throw error;
    }
  }

  // ---- starting

  /** A slot for an operation. Throws EAGAIN if maxOperations are in flight. */
  acquire(): Slot {
    if (this.#deferring > 0 && this.shared && !this.native.reserve()) throw this.full();
    if (this.#freeSlot === null && this.#slots.length >= this.maxOperations) this.refresh();
    const free = this.#freeSlot;
    if (free !== null) {
      this.#freeSlot = free.nextFree;
      free.nextFree = null;
      return free;
    }
    const count = this.#slots.length;
    if (count >= this.maxOperations) {
      if (this.#deferring > 0) this.native.unreserve(1);
      throw this.full();
    }
    const made = new Slot(this, count, 0);
    this.#slots[count] = made;
    return made;
  }

  full(): Error {
    return misuse(
      Error,
      'EAGAIN',
      `${this.maxOperations} operations are in flight, as many as the port was created for (maxOperations)`,
    );
  }

  /** Gives back a slot whose operation wasn't started after all, and what of its memory was placed. */
  abandon(slot: Slot): void {
    if (this.#deferring > 0) this.native.unreserve(1);
    this.memory.finish(slot, 0, false);
    slot.arenaOffset = -1;
    slot.flags = 0;
    slot.nextFree = this.#freeSlot;
    this.#freeSlot = slot;
  }

  /** Makes room for an operation of that many entries; returns the index of the first. */
  room(entries: number): number {
    if (this.#leftToWait) this.#takeBack();
    if (this.staged + entries > abi.SUBMISSIONS_MAX) this.ingest();
    const at = this.staged;
    this.staged = at + entries;
    return at;
  }

  /** The wait has taken what was left to it, or, if it hasn't come yet, the entries are staged again. */
  #takeBack(): void {
    this.#leftToWait = false;
    if (this.u32[abi.SUBMIT_COUNT_U32] === 0) this.staged = 0;
    else this.u32[abi.SUBMIT_COUNT_U32] = 0;
  }

  /** Writes a submission entry. */
  write(
    at: number,
    slot: Slot,
    opcode: number,
    segments: number,
    memoryId: number,
    offset: number,
    length: number,
    position: number,
    timeout: number,
  ): void {
    const { u32, f64 } = this;
    const byte = abi.SUBMISSIONS_AT + at * abi.ENTRY_BYTES;
    const word = byte >> 2;
    const double = byte >> 3;
    const handle = slot.handle as HandleState;
    const flags = this.entryFlags(slot, timeout);
    u32[word] = opcode | (flags << 8) | (segments << 16);
    u32[word + 1] = slot.index;
    u32[word + 2] = slot.generation;
    u32[word + 3] = handle.index;
    u32[word + 4] = handle.generation;
    u32[word + 5] = memoryId;
    f64[double + 3] = offset;
    f64[double + 4] = length;
    f64[double + 5] = position;
    f64[double + 6] = timeout;
    f64[double + 7] = slot.operationId;
  }

  entryFlags(slot: Slot, timeout: number): number {
    let flags = (slot.internal ? abi.ENTRY_INTERNAL : 0) | (timeout === INFINITE ? 0 : abi.ENTRY_HAS_TIMEOUT);
    if (this.shared)
      flags |= ((slot.flags & SLOT_ABORTED) !== 0 ? abi.ENTRY_ABORTED : 0) | (this.#deferring > 0 ? abi.ENTRY_DEFERRED : 0);
    return flags;
  }

  /** The end of every start: on a shared port it is submitted, and taken back if another thread made it impossible. Throws. */
  submit(slot: Slot): void {
    if (!this.shared || this.#deferring > 0) return;
    this.#enter(abi.ENTER_SUBMIT_ONLY, 0, 0, 0);
    if (this.closed) {
      if (slot.operation !== null) releaseOperation(slot.operation);
      throw portClosed();
    }
    const refusal = this.u32[abi.REFUSAL_U32] as number;
    if (refusal !== 0) throw this.refused(slot, refusal);
  }

  refused(slot: Slot, refusal: number): Error {
    const { handle } = slot;
    this.#takeBackStart(slot);
    if (refusal === abi.REFUSED_FULL || handle === null) return this.full();
    handle.closed = true;
    return handleClosed();
  }

  #takeBackStart(slot: Slot): void {
    const operation = slot.operation as Operation;
    if (slot.internal) this.#internalInFlight--;
    if (!slot.referenced) this.#unreferenced--;
    this.started--;
    this.#forget(slot, slot.generation);
    releaseOperation(operation);
  }

  /** A slot whose packet went to another thread, or never will come: free again, its memory given back. */
  #forget(slot: Slot, nextGeneration: number): void {
    this.memory.finish(slot, 0, false);
    leaveSignal(slot);
    this.#free(slot, nextGeneration);
    this.inFlight--;
  }

  #free(slot: Slot, nextGeneration: number): void {
    if (slot.extra !== null) slot.extra.abortReason = undefined;
    slot.flags = 0;
    slot.arenaOffset = -1;
    slot.operation = null;
    slot.handle = null;
    slot.generation = nextGeneration;
    slot.nextFree = this.#freeSlot;
    this.#freeSlot = slot;
  }

  /** Hears of the operations of this thread whose packets others took. */
  refresh(): void {
    if (!this.shared || this.closed || this.inFlight === 0) return;
    do this.#enter(abi.ENTER_SUBMIT_ONLY, 0, 0, 0);
    while (!this.closed && (this.u32[abi.RETURNED_U32] as number) > 0);
  }

  /** After each enter on a shared port: what other threads have done. */
  #hear(): void {
    const { u32 } = this;
    const count = u32[abi.RETURNED_U32] as number;
    for (let i = 0; i < count; i++) {
      const name = u32[abi.RETURNS_U32 + 2 * i] as number;
      const generation = u32[abi.RETURNS_U32 + 2 * i + 1] as number;
      if (generation === 0) {
        this.#untag(name);
        continue;
      }
      const slot = this.#slots[name] as Slot;
      const operation = slot.operation as Operation;
      this.#forget(slot, generation);
      releaseOperation(operation);
    }
    if (((u32[abi.FLAGS_U32] as number) & abi.CONTROL_CLOSING) !== 0) this.close();
  }

  /** Has the starts of `fn` submitted together, at its end. */
  defer<T>(fn: () => T): T {
    this.#deferring++;
    try {
      return fn();
    } finally {
      if (--this.#deferring === 0) {
        if (this.shared) this.ingest();
        else this.flush();
      }
    }
  }

  blocking<T>(fn: () => T): T {
    submitOthers(null);
    this.native.setBlocking(true);
    try {
      return fn();
    } finally {
      this.native.setBlocking(false);
    }
  }

  /** Operations in flight, of all threads. */
  get allInFlight(): number {
    if (!this.shared || this.closed) return this.inFlight;
    this.native.stats();
    return this.u32[abi.IN_FLIGHT_U32] as number;
  }

  /** An object of this thread for a handle of the port. */
  handleOf(id: number): Handle {
    const generation = Math.floor(id / abi.HANDLE_INDEX_SPAN);
    const info = generation >= 2 ** 32 ? undefined : this.native.handleInfo(id % abi.HANDLE_INDEX_SPAN, generation);
    if (info === undefined) throw handleClosed();
    if (info === null) throw misuse(Error, 'ERR_NOT_ASSOCIATED', 'the handle is not associated with this port');
    if (info.length === 0) throw threadEnding();
    const [kind, key, append] = info;
    return (handleMakers[kind] as (typeof handleMakers)[number])(id, this, key, append);
  }

  /** A get begins: this thread runs on packets of no other port any more. */
  #claimPlace(): void {
    if (placeAt !== null && placeAt !== this && !placeAt.closed) placeAt.native.endJob(true);
    placeAt = this.shared ? this : null;
  }

  /** The place of an async get that was answered at once is free when the job has ended. */
  #endJobSoon(): void {
    if (this.#jobEnds) return;
    this.#jobEnds = true;
    setImmediate(() => {
      this.#jobEnds = false;
      if (!this.closed) this.native.endJob(false);
    }).unref();
  }

  /** The bookkeeping of every start, once nothing can fail any more. */
  begin(slot: Slot, opcode: number, operation: Operation, handle: HandleState | null, operationId: number): void {
    slot.opcode = opcode;
    slot.operation = operation;
    slot.operationId = operationId;
    slot.handle = handle;
    let flags = (slot.flags & SLOT_ABORTED) | SLOT_NATIVE;
    if (isInternal(operation)) {
      flags |= SLOT_INTERNAL;
      this.#internalInFlight++;
      if (!(operation as SettledOperation).referenced) {
        flags |= SLOT_UNREFERENCED;
        this.#unreferenced++;
      }
    }
    slot.flags = flags;
    bindOperation(operation, slot, opcode);
    this.inFlight++;
    this.started++;
    if (!this.#flushScheduled) this.scheduleFlush();
  }

  /** In place of a start whose signal is aborted already: its packet is queued and native code never hears of it. */
  beginAborted(slot: Slot): void {
    slot.flags &= ~SLOT_NATIVE;
    if (slot.internal) {
      // Internal operations are settled out of order anyway; a post would be shown to gets.
      PromiseThen(settledPromise, () => {
        if (!this.closed) this.#finish(slot, slot.generation, 0, 0, abi.BY_SIGNAL, -1, 0);
      });
      return;
    }
    try {
      this.#post(0, 0, 0, slot);
    } catch (error) {
      this.#takeBackStart(slot); // no memory for its packet: nothing was started
      throw error;
    }
    this.#ownPosts++;
  }

  setReferenced(slot: Slot, on: boolean): void {
    slot.flags = on ? slot.flags & ~SLOT_UNREFERENCED : slot.flags | SLOT_UNREFERENCED;
    this.#unreferenced += on ? -1 : 1;
    if (!this.closed) this.#updateLiveness();
  }

  // ---- posting

  post(key: number, bytes: number, operation: Operation | null, operationId: number): void {
    this.#post(key, bytes, operationId, operation);
    this.posts++;
  }

  #post(key: number, bytes: number, operationId: number, item: Operation | Slot | null): void {
    const { f64 } = this;
    const tag = item === null ? abi.TAG_NONE : this.#tag(item);
    f64[abi.POST_KEY_F64] = key;
    f64[abi.POST_BYTES_F64] = bytes;
    f64[abi.POST_OPERATION_F64] = operationId;
    this.u32[abi.POST_TAG_U32] = tag;
    try {
      this.#nativePost();
    } catch (error) {
      if (tag !== abi.TAG_NONE) this.#untag(tag);
      throw error;
    }
    if (this.shared) return; // whoever waits is woken natively
    if (this.dispatch !== null || this.waiters.first !== null) this.#scheduleTurn();
  }

  #tag(item: Operation | Slot): number {
    const tags = this.#postTags;
    const tag = this.#freeTagCount > 0 ? (this.#freeTags[--this.#freeTagCount] as number) : tags.length;
    tags[tag] = item;
    return tag;
  }

  #untag(tag: number): void {
    this.#postTags[tag] = null;
    this.#freeTags[this.#freeTagCount++] = tag;
  }

  // ---- native calls

  /** One enter. Throws if the ring itself fails, which no operation is to blame for. */
  #enter(flags: number, maxPackets: number, minComplete: number, timeout: number): number {
    if (this.#leftToWait) this.#takeBack();
    const { u32 } = this;
    u32[abi.SUBMIT_COUNT_U32] = this.staged;
    u32[abi.MIN_COMPLETE_U32] = minComplete;
    u32[abi.MAX_PACKETS_U32] = maxPackets;
    u32[abi.ENTER_FLAGS_U32] = flags;
    this.f64[abi.TIMEOUT_MS_F64] = timeout;
    this.staged = 0;
    this.#asked = false;
    const count = this.#nativeEnter();
    if (this.shared && ((u32[abi.RETURNED_U32] as number) > 0 || ((u32[abi.FLAGS_U32] as number) & abi.CONTROL_CLOSING) !== 0)) {
      this.#hear();
      if (this.closed) return 0; // a closing port brings no packets
    }
    if (u32[abi.REJECTED_U32] !== this.#rejected) {
      this.#rejected = u32[abi.REJECTED_U32] as number;
      throw new Error('completion-port: the native side refused a submission entry; please report this as a bug');
    }
    return count;
  }

  /** An enter that may bring packets. The batch must be used up. */
  #reap(flags: number, maxPackets: number, minComplete: number, timeout: number): number {
    if (this.memory.hasDeferred && this.#heldCursor === this.#heldCount) this.memory.ageDeferred();
    const count = this.#enter(flags, maxPackets, minComplete, timeout);
    this.#cursor = 0;
    this.#count = count;
    if (count === 0) {
      const error = this.i32[abi.ENTER_ERROR_I32] as number;
      if (error < 0) throw queueError(error, this.native.name);
    }
    return count;
  }

  /** Hands the staged entries over and submits them; the batch stays as it is. */
  ingest(): void {
    if (this.#leftToWait) this.#takeBack();
    if (this.staged > 0 && !this.closed) this.#enter(abi.ENTER_SUBMIT_ONLY, 0, 0, 0);
  }

  /** The same, and lets what has finished make way: the next send of a stream begins when the one before it is seen to be done. */
  flush(): void {
    if (this.inFlight === 0) return;
    this.#enter(0, 0, 0, 0);
    this.poke();
  }

  /** Of a private port, by whoever is about to block elsewhere. What defer() gathers goes together, at its end. */
  submitAsked(): void {
    if ((this.staged > 0 || this.#asked) && this.#deferring === 0 && !this.closed) this.#enter(abi.ENTER_SUBMIT_ONLY, 0, 0, 0);
  }

  cancel(slot: Slot, by: number): boolean {
    if (this.closed || (slot.flags & SLOT_NATIVE) === 0) return false;
    this.ingest();
    const asked = this.native.cancel(slot.index, slot.generation, by);
    this.#asked = true;
    this.poke();
    return asked;
  }

  cancelHandle(handle: HandleState): number {
    this.ingest();
    const count = this.native.cancelHandle(handle.index, handle.generation, abi.BY_CANCEL);
    this.poke();
    return count;
  }

  // ---- taking packets

  /** The next user packet of what is fetched; internal ones on the way are settled. null: nothing is left, enter may be called. */
  take(): CompletionPacket | null {
    while (this.#heldCursor < this.#heldCount) {
      const at = this.#heldCursor++;
      const word = at * (abi.ENTRY_BYTES >> 2);
      const packet = this.#open(this.#held32 as Uint32Array, this.#heldI32 as Int32Array, this.#held64 as Float64Array, word);
      if (packet !== null) return packet;
    }
    const { u32, i32, f64 } = this;
    while (this.#cursor < this.#count) {
      const at = this.#cursor++;
      const packet = this.#open(u32, i32, f64, (abi.COMPLETIONS_AT + at * abi.ENTRY_BYTES) >> 2);
      if (packet !== null) return packet;
    }
    return null;
  }

  /** True if take() has entries to look at. */
  #fetched(): boolean {
    return this.#cursor < this.#count || this.#heldCursor < this.#heldCount;
  }

  /** Turns one completion entry into a packet; null if it was internal, and is settled. */
  #open(u32: Uint32Array, i32: Int32Array, f64: Float64Array, word: number): CompletionPacket | null {
    const double = word >> 1;
    const head = u32[word] as number;
    const opcode = head & 0xff;
    if (((head >>> 8) & abi.ENTRY_FOREIGN) !== 0) return this.#openForeign(i32, f64, word, head);
    if (opcode === abi.OP_POST) {
      const tag = u32[word + 1] as number;
      let operation: Operation | undefined;
      if (tag !== abi.TAG_NONE) {
        const item = this.#postTags[tag] ?? null;
        this.#untag(tag);
        if (item instanceof Slot) return this.#finish(item, item.generation, 0, 0, abi.BY_SIGNAL, -1, 0);
        if (item !== null) operation = item;
      }
      this.delivered++;
      return new CompletionPacket(
        f64[double + 3] as number,
        'post',
        f64[double + 4] as number,
        operation,
        f64[double + 5] as number,
        0,
        undefined,
        null,
      );
    }
    if (head === SETTLED) return null;
    // Numbers that may be too large for a small integer are read only where they mean something: each would be an allocation.
    return this.#finish(
      this.#slots[u32[word + 1] as number] as Slot,
      u32[word + 2] as number,
      f64[double + 4] as number,
      opcode >= abi.OP_SIZE && opcode <= abi.OP_ACCEPT ? (f64[double + 7] as number) : 0,
      head >>> 16,
      i32[word + 3] as number,
      i32[word + 4] as number,
    );
  }

  /** A packet of what another thread started or posted. */
  #openForeign(i32: Int32Array, f64: Float64Array, word: number, head: number): CompletionPacket {
    const double = word >> 1;
    const opcode = head & 0xff;
    const status = i32[word + 3] as number;
    const value = f64[double + 7] as number;
    this.delivered++;
    const key = f64[double + 3] as number;
    const error = status === 0 ? null : errorOfStatus(status, i32[word + 4] as number, opcode, head >>> 16, undefined);
    let result: unknown;
    if (error === null && opcode >= abi.OP_SIZE && opcode <= abi.OP_ACCEPT)
      result = this.#resultOf(opcode, value, key, undefined);
    return new CompletionPacket(
      key,
      kindNames[opcode] as PacketKind,
      f64[double + 4] as number,
      undefined,
      f64[double + 5] as number,
      f64[double + 6] as number,
      result,
      error,
    );
  }

  /** What an operation made: a number, or an object of this thread. `append`: undefined where that isn't known. */
  #resultOf(opcode: number, value: number, key: number, append: boolean | undefined): unknown {
    if (opcode === abi.OP_SIZE) return value;
    if (opcode === abi.OP_ACCEPT) return handleMakers[abi.HANDLE_SOCKET]?.(value, null, 0, false);
    if (append !== undefined) return handleMakers[abi.HANDLE_FILE]?.(value, this, key, append);
    // Another thread may have closed it by its id already: its object says so at the first use.
    const info = this.native.handleInfo(value % abi.HANDLE_INDEX_SPAN, Math.floor(value / abi.HANDLE_INDEX_SPAN));
    return handleMakers[abi.HANDLE_FILE]?.(value, this, key, info?.[2] ?? false);
  }

  /** The end of an operation: its slot is free and it may be started again before anybody hears of it. Status -1: ended by us. */
  #finish(
    slot: Slot,
    nextGeneration: number,
    bytes: number,
    value: number,
    by: number,
    status: number,
    nativeCode: number,
  ): CompletionPacket | null {
    const operation = slot.operation as Operation;
    const { opcode, operationId, internal, handle, extra } = slot;
    // An open has no handle yet, and its key in the extra.
    const key = handle === null ? (extra === null ? 0 : extra.key) : handle.key;
    let error = null;
    if (status !== 0) {
      let cause: unknown;
      const signal = extra === null ? null : extra.signal;
      if (by === abi.BY_SIGNAL) cause = signal === null ? extra?.abortReason : reasonOf(signal.signal);
      error = status < 0 ? canceledError(opcode, by, extra?.abortReason) : errorOfStatus(status, nativeCode, opcode, by, cause);
    }
    let moved = bytes;
    if (!this.memory.finish(slot, bytes, readsInto(opcode))) {
      moved = 0;
      error ??= detachedError(opcode);
    }
    let result: unknown;
    let packetHandle = handle === null ? 0 : handle.id;
    if (error === null && opcode >= abi.OP_SIZE && opcode <= abi.OP_ACCEPT) {
      result = this.#resultOf(opcode, value, key, extra?.append ?? false);
      if (opcode === abi.OP_OPEN) packetHandle = value;
    }
    if (extra !== null) leaveSignal(slot);
    if (!slot.referenced) this.#unreferenced--;
    this.#free(slot, nextGeneration);
    releaseOperation(operation);
    this.inFlight--;
    this.delivered++;
    const kind = kindNames[opcode] as PacketKind;
    if (!internal) return new CompletionPacket(key, kind, moved, operation, operationId, packetHandle, result, error);
    this.#internalInFlight--;
    try {
      (operation as SettledOperation).settle(kind as OperationKind, moved, error, result);
    } catch (thrown) {
      native.fatalException(thrown);
    }
    return null;
  }

  /**
   * Sets the batch aside, so that one more can be fetched while its user packets wait for a consumer, and settles the internal ones
   * among the held.
   */
  #spill(): void {
    const rest = this.#count - this.#cursor;
    if (rest > 0) {
      const kept = this.#heldCount - this.#heldCursor;
      const needed = (kept + rest) * abi.ENTRY_BYTES;
      const from = this.#heldBytes;
      let to = from;
      if (to === null || to.length < needed) to = new Uint8Array(MathMax(needed * 2, BATCH_MAX * abi.ENTRY_BYTES));
      if (from !== null && kept > 0) {
        const start = this.#heldCursor * abi.ENTRY_BYTES;
        for (let i = 0; i < kept * abi.ENTRY_BYTES; i++) to[i] = from[start + i] as number;
      }
      const start = abi.COMPLETIONS_AT + this.#cursor * abi.ENTRY_BYTES;
      for (let i = 0; i < rest * abi.ENTRY_BYTES; i++) to[kept * abi.ENTRY_BYTES + i] = this.u8[start + i] as number;
      if (to !== from) {
        const words = to as Uint8Array<ArrayBuffer>;
        this.#heldBytes = words;
        this.#held32 = new Uint32Array(words.buffer);
        this.#heldI32 = new Int32Array(words.buffer);
        this.#held64 = new Float64Array(words.buffer);
      }
      this.#heldCursor = 0;
      this.#heldCount = kept + rest;
      this.#cursor = 0;
      this.#count = 0;
    }
    // Each is marked as settled before it is, because settling may take packets itself.
    for (let at = this.#heldCursor; at < this.#heldCount; at++) {
      const u32 = this.#held32 as Uint32Array;
      const word = at * (abi.ENTRY_BYTES >> 2);
      const head = u32[word] as number;
      if (head === SETTLED || ((head >>> 8) & abi.ENTRY_INTERNAL) === 0) continue;
      const copy = new Uint32Array(abi.ENTRY_BYTES >> 2);
      for (let i = 0; i < copy.length; i++) copy[i] = u32[word + i] as number;
      u32[word] = SETTLED;
      this.#open(copy, new Int32Array(copy.buffer), new Float64Array(copy.buffer), 0);
      if (at < this.#heldCursor) at = this.#heldCursor - 1;
    }
  }

  // ---- blocking gets

  /** Waits for a packet, at most until the deadline; null: time ran out. */
  getSync(timeout: number, prefetch: number, job = 0): CompletionPacket | null {
    let packet = this.take();
    if (packet !== null || this.closed) return packet;
    if (placeAt !== null || this.shared) this.#claimPlace();
    const deadline = timeout === 0 ? 0 : timeout === INFINITE ? INFINITE : native.now() + timeout;
    let wants = abi.ENTER_WANT_USER | abi.ENTER_WANT_INTERNAL;
    if (timeout > 0 && (this.shared || privateEngines.length > 1)) submitOthers(this);
    let longSince = 0;
    for (let slices = 0; ; slices++) {
      if (slices === LONG_AFTER) longSince = native.now();
      const slice = slices < LONG_AFTER ? SLICE_MS : this.#longSlice(longSince);
      const left = timeout === 0 ? 0 : deadline === INFINITE ? slice : deadline - native.now();
      const count =
        left > 0
          ? this.#reap(wants | abi.ENTER_GOES_ON, prefetch, 1, MathMin(left, slice))
          : this.#reap(wants | job, prefetch, 0, 0);
      if (count > 0) {
        packet = this.take();
        if (packet !== null) return packet;
        this.checkOpen(); // settling may have closed it
      } else if (left <= 0 || this.closed) return null;
      if (left > 0) continue;
      // Internal packets come first and may come for ever, each starting the next; a user's that is queued behind them is there in time.
      if (this.u32[abi.QUEUED_U32] === 0) return null;
      wants = abi.ENTER_WANT_USER;
    }
  }

  /** The slices of all threads end at the same moments of the clock: one finds in the caches what the one before it has brought there. */
  #longSlice(since: number): number {
    const now = native.now();
    let most = LONG_SLICE_MS;
    if (this.native.looksForEnd) {
      most = LOOKED_AFTER_SLICE_MS;
      while (most < LOOKED_AFTER_SLICE_MAX_MS && most * 2 <= now - since) most *= 2;
    }
    return most - (now % most);
  }

  getOneSync(timeout: number): CompletionPacket | null {
    const packet = this.getSync(timeout, this.shared ? 1 : PREFETCH_MAX);
    this.poke();
    if (packet === null) this.checkOpen();
    this.u32[abi.UNSEEN_U32] = 0;
    return packet;
  }

  getManySync(max: number, timeout: number): CompletionPacket[] {
    const packets: CompletionPacket[] = [];
    const fresh = !this.#fetched();
    const first = this.getSync(timeout, MathMin(max, abi.COMPLETIONS_MAX));
    if (first !== null) {
      packets[0] = first;
      this.#fill(packets, max, fresh, 0);
    }
    this.poke();
    if (first === null) this.checkOpen();
    this.u32[abi.UNSEEN_U32] = 0;
    return packets;
  }

  /** Adds what is there without waiting. `fresh`: what is fetched came from an enter just now, which says whether there is more. */
  #fill(packets: CompletionPacket[], max: number, fresh: boolean, job: number): void {
    const both = abi.ENTER_WANT_USER | abi.ENTER_WANT_INTERNAL;
    let known = fresh;
    let wants = both;
    let count = packets.length;
    while (count < max && !this.closed) {
      const packet = this.take();
      if (packet !== null) {
        packets[count++] = packet;
        wants = both;
        continue;
      }
      if (this.closed || (known && this.#queued() === 0)) return;
      // Internal packets alone: see getSync.
      if (wants !== both && this.u32[abi.QUEUED_U32] === 0) return;
      if (this.#reap(wants | abi.ENTER_MORE | job, MathMin(max - count, abi.COMPLETIONS_MAX), 0, 0) === 0) return;
      known = true;
      wants = abi.ENTER_WANT_USER;
    }
  }

  /** What the native queue held after the last enter. */
  #queued(): number {
    return (this.u32[abi.QUEUED_U32] as number) + (this.u32[abi.QUEUED_INTERNAL_U32] as number);
  }

  // ---- async gets

  /** A packet that is there already, or null; taking turns with timers and other I/O. */
  takeAtOnce(prefetch = 1): CompletionPacket | null {
    if (this.waiters.first !== null) return null; // they were first
    if (this.#budget <= 0) {
      this.#scheduleTurn();
      return null;
    }
    const packet = this.shared ? this.getSync(0, prefetch, abi.ENTER_JOB) : this.getSync(0, PREFETCH_MAX);
    if (packet !== null) {
      this.#budget--;
      if (this.shared) this.#endJobSoon();
    }
    this.u32[abi.UNSEEN_U32] = 0;
    return packet;
  }

  /** The same for several. */
  takeManyAtOnce(max: number): CompletionPacket[] | null {
    const fresh = !this.#fetched();
    const first = this.takeAtOnce(MathMin(max, abi.COMPLETIONS_MAX));
    if (first === null) return null;
    const packets = [first];
    this.#fill(packets, max, fresh, this.shared ? abi.ENTER_JOB : 0);
    this.#budget -= packets.length - 1;
    return packets;
  }

  wait(waiter: Waiter): void {
    this.waiters.push(waiter);
    if (waiter.deadline !== INFINITE) this.#armWaiter(waiter);
    this.poke();
  }

  #armWaiter(waiter: Waiter): void {
    const left = waiter.deadline - native.now();
    waiter.timer = setTimeout(
      () => {
        if (native.now() < waiter.deadline) this.#armWaiter(waiter);
        else this.endWaiter(waiter, null);
      },
      MathMin(MathMax(MathCeil(left), 1), TIMER_MAX),
    );
    // The port itself keeps the loop alive for its waiters, unless it is unref'd.
    waiter.timer.unref();
  }

  /** Ends a wait without a packet: with the given error, or as one whose time ran out. */
  endWaiter(waiter: Waiter, error: Error | null): void {
    if (!this.waiters.remove(waiter)) return;
    waiter.end(error);
    if (this.closed) return;
    this.#updateLiveness();
    if (this.shared) this.poke(); // nobody is to be woken for a wait that is over
  }

  abortWaiter(waiter: Waiter, reason: unknown): void {
    this.endWaiter(waiter, new AbortError(reason));
  }

  /** Gives the first waiter what it waits for; false if no user packet is fetched, or no waiter is left. */
  #serveWaiter(): boolean {
    // What is settled on the way may end the wait, or close the port: so the packet is taken when nothing can come in between.
    if (!this.#settleHead()) return false;
    const waiter = this.waiters.first;
    if (waiter === null) return false;
    this.waiters.remove(waiter);
    const packet = this.take() as CompletionPacket;
    this.u32[abi.UNSEEN_U32] = 0;
    if (waiter.max === 0) waiter.give(packet);
    else {
      const packets = [packet];
      this.#fill(packets, waiter.max, false, this.shared ? abi.ENTER_JOB : 0);
      waiter.giveMany(packets);
    }
    return true;
  }

  /** Settles internal packets until a user's is the next; false if there is none. */
  #settleHead(): boolean {
    while (this.#heldCursor < this.#heldCount) {
      // Internal entries among the held are settled already: only their marks are passed over.
      if (((this.#held32 as Uint32Array)[this.#heldCursor * (abi.ENTRY_BYTES >> 2)] as number) !== SETTLED) return true;
      this.#heldCursor++;
    }
    this.#settleFetched();
    return this.#fetched();
  }

  // ---- the event loop

  /** Flushes by the end of the current job at the latest, and sees to the loop's state. */
  scheduleFlush(): void {
    if (this.#flushScheduled || this.#draining || this.#again) return;
    this.#flushScheduled = true;
    PromiseThen(settledPromise, this.#flushTask);
  }

  /** Called where the loop's state may have changed without a start. */
  poke(): void {
    if (!this.closed && !this.#flushScheduled) this.scheduleFlush();
  }

  #scheduleTurn(): void {
    if (this.#turnScheduled || this.#draining || this.#again) return;
    if (this.shared) {
      // Only a turn that native code begins has an end of the job.
      if (this.#ensureLoop()) this.native.wake();
      return;
    }
    this.#turnScheduled = true;
    if (this.#referenced) {
      setImmediate(this.#immediateTask);
      return;
    }
    // An immediate that isn't referenced runs when something else wakes libuv, and only then.
    if (this.#ensureLoop()) this.native.wake();
    else this.#turnScheduled = false;
  }

  /** Submits, lets the native side reap, and has the loop woken for what comes. The end of a job, or of a turn without a consumer. */
  settleLoop(): void {
    if (this.closed) return;
    const waiting = this.dispatch !== null || this.waiters.first !== null;
    // Not by the control block: opens, cancels and closes have changed what it said after the last enter.
    if (this.inFlight === 0 && !waiting && !this.#armed) {
      this.#updateLiveness();
      return;
    }
    if (!this.#ensureLoop()) {
      this.ingest(); // what was started is begun all the same
      this.#updateLiveness();
      return;
    }
    if (this.shared) {
      this.#armed = waiting;
      this.#enter(abi.ENTER_ARM | (waiting ? abi.ENTER_WANT_USER : 0), 0, 0, 0);
      if (!this.closed) this.#updateLiveness();
      return;
    }
    this.#enter(abi.ENTER_ARM | this.#wants(), 0, 0, 0); // fetches none, but says what is worth a wake-up
    const { u32 } = this;
    if (
      (waiting && (this.#fetched() || (u32[abi.QUEUED_U32] as number) > 0)) ||
      (this.#internalInFlight > 0 && (u32[abi.QUEUED_INTERNAL_U32] as number) > 0)
    ) {
      this.#scheduleTurn();
    }
    this.#updateLiveness();
    this.#armTimer();
  }

  /** What the event loop has a consumer for. */
  #wants(): number {
    const user = this.dispatch !== null || this.waiters.first !== null;
    return (user ? abi.ENTER_WANT_USER : 0) | (this.#internalInFlight > 0 ? abi.ENTER_WANT_INTERNAL : 0);
  }

  /**
   * False: nothing is left to wake the event loop by. Whoever waits for that hears of it: gets reject, for a dispatch and for promises of
   * operations it is an uncaught exception. The next start or wait tries again.
   */
  #ensureLoop(): boolean {
    if (this.#loopStarted) return true;
    try {
      this.#startLoop();
      return true;
    } catch (error) {
      for (let waiter = this.waiters.first; waiter !== null; waiter = this.waiters.first) this.endWaiter(waiter, error as Error);
      if (this.dispatch !== null || this.#internalInFlight > 0) native.fatalException(error);
      return false;
    }
  }

  /** Throws EMFILE, ENFILE, ENOMEM, or EAGAIN for want of a thread. */
  #startLoop(): void {
    // The native side holds its callback strongly; a port that nobody has any more and that waits for nothing can still be collected.
    const weak = new WeakRef(this);
    this.native.startLoop(() => {
      try {
        return weak.deref()?.wake() ?? false;
      } catch (thrown) {
        // Reported here, since the native side takes an exception for one of the ticks and continuations behind this call.
        native.fatalException(thrown);
        return false;
      }
    });
    this.#loopStarted = true;
    this.native.unref();
  }

  ref(): void {
    this.#referenced = true;
    this.#updateLiveness();
  }

  unref(): void {
    this.#referenced = false;
    this.#updateLiveness();
  }

  #updateLiveness(): void {
    // On a shared port a wake keeps nothing alive, so what promises and streams wait for does until it is settled.
    const pending = this.shared
      ? MathMax(this.u32[abi.IN_KERNEL_U32] as number, this.#internalInFlight)
      : (this.u32[abi.IN_KERNEL_U32] as number);
    const busy = pending > this.#unreferenced || this.staged > 0 || this.waiters.first !== null || this.dispatch !== null;
    const held = busy || (this.u32[abi.IN_KERNEL_U32] as number) > 0 || this.#internalInFlight > 0;
    if (held !== this.#busy) {
      this.#busy = held;
      if (held) SetAdd(busyEngines, this);
      else SetDelete(busyEngines, this);
    }
    if (!this.#loopStarted) return;
    const wanted = busy && this.#referenced;
    if (wanted === this.#loopReferenced) return;
    this.#loopReferenced = wanted;
    if (wanted) this.native.ref();
    else this.native.unref();
  }

  /** One timer for the earliest of all operations' timeouts; it doesn't keep the process alive, the operations do. */
  #armTimer(): void {
    const deadline = this.f64[abi.NEXT_DEADLINE_F64] as number;
    if (deadline >= this.#timerAt || deadline === INFINITE) return;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timerAt = deadline;
    this.#timer = setTimeout(this.#timerTask, MathMin(MathMax(MathCeil(deadline - native.now()), 1), TIMER_MAX));
    this.#timer.unref();
  }

  /** A turn that the native side begins. Returns true if it is to be called again at once. */
  wake(): boolean {
    this.#turnScheduled = false;
    const again = this.turn();
    if (!again || !this.#inverted || this.staged === 0 || this.#fetched() || this.#queued() > 0) return again;
    // The loop comes to its wait next, and all that stands between is a look at libuv's own events.
    this.#again = false;
    this.#leftToWait = true;
    this.u32[abi.SUBMIT_COUNT_U32] = this.staged;
    this.u32[abi.ENTER_FLAGS_U32] = this.#wants();
    this.#updateLiveness();
    return false;
  }

  /** A turn that JavaScript itself schedules. */
  #run(): void {
    if (this.turn()) {
      this.#again = false;
      this.#scheduleTurn();
      // What the handlers started is begun now, not behind whatever else this round of the loop does.
      if (this.staged > 0) this.scheduleFlush();
    }
  }

  /**
   * One batch, for whoever waits in the event loop. Returns true if it is to be called again once microtasks have run: it will
   * submit what handlers and continuations have started, and fetch what is there by then.
   */
  turn(): boolean {
    const goesOn = this.#again;
    this.#again = false;
    if (this.closed || this.#draining) return false;
    if (this.shared) return this.#turnShared(goesOn);
    if (!goesOn) this.#budget = TURN_MAX;
    else if (this.#budget <= 0) return this.#endTurn();
    this.#draining = true;
    let delivered = 0;
    let ended = false; // a look found nothing more, and the event loop is told of what comes next
    try {
      const user = this.dispatch !== null || this.waiters.first !== null;
      if (!(user && this.#fetched())) {
        const internal = this.#internalInFlight > 0;
        while (internal && this.#cursor < this.#count) this.#spill();
        const flags = abi.ENTER_ARM | (user ? abi.ENTER_WANT_USER : 0) | (internal ? abi.ENTER_WANT_INTERNAL : 0);
        if (this.closed) return false;
        if (!user && !internal) this.#enter(flags, 0, 0, 0);
        else if (this.#reap(flags, BATCH_MAX, 0, 0) > 0) {
          delivered = this.#deliver(user);
          // What handlers have started may be done by the next look: those packets belong to the same batch, and cost no callback
          // from native code with its ticks and microtasks.
          while (this.#goesOn(delivered)) {
            ended = this.#reap(flags, MathMin(this.#budget - delivered, BATCH_MAX), 0, 0) === 0;
            if (ended) break;
            delivered += this.#deliver(true);
          }
        }
      } else delivered = this.#deliver(true);
    } finally {
      this.#draining = false;
    }
    if (this.closed) return false;
    if (delivered === 0 || ended) {
      this.#updateLiveness();
      this.#armTimer();
      return false;
    }
    this.#budget -= delivered;
    if (this.#budget <= 0) return this.#endTurn();
    this.#again = true;
    return true;
  }

  /** Whether a batch of that many packets, all of them a handler's, is lengthened. What waits for others is left to an inverted loop's wait. */
  #goesOn(delivered: number): boolean {
    return (
      delivered < this.#budget &&
      this.staged > 0 &&
      this.dispatch !== null &&
      this.waiters.first === null &&
      this.#internalInFlight === 0 &&
      (!this.#inverted || this.#endsAtOnce()) &&
      !this.#fetched() &&
      !this.closed
    );
  }

  /** What handlers have started is of a kind that waits for nobody, by its first: sends, files. A receive, as a rule, waits for its peer. */
  #endsAtOnce(): boolean {
    const opcode = (this.u32[abi.SUBMISSIONS_AT >> 2] as number) & 0xff;
    return opcode < abi.OP_ACCEPT || opcode > abi.OP_RECV;
  }

  /** The same on a shared port, which takes what one get asks for and no more: the rest may be another thread's. */
  #turnShared(goesOn: boolean): boolean {
    if (!goesOn) this.#budget = TURN_MAX;
    else if (this.#budget <= 0) return this.#endTurn();
    this.#draining = true;
    let delivered = 0;
    try {
      if (this.#internalInFlight > 0 && this.#reap(abi.ENTER_WANT_INTERNAL, BATCH_MAX, 0, 0) > 0)
        delivered = this.#deliver(false);
      const first = this.waiters.first;
      if (!this.closed && (this.dispatch !== null || first !== null)) {
        const max = first === null ? 1 : MathMin(MathMax(first.max, 1), abi.COMPLETIONS_MAX);
        this.#claimPlace();
        this.#armed = true;
        if (this.#reap(abi.ENTER_ARM | abi.ENTER_WANT_USER | abi.ENTER_JOB, max, 0, 0) > 0) delivered += this.#deliver(true);
      } else if (!this.closed) {
        this.#armed = false;
        this.#enter(abi.ENTER_ARM, 0, 0, 0);
      }
    } finally {
      this.#draining = false;
    }
    if (this.closed) return false;
    if (delivered === 0) {
      this.#updateLiveness();
      return false;
    }
    this.#budget -= delivered;
    if (this.#budget <= 0) return this.#endTurn();
    this.#again = true;
    return true;
  }

  /** Enough for one turn: submits without reaping, or operations that finish inline would go on filling it for ever. */
  #endTurn(): boolean {
    this.ingest();
    this.#scheduleTurn();
    return false;
  }

  /** Delivers what is fetched; returns how many entries that took, at least 1. */
  #deliver(user: boolean): number {
    const before = this.delivered;
    if (!user) {
      // Only internal packets were asked for. One settled may take packets, or fetch others, itself.
      this.#settleFetched();
    } else {
      while (!this.closed && this.#fetched()) {
        if (this.waiters.first !== null) {
          if (!this.#serveWaiter() && this.waiters.first !== null) break;
          continue;
        }
        const current = this.dispatch;
        if (current === null) break;
        current.resource.runInAsyncScope(this.#runDispatchTask, this, current, BATCH_MAX);
      }
    }
    return MathMax(this.delivered - before, 1);
  }

  #settleFetched(): void {
    const { u32, i32, f64 } = this;
    while (this.#cursor < this.#count) {
      const word = (abi.COMPLETIONS_AT + this.#cursor * abi.ENTRY_BYTES) >> 2;
      if ((((u32[word] as number) >>> 8) & abi.ENTRY_INTERNAL) === 0) return; // a nested get fetched it
      this.#cursor++;
      this.#open(u32, i32, f64, word);
    }
  }

  #runDispatch(current: Dispatch, limit: number): number {
    const { handler } = current;
    let count = 0;
    while (count < limit && this.dispatch === current && this.waiters.first === null) {
      let packet = this.take();
      if (packet === null && this.shared && count < SHARED_BATCH_MAX && this.#another()) packet = this.take();
      if (packet === null) break;
      count++;
      this.u32[abi.UNSEEN_U32] = 0;
      try {
        handler(packet);
      } catch (thrown) {
        native.fatalException(thrown);
        // Node has left all async scopes; the next handler needs the dispatch's again.
        break;
      }
    }
    return count;
  }

  /** One more packet for a dispatch whose thread has its place still. */
  #another(): boolean {
    if (this.closed || placeAt !== this || (this.u32[abi.QUEUED_U32] as number) === 0) return false;
    return this.#reap(abi.ENTER_WANT_USER | abi.ENTER_MORE | abi.ENTER_JOB, 1, 0, 0) > 0;
  }

  // ---- closing

  close(): void {
    if (this.closed) return;
    this.#end();
    this.native.close(() => this.#release());
  }

  /** This thread leaves a shared port. */
  detach(): void {
    if (this.closed) return;
    this.#end();
    this.native.detach();
    this.#release();
  }

  /** Ends what this thread waits for. */
  #end(): void {
    // Descriptors in packets that nobody will see.
    this.#dropFetched();
    this.closed = true;
    this.staged = 0;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.dispatch = null;
    SetAdd(busyEngines, this);
    const slots = this.#slots;
    for (let i = 0; i < slots.length; i++) {
      const slot = slots[i] as Slot;
      const { operation } = slot;
      if (operation === null) continue;
      leaveSignal(slot);
      if (!slot.internal) continue;
      try {
        const kind = kindNames[slot.opcode] as OperationKind;
        (operation as SettledOperation).settle(kind, 0, canceledError(slot.opcode, abi.BY_CLOSE, undefined), undefined);
      } catch (thrown) {
        native.fatalException(thrown);
      }
    }
    this.inFlight = 0;
    this.#internalInFlight = 0;
    for (let waiter = this.waiters.first; waiter !== null; waiter = this.waiters.first) this.endWaiter(waiter, portClosed());
  }

  #dropFetched(): void {
    for (let at = this.#heldCursor; at < this.#heldCount; at++) {
      this.#drop(this.#held32 as Uint32Array, this.#held64 as Float64Array, at * (abi.ENTRY_BYTES >> 2));
    }
    for (let at = this.#cursor; at < this.#count; at++)
      this.#drop(this.u32, this.f64, (abi.COMPLETIONS_AT + at * abi.ENTRY_BYTES) >> 2);
    this.#heldCursor = 0;
    this.#heldCount = 0;
    this.#cursor = 0;
    this.#count = 0;
  }

  #drop(u32: Uint32Array, f64: Float64Array, word: number): void {
    if (!makesHandle((u32[word] as number) & 0xff) || u32[word + 3] !== 0) return;
    const id = f64[(word >> 1) + 7] as number;
    native.closeHandle(id % abi.HANDLE_INDEX_SPAN, Math.floor(id / abi.HANDLE_INDEX_SPAN), false);
  }

  /** The last operation has let go: operations can be started on other ports, memory goes. */
  #release(): void {
    this.released = true;
    const slots = this.#slots;
    for (let i = 0; i < slots.length; i++) {
      const slot = slots[i] as Slot;
      if (slot.operation !== null) releaseOperation(slot.operation);
      slot.operation = null;
      slot.handle = null;
      slot.view = null;
      slot.block = null;
      slot.registration = null;
      slot.extra = null;
    }
    slots.length = 0;
    this.#freeSlot = null;
    SetDelete(busyEngines, this);
    if (placeAt === this) placeAt = null;
    this.#ended?.();
    this.#ended = null;
    this.#resolveClosed();
  }

  allocate(bytes: number): Uint8Array<SharedArrayBuffer> {
    return this.memory.allocate(bytes, () => {
      this.ingest();
      this.memory.releaseDeferred(this.#inUse);
    });
  }

  /** The native side knows which blocks its operations use; not of what is staged, or fetched and not delivered. */
  release(view: unknown): void {
    this.memory.release(view, this.staged > 0, this.#fetched());
  }

  /** Whether an operation whose packet is fetched and not delivered worked in that range of the arena. */
  readonly #inUse = (from: number, to: number): boolean => {
    for (let at = this.#heldCursor; at < this.#heldCount; at++) {
      if (this.#worksIn(this.#held32 as Uint32Array, at * (abi.ENTRY_BYTES >> 2), from, to)) return true;
    }
    for (let at = this.#cursor; at < this.#count; at++) {
      if (this.#worksIn(this.u32, (abi.COMPLETIONS_AT + at * abi.ENTRY_BYTES) >> 2, from, to)) return true;
    }
    return false;
  };

  /** Whether a fetched entry is of an operation that worked in that range of the arena. */
  #worksIn(u32: Uint32Array, word: number, from: number, to: number): boolean {
    const head = u32[word] as number;
    if (head === SETTLED || (head & 0xff) === abi.OP_POST) return false;
    const slot = this.#slots[u32[word + 1] as number] as Slot;
    if (slot.extra !== null && slot.extra.views !== null) return true; // of a vector's places nothing is kept
    return slot.arenaOffset >= from && slot.arenaOffset < to;
  }

  /** Entries that are fetched and not delivered. */
  get fetched(): number {
    return this.#count - this.#cursor + this.#heldCount - this.#heldCursor;
  }

  /** How many entries the last call for packets brought, delivered or not: a few, or a crowd. */
  get batch(): number {
    return this.#count;
  }

  /** Posts that stand for operations whose signal was aborted at their start. */
  get ownPosts(): number {
    return this.#ownPosts;
  }
}
