// Handle: what FileHandle, TcpListener and TcpSocket have in common. Its state lives in an object of its own that scripts can't
// reach; a slot of a pending operation holds it, and through it the handle, so that a handle with work in flight isn't collected.

import * as abi from './abi.js';
import type { Engine } from './engine.js';
import { handleClosed, illegalConstructor, invalidThis, misuse, portClosed, wrongType } from './errors.js';
import { native } from './native.js';

export class HandleState {
  /** The handle itself: whoever holds the state holds the handle. */
  readonly facade: Handle;
  readonly index: number;
  readonly generation: number;
  readonly id: number;
  /** The port's engine, from the association on; it stays after the close. */
  engine: Engine | null = null;
  key: number;
  closed = false;
  /** A file opened for appending: its writes need no position. */
  append = false;
  /** 4 or 6 for a socket made here; 0: not known. */
  family = 0;

  constructor(facade: Handle, id: number, key: number) {
    this.facade = facade;
    this.id = id;
    this.index = id % abi.HANDLE_INDEX_SPAN;
    this.generation = Math.floor(id / abi.HANDLE_INDEX_SPAN);
    this.key = key;
  }
}

// Handles that are collected without having been closed: closed then, and said so, because a program that relies on this runs out
// of descriptors sooner or later.
let collected: FinalizationRegistry<number> | undefined;

function register(handle: Handle, id: number): void {
  collected ??= new FinalizationRegistry((lost: number) => {
    const code = native.closeHandle(lost % abi.HANDLE_INDEX_SPAN, Math.floor(lost / abi.HANDLE_INDEX_SPAN), false);
    if (code !== 0) return; // it had been closed natively, with its port's environment
    process.emitWarning(`A handle (id ${lost}) was garbage-collected without having been closed; call close() on each handle`, {
      type: 'CompletionPortWarning',
      code: 'ERR_HANDLE_COLLECTED',
    });
  });
  collected.register(handle, id, handle);
}

/** It may be collected without having been closed: it is closed, or belongs to a shared port. */
export function disown(handle: Handle): void {
  collected?.unregister(handle);
}

/** Only this package's modules have it: a script can't make a handle out of a number. */
export const making: unique symbol = Symbol('making a handle');

let stateOf: (handle: Handle) => HandleState;
let isHandle: (value: unknown) => value is Handle;

/** An open file or socket. It belongs to at most one port for its whole life, and is used through that port. */
export abstract class Handle {
  readonly #state: HandleState;

  static {
    stateOf = (handle) => {
      if (typeof handle !== 'object' || handle === null || !(#state in handle)) throw invalidThis('a handle', handle);
      return handle.#state;
    };
    isHandle = (value): value is Handle => typeof value === 'object' && value !== null && #state in value;
  }

  /** @internal */
  protected constructor(token: symbol, id: number, engine: Engine | null) {
    if (token !== making) throw illegalConstructor('use FileHandle.openSync, TcpListener.listenSync or TcpSocket.openSync');
    this.#state = new HandleState(this, id, 0);
    // A shared port's handle is the port's, and in use by other threads.
    if (engine === null || !engine.shared) register(this, id);
  }

  /** A number that no other handle of this process has, or will have: a safe integer. Packets carry it as `handleId`. */
  get id(): number {
    return stateOf(this).id;
  }

  get closed(): boolean {
    return stateOf(this).closed;
  }

  /** The key that it was associated with; undefined before. */
  get key(): number | undefined {
    return stateOf(this).engine === null ? undefined : stateOf(this).key;
  }

  /**
   * Asks for the end of all of this handle's operations. Each still has its packet.
   *
   * @returns how many were pending
   * @throws ERR_HANDLE_CLOSED, ERR_PORT_CLOSED
   */
  cancel(): number {
    const state = stateOf(this);
    if (state.closed) throw handleClosed();
    if (state.engine === null) return 0;
    if (state.engine.closed) throw portClosed();
    const count = state.engine.cancelHandle(state);
    if (count >= 0) return count;
    state.closed = true; // by another thread
    throw handleClosed();
  }

  /**
   * Closes the handle at once; the peer of a socket sees it. Pending operations end with ECANCELED `by: 'close'`, or their own
   * result if that was first; their packets are still delivered. Closing twice is harmless.
   */
  close(): void {
    closeHandle(stateOf(this), false);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

export { isHandle, stateOf };

export function closeHandle(state: HandleState, reset: boolean): void {
  if (state.closed) return;
  const engine = state.engine;
  // What was started before the close is begun before it.
  if (engine !== null) engine.ingest();
  state.closed = true;
  disown(state.facade);
  native.closeHandle(state.index, state.generation, reset);
  if (engine !== null) engine.poke();
}

/** The engine of a handle that an operation is to be started on. */
export function engineFor(state: HandleState): Engine {
  if (state.closed) throw handleClosed();
  const { engine } = state;
  if (engine === null) {
    throw misuse(Error, 'ERR_NOT_ASSOCIATED', 'the handle has no port yet: call port.associate(handle, key) first');
  }
  if (engine.closed) throw portClosed();
  return engine;
}

export function handleArgument(value: unknown): HandleState {
  if (!isHandle(value)) throw wrongType('handle', 'a FileHandle, TcpListener or TcpSocket', value);
  return stateOf(value);
}

// See slot.ts.
const warm = new HandleState(undefined as unknown as Handle, 0, undefined as unknown as number);
warm.key = 0.5;
new HandleState(undefined as unknown as Handle, 0.5, 0.5);
new HandleState(undefined as unknown as Handle, undefined as unknown as number, 0.5);
