// `completion-port bench`: reads the options, shows the progress and the report, and writes the files.

import * as fs from 'node:fs';
import { rivalNames, workloadNames } from '../bench/names.js';
import type { BenchOptions, BenchView, Progress } from '../bench/runner.js';
import type { BenchReport } from '../bench/types.js';
import { nearest, noPositionals, paintFor, parseOptions, UsageError } from './options.js';

const name = 'completion-port bench';
const backendNames = ['io_uring', 'epoll', 'kqueue', 'iocp'] as const;

const roundsDefault = 11;
const roundsQuick = 3;
const roundsMax = 100;
/** What a shell calls a program that such a signal ended; Windows has no SIGQUIT, and sends none. */
const exitCodes: Readonly<Record<string, number>> = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129, SIGQUIT: 131 };

const help = `Usage: completion-port bench [options]
       completion-port bench compare FILE… [--html FILE]

Measures this package, each backend that runs here, and what it is compared with, side by side in interleaved
rounds. A figure is CPU time of the subject an operation, all its threads, as median, minimum and maximum over
the rounds; a ratio is taken round by round, and refused where its quartiles lie more than 15 % from its median.
Subjects that aren't here (no C compiler, no Bun) are listed with the reason. The C programs are compiled first.
Ends with 0; with 1 if a subject failed or a wanted backend isn't here.

Options:
  --quick              one parameter set a workload and ${roundsQuick} short rounds, under a minute: shows that it runs
  --short              a choice of the parameter sets, each measured as in a whole run: under 25 minutes
  --workload NAME,…    ${workloadNames.join(', ')} (default: all)
  --against NAME,…     compare only with these (see --list); this package's own variants are always measured
  --backend NAME       ${backendNames.join(', ')} (default: every one that works here)
  --only REGEXP        only subjects whose line in --list it matches
  --rounds N           1 to ${roundsMax} (default ${roundsDefault}); fewer than 9 say little
  --json FILE          write the report there
  --html FILE          … as one page with charts and tables that needs no network
  --list               print workloads and subjects, measure nothing
  --help, -h           this text

compare puts the reports of several machines (--json) side by side: figures, and ratios to each machine's own
baseline.

Ctrl-C ends it, and prints and writes what is done.

Examples:
  completion-port bench --quick
  completion-port bench --short --html report.html
  completion-port bench --workload tcp-echo --against node:net,bun --json echo.json
  completion-port bench compare debian.json mac.json --html machines.html
  completion-port bench --backend epoll --only 'connections=64 bytes=64 '
`;

interface Files {
  readonly json?: string | undefined;
  readonly html: string | undefined;
}

export async function run(argv: string[]): Promise<number> {
  if (argv[0] === 'compare') return compare(argv.slice(1));
  const { values, positionals } = parseOptions(name, argv, {
    quick: { value: 'boolean' },
    short: { value: 'boolean' },
    workload: { value: 'NAME,…' },
    against: { value: 'NAME,…' },
    backend: { value: 'NAME' },
    only: { value: 'REGEXP' },
    rounds: { value: 'N' },
    json: { value: 'FILE' },
    html: { value: 'FILE' },
    list: { value: 'boolean' },
  });
  if (values.help === true) {
    process.stdout.write(help);
    return 0;
  }
  noPositionals(name, positionals);
  if (values.quick === true && values.short === true) throw new UsageError(`${name}: --quick or --short, not both`);
  const text = (option: string): string | undefined => (typeof values[option] === 'string' ? values[option] : undefined);
  const options: BenchOptions = {
    scope: values.quick === true ? 'quick' : values.short === true ? 'short' : 'whole',
    rounds: readRounds(text('rounds'), values.quick === true),
    workloads: readNames('workload', text('workload'), workloadNames),
    against: readNames('against', text('against'), rivalNames),
    only: readRegExp(text('only')),
    backend: readNames('backend', text('backend'), backendNames)?.[0] ?? null,
  };
  const files: Files = { json: text('json'), html: text('html') };
  checkWritable(files);
  return values.list === true ? list(options) : measure(options, files);
}

function readRounds(text: string | undefined, quick: boolean): number {
  if (text === undefined) return quick ? roundsQuick : roundsDefault;
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > roundsMax) {
    throw new UsageError(`${name}: --rounds takes a whole number from 1 to ${roundsMax}, not '${text}'`);
  }
  return value;
}

function readNames(option: string, text: string | undefined, known: readonly string[]): string[] | null {
  if (text === undefined) return null;
  const names = text.split(',').map((part) => part.trim());
  for (const given of names) {
    if (known.includes(given)) continue;
    const right = nearest(given, known);
    const hint = right === null ? `it is one of ${known.join(', ')}` : `did you mean ${right}?`;
    throw new UsageError(`${name}: --${option}: there is no '${given}'; ${hint}`);
  }
  if (option === 'backend' && names.length > 1) throw new UsageError(`${name}: --backend takes one name`);
  return names;
}

function readRegExp(text: string | undefined): RegExp | null {
  if (text === undefined) return null;
  try {
    return new RegExp(text);
  } catch (error) {
    throw new UsageError(`${name}: --only: ${(error as Error).message}`);
  }
}

/** Before anything is measured for half an hour. */
function checkWritable(files: Files): void {
  for (const [option, file] of Object.entries(files) as [string, string | undefined][]) {
    if (file === undefined) continue;
    // Of a link that leads nowhere yet the link itself is there, and stays.
    const existed = fs.lstatSync(file, { throwIfNoEntry: false }) !== undefined;
    try {
      fs.closeSync(fs.openSync(file, 'a'));
    } catch (error) {
      throw new UsageError(`${name}: --${option}: can't write ${file}: ${(error as Error).message}`);
    }
    if (!existed) fs.rmSync(file, { force: true });
  }
}

async function list(options: BenchOptions): Promise<number> {
  const { resultName, select } = await import('../bench/runner.js');
  const { workloadsFor } = await import('../bench/workloads/index.js');
  const { examine } = await import('../bench/machine.js');
  try {
    const machine = await examine(options.backend);
    const workloads = select(workloadsFor(machine, options.scope), options);
    machine.peers.remove();
    const lines = workloads.flatMap((workload) => workload.subjects.map((subject) => resultName(workload, subject)));
    for (const { subject, reason } of machine.absent) lines.push(`absent ${subject}: ${reason}`);
    process.stdout.write(`${lines.join('\n')}\n`);
    return 0;
  } catch (error) {
    return refuse(error);
  }
}

/** A backend that isn't here is an answer, in one line; anything else is a fault of ours. */
function refuse(error: unknown): number {
  const { code, message } = error as { code?: string; message: string };
  if (code === undefined || !/^(ERR_|E[A-Z]+$)/.test(code)) throw error;
  process.stderr.write(`${name}: ${message}\n`);
  return 1;
}

async function measure(options: BenchOptions, files: Files): Promise<number> {
  let stopped: NodeJS.Signals | null = null;
  try {
    const { Bench, NothingToMeasure } = await import('../bench/runner.js');
    const { killAll } = await import('../bench/processes.js');
    const view = process.stdout.isTTY === true ? await terminalView() : await lineView();
    const bench = new Bench(options, view);
    process.on('exit', killAll);
    for (const signal of Object.keys(exitCodes) as NodeJS.Signals[]) {
      process.on(signal, () => {
        if (stopped !== null) process.exit(exitCodes[signal]); // the second time at once
        stopped = signal;
        bench.interrupt();
      });
    }
    const { report, failures } = await bench.run().catch((error: unknown) => {
      if (!(error instanceof NothingToMeasure)) throw error;
      throw new UsageError(`${name}: the options leave nothing to measure; see --list`);
    });
    await write(files, report);
    return stopped === null ? Number(failures > 0) : (exitCodes[stopped] ?? 1);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    return refuse(error);
  }
}

async function write(files: Files, report: BenchReport): Promise<void> {
  if (files.json !== undefined) fs.writeFileSync(files.json, `${JSON.stringify(report, null, 2)}\n`);
  if (files.html === undefined) return;
  const { pageOf } = await import('../bench/html.js');
  fs.writeFileSync(files.html, pageOf([{ name: 'this machine', report }]));
}

/** `bench compare FILE…` */
async function compare(argv: string[]): Promise<number> {
  const command = `${name} compare`;
  const { values, positionals } = parseOptions(command, argv, { html: { value: 'FILE' } });
  if (values.help === true) {
    process.stdout.write(help);
    return 0;
  }
  if (positionals.length === 0) throw new UsageError(`${command}: name at least one report: ${command} A.json B.json`);
  const html = typeof values.html === 'string' ? values.html : undefined;
  checkWritable({ html });
  const { comparison, nameReports, NoReportError, readReport } = await import('../bench/compare.js');
  try {
    const named = nameReports(positionals.map(readReport));
    if (html !== undefined) {
      const { pageOf } = await import('../bench/html.js');
      fs.writeFileSync(html, pageOf(named));
    }
    process.stdout.write(`${comparison(named, paintFor(process.stdout))}\n`);
    return 0;
  } catch (error) {
    if (error instanceof NoReportError) throw new UsageError(`${command}: ${error.message}`);
    throw error;
  }
}

async function lineView(): Promise<BenchView> {
  const { closingText, headline, workloadText } = await import('../bench/text.js');
  const paint = paintFor(process.stdout);
  const out = (text: string): void => void process.stdout.write(text === '' ? '' : `${text}\n`);
  return {
    building() {},
    nothing() {},
    begin: (report) => out(headline(report)),
    progress() {},
    results: (workload, results, ratios) => out(`\n${workloadText(workload, results, ratios, paint)}`),
    end: (report) => out(`\n${closingText(report, paint)}`),
  };
}

async function terminalView(): Promise<BenchView> {
  const lines = await lineView();
  const out = process.stdout;
  const clear = (): void => void out.write('\r\u001b[2K');
  const cleared =
    <A extends unknown[]>(show: (...args: A) => void) =>
    (...args: A): void => {
      clear();
      show(...args);
    };
  return {
    building: () => void out.write('looking at this machine, compiling the C programs'),
    nothing: clear,
    begin: cleared(lines.begin),
    progress({ done, total, text, msLeft }: Progress) {
      const width = 24;
      const filled = Math.floor((done / Math.max(1, total)) * width);
      const bar = '█'.repeat(filled) + '░'.repeat(width - filled);
      const left = msLeft === null ? '' : ` ${formatLeft(msLeft)} left `;
      const line = `${bar} ${done}/${total}${left} ${text}`;
      clear();
      out.write(line.slice(0, Math.max(0, (out.columns || 80) - 1)));
    },
    results: cleared(lines.results),
    end: cleared(lines.end),
  };
}

function formatLeft(ms: number): string {
  const seconds = Math.round(ms / 1000);
  return seconds < 100 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}
