// A suite that a wrong port could satisfy is wrong. Each mutant breaks one thing about the real port and must fail each of the
// cases named with it, at three seeds; the wrapper without a mutation must pass the whole suite. No case knows of mutants.

import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { cases, type RunOptions, runSuite } from 'completion-port/conformance';
import { describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = new URL('./mutants/', import.meta.url);
const seeds = [1, 2, 3];
interface Mutant {
  readonly name: string;
  readonly about: string;
  readonly cases: readonly string[];
  readonly options: RunOptions;
}

const wrapped: Mutant[] = [];
for (const file of fs.readdirSync(folder).filter((entry) => !['wrap.mjs', 'unmutated.mjs'].includes(entry))) {
  const source = new URL(file, folder);
  // Read, not imported: a mutant must not be let into this process.
  const match = /export const mutant = (\{.*?\});/s.exec(fs.readFileSync(source, 'utf8'));
  if (match?.[1] === undefined) throw new Error(`${file} doesn't say what it breaks`);
  const { about, cases: named } = new Function(`return ${match[1]}`)() as Pick<Mutant, 'about' | 'cases'>;
  wrapped.push({ name: file.replace(/\.mjs$/, ''), about, cases: named, options: { adapter: fileURLToPath(source) } });
}

/** Compiled into the test build only (`COMPLETION_PORT_BUILD=test`) and chosen by COMPLETION_PORT_MUTANT. */
const native: Mutant[] = (
  [
    ['lost-packet', 'drops each 1,000th packet', ['EX-04/getManySync']],
    ['double-cancel', 'reports a cancelled operation twice', ['CANCEL-01/recv']],
    ['key-32bit', 'keeps 32 bits of the key of a post', ['POST-01/getSync']],
    ['lifo-queue', 'reverses the packets of a batch', ['EX-04/getManySync']],
    ['early-close', 'says that a port is closed before the kernel let go', ['CLOSE-09']],
    ['no-fin', 'closes a handle without cancel and shutdown', ['CLOSE-07/recv-pending']],
    ['wakes-all', 'wakes every waiting thread for each packet', ['CONC-01/one-leaves']],
    ['fifo-waiters', 'releases the thread that has waited longest', ['CONC-01/getSync', 'CONC-01/one-thread']],
    [
      'gives-away',
      'gives a thread’s place to another before the thread itself looks for the next packet',
      ['CONC-04/getSync', 'CONC-08/next-get'],
    ],
    ['forgets-place', 'keeps the place of a thread that detaches or ends', ['CONC-07/detach', 'CONC-07/exit']],
    [
      'counts-blocked',
      'counts a thread that blocks, declared or not',
      ['CONC-05/computing', 'CONC-06/futex', 'CONC-06/event-loop'],
    ],
    ['missed-post', 'misses a post between a waiter’s last look and its sleep', ['POST-03/no-miss-blocking']],
    ['null-does-not-count', 'frees the place of a thread whose get returned nothing', ['CONC-08/null', 'CONC-08/next-get']],
    ['loses-handed', 'drops what was handed to a thread that is terminated before it saw it', ['THREAD-05/waiting']],
    ['closes-with-creator', 'closes the port with the thread that created it', ['THREAD-08/terminate', 'THREAD-08/detach']],
    ['ignores-limit', 'lets any number of threads run', ['CONC-02/getSync', 'CONC-03/2', 'CONC-03/reaches-2']],
    ['loops-first', 'wakes event loops before it releases blocked threads', ['CONC-01/blocked-first']],
    ['cancels-all-of-thread', 'cancels all that a thread has started when it ends', ['THREAD-04/terminate']],
    ['job-never-ends', 'keeps the place of an event loop whose job has ended', ['CONC-09/get', 'CONC-09/dispatch']],
    ['any-secret', 'attaches with any secret', ['THREAD-07/secret']],
    [
      'forgets-other-port',
      'keeps the place of a thread that gets from another port',
      ['CONC-07/get-from-a-shared-port', 'CONC-07/get-from-a-private-port', 'CONC-07/async-get-from-another-port'],
    ],
    ['forgets-resumed', 'doesn’t count a thread again that was asleep and goes on', ['CONC-06/resumes']],
    ['keeps-claims', 'keeps a packet for an event loop that was woken and doesn’t come', ['DISP-05/busy-loop']],
    ['late-submit', 'leaves a start to the next call that wakes the driver', ['FLUSH-01/shared-in-a-job']],
    ['dozes-on', 'has no end to the driver’s doze', ['THREAD-02/in-a-crowd-getSync', 'THREAD-02/in-a-crowd-dispatch']],
    ['own-memory-stays', 'doesn’t cancel what uses the memory of a thread that ends', ['THREAD-04/terminate']],
    ['slot-stays', 'keeps the slot of an operation whose packet another thread took', ['THREAD-10', 'THREAD-10/no-turn']],
  ] as const
).map(([name, about, named]) => ({
  name,
  about,
  cases: named,
  options: { env: { COMPLETION_PORT_BUILD: 'test', COMPLETION_PORT_MUTANT: name } },
}));

const exactly = (ids: readonly string[]): RegExp => new RegExp(`^(${ids.join('|')})$`);

describe.each([
  ['that wrap the port', wrapped, 45],
  ['in native code', native, 27],
] as const)('mutants %s', (_, mutants, least) => {
  test(`there are at least ${least}`, () => {
    expect(mutants.length).toBeGreaterThanOrEqual(least);
  });

  // Two at a time (vitest.config.ts): most of it is waiting for what a mutant doesn't bring. What they must fail, the port itself passes in a test
  // of its own.
  test.concurrent.each(mutants)('$name ($about) fails $cases at 3 of 3 seeds', { timeout: 300_000 }, async (mutant) => {
    const { cases: named, options } = mutant;
    expect(cases.filter((entry) => named.includes(entry.id)).map((entry) => entry.id)).toEqual([...named].sort(byOrder));
    for (const seed of seeds) {
      const report = await runSuite({ ...options, filter: exactly(named), seed });
      expect(report.cases.map(({ id, verdict }) => `${id} ${verdict}`)).toEqual(report.cases.map(({ id }) => `${id} fail`));
    }
  });
});

const order = new Map(cases.map((entry, index) => [entry.id, index]));
function byOrder(a: string, b: string): number {
  return (order.get(a) ?? -1) - (order.get(b) ?? -1);
}

test('what the mutants must fail, the port itself passes, and so does the test build without a mutant', {
  timeout: 300_000,
}, async () => {
  const named = [...new Set([...wrapped, ...native].flatMap((mutant) => mutant.cases))];
  const builds: Record<string, string>[] = [{}, { COMPLETION_PORT_BUILD: 'test' }];
  for (const env of builds) {
    const report = await runSuite({ filter: exactly(named), seed: 1, env });
    expect(report.cases.filter((entry) => entry.verdict !== 'pass')).toEqual([]);
  }
});

test('the wrapper without a mutation passes the whole suite', { timeout: 900_000 }, async () => {
  // Through the command: that is how others run their own ports.
  const args = [
    'dist/cli/main.js',
    'conformance',
    '--adapter',
    fileURLToPath(new URL('unmutated.mjs', folder)),
    '--scale',
    '0.1',
  ];
  const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: root, maxBuffer: 2 ** 26 }).catch(
    (failed: { stdout: string }) => failed,
  );
  // The cases themselves are the message: what CI shows of a failure is its first line.
  const others = stdout.split('\n').filter((line) => /^(fail|gated|unable)/.test(line));
  expect(others, others.join('; ')).toEqual([]);
  expect(stdout).toMatch(/, 0 failed, 0 gated/);
});

test('docs/MUTANTS.md has each mutant with its cases, and nothing else', () => {
  const rows = fs
    .readFileSync(`${root}docs/MUTANTS.md`, 'utf8')
    .split('\n')
    .filter((line) => /^\| `/.test(line));
  const row = ({ name, about, cases: named }: Mutant): string => `| \`${name}\` | ${about} | ${named.join(', ')} |`;
  expect(rows).toEqual([...wrapped, ...native].map(row));
});
