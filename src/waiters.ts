// Async gets that wait, first come, first served. Each is answered exactly once: with packets, with nothing when its time runs out,
// or with an error.

import type { CompletionPacket } from './packet.js';
import { clearTimeout } from './primordials.js';

export class Waiter {
  /** 0: one packet (get); otherwise up to that many (getMany). */
  readonly max: number;
  /** By the native clock, in milliseconds; Infinity: none. */
  readonly deadline: number;
  readonly fulfil: (result: CompletionPacket | CompletionPacket[] | null) => void;
  readonly reject: (error: Error) => void;
  /** Whose wait it is, where one asks for several: an iterator. */
  readonly owner: object | null;
  timer: NodeJS.Timeout | null = null;
  /** Removes the listener of its AbortSignal. */
  forget: (() => void) | null = null;
  previous: Waiter | null = null;
  next: Waiter | null = null;
  queued = false;

  constructor(
    max: number,
    deadline: number,
    owner: object | null,
    fulfil: (result: CompletionPacket | CompletionPacket[] | null) => void,
    reject: (error: Error) => void,
  ) {
    this.max = max;
    this.deadline = deadline;
    this.owner = owner;
    this.fulfil = fulfil;
    this.reject = reject;
  }

  give(packet: CompletionPacket): void {
    this.#leave();
    this.fulfil(packet);
  }

  giveMany(packets: CompletionPacket[]): void {
    this.#leave();
    this.fulfil(packets);
  }

  /** Without a packet: an error, or null for "time ran out". */
  end(error: Error | null): void {
    this.#leave();
    if (error !== null) this.reject(error);
    else this.fulfil(this.max === 0 ? null : []);
  }

  #leave(): void {
    if (this.timer !== null) clearTimeout(this.timer);
    this.timer = null;
    this.forget?.();
    this.forget = null;
  }
}

export class WaiterQueue {
  first: Waiter | null = null;
  #last: Waiter | null = null;

  push(waiter: Waiter): void {
    waiter.queued = true;
    waiter.previous = this.#last;
    if (this.#last === null) this.first = waiter;
    else this.#last.next = waiter;
    this.#last = waiter;
  }

  /** False if it wasn't waiting any more. */
  remove(waiter: Waiter): boolean {
    if (!waiter.queued) return false;
    const { previous, next } = waiter;
    if (previous === null) this.first = next;
    else previous.next = next;
    if (next === null) this.#last = previous;
    else next.previous = previous;
    waiter.previous = null;
    waiter.next = null;
    waiter.queued = false;
    return true;
  }
}
