// A port's memory as JavaScript sees it. The kernel only ever gets memory that a script can't take away: the arena, the user's own
// SharedArrayBuffers (registered with the native side, used in place), and blocks that everything else is copied through, out of it
// at the start and into it at delivery. Where a view lies is read through primordials.ts only.

import * as abi from './abi.js';
import { bufferDetached, misuse, outOfRange, wrongType, wrongValue } from './errors.js';
import type { NativePort } from './native.js';
import { native } from './native.js';
import {
  ArrayBufferIsView,
  ArrayBufferPrototype,
  ArrayIsArray,
  DataViewBuffer,
  DataViewByteLength,
  DataViewByteOffset,
  MapDelete,
  MapGet,
  MapSet,
  MathMin,
  NativeInt32Array,
  NativeSharedArrayBuffer,
  NativeUint8Array,
  ObjectGetPrototypeOf,
  SharedArrayBufferByteLength,
  TypedArrayBuffer,
  TypedArrayByteLength,
  TypedArrayByteOffset,
  TypedArrayIndexOf,
  TypedArrayTag,
  Uint8ArraySet,
} from './primordials.js';
import type { Slot, SlotExtra } from './slot.js';
import { extraOf } from './slot.js';
import { integer } from './validate.js';

/** A view that operations take: any TypedArray (Buffer included) or DataView, over any kind of buffer. */
export type View = ArrayBufferView;

/** A piece of native memory that one operation is copied through. */
export interface Block {
  readonly memoryId: number;
  readonly offset: number;
  /** All of the memory that the block lies in; and in whole words. */
  readonly bytes: Uint8Array;
  readonly words: Int32Array;
  readonly memory: SharedArrayBuffer;
  /** log2 of its size, or 0 for one that is made for a single use. */
  readonly sizeClass: number;
  readonly size: number;
  next: Block | null;
}

/** A SharedArrayBuffer of the user's that the native side knows. */
export interface Registration {
  readonly id: number;
  readonly buffer: SharedArrayBuffer;
  /** Of the buffer when it was registered; a growable one may be longer by now. */
  readonly byteLength: number;
  /** Operations that work in it. */
  uses: number;
  /** Replaced by a longer registration of the same buffer: goes with its last use. */
  replaced: boolean;
}

// Blocks come in powers of two from 64 bytes up; to 64 KiB out of the arena or a slab, above that each in memory of its own.
const CLASS_MIN = 6;
const CLASS_POOLED_MAX = 16;
const CLASS_CACHED_MAX = 22;
const SLAB_BYTES = 2 ** 20;
/** Idle large blocks beyond this are given back. */
const LARGE_IDLE_MAX = 8 * 2 ** 20;
/** Registered buffers that nothing uses at the moment; the oldest goes when there are more. */
const REGISTRATIONS_IDLE_MAX = 16;
/**
 * Up to here a loop over the block's words is about as fast as set(), which needs a view made: 40 against 35 ns for 64 bytes, 107 against 38 for
 * 160 (byte by byte 92 and 206). And it allocates nothing.
 */
const LOOP_COPY_MAX = 96;
/** From here on native code copies: set() goes word by word where one side is shared memory (531 against 300 ns for 4 KiB, 4.6 against 1.6 µs for 64). */
export const NATIVE_COPY_MIN = 4096;

// Where the view last looked at lies. Module variables, because a result object would be one allocation an operation. Whoever has used
// them forgets the buffer, so that nothing of a user's is held longer than its operation.
const nowhere: ArrayBufferLike = new ArrayBuffer(0);
const noWords = new NativeInt32Array(nowhere);
let viewBuffer: ArrayBufferLike = nowhere;
let viewByteOffset = 0;
let viewByteLength = 0;

/** Reads where a view lies; throws if it isn't one, or is detached or out of its buffer's bounds. */
function locate(view: unknown, name: string): void {
  if (!ArrayBufferIsView(view)) throw wrongType(name, 'a TypedArray, Buffer or DataView', view);
  if (!locateView(view)) throw bufferDetached(name);
}

/** The same for what is known to be a view: false if it is detached or out of bounds. */
function locateView(view: View): boolean {
  if (TypedArrayTag(view) !== undefined) {
    viewBuffer = TypedArrayBuffer(view);
    viewByteOffset = TypedArrayByteOffset(view);
    viewByteLength = TypedArrayByteLength(view);
    return viewByteLength !== 0 || isAttached(view);
  }
  try {
    viewBuffer = DataViewBuffer(view);
    viewByteOffset = DataViewByteOffset(view);
    viewByteLength = DataViewByteLength(view);
    return true;
  } catch {
    return false; // the getters throw for this reason alone
  }
}

/** Whether a view, which is known to be one, is attached and has so many bytes. Less than locateView() reads: of typed arrays the length alone. */
function holds(view: View, bytes: number): boolean {
  if (TypedArrayTag(view) === undefined) return locateView(view) && viewByteLength >= bytes;
  const length = TypedArrayByteLength(view);
  return length >= bytes && (length !== 0 || isAttached(view));
}

/** An empty typed array says 0 as a detached one does; methods tell them apart. */
function isAttached(view: View): boolean {
  try {
    TypedArrayIndexOf(view, 0);
    return true;
  } catch {
    return false;
  }
}

/** Whether a word's first byte is its lowest: where it isn't, small copies go byte by byte. */
const WORDS_COPY = new NativeUint8Array(new Uint32Array([1]).buffer)[0] === 1;

/** `at`: in the block's memory. The view was located just before. */
function copyOut(view: View, offset: number, length: number, block: Block, at: number): void {
  const { bytes } = block;
  if (length <= LOOP_COPY_MAX && TypedArrayTag(view) === 'Uint8Array') {
    const source = view as Uint8Array;
    let i = 0;
    if ((at & 3) === 0 && WORDS_COPY) {
      const { words } = block;
      for (let word = at >>> 2; i + 4 <= length; i += 4) {
        const from = offset + i;
        words[word++] =
          (source[from] as number) |
          ((source[from + 1] as number) << 8) |
          ((source[from + 2] as number) << 16) |
          ((source[from + 3] as number) << 24);
      }
    }
    for (; i < length; i++) bytes[at + i] = source[offset + i] as number;
  } else if (length >= NATIVE_COPY_MIN) {
    native.copy(bytes, at, new NativeUint8Array(viewBuffer, viewByteOffset + offset, length), 0, length);
  } else if (length > 0) {
    Uint8ArraySet(bytes, new NativeUint8Array(viewBuffer, viewByteOffset + offset, length), at);
  }
}

/** The view is known to be attached and long enough; it needn't be located. */
function copyIn(view: View, offset: number, length: number, block: Block, at: number): void {
  const plain = TypedArrayTag(view) === 'Uint8Array';
  if (plain && length <= LOOP_COPY_MAX) {
    const { bytes } = block;
    const target = view as Uint8Array;
    let i = 0;
    if ((at & 3) === 0 && WORDS_COPY) {
      const { words } = block;
      for (let word = at >>> 2; i + 4 <= length; i += 4) {
        const to = offset + i;
        const value = words[word++] as number;
        target[to] = value;
        target[to + 1] = value >> 8;
        target[to + 2] = value >> 16;
        target[to + 3] = value >> 24;
      }
    }
    for (; i < length; i++) target[offset + i] = bytes[at + i] as number;
  } else if (plain && length < NATIVE_COPY_MIN) {
    Uint8ArraySet(view as Uint8Array, new NativeUint8Array(block.memory, at, length), offset);
  } else if (length > 0) {
    locateView(view);
    const target = new NativeUint8Array(viewBuffer, viewByteOffset + offset, length);
    if (length < NATIVE_COPY_MIN) Uint8ArraySet(target, new NativeUint8Array(block.memory, at, length));
    else native.copy(target, 0, block.bytes, at, length);
  }
}

export class Memory {
  readonly arena: SharedArrayBuffer;
  readonly arenaView: Uint8Array<SharedArrayBuffer>;
  /** Copied through native memory because the arena was full or the buffer large. */
  bounceBytes = 0;
  /** The whole length of the view that range() looked at last. */
  viewBytes = 0;
  /** False: what is read goes only where every thread can reach it. Set before each place(). */
  copiesReads = true;
  /** Whether the view that was placed last lies in the arena. */
  inArena = false;

  // The result of placing a view: where the operation works, for its submission entry.
  memoryId = abi.MEMORY_ARENA;
  memoryOffset = 0;
  length = 0;

  readonly #native: NativePort;
  /** Blocks handed out by allocate(), by offset. */
  readonly #allocated = new Map<number, number>();
  // Offset and size, in turns, of released blocks that operations may use without the native side knowing: those released while
  // operations were staged, and those that only wait for fetched packets to be delivered.
  #young: number[] = [];
  #old: number[] = [];
  hasDeferred = false;
  readonly #free: (Block | null)[] = [];
  readonly #arenaWords: Int32Array;
  /** Bytes of the arena that blocks have, and of those the idle ones. */
  #arenaBlocks = 0;
  #arenaIdle = 0;
  #largeIdle = 0;
  #slab: Uint8Array<SharedArrayBuffer> | null = null;
  #slabWords: Int32Array = noWords;
  #slabId = 0;
  #slabUsed = 0;
  readonly #registrations = new Map<ArrayBufferLike, Registration>();
  /** Registrations without a use, oldest first. */
  readonly #idle: Registration[] = [];
  #latest: Registration | null = null;

  constructor(native: NativePort, arena: SharedArrayBuffer, arenaView: Uint8Array<SharedArrayBuffer>) {
    this.#native = native;
    this.arena = arena;
    this.arenaView = arenaView;
    this.#arenaWords = new NativeInt32Array(arena);
    for (let i = 0; i <= CLASS_CACHED_MAX; i++) this.#free[i] = null;
  }

  // ---- the user's side of the arena

  /** `settle`: has released blocks that wait for their operations looked at again. */
  allocate(bytes: number, settle: () => void): Uint8Array<SharedArrayBuffer> {
    const size = integer(bytes, 'bytes', 1, Number.MAX_SAFE_INTEGER);
    let offset = size <= this.arenaView.length ? this.#native.arenaAllocate(size) : -1;
    if (offset < 0 && this.hasDeferred) {
      settle();
      offset = this.#native.arenaAllocate(size);
    }
    if (offset < 0 && this.#arenaIdle > 0) {
      this.#trim();
      offset = this.#native.arenaAllocate(size);
    }
    if (offset < 0) {
      throw misuse(
        Error,
        'ENOBUFS',
        `the arena has no ${size} bytes in one piece left; release some, or create the port with more arenaBytes`,
      );
    }
    MapSet(this.#allocated, offset, size);
    return new NativeUint8Array(this.arena, offset, size);
  }

  /** `staged`, `fetched`: whether there are operations that are not handed over yet, or whose packets are not delivered yet. */
  release(view: unknown, staged: boolean, fetched: boolean): void {
    locate(view, 'view');
    const offset = viewByteOffset;
    const buffer = viewBuffer;
    viewBuffer = nowhere;
    if (buffer !== this.arena) throw wrongValue('view', "is not in this port's arena");
    const size = MapGet(this.#allocated, offset);
    if (size === undefined) {
      throw wrongValue('view', 'is not the beginning of a block that is allocated: released already?');
    }
    MapDelete(this.#allocated, offset);
    if (!staged && !fetched) {
      this.#native.arenaRelease(offset);
      return;
    }
    const list = staged ? this.#young : this.#old;
    list[list.length] = offset;
    list[list.length] = size;
    this.hasDeferred = true;
  }

  /**
   * Called when all that was fetched is delivered and more is about to be: what was released before the last enter goes to the
   * native side now, which knows all operations that are left; what was released since, the next time.
   */
  ageDeferred(): void {
    const old = this.#old;
    for (let i = 0; i < old.length; i += 2) this.#native.arenaRelease(old[i] as number);
    old.length = 0;
    this.#old = this.#young;
    this.#young = old;
    this.hasDeferred = this.#old.length > 0;
  }

  /** The same at once, for a full arena. `inUse`: whether a fetched packet's operation worked in that range. */
  releaseDeferred(inUse: (from: number, to: number) => boolean): void {
    this.#settle(this.#old, inUse);
    this.#settle(this.#young, inUse);
    this.hasDeferred = this.#old.length + this.#young.length > 0;
  }

  #settle(list: number[], inUse: (from: number, to: number) => boolean): void {
    let kept = 0;
    for (let i = 0; i < list.length; i += 2) {
      const offset = list[i] as number;
      const size = list[i + 1] as number;
      if (inUse(offset, offset + size)) {
        list[kept] = offset;
        list[kept + 1] = size;
        kept += 2;
      } else this.#native.arenaRelease(offset);
    }
    list.length = kept;
  }

  // ---- placing an operation's memory

  /**
   * Decides where an operation on one view works, and takes hold of that memory: `memoryId`, `memoryOffset` and `length` say it. A
   * view that is written from (`out`) and can't be used in place is copied now. Call range() right before it, with no user code
   * (a getter, a listener) in between: it works with the place that range() read.
   */
  place(slot: Slot, view: View, out: boolean, offset: number, length: number): void {
    this.#place(slot, view, out, offset, length);
    viewBuffer = nowhere;
  }

  #place(slot: Slot, view: View, out: boolean, offset: number, length: number): void {
    this.inArena = viewBuffer === this.arena;
    if (this.inArena) {
      this.memoryId = abi.MEMORY_ARENA;
      this.memoryOffset = viewByteOffset + offset;
      slot.arenaOffset = this.memoryOffset;
      return;
    }
    const registration = this.#registration(viewByteOffset + offset + length);
    if (registration !== null) {
      registration.uses++;
      slot.registration = registration;
      slot.view = view;
      this.memoryId = registration.id;
      this.memoryOffset = viewByteOffset + offset;
      return;
    }
    if (!out && !this.copiesReads && length > 0) throw bufferNotShared();
    if (!out) {
      slot.view = view;
      slot.viewOffset = offset;
      slot.viewLength = length;
    }
    if (length === 0) {
      this.#placeNothing();
      return;
    }
    const block = this.#acquire(length);
    slot.block = block;
    this.memoryId = block.memoryId;
    this.memoryOffset = block.offset;
    if (out) copyOut(view, offset, length, block, block.offset);
  }

  /** Checks a view with its options and returns the number of bytes. Throws misuse. */
  range(view: unknown, offset: number | undefined, length: number | undefined): number {
    locate(view, 'buffer');
    const from = offset === undefined ? 0 : integer(offset, 'offset', 0, viewByteLength);
    const bytes = length === undefined ? viewByteLength - from : integer(length, 'length', 0, viewByteLength - from);
    if (bytes > abi.LENGTH_MAX) throw outOfRange('length', `at most ${abi.LENGTH_MAX} (2^31-4096) bytes in one operation`, bytes);
    this.viewBytes = viewByteLength;
    return bytes;
  }

  /**
   * The same for a vector: true if all its views can be used in place, and then `segment()` gives each one's place. Otherwise the
   * operation works in one block, as a plain read or write. `lengths` and `total` are checkVector()'s and are what counts: another
   * thread may grow a shared buffer, and the views that track its length, at any time.
   */
  placeVector(slot: Slot, views: readonly View[], lengths: readonly number[], total: number, out: boolean): boolean {
    const extra = extraOf(slot);
    extra.views = views;
    extra.viewLengths = lengths;
    if (total === 0) {
      this.#placeNothing();
      return false;
    }
    const inPlace = this.#allInPlace(slot, views, lengths);
    viewBuffer = nowhere;
    if (inPlace) return true;
    if (!out && !this.copiesReads) throw bufferNotShared();
    const block = this.#acquire(total);
    slot.block = block;
    this.memoryId = block.memoryId;
    this.memoryOffset = block.offset;
    if (out) {
      let at = block.offset;
      for (let i = 0; i < views.length; i++) {
        const view = views[i] as View;
        const length = lengths[i] as number;
        locateView(view);
        copyOut(view, 0, length, block, at);
        at += length;
      }
      viewBuffer = nowhere;
    }
    return false;
  }

  /** The place of one view of a vector that placeVector() found to be usable in place. */
  segment(slot: Slot, view: View, length: number): void {
    locateView(view);
    this.length = length;
    this.memoryOffset = viewByteOffset;
    const buffer = viewBuffer;
    viewBuffer = nowhere;
    if (buffer === this.arena) {
      this.memoryId = abi.MEMORY_ARENA;
      return;
    }
    const held = extraOf(slot).registrations as Registration[];
    for (let i = 0; i < held.length; i++) {
      const registration = held[i] as Registration;
      // The last one registered is the longest.
      if (registration.buffer === buffer) this.memoryId = registration.id;
    }
  }

  /** No bytes: somewhere that is always there. */
  #placeNothing(): void {
    this.memoryId = abi.MEMORY_ARENA;
    this.memoryOffset = 0;
  }

  #allInPlace(slot: Slot, views: readonly View[], lengths: readonly number[]): boolean {
    const held: Registration[] = [];
    const extra = extraOf(slot);
    extra.registrations = held;
    for (let i = 0; i < views.length; i++) {
      locateView(views[i] as View);
      if (viewBuffer === this.arena) continue;
      const registration = this.#registration(viewByteOffset + (lengths[i] as number));
      if (registration === null) {
        for (let j = 0; j < held.length; j++) this.#unuse(held[j] as Registration);
        extra.registrations = null;
        return false;
      }
      registration.uses++;
      held[held.length] = registration;
    }
    return true;
  }

  // ---- at the operation's end

  /**
   * Copies what was read to where it belongs and gives the slot's memory back, also that of a start that didn't come about.
   *
   * @returns false if the buffer was detached or made too small meanwhile: nothing was copied then
   */
  finish(slot: Slot, bytes: number, reads: boolean): boolean {
    let whole = true;
    const { block, extra } = slot;
    if (slot.registration !== null) this.#unuse(slot.registration);
    else if (reads && slot.view !== null) {
      whole = holds(slot.view, slot.viewOffset + slot.viewLength);
      if (whole && block !== null) copyIn(slot.view, slot.viewOffset, MathMin(bytes, slot.viewLength), block, block.offset);
    } else if (extra !== null && extra.views !== null) whole = this.#finishVector(block, extra, extra.views, bytes, reads);
    if (block !== null) this.#giveBack(block);
    if (extra !== null) {
      extra.views = null;
      extra.viewLengths = null;
    }
    slot.view = null;
    slot.block = null;
    slot.registration = null;
    viewBuffer = nowhere;
    return whole;
  }

  #finishVector(block: Block | null, extra: SlotExtra, views: readonly View[], bytes: number, reads: boolean): boolean {
    const { registrations } = extra;
    extra.registrations = null;
    if (registrations !== null) {
      for (let i = 0; i < registrations.length; i++) this.#unuse(registrations[i] as Registration);
    }
    if (!reads || block === null) return true;
    const lengths = extra.viewLengths as readonly number[];
    for (let i = 0; i < views.length; i++) {
      if (!holds(views[i] as View, lengths[i] as number)) return false;
    }
    let at = 0;
    for (let i = 0; i < views.length && at < bytes; i++) {
      const view = views[i] as View;
      const length = MathMin(lengths[i] as number, bytes - at);
      copyIn(view, 0, length, block, block.offset + at);
      at += length;
    }
    return true;
  }

  // ---- blocks

  #acquire(length: number): Block {
    const sizeClass = length <= 2 ** CLASS_MIN ? CLASS_MIN : 32 - Math.clz32(length - 1);
    if (sizeClass > CLASS_CACHED_MAX) {
      this.bounceBytes += length;
      return this.#ownBlock((length + 4095) & ~4095, 0);
    }
    const block = this.#free[sizeClass] as Block | null;
    if (block === null) {
      const made = this.#make(sizeClass);
      if (made.memoryId !== abi.MEMORY_ARENA) this.bounceBytes += length;
      return made;
    }
    this.#free[sizeClass] = block.next;
    block.next = null;
    if (block.memoryId === abi.MEMORY_ARENA) this.#arenaIdle -= block.size;
    else {
      this.bounceBytes += length;
      if (sizeClass > CLASS_POOLED_MAX) this.#largeIdle -= block.size;
    }
    return block;
  }

  #make(sizeClass: number): Block {
    const size = 2 ** sizeClass;
    if (sizeClass > CLASS_POOLED_MAX) return this.#ownBlock(size, sizeClass);
    // Half of the arena stays the user's.
    if ((this.#arenaBlocks + size) * 2 <= this.arenaView.length) {
      const offset = this.#native.arenaAllocate(size);
      if (offset >= 0) {
        this.#arenaBlocks += size;
        return {
          memoryId: abi.MEMORY_ARENA,
          offset,
          bytes: this.arenaView,
          words: this.#arenaWords,
          memory: this.arena,
          sizeClass,
          size,
          next: null,
        };
      }
    }
    if (this.#slab === null || this.#slabUsed + size > SLAB_BYTES) {
      const slab = new NativeUint8Array(newMemory(SLAB_BYTES));
      this.#slabId = this.#register(slab);
      this.#slab = slab;
      this.#slabWords = new NativeInt32Array(slab.buffer);
      this.#slabUsed = 0;
    }
    const offset = this.#slabUsed;
    this.#slabUsed += size;
    const bytes = this.#slab;
    return { memoryId: this.#slabId, offset, bytes, words: this.#slabWords, memory: bytes.buffer, sizeClass, size, next: null };
  }

  #ownBlock(size: number, sizeClass: number): Block {
    const memory = newMemory(size);
    const bytes = new NativeUint8Array(memory);
    const words = new NativeInt32Array(memory);
    return { memoryId: this.#register(bytes), offset: 0, bytes, words, memory, sizeClass, size, next: null };
  }

  #giveBack(block: Block): void {
    const { sizeClass, size } = block;
    if (block.memoryId === abi.MEMORY_ARENA) {
      // A quarter of the arena may lie idle in blocks; allocate() takes even that back when it has to.
      if ((this.#arenaIdle + size) * 4 > this.arenaView.length) {
        this.#arenaBlocks -= size;
        this.#native.arenaRelease(block.offset);
        return;
      }
      this.#arenaIdle += size;
    } else if (sizeClass === 0 || sizeClass > CLASS_POOLED_MAX) {
      if (sizeClass === 0 || this.#largeIdle + size > LARGE_IDLE_MAX) {
        this.#native.unregisterMemory(block.memoryId);
        return;
      }
      this.#largeIdle += size;
    }
    block.next = this.#free[sizeClass] as Block | null;
    this.#free[sizeClass] = block;
  }

  /** Gives the arena's idle blocks back to its allocator. */
  #trim(): void {
    for (let sizeClass = CLASS_MIN; sizeClass <= CLASS_POOLED_MAX; sizeClass++) {
      let kept: Block | null = null;
      let block = this.#free[sizeClass] as Block | null;
      while (block !== null) {
        const { next } = block;
        if (block.memoryId === abi.MEMORY_ARENA) {
          this.#arenaBlocks -= block.size;
          this.#arenaIdle -= block.size;
          this.#native.arenaRelease(block.offset);
        } else {
          block.next = kept;
          kept = block;
        }
        block = next;
      }
      this.#free[sizeClass] = kept;
    }
  }

  // ---- the user's SharedArrayBuffers

  /** The registration of `viewBuffer`, new if need be, that reaches to `end`; null if the buffer has to be copied. */
  #registration(end: number): Registration | null {
    const buffer = viewBuffer;
    const latest = this.#latest;
    if (latest !== null && latest.buffer === buffer && end <= latest.byteLength && !latest.replaced) return this.#wake(latest);
    // A quick way out for plain buffers. A script that fakes the prototype only chooses to be copied, or meets the real test.
    if (ObjectGetPrototypeOf(buffer) === ArrayBufferPrototype) return null;
    let byteLength: number;
    try {
      byteLength = SharedArrayBufferByteLength(buffer);
    } catch {
      return null; // not a SharedArrayBuffer
    }
    const known = MapGet(this.#registrations, buffer);
    if (known !== undefined) {
      if (end <= known.byteLength) {
        this.#latest = known;
        return this.#wake(known);
      }
      known.replaced = true;
      if (known.uses === 0) {
        this.#removeIdle(known);
        this.#native.unregisterMemory(known.id);
      }
      MapDelete(this.#registrations, buffer);
    }
    const shared = buffer as SharedArrayBuffer;
    const id = this.#native.registerMemory(new NativeUint8Array(shared));
    if (id === 0) return null; // no more ids: copying is slower, and right
    const registration: Registration = { id, buffer: shared, byteLength, uses: 0, replaced: false };
    MapSet<ArrayBufferLike, Registration>(this.#registrations, buffer, registration);
    this.#latest = registration;
    return registration;
  }

  /** Takes a registration out of the idle ones: it is about to be used. */
  #wake(registration: Registration): Registration {
    if (registration.uses === 0) this.#removeIdle(registration);
    return registration;
  }

  #removeIdle(registration: Registration): void {
    const idle = this.#idle;
    let kept = 0;
    for (let i = 0; i < idle.length; i++) {
      const each = idle[i] as Registration;
      if (each !== registration) idle[kept++] = each;
    }
    idle.length = kept;
  }

  #unuse(registration: Registration): void {
    if (--registration.uses > 0) return;
    if (registration.replaced) {
      this.#native.unregisterMemory(registration.id);
      return;
    }
    const idle = this.#idle;
    idle[idle.length] = registration;
    if (idle.length <= REGISTRATIONS_IDLE_MAX) return;
    const oldest = idle[0] as Registration;
    this.#removeIdle(oldest);
    MapDelete<ArrayBufferLike, Registration>(this.#registrations, oldest.buffer);
    if (this.#latest === oldest) this.#latest = null;
    this.#native.unregisterMemory(oldest.id);
  }

  #register(bytes: Uint8Array): number {
    const id = this.#native.registerMemory(bytes);
    if (id === 0)
      throw misuse(
        Error,
        'ENOMEM',
        'too many buffers are copied at once; allocate them from the port, or start fewer operations',
      );
    return id;
  }
}

function bufferNotShared(): Error {
  return misuse(
    TypeError,
    'ERR_BUFFER_NOT_SHARED',
    'on a shared port another thread may take the packet: read into a view of port.allocate or of a SharedArrayBuffer',
  );
}

function newMemory(bytes: number): SharedArrayBuffer {
  try {
    return new NativeSharedArrayBuffer(bytes);
  } catch (cause) {
    throw misuse(
      Error,
      'ENOMEM',
      `there is no memory for a copy of ${bytes} bytes; use port.allocate or a SharedArrayBuffer`,
      cause,
    );
  }
}

/** Checks the views of a vector and copies the list: a script may change its array later. Returns the sum of the lengths. */
export function checkVector(given: unknown, views: View[], lengths: number[]): number {
  if (!ArrayIsArray(given)) throw wrongType('buffers', 'an array of views', given);
  const count = given.length;
  if (count > abi.SEGMENTS_MAX) throw outOfRange('buffers.length', `at most ${abi.SEGMENTS_MAX}`, count);
  let total = 0;
  for (let i = 0; i < count; i++) {
    const view: unknown = given[i];
    locate(view, `buffers[${i}]`);
    views[i] = view as View;
    lengths[i] = viewByteLength;
    total += viewByteLength;
  }
  viewBuffer = nowhere;
  if (total > abi.LENGTH_MAX)
    throw outOfRange('the sum of the lengths', `at most ${abi.LENGTH_MAX} (2^31-4096) bytes in one operation`, total);
  return total;
}
