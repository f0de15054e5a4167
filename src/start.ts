// How operations start: one function for each shape of request. All follow one order: misuse of the handle and the operation, its
// options (read once; a getter may run user code), then once more whether it may be started (after that code), then the views, a slot
// and memory, and at last the operation begins and its entry is written.
//
// A script's code may run up to that second look and again within launch(), where a promise and a listener are made: async hooks see
// both, and a signal may be a proxy. So nothing is kept over launch() but in locals, the slot and the operation.

import * as abi from './abi.js';
import type { Engine } from './engine.js';
import { misuse, wrongType } from './errors.js';
import type { HandleState } from './handle.js';
import { engineFor } from './handle.js';
import type { View } from './memory.js';
import { checkVector } from './memory.js';
import type { Operation, OperationOptions } from './operation.js';
import { checkIdle, forgetPlace, isInternal, operationFor, placedLength, placeOf, rememberPlace } from './operation.js';
import { joinSignal, reasonOf } from './signals.js';
import type { Slot } from './slot.js';
import { extraOf, SLOT_ABORTED, SLOT_INTERNAL } from './slot.js';
import { abortedSignal, integer, milliseconds, safeInteger } from './validate.js';

export type Given<C> = Operation<C> | OperationOptions<C> | undefined;

const INFINITE = Number.POSITIVE_INFINITY;

/** No position: sockets, and files in append mode. */
export const NO_POSITION = abi.POSITION_APPEND;

/** Where in the file an operation works: required, but for appending. */
function positionOf(operation: Operation, appends: boolean): number {
  const { position } = operation;
  if (appends) return abi.POSITION_APPEND;
  if (position === undefined) {
    throw wrongType('position', 'given for an operation on a file (a number of bytes from its beginning)', position);
  }
  return safeInteger(position, 'position');
}

/** What the options' getters may have changed: the operation was started by one of them, the handle or the port closed. */
function checkAgain(engine: Engine, state: HandleState, operation: Operation): void {
  checkIdle(operation);
  if (state.closed || engine.closed) engineFor(state); // throws
}

/**
 * The rest of every start, from a slot whose memory is placed on. Runs a script's code, at its end. False: there is nothing to
 * submit.
 */
function launch(
  engine: Engine,
  slot: Slot,
  opcode: number,
  operation: Operation,
  state: HandleState | null,
  id: number,
  signal: AbortSignal | undefined,
  aborted: boolean,
): boolean {
  engine.begin(slot, opcode, operation, state, id);
  if (engine.closed) return false; // by that code
  if (signal === undefined) return true;
  if (!aborted) {
    joinSignal(signal, slot);
    return !engine.closed;
  }
  extraOf(slot).abortReason = reasonOf(signal);
  // On a shared port its packet may be another thread's: native code makes it.
  if (engine.shared) slot.flags |= SLOT_ABORTED;
  else engine.beginAborted(slot);
  return engine.shared;
}

/** Starts an operation on one view. `file`: it has a position. */
export function startBuffer<C>(
  state: HandleState,
  opcode: number,
  out: boolean,
  file: boolean,
  buffer: unknown,
  given: Given<C>,
): Operation<C> {
  const engine = engineFor(state);
  const operation = operationFor(given);
  const id = safeInteger(operation.id, 'id');
  const position = file ? positionOf(operation, out && state.append) : NO_POSITION;
  const given_timeout = operation.timeout;
  const timeout = given_timeout === undefined ? INFINITE : milliseconds(given_timeout, 'timeout');
  const { signal, offset, length } = operation;
  const aborted = signal !== undefined && abortedSignal(signal, 'signal');
  checkAgain(engine, state, operation);
  const { memory } = engine;
  const known = placeOf(operation, buffer, memory);
  if (known >= 0) {
    const whole = placedLength(operation);
    const from = offset === undefined ? 0 : integer(offset, 'offset', 0, whole);
    const bytes = length === undefined ? whole - from : integer(length, 'length', 0, whole - from);
    const slot = engine.acquire();
    slot.arenaOffset = known + from;
    if (launch(engine, slot, opcode, operation, state, id, signal, aborted)) {
      engine.write(engine.room(1), slot, opcode, 0, abi.MEMORY_ARENA, known + from, bytes, position, timeout);
      engine.submit(slot);
    }
    return operation;
  }
  const bytes = memory.range(buffer, offset, length);
  const from = offset === undefined ? 0 : offset;
  const slot = engine.acquire();
  memory.copiesReads = !engine.shared || isInternal(operation);
  try {
    memory.place(slot, buffer as View, out, from, bytes);
  } catch (error) {
    engine.abandon(slot);
    throw error;
  }
  if (memory.inArena && memory.viewBytes <= abi.LENGTH_MAX)
    rememberPlace(operation, buffer as View, memory, memory.memoryOffset - from, memory.viewBytes);
  else forgetPlace(operation); // it works elsewhere now: that view isn't to be held any longer
  const { memoryId, memoryOffset } = memory;
  if (launch(engine, slot, opcode, operation, state, id, signal, aborted)) {
    engine.write(engine.room(1), slot, opcode, 0, memoryId, memoryOffset, bytes, position, timeout);
    engine.submit(slot);
  }
  return operation;
}

/**
 * Starts an operation on several views. Where they can't all be used in place they are gathered into one block, and the plain kind
 * of the operation (`plainOpcode`) goes to the kernel; the packet says the vectored kind all the same.
 */
export function startVector<C>(
  state: HandleState,
  opcode: number,
  plainOpcode: number,
  out: boolean,
  file: boolean,
  buffers: unknown,
  given: Given<C>,
): Operation<C> {
  const engine = engineFor(state);
  const operation = operationFor(given);
  const id = safeInteger(operation.id, 'id');
  const position = file ? positionOf(operation, out && state.append) : NO_POSITION;
  const timeout = milliseconds(operation.timeout, 'timeout');
  const { signal } = operation;
  const aborted = signal !== undefined && abortedSignal(signal, 'signal');
  // The array may be a proxy: from the copy on, no code of the user's runs.
  const views: View[] = [];
  const lengths: number[] = [];
  const total = checkVector(copyList(buffers), views, lengths);
  checkAgain(engine, state, operation);
  const { memory } = engine;
  const slot = engine.acquire();
  memory.copiesReads = !engine.shared || isInternal(operation);
  let inPlace: boolean;
  try {
    inPlace = memory.placeVector(slot, views, lengths, total, out);
  } catch (error) {
    engine.abandon(slot);
    throw error;
  }
  const { memoryId, memoryOffset } = memory;
  if (!launch(engine, slot, opcode, operation, state, id, signal, aborted)) return operation;
  if (!inPlace) {
    engine.write(engine.room(1), slot, plainOpcode, 0, memoryId, memoryOffset, total, position, timeout);
    engine.submit(slot);
    return operation;
  }
  const at = engine.room(1 + Math.ceil(views.length / abi.SEGMENTS_PER_ENTRY));
  engine.write(at, slot, opcode, views.length, abi.MEMORY_NONE, 0, total, position, timeout);
  // From here on no code but ours runs: segment() leaves its answer in `memory`.
  const { u32, f64 } = engine;
  for (let i = 0; i < views.length; i++) {
    memory.segment(slot, views[i] as View, lengths[i] as number);
    const byte = abi.SUBMISSIONS_AT + (at + 1) * abi.ENTRY_BYTES + i * (abi.ENTRY_BYTES / abi.SEGMENTS_PER_ENTRY);
    u32[byte >> 2] = memory.memoryId;
    u32[(byte >> 2) + 1] = memory.length;
    f64[(byte >> 3) + 1] = memory.memoryOffset;
  }
  engine.submit(slot);
  return operation;
}

/** Copies a user's array by index. */
function copyList(given: unknown): unknown {
  if (!Array.isArray(given)) return given; // refused by checkVector
  const count = Math.min(given.length, abi.SEGMENTS_MAX + 1);
  const list: unknown[] = [];
  for (let i = 0; i < count; i++) list[i] = given[i];
  return list;
}

/** Starts an operation without memory. `value`: what its position field says. */
export function startPlain<C>(state: HandleState, opcode: number, value: number, given: Given<C>): Operation<C> {
  const engine = engineFor(state);
  const operation = operationFor(given);
  startChecked(engine, state, opcode, value, operation);
  return operation;
}

/** The same, for callers that read the operation's own options between. */
export function startChecked<C>(
  engine: Engine,
  state: HandleState,
  opcode: number,
  value: number,
  operation: Operation<C>,
): void {
  const id = safeInteger(operation.id, 'id');
  const timeout = milliseconds(operation.timeout, 'timeout');
  const { signal } = operation;
  const aborted = signal !== undefined && abortedSignal(signal, 'signal');
  checkAgain(engine, state, operation);
  const slot = engine.acquire();
  if (!launch(engine, slot, opcode, operation, state, id, signal, aborted)) return;
  engine.write(engine.room(1), slot, opcode, 0, abi.MEMORY_NONE, 0, 0, value, timeout);
  engine.submit(slot);
}

/** Starts a connect; `address` in the layout of abi.h's AddressEntry. */
export function startConnect<C>(engine: Engine, state: HandleState, address: Uint8Array, operation: Operation<C>): void {
  const id = safeInteger(operation.id, 'id');
  const timeout = milliseconds(operation.timeout, 'timeout');
  const { signal } = operation;
  const aborted = signal !== undefined && abortedSignal(signal, 'signal');
  checkAgain(engine, state, operation);
  const slot = engine.acquire();
  if (!launch(engine, slot, abi.OP_CONNECT, operation, state, id, signal, aborted)) return;
  const at = engine.room(2);
  engine.write(at, slot, abi.OP_CONNECT, 0, abi.MEMORY_NONE, 0, 0, 0, timeout);
  const to = abi.SUBMISSIONS_AT + (at + 1) * abi.ENTRY_BYTES;
  for (let i = 0; i < abi.ADDRESS_BYTES; i++) engine.u8[to + i] = address[i] as number;
  engine.submit(slot);
}

/** Starts opening a file. */
export function startOpen<C>(
  engine: Engine,
  path: string | Uint8Array,
  flags: number,
  mode: number,
  key: number,
  append: boolean,
  operation: Operation<C>,
): void {
  const id = safeInteger(operation.id, 'id');
  const timeout = milliseconds(operation.timeout, 'timeout');
  const { signal } = operation;
  const aborted = signal !== undefined && abortedSignal(signal, 'signal');
  engine.checkOpen();
  checkIdle(operation);
  const slot = engine.acquire();
  const extra = extraOf(slot);
  extra.append = append;
  extra.key = key;
  slot.flags = (engine.shared && aborted ? SLOT_ABORTED : 0) | (isInternal(operation) ? SLOT_INTERNAL : 0);
  if (!aborted || engine.shared) {
    // In the order of the starts: what was started before is handed over before.
    engine.ingest();
    const entryFlags = engine.entryFlags(slot, timeout);
    let refused: number;
    try {
      refused = engine.native.open(slot.index, slot.generation, path, flags, mode, key, timeout, id, entryFlags);
    } catch (error) {
      engine.abandon(slot);
      throw error;
    }
    if (refused !== 0) {
      engine.abandon(slot);
      if (refused === -2) throw engine.full();
      throw misuse(Error, 'ENOMEM', `the native side has no room for the operation (${refused})`);
    }
  }
  launch(engine, slot, abi.OP_OPEN, operation, null, id, signal, aborted);
}
