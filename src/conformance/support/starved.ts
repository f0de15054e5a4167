// How long something took, without what the machine took away meanwhile: a clause's limit is about the port.

import * as fs from 'node:fs';

/** For the code of a child: `await import(…)` of it has the same functions. */
export const starvedUrl = import.meta.url;

/** Milliseconds for which this thread could have run and had no processor, so far; 0 where the system doesn't say. */
export function starved(): number {
  try {
    return Number(fs.readFileSync('/proc/thread-self/schedstat', 'utf8').split(' ')[1]) / 1e6;
  } catch {
    return 0;
  }
}

/** A clock of this thread, in milliseconds, that stands still while the thread could run and has no processor. */
export function ownTime(): number {
  return performance.now() - starved();
}
