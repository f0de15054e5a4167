// Runs the suite: gives the cases to processes of their own (host.ts), watches them, and makes the report. A case which blocks
// its thread, crashes its process or is killed is reported with what it was doing, and the run goes on in a new process. The
// runner itself never loads what is under test.

import { type ChildProcess, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { gates as knownGates } from './gates.js';
import { runtimeArguments, runtimeInfo } from './process.js';
import { type BackendState, cleanupMs, defaultTimeoutMs, graceMs, type Job, type JobItem, type LogRecord } from './protocol.js';
import { restrictionsOf, standInOf } from './report.js';
import type { CaseReport, ConformanceCase, Gate, SuiteReport, Verdict } from './types.js';

export interface RunOptions {
  /** A backend's name, or `auto` (the default): the port's own choice. */
  readonly backend?: string;
  /** Matched against each case's id. */
  readonly filter?: RegExp;
  readonly repeat?: number;
  readonly scale?: number;
  /** 0..2^32-1; chosen at random unless told. */
  readonly seed?: number;
  readonly adapter?: string | null;
  /** Every port that the cases create is a shared one, used by one thread. */
  readonly shared?: boolean;
  /** The environment of the processes, added to this one's. */
  readonly env?: Readonly<Record<string, string>>;
  /** Aborting it ends the run; the report then has the cases that were done. */
  readonly signal?: AbortSignal;
  /** Module that exports `cases`, as a file URL; the suite's own unless told. */
  readonly registry?: string;
  readonly gates?: readonly Gate[];
  onPlan?(cases: readonly ConformanceCase[], backend: SuiteReport['backend'], fallbackReason: string | null): void;
  onStart?(testCase: ConformanceCase): void;
  onResult?(report: CaseReport): void;
}

/** What is under test can't be used: no native addon, an unknown or unavailable backend, an adapter without ports. */
export class RefusedError extends Error {
  override readonly name = 'RefusedError';
}

export const defaultRegistry = new URL('./cases/index.js', import.meta.url).href;
const hostFile = fileURLToPath(new URL('./host.js', import.meta.url));
/** How often a process's log is looked at. Its end is told at once by the exit event. */
const pollMs = 20;
/** A process that has said nothing for so long, no case running, hangs in its start or end. */
const startLimitMs = process.platform === 'win32' ? 60_000 : 20_000; // under Wine a start takes a second and more of processor time

interface Run {
  readonly outcome: 'pass' | 'fail' | 'unable' | 'n/a';
  readonly message: string | null;
  readonly seed: number;
  readonly durationMs: number;
}

export async function selectCases(options: RunOptions): Promise<readonly ConformanceCase[]> {
  const { cases } = (await import(options.registry ?? defaultRegistry)) as { cases: readonly ConformanceCase[] };
  return options.filter === undefined ? cases : cases.filter((entry) => options.filter?.test(entry.id));
}

/** The backends that what is under test knows of, on this machine. */
export async function probeBackends(adapter: string | null): Promise<readonly BackendState[]> {
  return withFolder(async (folder) => {
    let backends: readonly BackendState[] | null = null;
    await runHost(
      { folder, items: [], probe: true, adapter, backend: 'auto', registry: defaultRegistry, scale: 1, shared: false },
      {},
      undefined,
      {
        record(record) {
          if (record.type === 'backends') backends = record.backends;
          if (record.type === 'refused') throw new RefusedError(record.message);
        },
        limit: () => startLimitMs,
      },
    );
    if (backends === null) throw new RefusedError('the process that asks for the backends ended without an answer');
    return backends;
  });
}

export async function runSuite(options: RunOptions = {}): Promise<SuiteReport> {
  const selected = await selectCases(options);
  const seed = options.seed ?? Math.floor(Math.random() * 4294967296);
  const scale = options.scale ?? 1;
  const gates = options.gates ?? knownGates;
  const started = new Date().toISOString();
  const begin = performance.now();
  const reports: CaseReport[] = [];
  let backend: SuiteReport['backend'] | null = null;
  let fallbackReason: string | null = null;
  const isAborted = (): boolean => options.signal?.aborted === true;

  await withFolder(async (folder) => {
    const job: Omit<Job, 'log' | 'items'> = {
      folder,
      probe: false,
      adapter: options.adapter ?? null,
      backend: options.backend ?? 'auto',
      registry: options.registry ?? defaultRegistry,
      scale,
      shared: options.shared ?? false,
    };
    const start = (items: readonly JobItem[], watcher: Watcher): Promise<HostEnd> =>
      runHost({ ...job, items }, options.env ?? {}, options.signal, watcher);

    // A process without cases says which backend it is: the gates, and with them the plan, depend on it.
    const hello = await start([], {
      record(record) {
        if (record.type === 'refused') throw new RefusedError(record.message);
        if (record.type === 'hello') {
          backend = { name: record.backend, features: { ...record.features } };
          fallbackReason = record.fallbackReason;
        }
      },
      limit: () => startLimitMs,
    });
    if (isAborted()) return;
    const { name, features } =
      backend ?? refuse(`the process that runs the cases ended before the first one (${describeEnd(hello)}) ${hello.stderr}`);
    options.onPlan?.(selected, { name, features }, fallbackReason);

    // Every run of every case, in order. Soaks run once, whatever --repeat says; a gated race as often as its gate asks.
    const todo: { testCase: ConformanceCase; item: JobItem; last: boolean }[] = [];
    for (const testCase of selected) {
      const asked = testCase.soak === true ? 1 : (options.repeat ?? 1);
      const count = Math.max(asked, gateOf(gates, testCase, name, features)?.repeat ?? 1);
      for (let run = 0; run < count; run++) {
        todo.push({ testCase, item: { id: testCase.id, seed: (seed + run) >>> 0 }, last: run === count - 1 });
      }
    }

    let next = 0;
    let runs: Run[] = [];
    const settle = (run: Omit<Run, 'seed'>): void => {
      const entry = todo[next] as (typeof todo)[number];
      runs.push({ ...run, seed: entry.item.seed });
      next++;
      if (!entry.last) return;
      const report = judge(entry.testCase, runs, gateOf(gates, entry.testCase, name, features));
      runs = [];
      reports.push(report);
      options.onResult?.(report);
    };

    while (next < todo.length && !isAborted()) {
      const base = next;
      const running = { active: false, cleaning: false, doing: '', since: 0 };
      const end = await start(
        todo.slice(base).map((entry) => entry.item),
        {
          record(record) {
            if (record.type === 'refused') throw new RefusedError(record.message);
            if (record.type === 'start') {
              Object.assign(running, { active: true, cleaning: false, doing: '', since: performance.now() });
              if (runs.length === 0) options.onStart?.((todo[next] as (typeof todo)[number]).testCase);
            } else if (record.type === 'doing') {
              running.doing = record.what;
            } else if (record.type === 'cleanup') {
              Object.assign(running, { cleaning: true, doing: 'its things were put away' });
            } else if (record.type === 'done') {
              running.active = false;
              settle({ outcome: record.outcome, message: record.message, durationMs: record.durationMs });
            }
          },
          limit() {
            if (!running.active) return startLimitMs;
            return running.cleaning ? cleanupMs : (todo[next]?.testCase.timeoutMs ?? defaultTimeoutMs) + graceMs;
          },
        },
      );
      if (isAborted()) return;
      if (running.active) {
        const how = end.killed
          ? `it blocked its thread and was killed after ${Math.round(end.silentMs)} ms`
          : `its process ended (${describeEnd(end)})`;
        const during = running.doing === '' ? '' : ` while ${running.doing}`;
        const printed = end.stderr === '' ? '' : `; the process printed: ${end.stderr}`;
        settle({ outcome: 'fail', message: how + during + printed, durationMs: performance.now() - running.since });
      } else if (next === base) {
        refuse(`the process that runs the cases ended before its first one (${describeEnd(end)}) ${end.stderr}`);
      }
    }
  });

  const env = { ...process.env, ...options.env };
  const restrictions = restrictionsOf(options, env);
  const used = backend as SuiteReport['backend'] | null;
  const standIn = standInOf(used?.name ?? '', used?.features ?? {}, env);
  return {
    suite: `completion-port ${packageVersion()}`,
    seed,
    scale,
    ...(options.shared === true ? { shared: true } : {}),
    ...(restrictions === null ? {} : { restrictions }),
    ...(fallbackReason === null ? {} : { fallbackReason }),
    ...(standIn === null ? {} : { standIn }),
    started,
    durationMs: Math.round(performance.now() - begin),
    runtime: runtimeInfo(),
    os: { platform: process.platform, release: os.release(), arch: process.arch },
    backend: backend ?? { name: options.backend ?? 'auto', features: {} },
    totals: countVerdicts(reports),
    cases: reports,
  };
}

function refuse(message: string): never {
  throw new RefusedError(message.trim());
}

export function countVerdicts(reports: readonly CaseReport[]): Record<Verdict, number> {
  const totals: Record<Verdict, number> = { pass: 0, fail: 0, gated: 0, unable: 0, 'n/a': 0 };
  for (const { verdict } of reports) totals[verdict]++;
  return totals;
}

/** Nothing failed and no gate passed; with CI=true, nothing was unable either. */
export function isGood(report: SuiteReport, strict = process.env.CI === 'true'): boolean {
  return report.totals.fail === 0 && (!strict || report.totals.unable === 0);
}

export function packageVersion(): string {
  const file = new URL('../../package.json', import.meta.url);
  return (JSON.parse(fs.readFileSync(file, 'utf8')) as { version: string }).version;
}

function gateOf(
  gates: readonly Gate[],
  testCase: ConformanceCase,
  backend: string,
  features: Readonly<Record<string, boolean>>,
): Gate | undefined {
  const holds = (gate: Gate): boolean =>
    gate.backend === backend && (gate.feature === undefined || features[gate.feature] === true);
  return gates.find((gate) => holds(gate) && (gate.id === testCase.id || gate.id === testCase.clause));
}

/** One entry of the report out of all runs of a case: the worst of them counts, but a gate turns failure into `gated`. */
export function judge(testCase: ConformanceCase, runs: readonly Run[], gate?: Gate): CaseReport {
  const failed = runs.filter((run) => run.outcome === 'fail');
  const report: CaseReport = {
    id: testCase.id,
    clause: testCase.clause,
    title: testCase.title,
    verdict: 'pass',
    reason: null,
    error: null,
    runs: runs.length,
    failedRuns: failed.length,
    failingSeed: failed[0]?.seed ?? null,
    durationMs: Math.round(runs.reduce((sum, run) => sum + run.durationMs, 0) * 10) / 10,
  };
  const first = (outcome: Run['outcome']): Run | undefined => runs.find((run) => run.outcome === outcome);
  if (failed[0] !== undefined) {
    report.error = failed[0].message;
    report.verdict = gate === undefined ? 'fail' : 'gated';
    if (gate !== undefined) report.reason = gate.reason;
    return report;
  }
  const other = first('unable') ?? first('n/a');
  if (other !== undefined) {
    report.verdict = other.outcome;
    report.reason = other.message;
    return report;
  }
  if (gate !== undefined) {
    report.verdict = 'fail';
    report.reason = gate.reason;
    report.error = `the gate no longer applies: the case passed ${runs.length} of ${runs.length} runs. Delete the gate.`;
  }
  return report;
}

// ---- Processes

interface HostEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The watchdog ended it. */
  readonly killed: boolean;
  readonly silentMs: number;
  readonly stderr: string;
}

interface Watcher {
  record(record: LogRecord): void;
  /** Milliseconds of silence after which the process is killed. */
  limit(): number;
}

function describeEnd(end: HostEnd): string {
  return end.signal === null ? `exit code ${end.code}` : `signal ${end.signal}`;
}

async function withFolder<T>(action: (folder: string) => Promise<T>): Promise<T> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'completion-port-conformance-'));
  try {
    return await action(folder);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

let hosts = 0;

async function runHost(
  job: Omit<Job, 'log'>,
  env: Readonly<Record<string, string>>,
  signal: AbortSignal | undefined,
  watcher: Watcher,
): Promise<HostEnd> {
  const base = path.join(job.folder, `host-${hosts++}`);
  const full: Job = { ...job, log: `${base}.log` };
  fs.writeFileSync(`${base}.json`, JSON.stringify(full));
  fs.writeFileSync(full.log, '');
  const log = fs.openSync(full.log, 'r');
  const output = fs.openSync(`${base}.out`, 'w');
  const child = spawn(process.execPath, runtimeArguments(hostFile, { gc: true, args: [`${base}.json`] }), {
    stdio: ['ignore', output, output],
    // A group of its own, so that a case's children die with their process.
    detached: process.platform !== 'win32',
    env: { ...process.env, ...env },
  });
  fs.closeSync(output);

  let problem: unknown = null;
  let killed = false;
  let heard = performance.now();
  let silentMs = 0;
  const stop = (): void => killGroup(child);
  const read = createLineReader(log, (record) => {
    // A case's own progress doesn't extend its time: only its start and end do.
    if (record.type !== 'doing') heard = performance.now();
    watcher.record(record);
  });
  const look = (): void => {
    if (problem !== null) return;
    try {
      read();
    } catch (error) {
      problem = error;
      stop();
      return;
    }
    silentMs = performance.now() - heard;
    if (!killed && silentMs > watcher.limit()) {
      killed = true;
      stop();
    }
  };
  const poll = setInterval(look, pollMs);
  signal?.addEventListener('abort', stop);
  try {
    if (signal?.aborted === true) stop();
    const [code, signalName] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signalName) => resolve([code, signalName]));
    });
    if (problem === null && signal?.aborted !== true) look();
    if (problem !== null) throw problem;
    return { code, signal: signalName, killed, silentMs, stderr: fs.readFileSync(`${base}.out`, 'utf8').trim().slice(-2000) };
  } finally {
    clearInterval(poll);
    signal?.removeEventListener('abort', stop);
    // The process is gone, but a case's children may not be.
    stop();
    fs.closeSync(log);
  }
}

function killGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  if (process.platform === 'win32') {
    child.kill('SIGKILL');
    return;
  }
  try {
    process.kill(-child.pid, 'SIGKILL');
  } catch (error) {
    // ESRCH: nobody of the group is left.
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Reads the whole lines that have been added to a log since the last call. */
function createLineReader(fd: number, onRecord: (record: LogRecord) => void): () => void {
  const chunk = Buffer.alloc(65_536);
  let rest: Buffer = Buffer.alloc(0);
  let position = 0;
  return () => {
    for (;;) {
      const length = fs.readSync(fd, chunk, 0, chunk.length, position);
      if (length === 0) return;
      position += length;
      rest = Buffer.concat([rest, chunk.subarray(0, length)]);
      let begin = 0;
      for (let newline = rest.indexOf(10); newline >= 0; newline = rest.indexOf(10, begin)) {
        const line = rest.toString('utf8', begin, newline);
        begin = newline + 1;
        onRecord(JSON.parse(line) as LogRecord);
      }
      rest = Buffer.from(rest.subarray(begin));
    }
  };
}
