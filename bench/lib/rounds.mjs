// Rounds: every subject of a workload in turn, short, again and again, and ratios taken round by round. The same binary
// against itself differs by up to 45 % from one second to the next on a shared machine; neighbours in time differ less,
// and the median over the rounds forgets the burst that hit one of them.

import { cpuNs } from './processes.mjs';

/** Less CPU time than this in a round says nothing: the kernel's figure is up to 4 ms old. */
const MIN_CPU_NS = 400e6;
const MIN_CPU_NS_QUICK = 120e6;

/** The value at `fraction` of a sorted list, between two values where it falls between them. */
function quantile(sorted, fraction) {
  const at = (sorted.length - 1) * fraction;
  const low = Math.floor(at);
  const high = Math.ceil(at);
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low);
}

/** Median and quartiles. */
export function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return { low: quantile(sorted, 0.25), median: quantile(sorted, 0.5), high: quantile(sorted, 0.75) };
}

/** One measurement: runs the subject until it has used enough CPU time; resolves with the ns an operation. */
async function measure(subject, quick) {
  const enough = quick ? MIN_CPU_NS_QUICK : MIN_CPU_NS;
  let spent = 0;
  let operations = 0;
  let answer;
  while (spent < enough) {
    await subject.prepare?.();
    const before = cpuNs(subject.pid);
    answer = await subject.run(quick ? 0.2 : 0.5);
    spent += cpuNs(subject.pid) - before;
    operations += answer.operations;
    if (answer.operations === 0) throw new Error(`${subject.name} completed no operation`);
  }
  return { nsPerOperation: spent / operations, answer };
}

/**
 * Measures subjects in interleaved rounds.
 * @param {{name: string, pid: number, prepare?: () => Promise<void>, run: (seconds: number) => Promise<{operations: number}>}[]} subjects
 * @returns per subject its ns an operation, round by round, and its last answer
 */
export async function interleave(subjects, { rounds, quick, progress }) {
  const results = new Map(subjects.map((subject) => [subject.name, { ns: [], last: null }]));
  for (const subject of subjects) {
    progress(`${subject.name}: warming up`);
    await subject.prepare?.();
    await subject.run(quick ? 0.3 : 1); // compiled, caches warm, not counted
  }
  for (let round = 0; round < rounds; round++) {
    // The start moves on each round, so that none always follows the same neighbour's heat or idleness.
    for (let index = 0; index < subjects.length; index++) {
      const subject = subjects[(index + round) % subjects.length];
      progress(`round ${round + 1} of ${rounds}: ${subject.name}`);
      const { nsPerOperation, answer } = await measure(subject, quick);
      const result = results.get(subject.name);
      result.ns.push(nsPerOperation);
      result.last = answer;
    }
  }
  return results;
}

/** Ratios of two subjects, round by round. */
export function ratios(results, subject, against) {
  const ours = results.get(subject).ns;
  const theirs = results.get(against).ns;
  return summary(ours.map((ns, round) => ns / theirs[round]));
}
