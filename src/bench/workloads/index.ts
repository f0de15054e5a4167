// All workloads with all their parameter sets, for this machine.

import type { Machine } from '../machine.js';
import { workloadNames } from '../names.js';
import type { Scope, Workload } from '../types.js';
import { programWorkloads } from './programs.js';
import { tcpWorkloads } from './tcp.js';

/** Of every further backend a whole run has all variants, the others one. */
export function workloadsFor(machine: Machine, scope: Scope): Workload[] {
  const few = scope !== 'whole';
  const all = [...tcpWorkloads(machine, few), ...programWorkloads(machine, few)];
  const wanted = ({ quick, short = quick }: Workload): boolean => scope === 'whole' || (scope === 'short' ? short : quick);
  return workloadNames.flatMap((name) => all.filter((workload) => workload.name === name && wanted(workload)));
}
