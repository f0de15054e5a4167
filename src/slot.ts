// A slot: what JavaScript knows about one operation while it is in flight. Slots are made once and used again (a free list, last
// in, first out), so that starting an operation allocates nothing. A slot holds its operation, handle and views strongly: nothing
// of a pending operation is ever collected.

import type { Engine } from './engine.js';
import type { HandleState } from './handle.js';
import type { Block, Registration, View } from './memory.js';
import type { Operation } from './operation.js';
import type { SignalRecord } from './signals.js';

export class Slot {
  readonly engine: Engine;
  readonly index: number;
  /** The native table's generation of this slot; every completion brings the next one. */
  generation = 1;
  nextFree: Slot | null = null;

  opcode = 0;
  operation: Operation | null = null;
  /** null for an open, which has no handle yet. */
  handle: HandleState | null = null;
  /** The key, operation id and handle id that the packet will carry; number objects are copied by reference, never boxed anew. */
  key: number;
  operationId: number;
  handleId: number;
  /** Settled by whoever dequeues it, never shown to get or dispatch. */
  internal = false;
  /** Keeps the event loop alive while it is in flight; only an internal operation may not. */
  referenced = true;
  /** True once native code knows of the operation: its signal was not aborted at the start. */
  native = false;
  /** An open in append mode. */
  append = false;
  /** On a shared port: its signal was aborted before the start. */
  aborted = false;

  /** The view that a copied read is for, or that a start in place keeps alive. */
  view: View | null = null;
  viewOffset = 0;
  viewLength = 0;
  /** The views of a vectored operation, and the length that each had at the start. */
  views: readonly View[] | null = null;
  viewLengths: readonly number[] | null = null;
  /** Where in the arena it works, in place; -1: elsewhere. */
  arenaOffset = -1;
  /** The native memory that the operation is copied through. */
  block: Block | null = null;
  /** The user's SharedArrayBuffer that it works in. */
  registration: Registration | null = null;
  registrations: Registration[] | null = null;

  /** The reason of a signal that was aborted at the start. */
  abortReason: unknown = undefined;
  signal: SignalRecord | null = null;
  signalPrevious: Slot | null = null;
  signalNext: Slot | null = null;

  /** `number` is 0; the warm-up instance passes something else, so that the fields' representation is general from the start. */
  constructor(engine: Engine, index: number, number: number) {
    this.engine = engine;
    this.index = index;
    this.key = number;
    this.operationId = number;
    this.handleId = number;
  }
}

// V8 gives a field that has only ever held doubles a representation that boxes the number at each read. One instance that held
// something else first makes it hold references, which are copied.
const untyped = undefined as unknown as number;
const warm = new Slot(undefined as unknown as Engine, 0, untyped);
warm.key = 0.5;
warm.operationId = 0.5;
warm.handleId = 0.5;
