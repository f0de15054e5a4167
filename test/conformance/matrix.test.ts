// `completion-port conformance --matrix`: the committed page is what the committed reports say; what is no report is refused, what isn't a
// full one is marked; every verdict, gates' reasons and sources among them, can be seen on both pages.

import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type CaseReport,
  formatSummary,
  gates,
  htmlPage,
  makeMatrix,
  markdownPage,
  nameOf,
  parseReport,
  ReportError,
  readReports,
  type SuiteReport,
  type Verdict,
} from 'completion-port/conformance';
import { afterAll, describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../../', import.meta.url));
const kept = path.join(root, 'docs/reports');
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'completion-port-test-'));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

type Given = readonly [id: string, verdict: Verdict, reason?: string | null, error?: string | null];

const plain: readonly Given[] = [
  ['GET-01', 'pass'],
  ['GET-01/other', 'pass'],
  ['CONC-06/pipe', 'pass'],
];

function reportOf(given: readonly Given[], changes: Partial<SuiteReport> = {}): SuiteReport {
  const cases = given.map(
    ([id, verdict, reason = null, error = null]): CaseReport => ({
      id,
      clause: id.replace(/\/.*/, ''),
      title: `the rule of ${id}`,
      verdict,
      reason,
      error,
      runs: 1,
      failedRuns: verdict === 'fail' || verdict === 'gated' ? 1 : 0,
      failingSeed: null,
      durationMs: 1,
    }),
  );
  const totals = { pass: 0, fail: 0, gated: 0, unable: 0, 'n/a': 0 };
  for (const { verdict } of cases) totals[verdict]++;
  return {
    suite: 'completion-port 1.2.3',
    seed: 42,
    scale: 1,
    started: '2026-01-02T03:04:05.678Z',
    durationMs: 1000,
    runtime: { name: 'node', version: '20.1.2' },
    os: { platform: 'linux', release: '6.18.5-cloud', arch: 'x64' },
    backend: { name: 'epoll', features: { one: true, two: false } },
    totals,
    cases,
    ...changes,
  };
}

const parsed = (report: SuiteReport) => parseReport(JSON.stringify(report), 'report.json');
const pagesOf = (...reports: SuiteReport[]) => {
  const matrix = makeMatrix(reports.map(parsed));
  return { matrix, md: markdownPage(matrix), html: htmlPage(matrix, new Map([['GET-01', 'an <empty> port']])) };
};

function write(name: string, content: unknown): string {
  const file = path.join(folder, name);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
  return file;
}

/** The command, in a folder of its own. */
function command(...args: string[]): { code: number | null; stdout: string; stderr: string } {
  const main = path.join(root, 'dist/cli/main.js');
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'conformance', '--matrix', ...args], {
    cwd: folder,
    encoding: 'utf8',
  });
  return { code: status, stdout, stderr };
}

describe('the committed page', () => {
  test('is what the committed reports say: `npm run matrix` makes it', () => {
    expect(fs.readFileSync(path.join(root, 'docs/CONFORMANCE.md'), 'utf8')).toBe(markdownPage(makeMatrix(readReports([kept]))));
  });

  test('comes from full reports only, each in its own form and under its own name', () => {
    const { columns } = makeMatrix(readReports([kept]));
    expect(columns.length).toBeGreaterThan(0);
    expect(fs.readdirSync(kept).sort()).toEqual(columns.map(({ name }) => `${name}.json`).sort());
    for (const { label, name, partial, summary } of columns) {
      expect(partial, label).toBe(null);
      const text = fs.readFileSync(path.join(kept, `${name}.json`), 'utf8');
      expect(text.length, name).toBeLessThan(100_000);
      expect(formatSummary(summary), name).toBe(text);
    }
  });
});

describe('a summary', () => {
  const report = reportOf([...plain, ['GET-02', 'n/a', 'it has none']], {
    shared: true,
    fallbackReason: 'seccomp',
    standIn: 'xnu',
  });

  test('keeps verdicts, reasons and what the report was made with, and is read as the report itself', () => {
    const summary = parsed(report);
    expect(parseReport(formatSummary(summary), 'summary.json')).toEqual(summary);
    expect(markdownPage(makeMatrix([summary]))).toBe(pagesOf(report).md);
    expect(summary).toMatchObject({
      seed: 42,
      scale: 1,
      shared: true,
      standIn: 'xnu',
      passed: ['CONC-06/pipe', 'GET-01', 'GET-01/other'],
    });
    expect(summary.others).toEqual([{ id: 'GET-02', verdict: 'n/a', reason: 'it has none', error: null }]);
  });

  test('is named as the suite names the report', () => {
    expect(nameOf(parsed(reportOf(plain)))).toBe('epoll-node20');
    expect(nameOf(parsed(report))).toBe('epoll-xnu-seccomp-shared-node20');
    const wine = reportOf(plain, { backend: { name: 'iocp', features: { wine: true, 'wine_8.0': true } }, standIn: 'wine_8.0' });
    expect(nameOf(parsed(wine))).toBe('iocp-wine-node20');
    expect(pagesOf(wine).matrix.columns[0]).toMatchObject({ label: 'iocp, Wine 8.0', partial: null });
  });

  test('beside its own report counts once', () => {
    expect(makeMatrix([parsed(report), parsed(report)]).columns).toHaveLength(1);
  });
});

describe('what is no report is refused, by its name and with the reason', () => {
  const good = reportOf(plain);
  test.each<[string, unknown, RegExp]>([
    ['no JSON', '{ "suite": ', /isn't JSON/],
    ['nothing', '', /isn't JSON/],
    ['a list', [good], /no object/],
    ["another tool's", { ...good, suite: 'mocha 10' }, /`suite`/],
    ['counts of npm test', { passed: 1, failed: 0, steps: [] }, /`suite`/],
    ['a form of later', { ...good, format: 2 }, /its format is 2, this version reads 1/],
    ['no cases', { ...good, cases: [] }, /no cases/],
    ['a case without an id', { ...good, cases: [{ verdict: 'pass' }] }, /undefined is no case's id/],
    ['a case twice', { ...good, cases: [...good.cases, good.cases[0]] }, /GET-01 is there twice/],
    ['an unknown verdict', { ...good, cases: [{ ...good.cases[0], verdict: 'skipped' }] }, /the verdict of GET-01 is "skipped"/],
    ['totals that are none', { ...good, totals: { ...good.totals, pass: 400 } }, /its totals say 400 pass, its cases 3/],
    ['no system', { ...good, os: undefined }, /operating system/],
    ['no runtime', { ...good, runtime: 'node' }, /runtime/],
    ['no backend', { ...good, backend: { name: '' } }, /backend/],
    ['no seed', { ...good, seed: undefined }, /seed/],
  ])('%s', (_, content, reason) => {
    const text = typeof content === 'string' ? content : JSON.stringify(content);
    expect(() => parseReport(text, 'bad.json')).toThrow(ReportError);
    expect(() => parseReport(text, 'bad.json')).toThrow(reason);
    expect(() => parseReport(text, 'bad.json')).toThrow(/^bad\.json is no report/);
  });

  /** 100,000 lists, each in the one before. */
  const deep = JSON.parse(`${'['.repeat(100_000)}${']'.repeat(100_000)}`) as unknown;
  const raw = (name: string, value: unknown): string => {
    const text = JSON.stringify({ ...good, [name]: '@' });
    return text.replace('"@"', typeof value === 'string' ? value : `${'['.repeat(100_000)}${']'.repeat(100_000)}`);
  };

  test.each<[string, string]>([
    ['a backend that is a path', raw('backend', '{"name":"../../escape","features":{}}')],
    ['a backend with control characters', raw('backend', '{"name":"\\u001b[2J","features":{}}')],
    ['a runtime with a line break', raw('runtime', '{"name":"no\\nde","version":"20.0.0"}')],
    ['a format that is nested 100,000 deep', raw('format', deep)],
    ['an id that is nested 100,000 deep', raw('cases', deep)],
    ['an id of a megabyte', JSON.stringify({ ...good, cases: [{ id: 'x'.repeat(2 ** 20), verdict: 'pass' }] })],
    ['line breaks that are no JSON', '\n\u001b[2J\n'.repeat(1000)],
  ])('%s, with a reason of one short line', (_, text) => {
    try {
      parseReport(text, 'bad.json');
    } catch (error) {
      expect(error).toBeInstanceOf(ReportError);
      expect((error as Error).message).toMatch(/^bad\.json is no report of the suite: [^\p{Cc}]{5,300}$/u);
      return;
    }
    expect.unreachable('it was taken');
  });

  test('what only restricts a report may be anything, and restricts it', () => {
    const summary = parseReport(raw('restrictions', '{"filter":{"toString":5},"adapter":[[]]}'), 'odd.json');
    expect(summary.restrictions).toEqual({ filter: '(object)', adapter: '(object)' });
    expect(parseReport(formatSummary(summary), 'odd.json')).toEqual(summary);
  });

  test('100 MB, a device without an end and a folder are refused before they fill the memory', () => {
    const large = path.join(folder, 'large.json');
    fs.writeFileSync(large, '{ "suite": "');
    fs.truncateSync(large, 100_000_000);
    const before = process.memoryUsage().arrayBuffers;
    for (const file of [large, '/dev/zero']) {
      expect(() => readReports([file])).toThrow(ReportError);
      expect(() => readReports([file])).toThrow(/is no report of the suite: it is larger than 64 MiB$/);
    }
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1e9);
    fs.writeFileSync(large, `{ "suite": "${'x'.repeat(50_000_000)}`);
    expect(() => readReports([large])).toThrow(/large\.json is no report of the suite: it isn't JSON .{1,200}$/);
    fs.rmSync(large);
  });

  test('the command says so in one line, ends with 2 and writes nothing', () => {
    const file = write('bad.json', '{');
    for (const args of [[file], [path.join(folder, 'none.json')], [write('empty/test.json', {}).replace('/test.json', '')]]) {
      const { code, stdout, stderr } = command(...args, '--out', 'refused');
      expect(code, stderr).toBe(2);
      expect(stdout).toBe('');
      expect(stderr.trimEnd().split('\n')).toHaveLength(1);
      expect(stderr).toContain(args[0]);
      expect(fs.existsSync(path.join(folder, 'refused'))).toBe(false);
    }
  });
});

describe('a report that says less than a full one is marked as partial', () => {
  test.each<[string, Partial<SuiteReport>, string]>([
    ['a filter', { restrictions: { filter: '^GET' } }, 'only the cases that match `^GET`'],
    ['an adapter', { restrictions: { adapter: 'theirs.mjs' } }, "of another port than the package's own (`theirs.mjs`)"],
    ['a masked feature', { restrictions: { environment: { COMPLETION_PORT_DISABLE: 'x' } } }, 'with `COMPLETION_PORT_DISABLE=x`'],
    ['smaller counts', { scale: 0.1 }, "counts inside cases at 0.1 of the clauses' own"],
  ])('%s', (_, changes, why) => {
    const { matrix, md, html } = pagesOf(reportOf(plain, changes));
    expect(matrix.columns[0]?.partial).toBe(why);
    expect(md).toContain('**epoll** (partial)');
    expect(html).toContain('partial');
  });

  test('cases that another report has are missing: empty cells, and no word of passing', () => {
    const { matrix, md } = pagesOf(reportOf(plain), reportOf(plain.slice(0, 2), { backend: { name: 'io_uring', features: {} } }));
    expect(matrix.columns.map(({ label, partial }) => [label, partial])).toEqual([
      ['io_uring', 'without 1 case that another report has'],
      ['epoll', null],
    ]);
    expect(md).toMatch(/^\| \*\*CONC-06\*\* \| 1 \| {2}\| ✓ \|/m);
  });

  test('what was done over a stand-in, or not by choice, is said and no fault', () => {
    const { matrix, md } = pagesOf(reportOf(plain, { backend: { name: 'kqueue', features: {} }, standIn: 'freebsd' }));
    expect(matrix.columns[0]).toMatchObject({ label: 'kqueue, as FreeBSD', partial: null });
    expect(md).toContain('over a stand-in for kqueue that behaves as FreeBSD, not on that system');
    const fallen = pagesOf(reportOf(plain, { fallbackReason: "io_uring can't be used here: seccomp" }));
    expect(fallen.matrix.columns[0]).toMatchObject({ label: 'epoll, seccomp', partial: null });
    expect(fallen.md).toContain("io\\_uring can't be used here: seccomp");
  });
});

describe('the pages', () => {
  test('stand in the order of backends and clauses, whatever the order of the reports', () => {
    const reports = ['kqueue', 'epoll', 'io_uring'].map((name) => reportOf(plain, { backend: { name, features: {} } }));
    const { matrix, md } = pagesOf(...reports);
    expect(matrix.columns.map(({ label }) => label)).toEqual(['io_uring', 'epoll', 'kqueue']);
    expect(pagesOf(...reports.reverse()).md).toBe(md);
    const clauses = [...md.matchAll(/^\| \*\*([A-Z]+-\d+)\*\*/gm)].map(([, id]) => id);
    expect(clauses).toEqual(['GET-01', 'CONC-06']);
  });

  test('two reports of one backend are told apart by system or runtime, else by a number', () => {
    const other = reportOf(plain, { runtime: { name: 'node', version: '22.0.0' } });
    expect(pagesOf(reportOf(plain), other).matrix.columns.map(({ label, name }) => [label, name])).toEqual([
      ['epoll, Node 20', 'epoll-node20'],
      ['epoll, Node 22', 'epoll-node22'],
    ]);
    const again = reportOf(plain, { started: '2026-02-02T03:04:05.678Z', seed: 43 });
    expect(pagesOf(reportOf(plain), again).matrix.columns.map(({ label, name }) => [label, name])).toEqual([
      ['epoll (1)', 'epoll-node20'],
      ['epoll (2)', 'epoll-node20-2'],
    ]);
  });

  test('a gated case has its reason, and its source from the list of gates', () => {
    const gate = gates.find(({ id, backend }) => id === 'CONC-06/pipe' && backend === 'kqueue');
    if (gate === undefined) throw new Error('there is no such gate any more: take another');
    const given: Given[] = [...plain.slice(0, 2), ['CONC-06/pipe', 'gated', gate.reason, 'expected less than 50']];
    const { md, html } = pagesOf(reportOf(given, { backend: { name: 'kqueue', features: {} } }));
    for (const page of [md, html]) {
      expect(page).toContain(gate.reason.slice(0, 40));
      expect(page).toContain(`Source: ${gate.source.slice(0, 20)}`);
    }
    expect(md).toMatch(/^\| \*\*CONC-06\*\* \| 1 \| gated \|/m);
    // The same of a backend that has no such gate: nobody vouches for it.
    expect(pagesOf(reportOf(given)).md).toContain('this version has no such gate any more');
  });

  test('a gate that passed, a failure and what was unable can’t be overlooked', () => {
    const passed = 'the gate no longer applies: the case passed 1 of 1 runs. Delete the gate.';
    const { md, html } = pagesOf(
      reportOf([
        ['GET-01', 'fail', null, 'expected <5>, got a|b'],
        ['GET-01/other', 'pass'],
        ['GET-02', 'unable', 'no IPv6 here'],
        ['CONC-06/pipe', 'fail', 'asleep', passed],
      ]),
    );
    expect(md).toMatch(/^\| \*\*GET-01\*\* \| 2 \| 1 ✓, \*\*1 fail\*\* \|/m);
    expect(md).toMatch(/^\| \*\*CONC-06\*\* \| 1 \| \*\*✗ fail\*\* \|/m);
    expect(md).toMatch(/^\| \*\*GET-02\*\* \| 1 \| \*\*unable\*\* \|/m);
    expect(md).toContain('| **fail** | all | GET-01 | expected \\<5\\>, got a\\|b |');
    expect(md).toContain('| **unable** | all | GET-02 | no IPv6 here |');
    for (const page of [md, html]) expect(page).toContain(passed);
    expect(html).toContain('class="cell fail"');
    expect(html).not.toContain('<5>');
  });

  test('in Markdown nothing differs from run to run; in HTML it is said', () => {
    const { md, html } = pagesOf(reportOf(plain));
    const later = { seed: 7, started: '2027-01-01T00:00:00.000Z', durationMs: 1, runtime: { name: 'node', version: '20.9.9' } };
    expect(pagesOf(reportOf(plain, later)).md).toBe(md);
    expect(md).toContain('| **epoll** | completion-port 1.2.3 | Node 20 | Linux 6.18, x64 | 3 | 0 | 0 | 0 | 0 |');
    for (const said of [
      'node 20.1.2',
      'linux 6.18.5-cloud x64',
      '>42<',
      '2026-01-02 03:04:05 UTC',
      'completion-port 1.2.3',
      'without two',
    ]) {
      expect(html).toContain(said);
    }
  });

  test('the page for a browser brings all that it needs, and follows the scheme', () => {
    const { html } = pagesOf(reportOf(plain));
    expect(html).not.toMatch(/\b(?:src|href)=|url\(|@import|https?:/);
    expect(html).toContain('prefers-color-scheme: dark');
    expect(html).toContain('an &#60;empty&#62; port');
    // Every cell beside its row's head has a column.
    const cells = [...html.matchAll(/<tr class="case">.*?<\/tr>/g)].map(([row]) => row.match(/<td class="cell/g)?.length);
    expect(cells).toEqual([1, 1, 1]);
  });
});

describe('the command', () => {
  test('reads files and folders, prints a line each and a sum, and writes both pages', () => {
    write('reports/epoll-node20.json', reportOf(plain));
    write('reports/test.json', { passed: 1 });
    write('reports/partial/kqueue-node20.json', '{');
    const file = write('more.json', reportOf(plain.slice(0, 1), { backend: { name: 'io_uring', features: {} }, scale: 0.5 }));
    const { code, stdout, stderr } = command('reports', file, '--out', 'pages');
    expect(code, stderr).toBe(0);
    expect(stdout.trimEnd().split('\n')).toEqual([
      "io_uring: 1 passed, 0 failed, 0 gated, 0 unable, 0 n/a; partial: counts inside cases at 0.5 of the clauses' own; without 2 cases that another report has",
      'epoll: 3 passed, 0 failed, 0 gated, 0 unable, 0 n/a',
      'pages/CONFORMANCE.md and pages/CONFORMANCE.html: 2 reports, 3 cases, 0 failed',
    ]);
    // The suite has more cases than these reports, and that is no secret.
    expect(stderr).toMatch(/^no report has anything on \d+ of the \d+ cases of this version\n$/);
    expect(fs.readdirSync(path.join(folder, 'pages')).sort()).toEqual(['CONFORMANCE.html', 'CONFORMANCE.md']);
    expect(fs.readFileSync(path.join(folder, 'pages/CONFORMANCE.html'), 'utf8')).toMatch(/^<!doctype html>/);
  });

  test('ends with 1 where a report has a failure, with the pages made', () => {
    const file = write('failed.json', reportOf([['GET-01', 'fail', null, 'no']]));
    expect(command(file, '--out', 'failed')).toMatchObject({
      code: 1,
      stdout: expect.stringMatching(/1 reports?, 1 cases, 1 failed\n$/),
    });
    expect(fs.existsSync(path.join(folder, 'failed/CONFORMANCE.md'))).toBe(true);
  });

  test.each([
    [['--tap'], '--tap is about a run'],
    [['--json', 'x.json'], '--json is about a run'],
  ])('with %j is wrong use', (args, message) => {
    const { code, stderr } = command(...args);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });
});
