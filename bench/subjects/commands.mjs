// The line protocol of the benchmark's own subjects: `ready` once, then an answer in JSON for each line of input.

import { createInterface } from 'node:readline';

/**
 * Answers each line of standard input, one after the other; the end of the input ends the process.
 * @param {(word: string, number: number) => Promise<object> | object} answer
 */
export function obeyCommands(answer) {
  const lines = createInterface({ input: process.stdin });
  let last = Promise.resolve();
  lines.on('line', (line) => {
    const [word, number] = line.split(' ');
    last = last.then(async () => console.log(JSON.stringify(await answer(word, Number(number)))));
  });
  lines.on('close', () => last.then(() => process.exit(0)));
}
