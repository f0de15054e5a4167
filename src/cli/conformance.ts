// `completion-port conformance`: runs the suite and shows it: a progress bar and a table on a terminal, a line a case
// elsewhere, TAP or JSON for machines. With --matrix it runs nothing and puts reports beside each other.

import * as fs from 'node:fs';
import * as path from 'node:path';
import { runtimeInfo } from '../conformance/process.js';
import {
  caseLine,
  formatMs,
  listing,
  paintVerdict,
  reportFile,
  restrictionsOf,
  table,
  tapHeader,
  tapLine,
  writeReport,
} from '../conformance/report.js';
import { isGood, probeBackends, RefusedError, runSuite, selectCases } from '../conformance/runner.js';
import type { CaseReport, ConformanceCase, SuiteReport } from '../conformance/types.js';
import { writeMatrix } from './matrix.js';
import { noPositionals, paintFor, parseOptions, UsageError } from './options.js';

const name = 'completion-port conformance';
const backendNames = ['io_uring', 'epoll', 'kqueue', 'iocp'] as const;

const help = `Usage: completion-port conformance [options]
       completion-port conformance --matrix [REPORT|FOLDER...] [--out DIR]

Checks how a backend behaves against the reference, documented Windows completion ports: a case for each
clause and variant. Verdicts: pass, fail, gated (a known, sourced difference), unable (this machine lacks
something), n/a (the clause speaks of a facility that the backend hasn't).
Ends with 0 if nothing failed and no gate passed (under CI=true: nothing was unable either), 1 otherwise.

Options:
  --backend NAME|all   io_uring, epoll, kqueue, iocp; all: every one that works here (default: the port's choice)
  --filter REGEXP      only cases whose id it matches
  --list               print the clauses and their cases, run nothing
  --repeat N           each case N times, each with the next seed; soak cases run once
  --scale X            multiplies the counts inside cases (default 1, the clause's own)
  --seed N             0 to 2^32-1 (default: random, and printed)
  --shared             every port is a shared one, used by one thread; what that can't say anything about is 'n/a'
  --json FILE          write the report there; with several backends FILE gets the backend's name before its ending
  --tap                print TAP instead of lines for people
  --adapter FILE       check the port that this module's default export offers: an object with CompletionPort,
                       FileHandle, TcpListener, TcpSocket and Operation; cases of missing names are 'unable'
  --matrix             run nothing: make CONFORMANCE.md and CONFORMANCE.html out of reports (files of --json, or folders of
                       them; default: a checkout's build/reports), a column for each. What isn't a full report of the
                       package itself is marked as partial. Ends with 1 if a report has a failure
  --out DIR            where --matrix writes (default: the current folder)
  --help, -h           this text

Examples:
  completion-port conformance
  completion-port conformance --filter '^(CANCEL|CLOSE)' --repeat 20
  completion-port conformance --backend all --json report.json
  completion-port conformance --shared
  completion-port conformance --adapter ./their-port.mjs --tap
  completion-port conformance --matrix linux.json mac.json --out pages
`;

interface Options {
  backend: string;
  filter: RegExp | undefined;
  list: boolean;
  repeat: number;
  scale: number;
  seed: number | undefined;
  json: string | undefined;
  tap: boolean;
  adapter: string | null;
  shared: boolean;
}

export async function run(argv: string[]): Promise<number> {
  const { values, positionals } = parseOptions(name, argv, {
    backend: { value: 'NAME' },
    filter: { value: 'REGEXP' },
    list: { value: 'boolean' },
    repeat: { value: 'N' },
    scale: { value: 'X' },
    seed: { value: 'N' },
    json: { value: 'FILE' },
    tap: { value: 'boolean' },
    adapter: { value: 'FILE' },
    shared: { value: 'boolean' },
    matrix: { value: 'boolean' },
    out: { value: 'DIR' },
  });
  if (values.help === true) {
    process.stdout.write(help);
    return 0;
  }
  if (values.matrix === true) {
    const other = Object.keys(values).find((option) => option !== 'matrix' && option !== 'out');
    if (other !== undefined) throw new UsageError(`${name}: --${other} is about a run; --matrix takes reports and --out only`);
    return writeMatrix(name, positionals, typeof values.out === 'string' ? values.out : '.');
  }
  if (values.out !== undefined) throw new UsageError(`${name}: --out is where --matrix writes; a run's report is --json FILE`);
  noPositionals(name, positionals);
  const options = readOptions(values);
  const cases = await selectCases(options);
  if (cases.length === 0 && options.filter !== undefined)
    throw new UsageError(`${name}: --filter ${options.filter.source} matches no case id; see --list`);
  if (options.list) {
    process.stdout.write(`${listing(cases, options.filter === undefined)}\n`);
    return 0;
  }
  try {
    return await runBackends(options, cases);
  } catch (error) {
    if (!(error instanceof RefusedError)) throw error;
    process.stderr.write(`${name}: ${error.message}\n`);
    return 1;
  }
}

function readOptions(values: Readonly<Record<string, string | true>>): Options {
  const text = (option: string): string | undefined => {
    const value = values[option];
    return typeof value === 'string' ? value : undefined;
  };
  const number = (option: string, rule: string, allowed: (value: number) => boolean): number | undefined => {
    const given = text(option);
    if (given === undefined) return undefined;
    const value = Number(given);
    if (!allowed(value)) throw new UsageError(`${name}: --${option} must be ${rule}, not '${given}'`);
    return value;
  };
  const backend = text('backend') ?? 'auto';
  if (backend !== 'auto' && backend !== 'all' && !backendNames.some((known) => known === backend)) {
    throw new UsageError(`${name}: unknown backend '${backend}'; it is one of ${backendNames.join(', ')}, all`);
  }
  let filter: RegExp | undefined;
  const pattern = text('filter');
  if (pattern !== undefined) {
    try {
      filter = new RegExp(pattern);
    } catch (error) {
      throw new UsageError(`${name}: --filter is no regular expression: ${(error as Error).message}`);
    }
  }
  const adapter = text('adapter') ?? null;
  if (adapter !== null && !fs.existsSync(adapter)) throw new UsageError(`${name}: --adapter: there is no file ${adapter}`);
  const json = text('json');
  if (json !== undefined && !fs.existsSync(path.dirname(path.resolve(json)))) {
    throw new UsageError(`${name}: --json: there is no folder ${path.dirname(json)}`);
  }
  return {
    backend,
    filter,
    list: values.list === true,
    repeat: number('repeat', 'a whole number from 1 on', (value) => Number.isSafeInteger(value) && value >= 1) ?? 1,
    scale: number('scale', 'a number above 0, at most 1000', (value) => value > 0 && value <= 1000) ?? 1,
    seed: number(
      'seed',
      'a whole number of 0 to 4294967295',
      (value) => Number.isInteger(value) && value >= 0 && value < 2 ** 32,
    ),
    json,
    tap: values.tap === true,
    adapter,
    shared: values.shared === true,
  };
}

async function runBackends(options: Options, cases: readonly ConformanceCase[]): Promise<number> {
  let backends = [options.backend];
  if (options.backend === 'all') {
    const states = await probeBackends(options.adapter);
    backends = states.filter((state) => state.available).map((state) => state.name);
    for (const state of states.filter((entry) => !entry.available)) {
      process.stderr.write(`${state.name} isn't available: ${state.reason ?? 'no reason given'}\n`);
    }
    if (backends.length === 0) throw new RefusedError('no backend works on this machine');
  }

  // The first interrupt ends the run and shows what is done; a second one ends this process at once.
  const abort = new AbortController();
  let interruptedBy: NodeJS.Signals | null = null;
  const interrupt = (signal: NodeJS.Signals): void => {
    interruptedBy = signal;
    abort.abort();
    process.removeListener('SIGINT', interrupt);
    process.removeListener('SIGTERM', interrupt);
  };
  process.on('SIGINT', interrupt);
  process.on('SIGTERM', interrupt);
  try {
    let good = true;
    for (const backend of backends) {
      const report = await runOne(options, backend, cases, abort.signal);
      if (interruptedBy !== null) {
        process.stderr.write(`interrupted: ${report.cases.length} of ${cases.length} cases were done\n`);
        return interruptedBy === 'SIGINT' ? 130 : 143;
      }
      good &&= isGood(report);
      if (options.json !== undefined)
        writeReport(path.resolve(jsonName(options.json, report.backend.name, backends.length)), report);
    }
    return good ? 0 : 1;
  } finally {
    process.removeListener('SIGINT', interrupt);
    process.removeListener('SIGTERM', interrupt);
  }
}

function jsonName(file: string, backend: string, backends: number): string {
  if (backends === 1) return file;
  const { dir, name: base, ext } = path.parse(file);
  return path.join(dir, `${base}.${backend}${ext}`);
}

async function runOne(
  options: Options,
  backend: string,
  cases: readonly ConformanceCase[],
  signal: AbortSignal,
): Promise<SuiteReport> {
  // A report of the whole suite at its own counts on the package itself, with nothing masked, is one of the project's results.
  const full = options.scale === 1 && restrictionsOf(options) === null;
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 32);
  const view = options.tap ? tapView(cases.length) : process.stdout.isTTY ? terminalView(cases.length) : plainView();
  let file: string | null = null;

  const report = await runSuite({
    backend,
    ...(options.filter === undefined ? {} : { filter: options.filter }),
    repeat: options.repeat,
    scale: options.scale,
    seed,
    adapter: options.adapter,
    shared: options.shared,
    signal,
    onPlan(_, chosen, fallbackReason) {
      file = reportFile(full, { ...chosen, fallbackReason }, options.shared, runtimeInfo());
      // An old report mustn't outlive a run that doesn't come to its end.
      if (full && file !== null) fs.rmSync(file, { force: true });
      view.begin(chosen.name, seed);
    },
    onStart: (testCase) => view.start(testCase),
    onResult: (result) => view.result(result),
  });
  view.end(report);
  if (!signal.aborted && file !== null) writeReport(file, report);
  return report;
}

// ---- Views

interface View {
  begin(backend: string, seed: number): void;
  start(testCase: ConformanceCase): void;
  result(report: CaseReport): void;
  end(report: SuiteReport): void;
}

function heading(backend: string, seed: number): string {
  const { name: runtime, version } = runtimeInfo();
  return `${backend} on ${runtime} ${version}, seed ${seed}`;
}

function summary(report: SuiteReport): string {
  const { totals } = report;
  const parts = [
    `${totals.pass} passed`,
    `${totals.fail} failed`,
    `${totals.gated} gated`,
    `${totals.unable} unable`,
    `${totals['n/a']} n/a`,
  ];
  return `${parts.join(', ')}, ${formatMs(report.durationMs)}, seed ${report.seed}`;
}

function plainView(): View {
  const paint = paintFor(process.stdout);
  return {
    begin: (backend, seed) => process.stdout.write(`${heading(backend, seed)}\n`),
    start() {},
    result: (report) => process.stdout.write(`${caseLine(report, paint)}\n`),
    end: (report) => process.stdout.write(`${report.backend.name}: ${summary(report)}\n`),
  };
}

function tapView(count: number): View {
  let number = 0;
  const strict = process.env.CI === 'true';
  return {
    begin: (backend, seed) => process.stdout.write(`${tapHeader(count)}\n# ${heading(backend, seed)}\n`),
    start() {},
    result: (report) => process.stdout.write(`${tapLine(report, ++number, strict)}\n`),
    end: (report) => process.stdout.write(`# ${summary(report)}\n`),
  };
}

function terminalView(count: number): View {
  const paint = paintFor(process.stdout);
  const out = process.stdout;
  let done = 0;
  let failed = 0;
  let current = '';
  let since = performance.now();
  let timer: ReturnType<typeof setInterval> | undefined;
  const clear = (): void => void out.write('\r\u001b[2K');
  const draw = (): void => {
    const width = 24;
    const filled = count === 0 ? width : Math.floor((done / count) * width);
    const bar = '█'.repeat(filled) + '░'.repeat(width - filled);
    const state = failed === 0 ? '' : ` ${paintVerdict('fail', paint, `${failed} failed`)}`;
    const text = current === '' ? '' : `${current}  ${formatMs(performance.now() - since)}`;
    const room = Math.max(0, (out.columns ?? 80) - width - 24);
    clear();
    out.write(`${bar} ${done}/${count}${state}  ${text.slice(0, room)}`);
  };
  return {
    begin(backend, seed) {
      out.write(`${heading(backend, seed)}\n`);
      timer = setInterval(draw, 100).unref();
      draw();
    },
    start(testCase) {
      current = testCase.id;
      since = performance.now();
    },
    result(report) {
      done++;
      current = '';
      if (report.verdict !== 'fail') return;
      failed++;
      clear();
      out.write(`${caseLine(report, paint)}\n`);
    },
    end(report) {
      clearInterval(timer);
      clear();
      out.write(`${table(report, paint)}\n\n${summary(report)}\n`);
    },
  };
}
