// Makes the cases of one clause that differ in a kind of handle, a direction or a way of getting: one case for each, so
// that a report says which of them fails.

import type { ConformanceCase, Context, Way } from './types.js';

type Base = Omit<ConformanceCase, 'id' | 'run' | 'title' | 'notShared'> & {
  /** Of all of them, or by name where only some say nothing about a shared port. */
  readonly notShared?: string | Readonly<Record<string, string>>;
};

/**
 * A case `CLAUSE/name` for each entry of `list`. `title` is the rule; the name is added to it in
 * brackets. Spaces of a name are hyphens in the id.
 *
 * ```ts
 * ...variants({ clause: 'CANCEL-01', title: '…', reference: '…' }, { recv: startRecv, accept: startAccept }, (t, start) => { … }),
 * ```
 */
export function variants<V>(
  base: Base & { readonly title: string },
  list: Readonly<Record<string, V>>,
  run: (context: Context, value: V, name: string) => Promise<void> | void,
): ConformanceCase[] {
  const { notShared, ...rest } = base;
  return Object.entries(list).map(([name, value]) => {
    const reason = typeof notShared === 'string' ? notShared : notShared?.[name];
    return {
      ...rest,
      id: `${base.clause}/${name.replaceAll(' ', '-')}`,
      title: `${base.title} (${name})`,
      ...(reason === undefined ? {} : { notShared: reason }),
      run: (context: Context) => run(context, value, name),
    };
  });
}

export const ways: readonly Way[] = ['getSync', 'getManySync', 'get', 'getMany', 'iterator', 'dispatch'];
export const waysSync: readonly Way[] = ['getSync', 'getManySync'];
export const waysAsync: readonly Way[] = ['get', 'getMany', 'iterator', 'dispatch'];

/** A case `CLAUSE/way` for each way of getting (all six unless told); use the way with `t.take(port, n, { way })`. */
export function forEachWay(
  base: Base & { readonly title: string },
  run: (context: Context, way: Way) => Promise<void> | void,
  list: readonly Way[] = ways,
): ConformanceCase[] {
  return variants(base, Object.fromEntries(list.map((way) => [way, way])), (context, way) => run(context, way));
}
