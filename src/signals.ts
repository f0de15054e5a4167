// AbortSignals of operations: one listener a signal, however many operations wait on it. A record holds its operations' slots in a
// list linked through the slots' extras, so that joining and leaving allocates nothing once a slot has one.

import * as abi from './abi.js';
import { AbortSignalReason, EventTargetAdd, EventTargetRemove, WeakMapGet, WeakMapSet } from './primordials.js';
import type { Slot } from './slot.js';
import { extraOf } from './slot.js';

export class SignalRecord {
  readonly signal: AbortSignal;
  readonly listener: () => void;
  first: Slot | null = null;

  constructor(signal: AbortSignal) {
    this.signal = signal;
    this.listener = () => {
      // Cancelling delivers nothing here; but on a shared port it may be heard that other threads took packets, whose slots leave the list.
      const slots: Slot[] = [];
      for (let slot = this.first; slot !== null; slot = slot.extra?.signalNext ?? null) slots[slots.length] = slot;
      for (let i = 0; i < slots.length; i++) {
        const slot = slots[i] as Slot;
        if (slot.extra?.signal === this) slot.engine.cancel(slot, abi.BY_SIGNAL);
      }
    };
  }
}

const records = new WeakMap<AbortSignal, SignalRecord>();

// A signal may be a proxy, or have properties of its own: reading one and listening to one may run a script's code and throw, in the
// middle of a start or of an operation's end. Such a signal gives no reason or cancels nothing; the operation has its packet.

/** Why the signal was aborted. */
export function reasonOf(signal: AbortSignal): unknown {
  try {
    return AbortSignalReason(signal);
  } catch {
    return undefined;
  }
}

export function listen(signal: AbortSignal, listener: () => void): void {
  try {
    EventTargetAdd(signal, 'abort', listener);
  } catch {
    // see above
  }
}

export function unlisten(signal: AbortSignal, listener: () => void): void {
  try {
    EventTargetRemove(signal, 'abort', listener);
  } catch {
    // see above
  }
}

/** Makes the signal cancel the slot's operation. The caller has seen that it isn't aborted yet. */
export function joinSignal(signal: AbortSignal, slot: Slot): void {
  let record = WeakMapGet(records, signal);
  if (record === undefined) {
    record = new SignalRecord(signal);
    WeakMapSet(records, signal, record);
  }
  if (record.first === null) listen(signal, record.listener);
  const extra = extraOf(slot);
  extra.signal = record;
  extra.signalPrevious = null;
  extra.signalNext = record.first;
  if (record.first !== null) extraOf(record.first).signalPrevious = slot;
  record.first = slot;
}

/** Ends that, where there is a signal. The listener goes with the last operation. */
export function leaveSignal(slot: Slot): void {
  const { extra } = slot;
  if (extra === null || extra.signal === null) return;
  const { signal: record, signalPrevious, signalNext } = extra;
  extra.signal = null;
  extra.signalPrevious = null;
  extra.signalNext = null;
  if (signalPrevious === null) record.first = signalNext;
  else extraOf(signalPrevious).signalNext = signalNext;
  if (signalNext !== null) extraOf(signalNext).signalPrevious = signalPrevious;
  if (record.first === null) unlisten(record.signal, record.listener);
}
