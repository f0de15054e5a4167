// The other form of the event loop. What a clause says of async gets and dispatch holds in both: `eventLoop: 'plain'`, where libuv
// waits and watches the port, and 'inverted', where the port waits and watches libuv.

import type { ConformanceCase, Context, CreateOptions } from '../types.js';
import { reasons } from './shared.js';

/** The cases, and once more those of `clauses` (all unless told) with every port of theirs inverted; `-inverted` is added to their ids. */
export function alsoInverted(cases: readonly ConformanceCase[], clauses?: readonly string[]): ConformanceCase[] {
  const chosen = clauses === undefined ? cases : cases.filter((entry) => clauses.includes(entry.clause));
  const again = chosen.map(
    (entry): ConformanceCase => ({
      ...entry,
      id: entry.id === entry.clause ? `${entry.id}/inverted` : `${entry.id}-inverted`,
      title: `${entry.title}; eventLoop: 'inverted'`,
      notShared: reasons.inverted,
      run: (t) =>
        entry.run({ ...t, createPort: <C>(options?: CreateOptions) => t.createPort<C>({ eventLoop: 'inverted', ...options }) }),
    }),
  );
  return [...cases, ...again];
}

/** Why a case of the inverted event loop says nothing about this backend; null where it does, or isn't such a case. */
export function lacksInverted(testCase: ConformanceCase, backend: string): string | null {
  // By the reason for which such a case isn't for shared ports either.
  if (backend !== 'iocp' || testCase.notShared !== reasons.inverted) return null;
  return 'an inverted event loop waits in the port, which then watches libuv’s descriptor: on Windows libuv has none';
}

/** The forms that a port of this run may have. */
export function eventLoops(t: Context): readonly ('plain' | 'inverted')[] {
  return t.shared || t.backend === 'iocp' ? ['plain'] : ['plain', 'inverted'];
}
