/**
 * The inactivity limit of one socket. Setting it, clearing it and each transfer cost a store, not a timer: the one timer looks,
 * when it fires, what is due. A keep-alive server that sets and clears a limit with each request makes no timers for it.
 */
import { TIMER_MS_MAX } from './arguments.js';

export class Inactivity {
  readonly #expired: () => void;
  /** 0: no limit. */
  #limitMs = 0;
  #touchedAt = 0;
  #timer: NodeJS.Timeout | undefined;
  #timerDue = 0;

  /** `expired` is called once for each time that the limit passes without a touch. */
  constructor(expired: () => void) {
    this.#expired = expired;
  }

  /** Sets the limit in milliseconds, counted from now; 0 clears it. */
  set(ms: number): void {
    this.#limitMs = ms;
    this.touch();
    if (ms > 0 && this.#timerDue > this.#touchedAt + ms) {
      clearTimeout(this.#timer);
      this.#arm(ms);
    }
  }

  /** Something moved: the limit counts from now. */
  touch(): void {
    if (this.#limitMs > 0) {
      this.#touchedAt = performance.now();
      if (this.#timer === undefined) {
        this.#arm(this.#limitMs);
      }
    }
  }

  /** Ends it for good. */
  stop(): void {
    this.#limitMs = 0;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#timerDue = 0;
  }

  #arm(ms: number): void {
    const delay = Math.min(Math.max(1, Math.ceil(ms)), TIMER_MS_MAX);
    this.#timerDue = performance.now() + delay;
    this.#timer = setTimeout(fire, delay, this);
    this.#timer.unref();
  }

  /** The timer fired. */
  look(): void {
    this.#timer = undefined;
    this.#timerDue = 0;
    if (this.#limitMs === 0) {
      return;
    }
    const rest = this.#touchedAt + this.#limitMs - performance.now();
    if (rest > 0) {
      this.#arm(rest);
    } else {
      this.#expired();
    }
  }
}

function fire(inactivity: Inactivity): void {
  inactivity.look();
}
