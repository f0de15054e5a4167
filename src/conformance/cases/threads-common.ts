// How threads of a crew end: what the cases of that have in common. Not a family: it exports no cases.

import { type Crew, clock } from '../support/threads.js';
import type { Context } from '../types.js';

export type How = 'terminate' | 'exit' | 'throw' | 'end';
export const hows: Record<How, How> = { terminate: 'terminate', exit: 'exit', throw: 'throw', end: 'end' };

/** Ends a thread of the crew, which has to wait for the cell `stop`; resolves when it has ended, to the milliseconds that it took. */
export async function endThread(t: Context, crew: Crew, index: number, how: How): Promise<number> {
  const worker = crew.worker(index);
  const gone = new Promise<void>((resolve) => worker.once('exit', () => resolve()));
  if (how === 'throw') worker.removeAllListeners('error').on('error', () => {});
  const begin = clock();
  if (how === 'terminate') void crew.terminate(index);
  else crew.set('stop', 1);
  await t.within(4000, gone, `the end of a thread (${how})`);
  return clock() - begin;
}

/** The part of a role that ends its thread as told. It returns where the thread is to be terminated. */
export const leave = `(w, how, port) => {
  if (how === 'terminate') return;
  w.until('stop', 1);
  if (how === 'exit') process.exit(3);
  if (how === 'throw') setImmediate(() => { throw new Error('of the case'); });
  if (how !== 'end') return;
  // Nothing keeps its event loop alive any more.
  port.unref();
  w.parentPort.close();
}`;
