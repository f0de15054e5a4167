// All workloads with all their parameter sets, for this machine.

import type { Machine } from '../machine.js';
import { workloadNames } from '../names.js';
import type { Workload } from '../types.js';
import { programWorkloads } from './programs.js';
import { tcpWorkloads } from './tcp.js';

/** @param quick of every further backend one variant only, and one parameter set a workload */
export function workloadsFor(machine: Machine, quick: boolean): Workload[] {
  const all = [...tcpWorkloads(machine, quick), ...programWorkloads(machine, quick)];
  return workloadNames.flatMap((name) => all.filter((workload) => workload.name === name && (workload.quick || !quick)));
}
