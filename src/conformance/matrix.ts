// Several reports beside each other: reads and checks them, keeps them small enough to be committed, and makes docs/CONFORMANCE.md
// of them (matrix-page.ts makes the page for a browser). What differs from run to run (dates, seeds, durations) isn't on the page in
// Markdown, so that it changes only when the truth does.

import * as fs from 'node:fs';
import * as path from 'node:path';
import { families } from './clauses.js';
import { gates as knownGates } from './gates.js';
import { reportName } from './report.js';
import type { Gate, Restrictions, SuiteReport, Verdict } from './types.js';

export const verdicts: readonly Verdict[] = ['pass', 'fail', 'gated', 'unable', 'n/a'];

/** Changes with the form of a summary. */
const format = 1;

/** A report without the runs of its cases: what the matrix needs, and what a repository keeps. */
export interface Summary extends Omit<SuiteReport, 'cases'> {
  format: number;
  /** The passed cases' ids. */
  passed: string[];
  /** All others. */
  others: { id: string; verdict: Verdict; reason: string | null; error: string | null }[];
}

export interface Result {
  readonly verdict: Verdict;
  readonly reason: string | null;
  readonly error: string | null;
}

/** One report of the matrix. */
export interface Column {
  /** Unique among the columns. */
  readonly label: string;
  /** As its file would be named. */
  readonly name: string;
  readonly summary: Summary;
  readonly results: ReadonlyMap<string, Result>;
  /** Why it says less than a full report; null: it is one. */
  readonly partial: string | null;
}

export interface Matrix {
  readonly columns: readonly Column[];
  /** Of all reports, in the order of the clauses. */
  readonly families: readonly {
    readonly title: string;
    readonly clauses: readonly { readonly id: string; readonly text: string; readonly cases: readonly string[] }[];
  }[];
  readonly gates: readonly Gate[];
}

/** A file that is no report: its message names it and says what is wrong. */
export class ReportError extends Error {
  override readonly name = 'ReportError';
}

// ---- Reading

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isText = (value: unknown): value is string => typeof value === 'string' && value !== '';
const isTextOrNull = (value: unknown): value is string | null => value === null || typeof value === 'string';

/** Names that become a part of a label, a file's name or a line on a terminal. */
const isName = (value: unknown): value is string => isText(value) && /^[\w.+-]{1,64}$/.test(value);

/** What isn't a text may be nested as deep as it likes, and is only named. */
const textOf = (value: unknown): string => (typeof value === 'string' ? value : `(${value === null ? 'null' : typeof value})`);

/** A value of a report in one line of a message, whatever it is. */
function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  return typeof value === 'object' && value !== null ? (Array.isArray(value) ? 'a list' : 'an object') : String(value);
}

/** Of another's message: one line, not longer than a line. */
const brief = (text: string): string => text.replace(/[\p{Cc}\u2028\u2029]+/gu, ' ').slice(0, 160);

const clauseOf = (id: string): string => id.replace(/\/.*/s, '');

/** Whatever stands there stays a restriction. */
function restrictionsIn(given: Readonly<Record<string, unknown>>): Restrictions {
  const { filter, adapter, environment } = given;
  return {
    ...(filter === undefined ? {} : { filter: textOf(filter) }),
    ...(adapter === undefined ? {} : { adapter: textOf(adapter) }),
    ...(isObject(environment)
      ? { environment: Object.fromEntries(Object.entries(environment).map(([name, value]) => [name, textOf(value)])) }
      : {}),
  };
}

/** A report as `--json` writes it, or a summary. `file` is for the messages. */
export function parseReport(text: string, file: string): Summary {
  const wrong = (what: string): ReportError => new ReportError(`${file} is no report of the suite: ${what}`);
  let given: unknown;
  try {
    given = JSON.parse(text);
  } catch (error) {
    throw wrong(`it isn't JSON (${brief((error as Error).message)})`);
  }
  if (!isObject(given)) throw wrong('it is no object');
  const { suite, seed, scale, started, durationMs, runtime, os, backend, totals } = given;
  if (given.format !== undefined && given.format !== format)
    throw wrong(`its format is ${shown(given.format)}, this version reads ${format}`);
  if (!isText(suite) || !/^completion-port [\w.+-]{1,64}$/.test(suite))
    throw wrong("its `suite` isn't 'completion-port VERSION'");
  if (typeof seed !== 'number' || typeof scale !== 'number' || !(scale > 0)) throw wrong('it lacks a seed or a scale');
  if (!isText(started) || typeof durationMs !== 'number') throw wrong("it doesn't say when it was made");
  if (!isObject(runtime) || !isName(runtime.name) || !isName(runtime.version)) throw wrong('it names no runtime');
  if (!isObject(os) || !isName(os.platform) || !isName(os.release) || !isName(os.arch))
    throw wrong('it names no operating system');
  if (!isObject(backend) || !isName(backend.name) || !isObject(backend.features)) throw wrong('it names no backend');
  if (!isObject(totals)) throw wrong('it has no totals');

  const passed: string[] = [];
  const others: Summary['others'] = [];
  const seen = new Set<string>();
  const add = (id: unknown, verdict: unknown, reason: unknown, error: unknown): void => {
    if (!isText(id) || id.length > 200 || !/^[A-Z]+-\d+(\/\S+)?$/.test(id)) throw wrong(`${shown(id)} is no case's id`);
    if (seen.has(id)) throw wrong(`the case ${id} is there twice`);
    seen.add(id);
    const known = verdicts.find((name) => name === verdict);
    if (known === undefined) throw wrong(`the verdict of ${id} is ${shown(verdict)}`);
    if (!isTextOrNull(reason) || !isTextOrNull(error)) throw wrong(`the reason or error of ${id} is no text`);
    if (known === 'pass') passed.push(id);
    else others.push({ id, verdict: known, reason, error });
  };
  if (given.format === undefined) {
    if (!Array.isArray(given.cases)) throw wrong('it has no cases');
    for (const entry of given.cases as unknown[]) {
      if (!isObject(entry)) throw wrong('one of its cases is no object');
      add(entry.id, entry.verdict, entry.reason, entry.error);
    }
  } else {
    if (!Array.isArray(given.passed) || !Array.isArray(given.others)) throw wrong('it has no cases');
    for (const id of given.passed as unknown[]) add(id, 'pass', null, null);
    for (const entry of given.others as unknown[]) {
      if (!isObject(entry)) throw wrong('one of its cases is no object');
      add(entry.id, entry.verdict, entry.reason, entry.error);
    }
  }
  if (seen.size === 0) throw wrong('it has no cases');
  for (const verdict of verdicts) {
    const count = verdict === 'pass' ? passed.length : others.filter((entry) => entry.verdict === verdict).length;
    if (totals[verdict] !== count) throw wrong(`its totals say ${shown(totals[verdict])} ${verdict}, its cases ${count}`);
  }
  const report = given as unknown as SuiteReport;
  return {
    format,
    suite,
    seed,
    scale,
    ...(report.shared === true ? { shared: true } : {}),
    ...(isObject(given.restrictions) ? { restrictions: restrictionsIn(given.restrictions) } : {}),
    ...(isText(report.fallbackReason) ? { fallbackReason: report.fallbackReason } : {}),
    ...(isName(report.standIn) ? { standIn: report.standIn } : {}),
    started,
    durationMs,
    runtime: { name: runtime.name, version: runtime.version },
    os: { platform: os.platform, release: os.release, arch: os.arch },
    backend: {
      name: backend.name,
      features: Object.fromEntries(Object.entries(backend.features).map(([name, on]) => [name, on === true])),
    },
    totals: Object.fromEntries(verdicts.map((verdict) => [verdict, totals[verdict]])) as Summary['totals'],
    passed: passed.sort(),
    others: others.sort((a, b) => (a.id < b.id ? -1 : 1)),
  };
}

/** A line for each case that isn't passed, the passed ones a few to a line: readable in a diff, and small. */
export function formatSummary(summary: Summary): string {
  const { passed, others, ...rest } = summary;
  const lines = passed.reduce<string[]>((all, id) => {
    const last = all.at(-1);
    if (last === undefined || clauseOf(JSON.parse(`[${last}]`)[0] as string) !== clauseOf(id)) all.push(JSON.stringify(id));
    else all[all.length - 1] = `${last}, ${JSON.stringify(id)}`;
    return all;
  }, []);
  const list = (entries: readonly string[]): string =>
    entries.length === 0 ? '[]' : `[\n${entries.map((entry) => `    ${entry}`).join(',\n')}\n  ]`;
  const head = JSON.stringify(rest, null, 2).replace(/\n}$/, '');
  return `${head},\n  "passed": ${list(lines)},\n  "others": ${list(others.map((entry) => JSON.stringify(entry)))}\n}\n`;
}

/** A report of all cases with their runs has half a megabyte; nothing larger is read, a device or a pipe that never ends included. */
const reportBytesMax = 64 * 2 ** 20;

function readBounded(file: string): string {
  let text: Buffer;
  try {
    const fd = fs.openSync(file, 'r');
    try {
      const parts: Buffer[] = [];
      let length = 0;
      const room = Buffer.allocUnsafe(1 << 20);
      for (let count = -1; count !== 0 && length <= reportBytesMax; length += count) {
        count = fs.readSync(fd, room, 0, room.length, null);
        parts.push(Buffer.from(room.subarray(0, count)));
      }
      text = Buffer.concat(parts);
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    throw new ReportError(`${file} can't be read: ${(error as Error).message}`);
  }
  if (text.length > reportBytesMax)
    throw new ReportError(`${file} is no report of the suite: it is larger than ${reportBytesMax / 2 ** 20} MiB`);
  return text.toString('utf8');
}

/** Names under which the suite leaves its reports; what else lies in the folder is none. */
const reportNames = /^(?:io_uring|epoll|kqueue|iocp)-[\w-]+\.json$/;

/** The reports that are meant by files and folders; of a folder only what is named as a report, and nothing below it. */
export function readReports(places: readonly string[]): Summary[] {
  const read = (file: string): Summary => parseReport(readBounded(file), file);
  return places.flatMap((place) => {
    if (!fs.statSync(place, { throwIfNoEntry: false })?.isDirectory()) return [read(place)];
    const names = fs.readdirSync(place).filter((name) => reportNames.test(name));
    if (names.length === 0) throw new ReportError(`the folder ${place} has no report: a full run of the suite leaves one`);
    return names.sort().map((name) => read(path.join(place, name)));
  });
}

// ---- The matrix

const runtimeNames: Readonly<Record<string, string>> = { node: 'Node', bun: 'Bun', deno: 'Deno' };
const osNames: Readonly<Record<string, string>> = { linux: 'Linux', darwin: 'Darwin', freebsd: 'FreeBSD', win32: 'Windows' };

export const runtimeText = ({ runtime }: Summary): string =>
  `${runtimeNames[runtime.name] ?? runtime.name} ${runtime.version.split('.')[0]}`;

/** Linux counts its versions by two numbers, others by one. */
export const osText = ({ os }: Summary): string =>
  `${osNames[os.platform] ?? os.platform} ${os.release.split('.', os.platform === 'linux' ? 2 : 1).join('.')}, ${os.arch}`;

const kernels: Readonly<Record<string, string>> = { xnu: 'XNU', freebsd: 'FreeBSD' };

/** What is under a backend in the place of its own system, in a few words. */
function standInText(name: string): { short: string; long: string } {
  if (name.startsWith('wine_')) {
    const wine = `Wine ${name.slice('wine_'.length)}`;
    return { short: wine, long: `under ${wine}, which is not Windows` };
  }
  const kernel = kernels[name] ?? name;
  return { short: `as ${kernel}`, long: `over a stand-in for kqueue that behaves as ${kernel}, not on that system` };
}

/** How the backend came to be used, and on what. */
export function conditions(summary: Summary): string[] {
  return [
    ...(summary.standIn === undefined ? [] : [standInText(summary.standIn).long]),
    ...(summary.fallbackReason === undefined ? [] : [`the port's own choice: ${summary.fallbackReason}`]),
    ...(summary.shared === true ? ['every port a shared one, used by one thread'] : []),
  ];
}

function labelOf(summary: Summary): string {
  const how = summary.fallbackReason === undefined ? '' : /seccomp/.test(summary.fallbackReason) ? 'seccomp' : 'fallback';
  const as = summary.standIn === undefined ? '' : standInText(summary.standIn).short;
  return [summary.backend.name, as, how, summary.shared === true ? 'shared' : ''].filter(Boolean).join(', ');
}

const caseIds = (summary: Summary): string[] => [...summary.passed, ...summary.others.map((entry) => entry.id)];

function partialReason(summary: Summary, all: ReadonlySet<string>): string | null {
  const { filter, adapter, environment = {} } = summary.restrictions ?? {};
  const missing = all.size - caseIds(summary).length;
  const reasons = [
    ...(filter === undefined ? [] : [`only the cases that match \`${filter}\``]),
    ...(adapter === undefined ? [] : [`of another port than the package's own (\`${adapter}\`)`]),
    ...Object.entries(environment).map(([name, value]) => `with \`${name}=${value}\``),
    ...(summary.scale === 1 ? [] : [`counts inside cases at ${summary.scale} of the clauses' own`]),
    ...(filter === undefined && missing > 0
      ? [`without ${missing} ${missing === 1 ? 'case' : 'cases'} that another report has`]
      : []),
  ];
  return reasons.length === 0 ? null : reasons.join('; ');
}

const order = (names: readonly string[], name: string): number => (names.includes(name) ? names.indexOf(name) : names.length);

/** Backends in the order of the documentation, each as it is first; the same report twice (as itself and as its summary) counts once. */
export function makeMatrix(given: readonly Summary[], gates: readonly Gate[] = knownGates): Matrix {
  const known = new Set<string>();
  const summaries = given.filter((summary) => {
    const { suite, seed, started, os, runtime } = summary;
    const key = JSON.stringify([labelOf(summary), suite, seed, started, os, runtime]);
    return !known.has(key) && known.add(key);
  });
  const rank = (summary: Summary): (number | string)[] => [
    order(['io_uring', 'epoll', 'kqueue', 'iocp'], summary.backend.name),
    summary.backend.name,
    summary.standIn === undefined ? -1 : order(['xnu', 'freebsd'], summary.standIn),
    summary.fallbackReason === undefined ? 0 : 1,
    summary.shared === true ? 1 : 0,
    osText(summary),
    runtimeText(summary),
    summary.os.release,
    summary.runtime.version,
    summary.started,
  ];
  summaries.sort((left, right) => {
    const a = rank(left);
    const b = rank(right);
    const at = a.findIndex((value, index) => value !== b[index]);
    if (at === -1) return 0;
    return (a[at] as number | string) < (b[at] as number | string) ? -1 : 1;
  });

  // A label says what tells a report from the others: runtime and system only where they differ, a number where nothing else does.
  const differ = (text: (summary: Summary) => string): boolean => new Set(summaries.map(text)).size > 1;
  const parts = [labelOf, ...(differ(runtimeText) ? [runtimeText] : []), ...(differ(osText) ? [osText] : [])];
  const labels = summaries.map((summary) => parts.map((part) => part(summary)).join(', '));
  const all = new Set(summaries.flatMap(caseIds));
  const names = new Map<string, number>();
  const columns = summaries.map((summary, index): Column => {
    const label = labels[index] as string;
    const same = labels.filter((other) => other === label).length > 1;
    const number = labels.slice(0, index + 1).filter((other) => other === label).length;
    const name = nameOf(summary);
    const used = (names.get(name) ?? 0) + 1;
    names.set(name, used);
    return {
      label: same ? `${label} (${number})` : label,
      name: used === 1 ? name : `${name}-${used}`,
      summary,
      results: new Map<string, Result>([
        ...summary.passed.map((id) => [id, { verdict: 'pass', reason: null, error: null }] as const),
        ...summary.others.map((entry) => [entry.id, entry] as const),
      ]),
      partial: partialReason(summary, all),
    };
  });

  const byClause = new Map<string, string[]>();
  for (const id of [...all].sort()) byClause.set(clauseOf(id), [...(byClause.get(clauseOf(id)) ?? []), id]);
  const rows = families.map(({ title, clauses }) => ({
    title,
    clauses: clauses
      .filter(({ id }) => byClause.has(id))
      .map(({ id, text }) => ({ id, text, cases: byClause.get(id) as string[] })),
  }));
  const listed = new Set(families.flatMap(({ clauses }) => clauses.map(({ id }) => id)));
  const strange = [...byClause].filter(([id]) => !listed.has(id)).map(([id, cases]) => ({ id, text: '', cases }));
  return {
    columns,
    families: [...rows, { title: 'Of no clause of this version', clauses: strange }].filter(({ clauses }) => clauses.length > 0),
    gates,
  };
}

export function nameOf({ backend, standIn, fallbackReason, shared, runtime }: Summary): string {
  return reportName(
    { name: backend.name, standIn: standIn ?? null, fallbackReason: fallbackReason ?? null },
    shared === true,
    runtime,
  );
}

/** A set of cases that share their verdict and its reason. */
export interface Remark {
  readonly verdict: Verdict;
  readonly text: string;
  /** Of a gate: who says so. */
  readonly source: string | null;
  readonly cases: readonly string[];
  readonly columns: readonly string[];
}

export function remarkOf(matrix: Matrix, column: Column, id: string): Omit<Remark, 'cases' | 'columns'> | null {
  const result = column.results.get(id);
  if (result === undefined || result.verdict === 'pass') return null;
  const { verdict, reason, error } = result;
  const backend = column.summary.backend.name;
  const gate = matrix.gates.find((entry) => entry.backend === backend && (entry.id === id || entry.id === clauseOf(id)));
  const source = verdict !== 'gated' ? null : (gate?.source ?? 'this version has no such gate any more');
  // Of a gated case the gate's words count; of a failed one what was expected and found.
  return { verdict, text: (verdict === 'fail' ? (error ?? reason) : (reason ?? error)) ?? 'no reason given', source };
}

/** All that isn't a plain pass, the worst first. */
export function remarks(matrix: Matrix): Remark[] {
  const groups = new Map<string, { remark: Omit<Remark, 'cases' | 'columns'>; cases: Map<string, Set<string>> }>();
  const ids = matrix.families.flatMap(({ clauses }) => clauses.flatMap(({ cases }) => cases));
  for (const id of ids) {
    for (const column of matrix.columns) {
      const remark = remarkOf(matrix, column, id);
      if (remark === null) continue;
      const key = JSON.stringify(remark);
      const group = groups.get(key) ?? { remark, cases: new Map() };
      groups.set(key, group);
      group.cases.set(id, (group.cases.get(id) ?? new Set()).add(column.label));
    }
  }
  // A reason holds for several sets of reports: each is a remark of its own, so that none says too much.
  const result = [...groups.values()].flatMap(({ remark, cases }) => {
    const sets = new Map<string, { columns: string[]; cases: string[] }>();
    for (const [id, labels] of cases) {
      const columns = matrix.columns.map(({ label }) => label).filter((label) => labels.has(label));
      const key = JSON.stringify(columns);
      const set = sets.get(key) ?? { columns, cases: [] };
      sets.set(key, set);
      set.cases.push(id);
    }
    return [...sets.values()].map((set) => ({ ...remark, ...set }));
  });
  const rank: readonly Verdict[] = ['fail', 'unable', 'gated', 'n/a'];
  return result.sort((a, b) => rank.indexOf(a.verdict) - rank.indexOf(b.verdict));
}

/** Of a column and some cases: how many have each verdict, and how many it has nothing on. */
export function countCases(column: Column, ids: readonly string[]): Map<Verdict | 'missing', number> {
  const counts = new Map<Verdict | 'missing', number>();
  for (const id of ids) {
    const verdict = column.results.get(id)?.verdict ?? 'missing';
    counts.set(verdict, (counts.get(verdict) ?? 0) + 1);
  }
  return counts;
}

// ---- docs/CONFORMANCE.md

const escapeMarkdown = (text: string): string =>
  text
    .replace(/\s+/g, ' ')
    .split(/(`[^`]*`)/)
    .map((part) => (part.startsWith('`') ? part.replace(/\|/g, '\\|') : part.replace(/[\\*_[\]<>|`]/g, '\\$&')))
    .join('');

function markdownCell(column: Column, ids: readonly string[]): string {
  const counts = countCases(column, ids);
  const only = counts.size === 1 ? [...counts.keys()][0] : undefined;
  if (only !== undefined)
    return { pass: '✓', fail: '**✗ fail**', gated: 'gated', unable: '**unable**', 'n/a': 'n/a', missing: '' }[only];
  return [...verdicts, 'missing' as const]
    .filter((verdict) => counts.has(verdict))
    .map((verdict) => {
      const count = counts.get(verdict);
      if (verdict === 'pass') return `${count} ✓`;
      return verdict === 'fail' || verdict === 'unable'
        ? `**${count} ${verdict}**`
        : `${count} ${verdict === 'missing' ? 'not run' : verdict}`;
    })
    .join(', ');
}

/** Many cases of a clause by their number. */
function caseList(ids: readonly string[]): string {
  const byClause = new Map<string, string[]>();
  for (const id of ids) byClause.set(clauseOf(id), [...(byClause.get(clauseOf(id)) ?? []), id]);
  return [...byClause].map(([clause, own]) => (own.length > 3 ? `${clause} (${own.length} cases)` : own.join(', '))).join(', ');
}

export function markdownPage(matrix: Matrix): string {
  const { columns } = matrix;
  const row = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |`;
  const lines = [
    '---',
    'title: Conformance',
    '---',
    '',
    '# What each backend passes',
    '',
    'Made by `completion-port conformance --matrix` out of reports of the suite, and not to be edited: `npm run matrix` makes it anew. How the',
    'suite works, and what the verdicts mean: [CONFORMANCE-SUITE.md](CONFORMANCE-SUITE.md). When each report was made, with which seed and',
    'on which versions exactly, stands in `docs/reports/`.',
    '',
    '## Reports',
    '',
    row(['report', 'of', 'runtime', 'system', ...verdicts]),
    row(['---', '---', '---', '---', ...verdicts.map(() => '--:')]),
    ...columns.map(({ label, summary, partial }) =>
      row([
        `**${escapeMarkdown(label)}**${partial === null ? '' : ' (partial)'}`,
        escapeMarkdown(summary.suite),
        escapeMarkdown(runtimeText(summary)),
        escapeMarkdown(osText(summary)),
        ...verdicts.map((verdict) => summary.totals[verdict]),
      ]),
    ),
    '',
  ];
  for (const { label, summary, partial } of columns) {
    const notes = [
      ...conditions(summary).map(escapeMarkdown),
      ...(partial === null ? [] : [`partial: ${escapeMarkdown(partial)}`]),
    ];
    if (notes.length > 0) lines.push(`- **${escapeMarkdown(label)}**: ${notes.join('; ')}`);
  }

  const all = remarks(matrix);
  lines.push('', '## What is not a plain pass', '');
  if (all.length === 0) lines.push('Nothing.', '');
  else {
    lines.push(row(['verdict', 'reports', 'cases', 'reason']), row(['---', '---', '---', '---']));
    for (const { verdict, text, source, cases, columns: of } of all) {
      const where = of.length === columns.length ? 'all' : of.map(escapeMarkdown).join('; ');
      const why = `${escapeMarkdown(text)}${source === null ? '' : ` *Source: ${escapeMarkdown(source)}*`}`;
      lines.push(row([verdict === 'fail' || verdict === 'unable' ? `**${verdict}**` : verdict, where, caseList(cases), why]));
    }
    lines.push('');
  }

  lines.push(
    '## Clause by clause',
    '',
    '✓: every case of the clause passes. Where they differ, each verdict has its number of cases; an empty cell was not run.',
    '',
  );
  for (const { title, clauses } of matrix.families) {
    lines.push(`### ${title}`, '');
    lines.push(row(['clause', 'cases', ...columns.map(({ label }) => escapeMarkdown(label)), '']));
    lines.push(row(['---', '--:', ...columns.map(() => '---'), '---']));
    for (const { id, text, cases } of clauses) {
      lines.push(row([`**${id}**`, cases.length, ...columns.map((column) => markdownCell(column, cases)), escapeMarkdown(text)]));
    }
    lines.push('');
  }
  return lines.join('\n');
}
