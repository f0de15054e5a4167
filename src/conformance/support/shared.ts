// The suite on a shared port that one thread uses (`--shared`): the reasons why a case has nothing to say there.

import type { ConformanceCase } from '../types.js';

export const reasons = {
  threads: 'its ports are shared in every run',
  heap: 'a shared port reads into memory that every thread reaches, not into other buffers (BUF-02/shared-port)',
  inverted: 'an inverted event loop drives a private port; a shared one has a thread for that',
} as const;

/** The same cases, said to have nothing to do with `--shared`. */
export function notShared(reason: string, cases: readonly ConformanceCase[]): ConformanceCase[] {
  return cases.map((entry) => ({ ...entry, notShared: reason }));
}
