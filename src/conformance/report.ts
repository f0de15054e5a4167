// The forms of a report: TAP, a table for people, and the files that a checkout of the project keeps.

import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Paint } from '../cli/options.js';
import { clauses, families } from './clauses.js';
import type { CaseReport, ConformanceCase, Restrictions, SuiteReport, Verdict } from './types.js';

const verdicts: readonly Verdict[] = ['pass', 'fail', 'gated', 'unable', 'n/a'];

export function paintVerdict(verdict: Verdict, paint: Paint, text: string = verdict): string {
  if (verdict === 'pass') return paint.green(text);
  if (verdict === 'fail') return paint.red(text);
  return paint.yellow(text);
}

/** One line for a case that is done. */
export function caseLine(report: CaseReport, paint: Paint): string {
  const why = report.error ?? report.reason;
  const repeated = report.runs > 1 ? `, ${report.failedRuns} of ${report.runs} runs failed` : '';
  return `${paintVerdict(report.verdict, paint, report.verdict.padEnd(6))} ${report.id} ${paint.dim(`(${formatMs(report.durationMs)}${repeated})`)}${why === null ? '' : `: ${why}`}`;
}

export function formatMs(ms: number): string {
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** The families as rows, then each case that isn't a pass, in words. */
export function table(report: SuiteReport, paint: Paint): string {
  const byClause = new Map<string, CaseReport[]>();
  for (const entry of report.cases) byClause.set(entry.clause, [...(byClause.get(entry.clause) ?? []), entry]);
  const rows: string[][] = [['', ...verdicts, 'time']];
  for (const family of families) {
    const entries = family.clauses.flatMap((clause) => byClause.get(clause.id) ?? []);
    if (entries.length > 0) rows.push(row(family.title, entries));
  }
  rows.push(row('All', report.cases));
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((cells) => cells[column]?.length ?? 0))) ?? [];
  const lines = rows.map((cells, index) => {
    const text = cells
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  ');
    return index === 0 || index === rows.length - 1 ? paint.bold(text) : text;
  });
  for (const verdict of ['gated', 'unable', 'n/a', 'fail'] as const) {
    const entries = report.cases.filter((entry) => entry.verdict === verdict);
    if (entries.length > 0) lines.push('');
    for (const entry of entries) {
      lines.push(caseLine(entry, paint));
      if (entry.failingSeed !== null)
        lines.push(paint.dim(`       again with: --filter '^${entry.id}$' --seed ${entry.failingSeed}`));
    }
  }
  return lines.join('\n');
}

function row(title: string, entries: readonly CaseReport[]): string[] {
  const counts = verdicts.map((verdict) => entries.filter((entry) => entry.verdict === verdict).length);
  const ms = entries.reduce((sum, entry) => sum + entry.durationMs, 0);
  return [title, ...counts.map((count) => (count === 0 ? '·' : String(count))), formatMs(ms)];
}

/** TAP version 14. What isn't a plain pass carries a directive or a YAML block. */
export function tapHeader(cases: number): string {
  return `TAP version 14\n1..${cases}`;
}

export function tapLine(report: CaseReport, number: number, strict: boolean): string {
  const failed = report.verdict === 'fail' || (strict && report.verdict === 'unable');
  const name = `${report.id} ${report.title}`.replace(/[\\#]/g, (character) => `\\${character}`);
  const why = (report.reason ?? '').replace(/\s+/g, ' ');
  const directive =
    failed || report.verdict === 'pass'
      ? ''
      : report.verdict === 'gated'
        ? ` # TODO ${why}`
        : ` # SKIP ${report.verdict}: ${why}`;
  const line = `${failed || report.verdict === 'gated' ? 'not ok' : 'ok'} ${number} - ${name}${directive}`;
  const message = report.error ?? (failed ? report.reason : null);
  if (message === null) return line;
  return `${line}\n  ---\n  message: ${JSON.stringify(message)}\n  seed: ${report.failingSeed ?? 'null'}\n  ...`;
}

/** Every clause that has a case among `cases`, and all others where `cases` is the whole suite. */
export function listing(cases: readonly ConformanceCase[], whole: boolean): string {
  const lines: string[] = [];
  const known = new Set(clauses.map((clause) => clause.id));
  for (const family of families) {
    const entries = family.clauses.filter((clause) => whole || cases.some((entry) => entry.clause === clause.id));
    if (entries.length === 0) continue;
    lines.push(family.title);
    for (const clause of entries) {
      const windows = clause.windows === undefined ? '' : ` Windows: ${clause.windows}.`;
      lines.push(`  ${clause.id}  ${clause.text}${windows}`);
      const own = cases.filter((entry) => entry.clause === clause.id);
      for (const entry of own) lines.push(`      ${entry.id}${entry.soak === true ? ' [soak]' : ''}  ${entry.title}`);
      if (own.length === 0) lines.push('      (no case yet)');
    }
  }
  const others = cases.filter((entry) => !known.has(entry.clause));
  if (others.length > 0) lines.push('Of no known clause', ...others.map((entry) => `      ${entry.id}  ${entry.title}`));
  return lines.join('\n');
}

// ---- What was tested

/** Variables under which something else is tested than the package as it is. */
const changing = /^COMPLETION_PORT_(?:DISABLE|MUTANT|BUILD|KQUEUE_FAULTS|TEST_\w+)$/;

/** What keeps a run from being one of the whole suite on the package as it is; null where nothing does. */
export function restrictionsOf(
  options: { readonly filter?: RegExp | undefined; readonly adapter?: string | null },
  env: Readonly<Record<string, string | undefined>> = process.env,
): Restrictions | null {
  const environment: Record<string, string> = {};
  for (const [name, value = ''] of Object.entries(env).sort()) {
    if (changing.test(name) && value !== '') environment[name] = value;
  }
  const restrictions: Restrictions = {
    ...(options.filter === undefined ? {} : { filter: options.filter.source }),
    ...(options.adapter == null ? {} : { adapter: path.basename(options.adapter) }),
    ...(Object.keys(environment).length === 0 ? {} : { environment }),
  };
  return Object.keys(restrictions).length === 0 ? null : restrictions;
}

/** The kernel that the stand-in for kqueue behaves as, or null: that is kqueue itself, or another backend. */
export function standInOf(
  backend: string,
  features: Readonly<Record<string, boolean>>,
  env: Readonly<Record<string, string | undefined>> = process.env,
): string | null {
  const { COMPLETION_PORT_KQUEUE_SHIM: kernel = '' } = env;
  if (backend === 'kqueue') return /^\w+$/.test(kernel) ? kernel : null;
  // Wine says which it is (wine_8.0), beside that it is Wine at all.
  return Object.keys(features).find((name) => features[name] === true && /^wine_[\d.]+$/.test(name)) ?? null;
}

// ---- Files

/**
 * Where a run inside a checkout of the project leaves its report: `build/reports/io_uring-node20.json` for a full run (`epoll-seccomp-node20.json`
 * where the port took epoll because a seccomp profile denies io_uring, `kqueue-xnu-node20.json` over the stand-in that behaves as XNU,
 * `iocp-wine-node20.json` under Wine), the same name under `partial/` for any other. Null for an installed package: that has no place for reports.
 */
export function reportFile(
  full: boolean,
  backend: { name: string; features: Readonly<Record<string, boolean>>; fallbackReason: string | null },
  shared: boolean,
  runtime: { name: string; version: string },
): string | null {
  const root = fileURLToPath(new URL('../../', import.meta.url));
  // The sources aren't part of the tarball.
  if (!fs.existsSync(path.join(root, 'src', 'conformance', 'report.ts'))) return null;
  const name = `${reportName({ ...backend, standIn: standInOf(backend.name, backend.features) }, shared, runtime)}.json`;
  return path.join(root, 'build', 'reports', ...(full ? [] : ['partial']), name);
}

/** A report's name, without an ending. */
export function reportName(
  backend: { name: string; standIn: string | null; fallbackReason: string | null },
  shared: boolean,
  runtime: { name: string; version: string },
): string {
  // A backend that was fallen back to is another row of the matrix than the same one chosen.
  const { name, standIn: kernel, fallbackReason: why } = backend;
  const how = why === null ? '' : /seccomp/.test(why) ? '-seccomp' : '-fallback';
  // Without the version of Wine: another one's report takes this one's place.
  const as = kernel === null ? '' : `-${kernel.replace(/_[\d.]+$/, '')}`;
  return `${name}${as}${how}${shared ? '-shared' : ''}-${runtime.name}${runtime.version.split('.')[0]}`;
}

/** Whole or not at all: a reader never sees half a report. */
export function writeReport(file: string, report: SuiteReport): void {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}.tmp`;
  fs.writeFileSync(temporary, `${JSON.stringify(report, null, 2)}\n`);
  fs.renameSync(temporary, file);
}
