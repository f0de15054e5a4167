// A slot: what JavaScript knows about one operation while it is in flight. Slots are made once and used again (a free list, last
// in, first out), so that starting an operation allocates nothing. A slot holds its operation, handle and views strongly: nothing
// of a pending operation is ever collected.

import type { Engine } from './engine.js';
import type { HandleState } from './handle.js';
import type { Block, Registration, View } from './memory.js';
import type { Operation } from './operation.js';
import type { SignalRecord } from './signals.js';

/** What only some operations need. A slot makes it when it first has such a one, and keeps it. */
export class SlotExtra {
  /** Of an open: the key that the file is associated with, and whether it appends. */
  key = 0;
  append = false;

  /** The views of a vectored operation, and the length that each had at the start. */
  views: readonly View[] | null = null;
  viewLengths: readonly number[] | null = null;
  registrations: Registration[] | null = null;

  /** The reason of a signal that was aborted at the start. */
  abortReason: unknown = undefined;
  signal: SignalRecord | null = null;
  signalPrevious: Slot | null = null;
  signalNext: Slot | null = null;
}

// Slot.flags.
/** Settled by whoever dequeues it, never shown to get or dispatch. */
export const SLOT_INTERNAL = 1;
/** Doesn't keep the event loop alive while it is in flight; only an internal operation may be so. */
export const SLOT_UNREFERENCED = 2;
/** Native code knows of the operation: its signal was not aborted at the start. */
export const SLOT_NATIVE = 4;
/** On a shared port: its signal was aborted before the start. */
export const SLOT_ABORTED = 8;

/** One for each operation in flight: ten thousand idle connections are ten thousand of them, so each field counts. */
export class Slot {
  readonly engine: Engine;
  readonly index: number;
  /** The native table's generation of this slot; every completion brings the next one. */
  generation = 1;
  nextFree: Slot | null = null;

  opcode = 0;
  flags = 0;
  operation: Operation | null = null;
  /** null for an open, which has no handle yet. */
  handle: HandleState | null = null;
  /** The operation's id at the start; number objects are copied by reference, never boxed anew. */
  operationId: number;

  /** The view that a copied read is for, or that a start in place keeps alive. */
  view: View | null = null;
  viewOffset = 0;
  viewLength = 0;
  /** Where in the arena it works, in place; -1: elsewhere. */
  arenaOffset = -1;
  /** The native memory that the operation is copied through. */
  block: Block | null = null;
  /** The user's SharedArrayBuffer that it works in. */
  registration: Registration | null = null;
  extra: SlotExtra | null = null;

  /** `number` is 0; the warm-up instance passes something else, so that the field's representation is general from the start. */
  constructor(engine: Engine, index: number, number: number) {
    this.engine = engine;
    this.index = index;
    this.operationId = number;
  }

  get internal(): boolean {
    return (this.flags & SLOT_INTERNAL) !== 0;
  }

  get referenced(): boolean {
    return (this.flags & SLOT_UNREFERENCED) === 0;
  }
}

/** The slot's extra, made if need be. */
export function extraOf(slot: Slot): SlotExtra {
  slot.extra ??= new SlotExtra();
  return slot.extra;
}

// V8 gives a field that has only ever held doubles a representation that boxes the number at each read. One instance that held
// something else first makes it hold references, which are copied.
const untyped = undefined as unknown as number;
const warm = new Slot(undefined as unknown as Engine, 0, untyped);
warm.operationId = 0.5;
const warmExtra = new SlotExtra();
warmExtra.key = untyped;
warmExtra.key = 0.5;
