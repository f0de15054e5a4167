// Several reports side by side: reading them, naming their machines, and the table for people.

import * as fs from 'node:fs';
import type { Paint } from '../cli/options.js';
import type { NamedReport } from './html.js';
import { fullName, paramText } from './runner.js';
import { formatNumber } from './text.js';
import { type BenchReport, type BenchResult, oneOf, type Params } from './types.js';

/** A file that is no report; the message is for the user. */
export class NoReportError extends Error {}

type Fields = Readonly<Record<string, 'string' | 'number' | 'object'>>;

function has(value: unknown, fields: Fields): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const given = value as Readonly<Record<string, unknown>>;
  return Object.entries(fields).every(([name, type]) => typeof given[name] === type && given[name] !== null);
}

const spread: Fields = { min: 'number', median: 'number', max: 'number' };

/** Whether all that the table and the page read is there; what joined the format later, or somebody added, isn't asked for. */
function isReport(data: unknown): data is BenchReport {
  const { results, ratios, absent, os, cpu, runtime } = (data ?? {}) as Partial<BenchReport>;
  return (
    has(data, { version: 'string', rounds: 'number' }) &&
    has(os, { platform: 'string', release: 'string' }) &&
    has(cpu, { model: 'string', count: 'number' }) &&
    has(runtime, { name: 'string', version: 'string' }) &&
    Array.isArray(results) &&
    results.every(
      (result) =>
        has(result, { workload: 'string', params: 'object', subject: 'string', variant: 'string', unit: 'string' }) &&
        has(result.cpuUsPerOp, spread) &&
        has(result.opsPerSecond, spread),
    ) &&
    Array.isArray(ratios) &&
    ratios.every(
      (ratio) =>
        has(ratio, { workload: 'string', params: 'object', variant: 'string', against: 'string' }) &&
        (ratio.cpu === null || has(ratio.cpu, spread)),
    ) &&
    Array.isArray(absent) &&
    absent.every((entry) => has(entry, { subject: 'string', reason: 'string' }))
  );
}

export function readReport(file: string): BenchReport {
  let data: unknown;
  try {
    data = JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch (error) {
    throw new NoReportError(`${file}: ${(error as Error).message}`);
  }
  if (!isReport(data)) throw new NoReportError(`${file}: not a report of 'completion-port bench --json'`);
  return data;
}

/** The shortest names that tell the machines apart: by system, else by CPU, runtime or version too, at last by number. */
export function nameReports(reports: readonly BenchReport[]): NamedReport[] {
  const forms: ((report: BenchReport) => string)[] = [
    ({ os }) => `${os.platform} ${os.release}`,
    ({ os, cpu }) => `${os.platform} ${os.release}, ${cpu.model}`,
    ({ os, runtime }) => `${os.platform} ${os.release}, ${runtime.name} ${runtime.version}`,
    ({ os, version, runtime }) => `${os.platform} ${os.release}, ${runtime.name} ${runtime.version}, ${version}`,
  ];
  const form = forms.find((of) => new Set(reports.map(of)).size === reports.length);
  return reports.map((report, index) => ({
    name: form === undefined ? `${index + 1}: ${report.os.platform} ${report.os.release}` : form(report),
    report,
  }));
}

const keyOf = ({ workload, params }: { workload: string; params: Params }): string => `${workload} ${paramText(params)}`.trim();

/** A table a workload: a row for each subject, for each machine its median, and what it is to the machine's own baselines. */
export function comparison(named: readonly NamedReport[], paint: Paint): string {
  const lines = named.map(({ name, report }, index) => {
    const { cpu, runtime } = report;
    return `${String.fromCharCode(65 + index)}  ${name}: ${cpu.count} × ${cpu.model}, ${runtime.name} ${runtime.version}, completion-port ${report.version}, ${report.rounds} rounds`;
  });
  const keys = [...new Set(named.flatMap(({ report }) => report.results.map(keyOf)))];
  for (const key of keys) {
    const resultsOf = ({ report }: NamedReport): BenchResult[] => report.results.filter((result) => keyOf(result) === key);
    const subjects = [...new Set(named.flatMap((entry) => resultsOf(entry).map(fullName)))];
    const unit = named.flatMap(resultsOf)[0]?.unit ?? 'operation';
    lines.push('', `${paint.bold(key)}: CPU µs ${oneOf(unit)}`);
    const width = Math.max(...subjects.map((subject) => subject.length));
    lines.push(
      paint.dim(`  ${''.padEnd(width)}${named.map((_, index) => String.fromCharCode(65 + index).padStart(12)).join('')}`),
    );
    for (const subject of subjects) {
      const cells = named.map((entry) => {
        const result = resultsOf(entry).find((candidate) => fullName(candidate) === subject);
        return (result === undefined ? '-' : formatNumber(result.cpuUsPerOp.median)).padStart(12);
      });
      lines.push(`  ${subject.padEnd(width)}${cells.join('')}`);
    }
    const pairs = [...new Set(named.flatMap(({ report }) => report.ratios.filter((ratio) => keyOf(ratio) === key).map(pairOf)))];
    if (pairs.length > 0) lines.push('  ratio on the same machine:');
    const pairWidth = Math.max(width, ...pairs.map((pair) => pair.length));
    for (const pair of pairs) {
      const cells = named.map(({ report }) => {
        const ratio = report.ratios.find((candidate) => keyOf(candidate) === key && pairOf(candidate) === pair);
        return (ratio === undefined ? '-' : ratio.cpu === null ? 'refused' : ratio.cpu.median.toFixed(3)).padStart(12);
      });
      lines.push(`  ${pair.padEnd(pairWidth)}${cells.join('')}`);
    }
  }
  return lines.join('\n');
}

const pairOf = ({ variant, against }: { variant: string; against: string }): string => `${variant} / ${against}`;
