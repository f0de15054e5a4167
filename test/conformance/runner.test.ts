// The runner survives its cases: whatever one does, its verdict says so, the others run, and nothing is left behind.
// Also: repeats, seeds, gates and the judgement over several runs.

import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type CaseReport, isGood, RefusedError, type RunOptions, runSuite, type SuiteReport } from 'completion-port/conformance';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';

const fixture = (name: string): URL => new URL(`./fixtures/${name}`, import.meta.url);
const toy: RunOptions = { adapter: fileURLToPath(fixture('toy-port.mjs')), registry: fixture('cases.mjs').href, seed: 10 };

const own = (report: SuiteReport, name: string): CaseReport => {
  const found = report.cases.find((entry) => entry.id === `GET-01/${name}`);
  if (found === undefined) throw new Error(`no entry for ${name}`);
  return found;
};

/** A killed process whose parent went before it may stay in the table, as a zombie, where process 1 doesn't collect it. */
const isAlive = (pid: number): boolean => {
  try {
    return !/^State:\s+Z/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
};

describe('a run over cases that misbehave', () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'completion-port-test-'));
  const orphanFile = path.join(folder, 'orphan');
  let report: SuiteReport;
  const shown: string[] = [];

  beforeAll(async () => {
    // The runner's own folder is made in there, so that what it leaves behind can be seen.
    vi.stubEnv('TMPDIR', folder);
    report = await runSuite({ ...toy, env: { ORPHAN_FILE: orphanFile }, onResult: (result) => void shown.push(result.id) });
    vi.unstubAllEnvs();
  });
  afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

  test.each([
    ['wrong', /^an empty port: expected 5, got null/],
    ['throws', /^it threw TypeError: no such luck/],
    ['hangs', /^not done after 200 ms; it was waiting for nothing/],
    ['blocks', /^it blocked its thread and was killed after \d+ ms while turning round/],
    ['crashes', /^its process ended \(signal SIGSEGV\)/],
    ['exits', /^its process ended \(exit code 3\).*last words/],
    ['leaks', /^descriptors left open: .*cases\.mjs/],
    ['uncaught', /^uncaught while the case ran: Error: too late/],
    ['never-closed', /^a port could not be put away: .*port\.closed/],
    ['orphan', /^it blocked its thread/],
  ])('%s: fails, and says how', (name, message) => {
    expect(own(report, name)).toMatchObject({ verdict: 'fail', runs: 1, failedRuns: 1, failingSeed: 10 });
    expect(own(report, name).error).toMatch(message);
  });

  test.each(['passes', 'shares', 'private', 'seeded', 'soak', 'children', 'last'])('%s: passes after all of them', (name) => {
    expect(own(report, name)).toMatchObject({ verdict: 'pass', error: null, reason: null, failedRuns: 0, failingSeed: null });
  });

  test('what the adapter lacks is unable, what the backend hasn’t is n/a, each with its reason', () => {
    expect(own(report, 'unable')).toMatchObject({ verdict: 'unable', reason: 'the adapter doesn’t offer TcpSocket' });
    expect(own(report, 'not-offered')).toMatchObject({ verdict: 'n/a', reason: 'of another only' });
  });

  test('the report has the fixed shape', () => {
    expect(Object.keys(report)).toEqual([
      'suite',
      'seed',
      'scale',
      'restrictions',
      'started',
      'durationMs',
      'runtime',
      'os',
      'backend',
      'totals',
      'cases',
    ]);
    expect(report.backend).toEqual({ name: 'toy', features: { posts: true } });
    expect(report.totals).toEqual({ pass: 7, fail: 10, gated: 0, unable: 1, 'n/a': 1 });
    expect(Object.keys(own(report, 'passes'))).toEqual([
      'id',
      'clause',
      'title',
      'verdict',
      'reason',
      'error',
      'runs',
      'failedRuns',
      'failingSeed',
      'durationMs',
    ]);
    expect(shown).toEqual(report.cases.map((entry) => entry.id));
    expect(isGood(report)).toBe(false);
  });

  test('no process of a killed case lives on, and no file', () => {
    const pid = Number(fs.readFileSync(orphanFile, 'utf8'));
    expect(isAlive(pid)).toBe(false);
    expect(fs.readdirSync(folder).filter((name) => name.startsWith('completion-port-'))).toEqual([]);
  });
});

test('a report says what it is short of, and what it was run over', async () => {
  const env = { COMPLETION_PORT_DISABLE: 'nothing_known', COMPLETION_PORT_TEST_STALL: '', COMPLETION_PORT_KQUEUE_SHIM: 'xnu' };
  const { restrictions, standIn, fallbackReason } = await runSuite({ ...toy, filter: /passes/, env });
  expect(restrictions).toEqual({
    filter: 'passes',
    adapter: 'toy-port.mjs',
    environment: { COMPLETION_PORT_DISABLE: 'nothing_known' },
  });
  // Only kqueue has a stand-in.
  expect(standIn).toBe(undefined);
  expect(fallbackReason).toBe(undefined);
});

test('--repeat runs a case with one seed after the other, a soak once; the worst run counts', async () => {
  const report = await runSuite({ ...toy, filter: /seeded|soak|passes/, repeat: 4 });
  expect(own(report, 'passes')).toMatchObject({ verdict: 'pass', runs: 4 });
  expect(own(report, 'soak')).toMatchObject({ verdict: 'pass', runs: 1 });
  expect(own(report, 'seeded')).toMatchObject({ verdict: 'fail', runs: 4, failedRuns: 1, failingSeed: 12 });
});

test('a gate turns a failure into gated, with its reason; a gate whose case passes is a failure', async () => {
  const gate = { backend: 'toy', reason: 'it is a toy', source: 'this test' };
  const report = await runSuite({
    ...toy,
    filter: /seeded|wrong|passes/,
    gates: [
      { ...gate, id: 'GET-01/wrong' },
      { ...gate, id: 'GET-01/seeded', repeat: 4 },
      { ...gate, id: 'GET-01/passes', repeat: 2 },
    ],
  });
  expect(own(report, 'wrong')).toMatchObject({ verdict: 'gated', reason: 'it is a toy' });
  expect(own(report, 'seeded')).toMatchObject({ verdict: 'gated', runs: 4, failedRuns: 1 });
  expect(own(report, 'passes')).toMatchObject({ verdict: 'fail', runs: 2 });
  expect(own(report, 'passes').error).toMatch(/the gate no longer applies/);
});

test('under CI=true, unable is no success', async () => {
  const report = await runSuite({ ...toy, filter: /unable|passes/ });
  expect(isGood(report, false)).toBe(true);
  expect(isGood(report, true)).toBe(false);
});

test('--shared makes every port a shared one, and what says nothing about those is n/a with its reason', async () => {
  const filter = /passes|shares|private/;
  const report = await runSuite({ ...toy, filter, shared: true });
  expect(report.shared).toBe(true);
  expect(own(report, 'passes')).toMatchObject({ verdict: 'pass' });
  expect(own(report, 'shares')).toMatchObject({ verdict: 'pass', error: null });
  expect(own(report, 'private')).toMatchObject({ verdict: 'n/a', reason: 'it is about private ports' });
  const others = await runSuite({ ...toy, filter });
  expect(others.totals).toMatchObject({ pass: 3 });
});

test('an adapter without a port is refused before any case', async () => {
  await expect(runSuite({ ...toy, adapter: fileURLToPath(fixture('cases.mjs')) })).rejects.toThrow(RefusedError);
});

test('an aborted run ends at once with what is done', async () => {
  const abort = new AbortController();
  const begin = performance.now();
  const report = await runSuite({
    ...toy,
    filter: /passes|blocks/,
    signal: abort.signal,
    onStart: (entry) => entry.id.endsWith('blocks') && abort.abort(),
  });
  expect(performance.now() - begin).toBeLessThan(5000);
  expect(report.cases.map((entry) => entry.id)).toEqual(['GET-01/passes']);
});
