// Rounds: every subject of a workload in turn, short, again and again, and ratios taken round by round. The same binary
// against itself differs by up to 45 % from one second to the next on a shared machine; neighbours in time differ less,
// and the median over the rounds forgets the burst that hit one of them.

import { cpuNs } from './processes.js';
import type { Answer, Running, Spread } from './types.js';

/** Less CPU time than this in a round says nothing: the kernel's figure is up to 4 ms old. */
const cpuNsMin = 400e6;
/** A subject that waits most of the time gets no more than this many runs a round. */
const runsMax = 10;
const runSeconds = 0.5;
const warmUpSeconds = 1;
/** The warm-up of `--quick`, in measurements. */
export const quickWarmUps = 2;

/** A ratio's quartiles may lie this far from its median; beyond that the median means nothing. */
export const spreadMax = 0.15;

/** A client that used this much of its wall-clock time was busy all the time; a subject below had time left. */
const busyFraction = 0.9;

export interface Quartiles {
  readonly low: number;
  readonly median: number;
  readonly high: number;
}

/** The value at `fraction` of a sorted list, between two values where it falls between them. */
function quantile(sorted: readonly number[], fraction: number): number {
  const at = (sorted.length - 1) * fraction;
  const low = sorted[Math.floor(at)] ?? Number.NaN;
  const high = sorted[Math.ceil(at)] ?? Number.NaN;
  return low + (high - low) * (at - Math.floor(at));
}

const ascending = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b);

/** Median and quartiles. */
export function summary(values: readonly number[]): Quartiles {
  const sorted = ascending(values);
  return { low: quantile(sorted, 0.25), median: quantile(sorted, 0.5), high: quantile(sorted, 0.75) };
}

export function spread(values: readonly number[]): Spread {
  const sorted = ascending(values);
  return { min: quantile(sorted, 0), median: quantile(sorted, 0.5), max: quantile(sorted, 1) };
}

/** Ratios of two subjects' figures, round by round; the shorter list says how many rounds there are. */
export function ratiosOf(ours: readonly number[], theirs: readonly number[]): number[] {
  return ours.slice(0, theirs.length).map((value, round) => value / (theirs[round] as number));
}

/** A ratio, or why there is none. */
export function judge(ratios: readonly number[]): { cpu: Spread; reason: null } | { cpu: null; reason: string } {
  if (ratios.length === 0) return { cpu: null, reason: 'no round has measured both' };
  const { low, median, high } = summary(ratios);
  if (!Number.isFinite(median) || median <= 0) return { cpu: null, reason: 'too little CPU time to divide by' };
  const off = Math.max(median - low, high - median) / median;
  if (off > spreadMax) {
    const percent = Math.round(off * 100);
    return {
      cpu: null,
      reason: `its quartiles (${low.toFixed(2)} to ${high.toFixed(2)}) lie up to ${percent} % from the median (${median.toFixed(2)}); more than ${spreadMax * 100} % means nothing`,
    };
  }
  return { cpu: spread(ratios), reason: null };
}

export interface Measured {
  readonly ns: number[];
  readonly rate: number[];
  operations: number;
  /** Rounds in which the client was busy and the subject wasn't. */
  clientLimited: number;
  last: Answer | null;
  /** Bytes a connection, where a run tells: of the process, of the kernel. */
  readonly memory: number[];
  readonly kernelMemory: number[];
}

export interface Timing {
  /** Null: short ones, each one run of this length. */
  readonly quickSeconds: number | null;
  /** A run has its own length. */
  readonly single?: boolean;
}

/** One measurement: runs the subject until it has used enough CPU time. */
async function measure(name: string, subject: Running, timing: Timing, measured: Measured): Promise<void> {
  let spent = 0;
  let seconds = 0;
  let clientSeconds = 0;
  let operations = 0;
  for (let run = 0; run < runsMax; run++) {
    await subject.prepare?.();
    const before = subject.pid === null ? 0 : cpuNs(subject.pid);
    const start = performance.now();
    const answer = await subject.run(timing.quickSeconds ?? runSeconds);
    if (answer.operations === 0) throw new Error(`${name} completed no operation`);
    seconds += answer.seconds ?? (performance.now() - start) / 1000;
    spent += answer.cpuNs ?? (subject.pid === null ? 0 : cpuNs(subject.pid) - before);
    operations += answer.operations;
    clientSeconds += answer.clientCpuSeconds ?? 0;
    measured.last = answer;
    if (typeof answer.bytesPerConnection === 'number') measured.memory.push(answer.bytesPerConnection);
    if (typeof answer.kernelBytesPerConnection === 'number') measured.kernelMemory.push(answer.kernelBytesPerConnection);
    if (timing.quickSeconds !== null || timing.single === true || spent >= cpuNsMin) break;
  }
  measured.ns.push(spent / operations);
  measured.rate.push(operations / seconds);
  measured.operations += operations;
  if (clientSeconds > busyFraction * seconds && spent / 1e9 < busyFraction * seconds) measured.clientLimited++;
}

export interface Entry {
  readonly name: string;
  readonly running: Running;
}

export interface Watch {
  /** Is told of each measurement before it begins; throws to end them all. */
  step(text: string): void;
  /** A subject that failed takes part in no more rounds. */
  failed(name: string, error: Error): void;
}

/**
 * Measures subjects in interleaved rounds. `results` is filled as the rounds go, so that what is done is there when they are
 * ended early.
 */
export async function interleave(
  entries: readonly Entry[],
  rounds: number,
  timing: Timing,
  results: Map<string, Measured>,
  watch: Watch,
): Promise<void> {
  const out = new Set<string>();
  const attempt = async (name: string, text: string, work: () => Promise<void>): Promise<void> => {
    if (out.has(name)) return;
    watch.step(`${name}: ${text}`);
    try {
      await work();
    } catch (error) {
      out.add(name);
      watch.failed(name, error as Error);
    }
  };
  for (const { name } of entries)
    results.set(name, { ns: [], rate: [], operations: 0, clientLimited: 0, last: null, memory: [], kernelMemory: [] });
  if (timing.single !== true) {
    for (const { name, running } of entries) {
      await attempt(name, 'warming up', async () => {
        await running.prepare?.();
        // Compiled, caches warm, not counted.
        await running.run(timing.quickSeconds === null ? warmUpSeconds : timing.quickSeconds * quickWarmUps);
      });
    }
  }
  for (let round = 0; round < rounds; round++) {
    // The start moves on each round, so that none always follows the same neighbour's heat or idleness.
    for (let index = 0; index < entries.length; index++) {
      const { name, running } = entries[(index + round) % entries.length] as Entry;
      const measured = results.get(name) as Measured;
      await attempt(name, `round ${round + 1} of ${rounds}`, () => measure(name, running, timing, measured));
    }
  }
  for (const { name, running } of entries) {
    if (running.check !== undefined) await attempt(name, 'checking', async () => await running.check?.());
  }
}
