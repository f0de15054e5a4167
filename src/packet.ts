// Packets: what a get, an iterator or a dispatch delivers. One class for all kinds, so that code which handles packets stays
// monomorphic; its public type is a union that `kind` discriminates.

import type { CompletionError } from './errors.js';
import type { FileHandle } from './files.js';
import type { Operation, OperationKind } from './operation.js';
import type { TcpSocket } from './tcp.js';

/** What a packet is of: an operation's kind, or 'post'. */
export type PacketKind = OperationKind | 'post';

/** What packets of all kinds have. */
export interface PacketBase<C = unknown> {
  /** The key that the handle was associated with; of a post, the poster's. */
  readonly key: number;
  /** Bytes moved; of a post, the poster's number. With an error, what was moved before it. */
  readonly bytesTransferred: number;
  /** The very object that the start returned, or the poster passed. */
  readonly operation: Operation<C> | undefined;
  /** The operation's `id` at its start, or the poster's. */
  readonly operationId: number;
  /** The handle's id, also after its close; 0 for a post and a failed open. */
  readonly handleId: number;
}

interface Made<K extends PacketKind, R> {
  readonly kind: K;
  /** What the operation made. It is the receiver's to close. */
  readonly result: R;
  readonly error: null;
}

interface Failed<K extends PacketKind> {
  readonly kind: K;
  readonly result: undefined;
  readonly error: CompletionError;
}

interface Moved<K extends PacketKind> {
  readonly kind: K;
  readonly result: undefined;
  readonly error: CompletionError | null;
}

/** Kinds whose packet has no result. */
export type PlainKind = Exclude<OperationKind, 'open' | 'accept' | 'size'>;

/**
 * One dequeued completion. `kind` tells what it is of, and with `error === null` which `result` it has.
 *
 * @typeParam C - the type of `operation.context`
 */
export type Packet<C = unknown> = PacketBase<C> &
  (
    | Made<'open', FileHandle>
    | Failed<'open'>
    | Made<'accept', TcpSocket>
    | Failed<'accept'>
    | Made<'size', number>
    | Failed<'size'>
    | Moved<PlainKind>
    | (Moved<'post'> & { readonly error: null })
  );

/** The one class behind the union. */
export class CompletionPacket {
  readonly key: number;
  readonly kind: PacketKind;
  readonly bytesTransferred: number;
  readonly operation: Operation | undefined;
  readonly operationId: number;
  readonly handleId: number;
  readonly result: unknown;
  readonly error: CompletionError | null;

  constructor(
    key: number,
    kind: PacketKind,
    bytesTransferred: number,
    operation: Operation | undefined,
    operationId: number,
    handleId: number,
    result: unknown,
    error: CompletionError | null,
  ) {
    this.key = key;
    this.kind = kind;
    this.bytesTransferred = bytesTransferred;
    this.operation = operation;
    this.operationId = operationId;
    this.handleId = handleId;
    this.result = result;
    this.error = error;
  }
}

// See slot.ts: every field holds references from the start, so that a number that is boxed already is not boxed again.
const untyped = undefined as unknown as number;
new CompletionPacket(untyped, 'post', untyped, undefined, untyped, untyped, undefined, null);
new CompletionPacket(0.5, 'post', 0.5, undefined, 0.5, 0.5, 0.5, null);
