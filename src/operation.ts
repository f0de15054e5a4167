// Operation: the object that stands for one request, from its start to its packet, and again for the next. It is its own options
// object, so that a program which reuses its operations allocates nothing for a start. The link to the slot table is private, and
// reached by this package's modules through the functions below, so that no script can forge it.

import * as abi from './abi.js';
import type { CompletionError } from './errors.js';
import { invalidThis, operationPending, wrongType } from './errors.js';
import type { Memory, View } from './memory.js';
import type { Slot } from './slot.js';
import { optionsObject, safeInteger } from './validate.js';

/** What an operation does. */
export type OperationKind =
  | 'read'
  | 'write'
  | 'readv'
  | 'writev'
  | 'sync'
  | 'datasync'
  | 'truncate'
  | 'size'
  | 'open'
  | 'accept'
  | 'connect'
  | 'recv'
  | 'send'
  | 'sendv'
  | 'shutdown';

/** Which direction of a socket a shutdown ends. */
export type ShutdownHow = 'write' | 'read' | 'both';

/** The kinds by opcode, the one table that packets and operations take their names from. */
export const kindNames: readonly (OperationKind | 'post')[] = [
  'post',
  'read',
  'write',
  'readv',
  'writev',
  'sync',
  'datasync',
  'truncate',
  'size',
  'open',
  'accept',
  'connect',
  'recv',
  'send',
  'sendv',
  'shutdown',
];

/** The system call that an error of an operation names, by opcode. */
export const syscallNames: readonly string[] = [
  'post',
  'read',
  'write',
  'readv',
  'writev',
  'fsync',
  'fdatasync',
  'ftruncate',
  'fstat',
  'open',
  'accept',
  'connect',
  'recv',
  'send',
  'sendmsg',
  'shutdown',
];

/** Options of a start. They are read once, at the start, and never looked at again. */
export interface OperationOptions<C = unknown> {
  /** Files: where in the file, in bytes from its beginning, 0 to 2^53-1. Required but for writes in append mode. */
  position?: number | undefined;
  /** Where in the view the data begins, in bytes; 0 unless given. Not for vectored operations. */
  offset?: number | undefined;
  /** How many bytes of the view, from `offset`; the rest of it unless given. At most 2^31-4096. Not for vectored operations. */
  length?: number | undefined;
  /** Milliseconds after which the operation is cancelled and its packet says ETIMEDOUT. Never early, late by at most 10 ms or 1 %. */
  timeout?: number | undefined;
  /** Cancels the operation when it fires. One that is aborted already means: nothing is done, and the packet says ECANCELED. */
  signal?: AbortSignal | undefined;
  /** Anything; it comes back as `packet.operation.context`. */
  context?: C | undefined;
  /** Carried to `packet.operationId`, never interpreted: 0 to 2^53-1. */
  id?: number | undefined;
}

let slotOf: (operation: Operation) => Slot | null;
let isOperation: (value: unknown) => value is Operation;
let isInternal: (operation: Operation) => boolean;
let bind: (operation: Operation, slot: Slot, opcode: number) => void;
let release: (operation: Operation) => void;
let markInternal: (operation: Operation) => void;
let placeOf: (operation: Operation, view: unknown, memory: Memory) => number;
let placedLength: (operation: Operation) => number;
let forgetPlace: (operation: Operation) => void;
let rememberPlace: (operation: Operation, view: View, memory: Memory, offset: number, length: number) => void;

/** Throws ERR_INVALID_THIS where a method or getter of Operation was called on something else. */
function checkThis(receiver: unknown): void {
  if (!isOperation(receiver)) throw invalidThis('an Operation', receiver);
}

/**
 * The view of the arena that an operation worked in last, and where that lies: a view on memory of fixed length that can't be detached
 * never moves, so a connection that uses the same one again and again has it looked at once (35 ns an operation, measured).
 */
interface Place {
  view: View;
  memory: Memory;
  offset: number;
  length: number;
}

/** Beside the opcode: whoever dequeues it settles it. */
const INTERNAL = 0x100;

/**
 * One request: what a start returns, and what its packet carries (`packet.operation`, the very object).
 *
 * Make one beforehand, set its options as properties and pass it to a start in place of an options object, and use it again when its
 * packet is delivered: on any handle, port and kind. Starting it while it is pending throws ERR_OPERATION_PENDING.
 *
 * @typeParam C - the type of `context`
 */
export class Operation<C = unknown> {
  /** Anything of the program's; this package never touches it. */
  context: C;
  /** Carried to `packet.operationId`, never interpreted: an integer from 0 to 2^53-1. */
  id: number;
  /** Files: where in the file, in bytes. */
  position: number | undefined;
  /** Where in the view the data begins, in bytes. */
  offset: number | undefined;
  /** How many bytes of the view. */
  length: number | undefined;
  /** Milliseconds until the operation is cancelled, its packet saying ETIMEDOUT. */
  timeout: number | undefined;
  // What few operations have is a property of the prototype, undefined, until it is set: each costs an idle connection 8 bytes.
  /** Cancels the operation when it fires. */
  declare signal: AbortSignal | undefined;
  /** Of a shutdown: which direction; 'write' unless given. */
  declare how: ShutdownHow | undefined;
  /** Of a connect: the peer's literal address (the operation may itself be passed as the address). */
  declare host: string | undefined;
  /** Of a connect: the peer's port. */
  declare port: number | undefined;
  /** Of an open: the key that the new file is associated with. */
  declare key: number | undefined;
  /** Of an open: the permissions of a file that it creates. */
  declare mode: number | undefined;

  #slot: Slot | null = null;
  #place: Place | null = null;
  /** The opcode of its last start, and INTERNAL. */
  #state = abi.OP_POST;

  static {
    slotOf = (operation) => operation.#slot;
    placeOf = (operation, view, memory) => {
      const place = operation.#place;
      return place !== null && place.view === view && place.memory === memory ? place.offset : -1;
    };
    placedLength = (operation) => (operation.#place as Place).length;
    rememberPlace = (operation, view, memory, offset, length) => {
      const place = operation.#place;
      if (place === null) {
        operation.#place = { view, memory, offset, length };
        return;
      }
      place.view = view;
      place.memory = memory;
      place.offset = offset;
      place.length = length;
    };
    forgetPlace = (operation) => {
      operation.#place = null;
    };
    isOperation = (value): value is Operation => typeof value === 'object' && value !== null && #slot in value;
    isInternal = (operation) => (operation.#state & INTERNAL) !== 0;
    bind = (operation, slot, opcode) => {
      operation.#slot = slot;
      operation.#state = (operation.#state & INTERNAL) | opcode;
    };
    release = (operation) => {
      operation.#slot = null;
    };
    markInternal = (operation) => {
      operation.#state |= INTERNAL;
    };
  }

  /**
   * @param context - anything; kept as `context`
   * @param options - `id`: carried to the packet, an integer from 0 to 2^53-1
   * @throws ERR_OUT_OF_RANGE, ERR_INVALID_ARG_TYPE for a bad id
   */
  constructor(context?: C, options?: { id?: number | undefined }) {
    optionsObject(options, 'options');
    const id = options?.id;
    this.context = context as C;
    this.id = id === undefined ? 0 : safeInteger(id, 'options.id');
    this.position = undefined;
    this.offset = undefined;
    this.length = undefined;
    this.timeout = undefined;
  }

  /** True from the start until the packet is delivered, or the port closed. */
  get pending(): boolean {
    checkThis(this);
    const slot = this.#slot;
    if (slot === null || slot.engine.closed) return false;
    if (!slot.engine.shared) return true;
    slot.engine.refresh(); // another thread may have taken its packet
    return this.#slot !== null && !slot.engine.closed;
  }

  /** What it was last started as; null before the first start. */
  get kind(): OperationKind | null {
    checkThis(this);
    const kind = kindNames[this.#state & ~INTERNAL];
    return kind === undefined || kind === 'post' ? null : kind;
  }

  /**
   * Asks for this operation's end. Its packet still comes: ECANCELED, or the operation's own result if that was first. On a private port the
   * system is asked as it is of a start: by the port's next get or flush, by a get of this package that blocks or `port.blocking`, whichever
   * port's, and at the end of the job at the latest.
   *
   * @returns false if it had finished already, or was never started: nothing is done then
   */
  cancel(): boolean {
    checkThis(this);
    const slot = this.#slot;
    return slot?.engine.cancel(slot, abi.BY_CANCEL) ?? false;
  }
}

/**
 * An operation that is settled by whoever dequeues it, in place of being delivered: what promises and streams are made of. Its start
 * carries the INTERNAL flag.
 *
 * @internal
 */
export abstract class SettledOperation<C = unknown> extends Operation<C> {
  #referenced = true;

  constructor(context?: C, options?: { id?: number | undefined }) {
    super(context, options);
    markInternal(this);
  }

  /** Whether it keeps the process alive while it is pending. */
  get referenced(): boolean {
    return this.#referenced;
  }

  /** Changes that, also while it is pending. */
  setReferenced(on: boolean): void {
    if (this.#referenced === on) return;
    this.#referenced = on;
    const slot = slotOf(this);
    if (slot !== null) slot.engine.setReferenced(slot, on);
  }

  /** Called once for each start, with what a packet would have. What it throws is reported as an uncaught exception. */
  abstract settle(kind: OperationKind, bytes: number, error: CompletionError | null, result: unknown): void;
}

export {
  bind as bindOperation,
  forgetPlace,
  isInternal,
  isOperation,
  placedLength,
  placeOf,
  release as releaseOperation,
  rememberPlace,
  slotOf,
};

/** Throws ERR_OPERATION_PENDING. */
export function checkIdle(operation: Operation): void {
  let slot = slotOf(operation);
  if (slot?.engine.shared) {
    slot.engine.refresh(); // another thread may have taken its packet
    slot = slotOf(operation);
  }
  // The operations of a closed port can't be started again until the kernel has let go of their memory.
  if (slot !== null && !slot.engine.released) throw operationPending(slot.engine.closed);
}

/** The operation of a start: the one given, or a new one with the options given. */
export function operationFor<C>(given: Operation<C> | OperationOptions<C> | undefined): Operation<C> {
  if (given === undefined) return new Operation<C>();
  if (isOperation(given)) {
    checkIdle(given);
    return given as Operation<C>;
  }
  if (typeof given !== 'object' || given === null) throw wrongType('operation', 'an Operation or an options object', given);
  const options = given as OperationOptions<C> & Partial<Operation<C>>;
  const made = new Operation<C>(options.context as C, { id: options.id });
  made.position = options.position;
  made.offset = options.offset;
  made.length = options.length;
  made.timeout = options.timeout;
  const { signal, how, key, mode } = options;
  if (signal !== undefined) made.signal = signal;
  if (how !== undefined) made.how = how;
  if (key !== undefined) made.key = key;
  if (mode !== undefined) made.mode = mode;
  return made;
}

const unset: PropertyDescriptor = { value: undefined, writable: true, enumerable: true, configurable: true };
Object.defineProperties(Operation.prototype, { signal: unset, how: unset, host: unset, port: unset, key: unset, mode: unset });

// See slot.ts: fields that may hold large numbers are made to hold references.
const warm = new Operation();
warm.id = undefined as unknown as number;
warm.id = 0.5;
warm.position = 0.5;
warm.timeout = 0.5;
