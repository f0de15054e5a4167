// One place, two threads: how the cases of CONC-05 to CONC-09 see when a thread gives its place up. The port's concurrency is 1. A
// holder gets a packet, or nothing, and so takes the place; a taker waits; a second packet is posted. It must reach the taker when
// the holder has done what frees the place, and not before.

import type { Context, SharedPort, Way } from '../types.js';
import { type Crew, clock, median, type Scope, sharedPort, waiting } from './threads.js';

/** What the holder does with its place: sent as its source. It returns the time from which on the place is free, by `w.clock()`. */
export type Act = (w: Scope, port: SharedPort, argument: string) => number | Promise<number>;

export interface RelayOptions {
  /** How the holder takes its place. `null` and `empty`: by a get that returns nothing, after no time and after 5 ms. */
  readonly by?: Way | 'null' | 'empty' | 'null-many';
  readonly argument?: string;
  /** The holder calls `w.compute` first: the packet is posted when it does. */
  readonly computes?: boolean;
}

export interface Relay {
  /** Milliseconds from the moment when the place was free, or the packet posted, until the taker had it. */
  readonly delay: number;
  /** Whether the holder still said that it needs its place (`busy`) when the taker got the packet. */
  readonly early: boolean;
  /** Whether the holder slept in the kernel while it said so, or that isn't known. */
  readonly slept: boolean;
}

interface Hold {
  readonly token: SharedPort['token'];
  readonly by: NonNullable<RelayOptions['by']>;
  readonly act: string;
  readonly argument: string;
}

/** Threads 0 and 1 of the crew play it once, on a port of its own. */
export async function relay(t: Context, crew: Crew, act: Act, options: RelayOptions = {}): Promise<Relay> {
  const port = sharedPort(t, { concurrency: 1 });
  const { by = 'getSync', argument = '' } = options;
  crew.clear();
  const data: Hold = { token: port.token, by, act: act.toString(), argument };
  const holder = crew.run(
    0,
    async (w) => {
      const { by, act, argument } = w.data;
      const port = w.attach(w.data.token);
      if (by === 'null' || by === 'empty' || by === 'null-many') {
        const got = by === 'null-many' ? (port.getManySync(4, 0)[0] ?? null) : port.getSync(by === 'null' ? 0 : 5);
        if (got !== null) throw new Error('the holder got a packet');
        w.set('held', 1);
        return w.call(act, port, argument) as number | Promise<number>;
      }
      // In an asynchronous way the act is done in the job that received the packet.
      let freeAt: number | Promise<number> = 0;
      const ended = await w.consume(port, by, () => {
        w.set('held', 1);
        freeAt = w.call(act, port, argument) as number | Promise<number>;
        return true;
      });
      if (ended !== 'stopped') throw new Error('the port was closed before the holder had its packet');
      return freeAt;
    },
    data,
  );
  if (by !== 'null' && by !== 'empty' && by !== 'null-many') {
    await waiting(t, port, 1);
    port.post(1);
  }
  await crew.reached('held', 1, 'the holder has its place');
  const taker = crew.run(
    1,
    (w) => {
      const packet = w.attach(w.data.token).getSync(5000);
      const at = w.clock();
      const early = w.at('busy') !== 0;
      w.set('got', 1);
      return { key: packet?.key ?? -1, at, early };
    },
    { token: port.token },
  );
  await waiting(t, port, 1);
  // No packet waits until then, so nobody watches who sleeps before the holder counts for itself how often it does.
  if (options.computes) await crew.reached('busy', 1, 'the holder computes');
  port.post(2);
  const postedAt = clock();
  crew.set('go', 1);
  const taken = await t.within(6000, taker, 'the second thread gets a packet');
  t.equal(taken.key, 2, 'key of the packet that the second thread got (-1: none)');
  const freeAt = await t.within(6000, holder, 'what the first thread does');
  port.close();
  return { delay: taken.at - Math.max(freeAt, postedAt), early: taken.early, slept: crew.at('slept') !== 0 };
}

/**
 * The middle delay of several tries is below `limitMs`, and the packet didn't come while the holder needed its place: never where the holder
 * didn't sleep in the kernel meanwhile, and in most of the tries (see `mostly`).
 */
export async function relays(
  t: Context,
  crew: Crew,
  act: Act,
  limitMs: number,
  options: RelayOptions & { readonly tries?: number } = {},
): Promise<void> {
  const { tries = 5 } = options;
  const delays: number[] = [];
  let early = 0;
  let inexcusable = 0;
  for (let i = 0; i < tries; i++) {
    const result = await relay(t, crew, act, options);
    if (result.early) early++;
    // A place is freed by what the thread does, or by a sleep that was seen (CONC-06). This one did nothing, and did not sleep.
    if (result.early && !result.slept) inexcusable++;
    delays.push(result.delay);
  }
  t.equal(
    inexcusable,
    0,
    `tries of ${tries} in which the second thread got a packet while the first one computed with the only place`,
  );
  t.less(early, tries / 2, `tries of ${tries} in which the second thread got a packet while the first one had the only place`);
  const shown = delays.map((delay) => delay.toFixed(1)).join(', ');
  t.less(median(delays), limitMs, `milliseconds until the second thread was released (tries: ${shown})`);
}
