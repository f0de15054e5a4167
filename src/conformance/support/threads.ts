// Worker threads for the cases of shared ports. A crew is started once in a case, because a thread costs tens of milliseconds, and
// then given one role after the other: a function that is sent as its source, so it must use nothing but what it is given. All
// threads of a crew, and the case itself, share a board of counters; a role's failure fails the case.

import type { Worker } from 'node:worker_threads';
import type { Api, Context, CreateOptions, Packet, PortToken, SharedPort, Way } from '../types.js';

/** Monotonic milliseconds, the same clock in every thread (performance.now() begins anew in each). */
export function clock(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}

/** The named cells of a board; those behind them have numbers, from 0. */
const names = {
  arrived: 0,
  handled: 1,
  go: 2,
  inside: 3,
  most: 4,
  held: 5,
  got: 6,
  busy: 7,
  stop: 8,
  started: 9,
  failed: 10,
  resumed: 11,
  ready: 12,
  posted: 13,
  attached: 14,
  slept: 15,
} as const;
const firstNumbered = 16;
export type Cell = keyof typeof names | number;

function cellIndex(cell: Cell): number {
  return typeof cell === 'number' ? firstNumbered + cell : names[cell];
}

/** What a role is given. */
export interface Scope<D = unknown> {
  /** This thread's object of the crew's port. */
  readonly port: SharedPort;
  readonly api: Api;
  readonly backend: string;
  /** The thread's number in the crew. */
  readonly index: number;
  readonly data: D;
  readonly parentPort: NonNullable<typeof import('node:worker_threads').parentPort>;
  require(name: 'node:fs'): typeof import('node:fs');
  require(name: 'node:net'): typeof import('node:net');
  require(name: 'node:child_process'): typeof import('node:child_process');
  attach(token: PortToken): SharedPort;
  clock(): number;
  /** Computes for so long. */
  spin(ms: number): void;
  /** Calls what only computes. If the thread went to sleep in the kernel on the way after all, or that can't be known, `slept` says so. */
  awake(fn: () => void): void;
  /** Has the cell `busy` set until `go` is, and then for so long, computing (see `awake`). */
  compute(ms: number): void;
  /** Computes until the cell is at least `value`; throws after `ms` (5,000 unless told). */
  until(cell: Cell, value: number, ms?: number): void;
  /** The same asleep in the kernel, for a cell that is `set`: counting wakes nobody. False if time ran out. */
  sleepUntil(cell: Cell, value: number, ms: number): boolean;
  /** The same with turns of the event loop. */
  turnUntil(cell: Cell, value: number, ms?: number): Promise<void>;
  /** The cell's value. */
  at(cell: Cell): number;
  set(cell: Cell, value: number): void;
  /** Adds 1, or `n`, and returns the sum. */
  add(cell: Cell, n?: number): number;
  /** Makes the cell at least `value`. */
  raise(cell: Cell, value: number): void;
  /** A seeded source of numbers in [0, 1). */
  random(seed: number): () => number;
  /** The code of what `action` throws or rejects with, 'nothing' if it doesn't. */
  codeOf(action: () => unknown): string;
  codeOfAsync(action: () => Promise<unknown>): Promise<string>;
  /** Calls a function that was sent along as its source: `(w, ...args) => …`. */
  call(source: string, ...args: unknown[]): unknown;
  /**
   * Gives each packet to `handler`, in the very job that received it, until it returns true or the port closes. Up to 4 at a time
   * with getMany and getManySync. Returns what ended it.
   */
  consume(port: SharedPort, way: Way, handler: (packet: Packet) => boolean | undefined): Promise<'stopped' | 'closed'>;
}

export type Role<D, R> = (w: Scope<D>) => R | Promise<R>;

const program = `
const clock = () => Number(process.hrtime.bigint()) / 1e6;
(async () => {
  const module = await import(workerData.url);
  const api = module.default ?? module;
  const board = new Int32Array(workerData.board);
  const { names, firstNumbered } = workerData;
  const indexOf = (cell) => (typeof cell === 'number' ? firstNumbered + cell : names[cell]);
  const late = (cell, value, ms) => {
    throw new Error('cell ' + cell + ' is ' + board[indexOf(cell)] + ' in place of ' + value + ' after ' + ms + ' ms');
  };
  const scope = {
    api, clock, parentPort, require,
    backend: workerData.backend,
    index: workerData.index,
    port: undefined,
    attach: (token) => api.CompletionPort.attach(token),
    // What computes looks at the clock seldom: each time is a number on the heap, and who waits for a collection of those doesn't compute.
    spin(ms) {
      const end = performance.now() + ms;
      do for (let i = 0; i < 100; i++) Atomics.load(board, 0);
      while (performance.now() < end);
    },
    // The system counts how often a thread has left its processor by itself: it can't have been seen asleep where that hasn't changed.
    awake(fn) {
      const sleeps = () => {
        try {
          return /^voluntary_ctxt_switches:.*$/m.exec(require('node:fs').readFileSync('/proc/thread-self/status', 'utf8'))[0];
        } catch {
          return NaN;
        }
      };
      const before = sleeps();
      fn();
      if (sleeps() !== before) scope.set('slept', 1);
    },
    compute(ms) {
      scope.awake(() => {
        scope.set('busy', 1);
        scope.until('go', 1);
        scope.spin(ms);
        scope.set('busy', 0);
      });
    },
    until(cell, value, ms = 5000) {
      const index = indexOf(cell);
      const end = performance.now() + ms;
      for (let i = 1; Atomics.load(board, index) < value; i++)
        if (i % 1000 === 0 && performance.now() > end) late(cell, value, ms);
    },
    sleepUntil(cell, value, ms) {
      const end = performance.now() + ms;
      for (;;) {
        const now = scope.at(cell);
        if (now >= value) return true;
        const left = end - performance.now();
        if (left <= 0) return false;
        Atomics.wait(board, indexOf(cell), now, left);
      }
    },
    async turnUntil(cell, value, ms = 5000) {
      const end = performance.now() + ms;
      while (scope.at(cell) < value) {
        if (performance.now() > end) late(cell, value, ms);
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    },
    at: (cell) => Atomics.load(board, indexOf(cell)),
    set(cell, value) {
      Atomics.store(board, indexOf(cell), value);
      Atomics.notify(board, indexOf(cell));
    },
    // Without a notify: that takes a lock of the whole process, and who waits for it while its holder has no processor is seen asleep.
    add(cell, n = 1) {
      return Atomics.add(board, indexOf(cell), n) + n;
    },
    raise(cell, value) {
      for (let old = scope.at(cell); old < value; ) {
        const seen = Atomics.compareExchange(board, indexOf(cell), old, value);
        if (seen === old) break;
        old = seen;
      }
    },
    random(seed) {
      let state = (seed ^ 0x9e3779b9) >>> 0 || 1;
      return () => {
        state ^= state << 13;
        state ^= state >>> 17;
        state ^= state << 5;
        return (Math.imul(state >>> 0, 0x2545f491) >>> 0) / 4294967296;
      };
    },
    codeOf(action) {
      try {
        action();
      } catch (error) {
        return String(error?.code ?? error);
      }
      return 'nothing';
    },
    async codeOfAsync(action) {
      try {
        await action();
      } catch (error) {
        return String(error?.code ?? error);
      }
      return 'nothing';
    },
    async consume(port, way, handler) {
      try {
        switch (way) {
          case 'getSync':
            for (;;) {
              const packet = port.getSync();
              if (packet !== null && handler(packet) === true) return 'stopped';
            }
          case 'getManySync':
            for (;;) {
              let stop = false;
              for (const packet of port.getManySync(4)) if (handler(packet) === true) stop = true;
              if (stop) return 'stopped';
            }
          case 'get':
            for (;;) {
              const packet = await port.get();
              if (packet !== null && handler(packet) === true) return 'stopped';
            }
          case 'getMany':
            for (;;) {
              let stop = false;
              for (const packet of await port.getMany(4)) if (handler(packet) === true) stop = true;
              if (stop) return 'stopped';
            }
          case 'iterator':
            for await (const packet of port) if (handler(packet) === true) return 'stopped';
            return 'closed';
          default:
            return await new Promise((resolve) => {
              const consumer = port.dispatch((packet) => {
                if (handler(packet) !== true) return;
                consumer.stop();
                resolve('stopped');
              });
              port.closed.then(() => resolve('closed'));
            });
        }
      } catch (error) {
        if (error?.code === 'ERR_PORT_CLOSED') return 'closed';
        throw error;
      }
    },
  };
  parentPort.on('message', async ({ id, role, data }) => {
    const own = { ...scope, data };
    own.call = (source, ...args) => (0, eval)('(' + source + ')')(own, ...args);
    try {
      const value = await (0, eval)('(' + role + ')')(own);
      parentPort.postMessage({ id, value });
    } catch (error) {
      parentPort.postMessage({ id, error: String(error?.stack ?? error), ending: error?.code === 'ERR_PORT_CLOSED' && /being terminated/.test(error.message) });
    }
  });
  if (workerData.token !== null) scope.port = scope.attach(workerData.token);
  parentPort.postMessage({ id: 0 });
})();
`;

export interface CrewOptions {
  /** Numbered cells of the board; 64 unless told. */
  readonly cells?: number;
  /** Milliseconds for the start of all threads; 10,000 unless told. */
  readonly limitMs?: number;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

/**
 * A port that several threads may use; the case is `unable` where what is under test has none. Eight threads may run on it unless told:
 * no more than a case has, whatever machine it runs on.
 */
export function sharedPort(t: Context, options: CreateOptions = {}): SharedPort {
  if (typeof Reflect.get(t.api.CompletionPort, 'attach') !== 'function')
    t.unable('what is under test has no shared ports (no CompletionPort.attach)');
  try {
    return t.createPort({ shared: true, concurrency: 8, ...options }) as SharedPort;
  } catch (error) {
    if (error instanceof Error && Reflect.get(error, 'code') === 'ERR_NOT_SUPPORTED')
      t.unable(`what is under test has no shared ports here: ${error.message}`);
    throw error;
  }
}

/** What other threads attach to the port with. */
export function tokenOf(port: SharedPort): PortToken {
  return port.token;
}

/** The threads of a case. */
export class Crew {
  readonly workers: Worker[] = [];
  readonly board: Int32Array<SharedArrayBuffer>;
  readonly #t: Context;
  readonly #waiting = new Map<number, Waiting>();
  readonly #terminated = new Set<number>();
  #last = 0;

  private constructor(t: Context, cells: number) {
    this.#t = t;
    this.board = new Int32Array(new SharedArrayBuffer(4 * (firstNumbered + cells)));
  }

  /** Starts so many threads, each attached to `port` (none where it is null). */
  static async start(t: Context, port: SharedPort | null, count: number, options: CrewOptions = {}): Promise<Crew> {
    const crew = new Crew(t, options.cells ?? 64);
    t.doing(`starting ${count} threads`);
    await crew.enlist(port, count, options.limitMs);
    return crew;
  }

  /** More threads. Returns the number of the first. */
  async enlist(port: SharedPort | null, count: number, limitMs = 10_000): Promise<number> {
    const first = this.workers.length;
    const token: PortToken | null = port === null ? null : port.token;
    const started = Array.from({ length: count }, (_, i) => {
      const index = first + i;
      const worker = this.#t.worker(program, {
        url: this.#t.moduleUrl,
        backend: this.#t.backend,
        board: this.board.buffer,
        names,
        firstNumbered,
        index,
        token,
      });
      this.workers.push(worker);
      return new Promise<void>((resolve) => {
        worker.on('message', (message: { id: number; value?: unknown; error?: string; ending?: boolean }) => {
          if (message.id === 0) {
            resolve();
            return;
          }
          const waiting = this.#waiting.get(message.id);
          this.#waiting.delete(message.id);
          // The last call of a thread that is being terminated: it may meet a port that is gone with it.
          if (message.ending === true && this.#terminated.has(index)) return;
          if (message.error === undefined) waiting?.resolve(message.value);
          else waiting?.reject(new Error(`thread ${index}: ${message.error}`));
        });
      });
    });
    await this.#t.within(limitMs, Promise.all(started), `the start of ${count} threads`);
    return first;
  }

  /** Has a thread play a role; the promise is of what it returns, and never settles if the thread ends before. */
  run<D, R>(index: number, role: Role<D, R>, data: D): Promise<R> {
    const id = ++this.#last;
    const promise = new Promise<R>((resolve, reject) => {
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
    });
    this.worker(index).postMessage({ id, role: role.toString(), data });
    return promise;
  }

  /** The same role in all threads. */
  all<D, R>(role: Role<D, R>, data: D): Promise<R>[] {
    return this.workers.map((_, index) => this.run(index, role, data));
  }

  /** The same for the results of all. */
  everyone<D, R>(role: Role<D, R>, data: D, limitMs = 8000): Promise<R[]> {
    return this.#t.within(limitMs, Promise.all(this.all(role, data)), 'what all threads do');
  }

  worker(index: number): Worker {
    return this.#t.some(this.workers[index], `thread ${index}`);
  }

  /** The thread's end, from outside. What it was running never settles. */
  terminate(index: number): Promise<number> {
    this.#terminated.add(index);
    return this.worker(index).terminate();
  }

  /** Sends threads into a wait on `port` one after the other, so that the last of `order` waits on top of the stack. */
  async lineUp<D, R>(port: SharedPort, order: readonly number[], role: Role<D, R>, data: D): Promise<Map<number, Promise<R>>> {
    const jobs = new Map<number, Promise<R>>();
    for (const [place, index] of order.entries()) {
      jobs.set(index, this.run(index, role, data));
      await waiting(this.#t, port, place + 1);
    }
    return jobs;
  }

  at(cell: Cell): number {
    return Atomics.load(this.board, cellIndex(cell));
  }

  set(cell: Cell, value: number): void {
    Atomics.store(this.board, cellIndex(cell), value);
    Atomics.notify(this.board, cellIndex(cell));
  }

  /** Adds 1 and returns the sum. */
  add(cell: Cell): number {
    return Atomics.add(this.board, cellIndex(cell), 1) + 1;
  }

  /** Turns of the event loop until the cell is at least `value`. */
  async reached(cell: Cell, value: number, what: string, ms = 5000): Promise<void> {
    this.#t.doing(what);
    await this.#t.eventually(() => this.at(cell) >= value, what, ms);
  }

  clear(): void {
    this.board.fill(0);
  }
}

/** Turns of the event loop until exactly so many threads wait in a get on the port. */
export async function waiting(t: Context, port: SharedPort, count: number): Promise<void> {
  if (typeof port.stats().waiting !== 'number') {
    // Another's port need not count them: then the threads are given time for it.
    await t.sleep(60);
    return;
  }
  t.doing(`waiting until ${count} threads wait`);
  await t.eventually(() => port.stats().waiting === count, `${count} threads wait in a get`, 5000);
}

/**
 * How often the port has seen a thread asleep that held a place, and let another run for it; null of a port that doesn't count that. When
 * such a thread goes on, one more runs than may, until it or another comes for its next packet: CONC-06 has it so, and nothing else lets it
 * happen without `port.blocking`.
 */
export function sleepsNoticed(port: SharedPort): number | null {
  const { sleepsNoticed: count } = port.stats();
  return typeof count === 'number' ? count : null;
}

/**
 * Tries something that must hold, but for what the rule itself lets happen: a thread that stands still in the kernel frees its place, and
 * on a busy machine one that waits for its own garbage collector does; when it goes on, one more runs than may. So it must hold in more
 * than half of the tries, and in each that nothing excuses. An attempt returns null, or what was wrong; `excused`, asked behind one that went wrong,
 * whether a thread may have been seen asleep in it.
 */
export async function mostly(
  t: Context,
  tries: number,
  attempt: () => Promise<string | null>,
  excused: () => boolean,
): Promise<void> {
  const wrong: string[] = [];
  for (let i = 0; i < tries; i++) {
    const text = await attempt();
    if (text !== null && !excused()) t.fail(`although no thread slept: ${text}`);
    if (text !== null) wrong.push(text);
    if (i + 1 - wrong.length > tries / 2) return;
    if (wrong.length > tries / 2) t.fail(`in ${wrong.length} of ${i + 1} tries: ${wrong.join('; ')}`);
  }
}

/**
 * Runs `flood`, in which `total` packets are handled while threads count in `failed` those at whose start too many ran: none, if the port itself
 * saw no thread asleep. One that it saw is one too many when it goes on, and each packet that others take until it comes back for its next one
 * is met by too many: until it has had a processor again, which is the machine's. So then their number is only bounded, in the best of
 * three floods; with a broken limit it would be nearly every packet, in each.
 */
export async function floodWithin(
  t: Context,
  port: SharedPort,
  crew: Crew,
  total: number,
  what: string,
  flood: () => Promise<void>,
): Promise<void> {
  const bound = 2 + total / 50;
  const found: string[] = [];
  for (let i = 0; i < 3; i++) {
    const before = sleepsNoticed(port);
    crew.clear();
    await flood();
    for (let key = 0; key < total; key++) if (crew.at(key) !== 1) t.fail(`packet ${key} was handled ${crew.at(key)} times`);
    const failed = crew.at('failed');
    if (before !== null && sleepsNoticed(port) === before) t.equal(failed, 0, `${what}, although no thread slept`);
    if (failed < bound) return;
    found.push(`${failed}, ${crew.at('most')} threads at most`);
  }
  t.fail(`${what}, of ${total}: expected less than ${bound} in one of three floods, got ${found.join('; ')}`);
}

/** The middle one of several measurements: what a busy machine does to one or two of them doesn't count. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
