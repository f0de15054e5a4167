// The report for people: a block of lines for each workload.

import type { Paint } from '../cli/options.js';
import { fullName, paramText } from './runner.js';
import { type BenchRatio, type BenchReport, type BenchResult, oneOf, type Spread, type Workload } from './types.js';

/** Three significant digits, as they are read. */
export function formatNumber(value: number): string {
  if (!Number.isFinite(value)) return '-';
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : Math.abs(value) >= 1 ? 2 : 3;
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

const range = ({ min, max }: Spread): string => `${formatNumber(min)} to ${formatNumber(max)}`;

/** Columns, the first to the left and the rest to the right. */
function columns(rows: readonly (readonly string[])[]): string[] {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows.map((row) =>
    `  ${row.map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0))).join('  ')}`.trimEnd(),
  );
}

export function headline(report: BenchReport): string {
  const { os, cpu, runtime } = report;
  const placed = report.pinned ? 'subject and client on a CPU each' : 'processes not pinned';
  return [
    `completion-port ${report.version}, ${runtime.name} ${runtime.version}, ${os.platform} ${os.release} ${os.arch}, ${cpu.count} × ${cpu.model}, load ${cpu.loadBefore.toFixed(1)}`,
    `${report.rounds} rounds${report.quick ? ', short ones' : ''}; ${placed}; client: ${report.client}`,
  ].join('\n');
}

export function workloadText(
  workload: Workload,
  results: readonly BenchResult[],
  ratios: readonly BenchRatio[],
  paint: Paint,
): string {
  const params = paramText(workload.params);
  const lines = [`${paint.bold(workload.name)}${params === '' ? '' : ` ${params}`}: ${workload.title}`];
  const memory = results.some(({ bytesPerConnection }) => bytesPerConnection !== null);
  const latency = results.some(({ latencyUs }) => latencyUs !== null);
  const rows = [
    [
      'subject',
      `CPU µs ${oneOf(workload.unit)}`,
      'min to max',
      'a second',
      ...(latency ? ['p50 µs', 'p99 µs'] : []),
      ...(memory ? ['bytes a connection', "the kernel's"] : []),
      '',
    ],
    ...results.map((result) => [
      fullName(result),
      formatNumber(result.cpuUsPerOp.median),
      range(result.cpuUsPerOp),
      Math.round(result.opsPerSecond.median).toLocaleString('en'),
      ...(latency ? [formatNumber(result.latencyUs?.p50 ?? Number.NaN), formatNumber(result.latencyUs?.p99 ?? Number.NaN)] : []),
      ...(memory
        ? [result.bytesPerConnection, result.kernelBytesPerConnection].map((bytes) =>
            bytes === null ? '-' : Math.round(bytes).toLocaleString('en'),
          )
        : []),
      result.clientLimited ? 'the client was the limit' : '',
    ]),
  ];
  const [head = '', ...body] = columns(rows);
  lines.push(paint.dim(head), ...body);
  if (ratios.length > 0) {
    lines.push(`  CPU time as a ratio, round by round${ratios[0]?.coarse === true ? '; coarse' : ''}:`);
    const pairs = ratios.map(({ variant, against, cpu, reason }) => [
      `${variant} / ${against}`,
      cpu === null ? '-' : cpu.median.toFixed(3),
      cpu === null ? `refused: ${reason}` : `(${cpu.min.toFixed(3)} to ${cpu.max.toFixed(3)})`,
    ]);
    const width = Math.max(...pairs.map(([name = '']) => name.length));
    for (const [name = '', value = '', rest = ''] of pairs) {
      lines.push(`    ${name.padEnd(width)}  ${value.padStart(7)}  ${value === '-' ? paint.yellow(rest) : paint.dim(rest)}`);
    }
  }
  return lines.join('\n');
}

export function closingText(report: BenchReport, paint: Paint): string {
  const lines = report.absent.map(({ subject, reason }) => `${paint.yellow('absent')} ${subject}: ${reason}`);
  if (report.interrupted) lines.push('interrupted: what stands here is what was done');
  if (report.quick) lines.push('--quick: too few and too short rounds to conclude anything from');
  const limited = report.results.filter(({ clientLimited }) => clientLimited);
  if (limited.length > 0) {
    lines.push('where the client was the limit, rate and latency are its own; CPU time an operation still is the subject’s');
  }
  return lines.join('\n');
}
