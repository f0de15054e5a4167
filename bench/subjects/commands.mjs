// The line protocol of the benchmark's own subjects: `ready` once, then an answer in JSON for each line of input.

import { createInterface } from 'node:readline';

/**
 * Answers each line of standard input, one after the other; the end of the input ends the process. `run SECONDS` is given to
 * `answer`; `check` has the subject look whether all that it moved is right, outside of what is measured.
 * @param {(word: string, number: number) => Promise<object> | object} answer
 * @param {() => Promise<void> | void} check throws if something isn't
 */
export function obeyCommands(answer, check = () => {}) {
  const lines = createInterface({ input: process.stdin });
  let last = Promise.resolve();
  lines.on('line', (line) => {
    const [word, number] = line.split(' ');
    last = last.then(async () => {
      if (word === 'check') {
        await check();
        console.log('{"right":true}');
      } else {
        console.log(JSON.stringify(await answer(word, Number(number))));
      }
    });
  });
  lines.on('close', () => last.then(() => process.exit(0)));
}

/** Percentiles of latencies in µs, whatever their number. */
export function percentiles(values) {
  const sorted = Float64Array.from(values).sort();
  const at = (fraction) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))] ?? null;
  return { p50: at(0.5), p99: at(0.99), p999: at(0.999) };
}
