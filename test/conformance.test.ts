// The whole suite on this machine's backend, as `completion-port conformance` runs it, each case as a test of its own; and the
// list of clauses against the cases: no clause without a case that isn't known to lack one. The counts inside cases are a tenth
// here: `npm test` runs the command at scale 1 as a step of its own, whose report is the one that is kept.

import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { cases, clauses, runSuite, type SuiteReport } from 'completion-port/conformance';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../', import.meta.url));
/** What the run may take on a machine that does other things besides; at scale 1 and alone it takes less than 6 minutes. */
const runLimitMs = 15 * 60_000;

describe('the list of clauses', () => {
  const pending = JSON.parse(fs.readFileSync(path.join(root, 'src/conformance/pending.json'), 'utf8')) as string[];
  const covered = new Set(cases.map((entry) => entry.clause));

  test('every clause has a case or stands in pending.json, and not both', () => {
    const problems = clauses.flatMap(({ id }) => {
      if (covered.has(id) && pending.includes(id)) return [`${id} has a case and stands in pending.json`];
      if (!covered.has(id) && !pending.includes(id)) return [`${id} has neither a case nor an entry in pending.json`];
      return [];
    });
    expect(problems).toEqual([]);
  });

  test('pending.json and the cases name known clauses only', () => {
    const known = new Set(clauses.map((clause) => clause.id));
    expect(known.size).toBe(clauses.length);
    expect([...pending, ...covered].filter((id) => !known.has(id))).toEqual([]);
  });

  test('case ids are unique and begin with their clause', () => {
    const ids = cases.map((entry) => entry.id);
    expect(ids.filter((id, index) => ids.indexOf(id) !== index)).toEqual([]);
    expect(cases.filter(({ id, clause }) => id !== clause && !id.startsWith(`${clause}/`)).map((entry) => entry.id)).toEqual([]);
  });

  test('a case id needs no quotes in a shell', () => {
    expect(cases.filter(({ id }) => !/^[A-Z]+-\d\d(\/[\w.-]+)?$/.test(id)).map((entry) => entry.id)).toEqual([]);
  });

  test('each case says what the reference says', () => {
    expect(cases.filter(({ title, reference }) => title.length < 10 || reference.length < 20).map((entry) => entry.id)).toEqual(
      [],
    );
  });
});

describe('conformance', () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'completion-port-test-'));
  let report: SuiteReport | null = null;
  let output = '';

  beforeAll(async () => {
    const file = path.join(folder, 'report.json');
    await new Promise<void>((resolve, reject) => {
      const child = execFile(
        process.execPath,
        [path.join(root, 'dist/cli/main.js'), 'conformance', '--scale', '0.1', '--json', file],
        { cwd: root, timeout: runLimitMs - 10_000, killSignal: 'SIGTERM', maxBuffer: 2 ** 26 },
        (error, stdout, stderr) => {
          output = `${stdout}${stderr}`;
          // 1 says that a case failed: the tests below tell which.
          if (error !== null && child.exitCode !== 1)
            reject(new Error(`the command ended with ${child.exitCode ?? child.signalCode}:\n${output.slice(-4000)}`));
          else resolve();
        },
      );
    });
    report = JSON.parse(fs.readFileSync(file, 'utf8')) as SuiteReport;
  }, runLimitMs);

  afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

  test.for(cases.map((entry) => ({ id: entry.id, title: entry.title })))('$id $title', ({ id }, context) => {
    const result = report?.cases.find((entry) => entry.id === id);
    if (result === undefined) throw new Error(`the report has no entry for ${id}; the command said:\n${output.slice(-2000)}`);
    if (result.verdict === 'unable' && process.env.CI !== 'true') context.skip(`unable: ${result.reason}`);
    expect(result.verdict, `${result.error ?? result.reason} (seed ${result.failingSeed})`).toMatch(/^(pass|gated|n\/a)$/);
  });

  test('at least 150 cases pass on io_uring, none of them gated', () => {
    expect(report?.backend.name).toBe('io_uring');
    expect(report?.totals.pass).toBeGreaterThanOrEqual(150);
    expect(report?.totals.gated).toBe(0);
  });
});

test('a kernel whose hint of task work stays behind keeps no event loop from its packets', { timeout: 240_000 }, async () => {
  const env = { COMPLETION_PORT_BUILD: 'test', COMPLETION_PORT_TEST_LATE_TASKRUN: '1' };
  const report = await runSuite({ filter: /^(DISP-0\d|GET-0[1-7])\/?/, scale: 0.1, env });
  expect(report.cases.length).toBeGreaterThan(50);
  expect(report.cases.filter((entry) => entry.verdict !== 'pass')).toEqual([]);
});
