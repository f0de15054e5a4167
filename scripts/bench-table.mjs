// node scripts/bench-table.mjs REPORT.json: writes the figures of a report of `completion-port bench --json` into docs/BENCHMARKS.md, between
// its two marks, with the machine and the command. Only a finished run, whole or `--short`, with enough rounds is taken: the figures of a document are
// believed. `--print` prints the text instead.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { Failure, runMain, say } from './lib/log.mjs';
import { distFolder, root } from './lib/paths.mjs';

const usage = `usage: node scripts/bench-table.mjs REPORT.json [--print]
example:
  npx completion-port bench --json report.json && node scripts/bench-table.mjs report.json
`;

const document = join(root, 'docs/BENCHMARKS.md');
const begin = '<!-- figures: written by scripts/bench-table.mjs -->';
const end = '<!-- end of figures -->';

/** Fewer say little (docs/BENCHMARKS.md, Method). */
const roundsMin = 9;
/** The load of other work, over the CPUs, above which the figures are other programs' as well. */
const loadMax = 0.5;

const bytes = (value) => (value === null ? '' : Math.round(value).toLocaleString('en'));

/** The figures as Markdown. */
export async function figuresOf(report) {
  const load = async (name) => await import(pathToFileURL(join(distFolder, 'bench', name)).href);
  const { fullName, paramText } = await load('runner.js');
  const { formatNumber } = await load('text.js');
  const { oneOf } = await load('types.js');
  const keyOf = ({ workload, params }) => `${workload} ${paramText(params)}`.trim();
  const { os, cpu, runtime } = report;
  const lines = [
    `completion-port ${report.version}, ${runtime.name} ${runtime.version}, ${os.platform} ${os.release} ${os.arch}, ${cpu.count} × ${cpu.model}, load`,
    `${cpu.loadBefore.toFixed(1)} before; ${report.rounds} rounds, ${report.started.slice(0, 10)}; client: ${report.client}. Made by \`completion-port bench${report.short ? ' --short' : ''} --rounds ${report.rounds} --json report.json\`.`,
  ];
  for (const key of new Set(report.results.map(keyOf))) {
    const results = report.results.filter((result) => keyOf(result) === key);
    const ratios = report.ratios.filter((ratio) => keyOf(ratio) === key);
    const rivals = [...new Set(ratios.map(({ against }) => against))];
    const memory = results.some(({ bytesPerConnection }) => bytesPerConnection !== null);
    const heads = [
      'subject',
      `CPU µs ${oneOf(results[0].unit)}`,
      'min to max',
      ...(memory ? ['bytes a connection', "the kernel's"] : []),
      ...rivals.map((rival) => `/ ${rival}`),
    ];
    lines.push('', `### ${key}`, '', `| ${heads.join(' | ')} |`, `| ${heads.map(() => '---').join(' | ')} |`);
    for (const result of results) {
      const cells = rivals.map((rival) => {
        const ratio = ratios.find(({ variant, against }) => variant === result.variant && against === rival);
        if (result.subject !== 'completion-port' || ratio === undefined) return '';
        return ratio.cpu === null ? 'refused' : ratio.cpu.median.toFixed(2);
      });
      const { min, median, max } = result.cpuUsPerOp;
      lines.push(
        `| ${[
          fullName(result),
          formatNumber(median),
          `${formatNumber(min)} to ${formatNumber(max)}`,
          ...(memory ? [bytes(result.bytesPerConnection), bytes(result.kernelBytesPerConnection)] : []),
          ...cells,
        ].join(' | ')} |`,
      );
    }
  }
  if (report.absent.length > 0) {
    lines.push('', 'Absent:', '', ...report.absent.map(({ subject, reason }) => `- ${subject}: ${reason}`));
  }
  return lines.join('\n');
}

/** Why a report's figures must not stand in the document, or null. */
export function objection(report) {
  if (report.quick) return '--quick is too coarse for a document';
  if (report.interrupted) return 'the run was interrupted';
  if (report.rounds < roundsMin) return `${report.rounds} rounds; at least ${roundsMin} are needed`;
  if (report.cpu.loadBefore > loadMax * report.cpu.count) {
    return `the machine had other work (load ${report.cpu.loadBefore.toFixed(1)} on ${report.cpu.count} CPUs)`;
  }
  return null;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(async () => {
    let parsed;
    try {
      parsed = parseArgs({ allowPositionals: true, options: { print: { type: 'boolean' }, help: { type: 'boolean' } } });
    } catch (error) {
      throw new Failure(`${error.message}\n${usage}`, 2);
    }
    const { values, positionals } = parsed;
    if (values.help) {
      process.stdout.write(usage);
      return;
    }
    if (positionals.length !== 1) throw new Failure(`one report, please\n${usage}`, 2);
    const report = JSON.parse(readFileSync(positionals[0], 'utf8'));
    const figures = await figuresOf(report);
    if (values.print) {
      process.stdout.write(`${figures}\n`);
      return;
    }
    const reason = objection(report);
    if (reason !== null) throw new Failure(`not into docs/BENCHMARKS.md: ${reason}; --print shows the table`);
    const text = readFileSync(document, 'utf8');
    const [from, to] = [text.indexOf(begin), text.indexOf(end)];
    if (from < 0 || to < from) throw new Failure('docs/BENCHMARKS.md has lost its marks');
    writeFileSync(document, `${text.slice(0, from + begin.length)}\n\n${figures}\n\n${text.slice(to)}`);
    say('docs/BENCHMARKS.md has the figures of this report');
  });
}
