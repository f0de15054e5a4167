// How long something took, without the time for which this thread could have run and other threads had the processors: a clause's limit is
// about the port. What a port sleeps or computes counts.

import * as fs from 'node:fs';

/** For the code of a child: `await import(…)` of it has the same function. */
export const starvedUrl = import.meta.url;

/**
 * Milliseconds for which this thread could have run and had no processor, so far: the second number of /proc/thread-self/schedstat
 * (Documentation/scheduler/sched-stats.rst). 0 where the system doesn't say; Wine shows another process's.
 */
function starved(): number {
  if (process.platform !== 'linux') return 0;
  try {
    return Number(fs.readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[1]) / 1e6 || 0;
  } catch {
    return 0;
  }
}

/** A clock of this thread, in milliseconds, that stands still while the thread could run and has no processor. */
export function ownTime(): number {
  // A thread that is kept off its processor between the two has waited for a part of the time only.
  for (let before = starved(); ; ) {
    const now = performance.now();
    const after = starved();
    if (after === before) return now - after;
    before = after;
  }
}
