// Runs the workloads and makes the report: starts the subjects of one workload, has them measured in rounds, ends them, and goes on. What
// has been measured when it is interrupted is reported like the rest.

import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { runtimeInfo } from '../conformance/process.js';
import { packageVersion } from '../conformance/runner.js';
import { clientName, examine, type Machine } from './machine.js';
import { canPin, killAll } from './processes.js';
import { type Entry, interleave, judge, type Measured, quickWarmUps, ratiosOf, spread } from './rounds.js';
import type { BenchRatio, BenchReport, BenchResult, Params, Scope, Subject, Workload } from './types.js';
import { workloadsFor } from './workloads/index.js';

/** `--quick` in all, builds not counted: 60 s are promised, and a loaded machine starts processes slowly. */
const quickBudgetMs = 50_000;
/** A ratio from fewer rounds is coarse, however close they lie. */
const roundsMin = 9;
/** What a start is taken to cost before any has been seen. */
const startMsGuess = 400;
const quickSecondsMin = 0.02;
const quickSecondsMax = 0.3;

export interface BenchOptions {
  readonly scope: Scope;
  readonly rounds: number;
  readonly workloads: readonly string[] | null;
  readonly against: readonly string[] | null;
  readonly only: RegExp | null;
  readonly backend: string | null;
}

export interface Progress {
  /** Measurements and starts, done and in all. */
  readonly done: number;
  readonly total: number;
  readonly text: string;
  /** Null until there is something to reckon with. */
  readonly msLeft: number | null;
}

export interface BenchView {
  begin(report: BenchReport): void;
  building(): void;
  /** The options leave no subject: nothing else comes. */
  nothing(): void;
  progress(progress: Progress): void;
  /** A workload is done. */
  results(workload: Workload, results: readonly BenchResult[], ratios: readonly BenchRatio[]): void;
  end(report: BenchReport): void;
}

class Interrupted extends Error {}

/** The name of a subject with its variant. */
export const fullName = ({ subject, variant }: { subject: string; variant: string }): string =>
  variant === '' ? subject : `${subject} ${variant}`;

export const paramText = (params: Params): string =>
  Object.entries(params)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ');

/** What `--only` is matched against. */
export const resultName = (workload: { name: string; params: Params }, subject: { subject: string; variant: string }): string =>
  [workload.name, paramText(workload.params), fullName(subject)].filter((part) => part !== '').join(' ');

/** The workloads that the options ask for, each with the subjects that they ask for. */
export function select(all: readonly Workload[], options: BenchOptions): Workload[] {
  return all
    .filter(({ name }) => options.workloads === null || options.workloads.includes(name))
    .map((workload) => ({
      ...workload,
      subjects: workload.subjects.filter(
        (subject) =>
          (subject.subject === 'completion-port' || options.against === null || options.against.includes(subject.subject)) &&
          (options.only === null || options.only.test(resultName(workload, subject))),
      ),
    }))
    .filter(({ subjects }) => subjects.length > 0);
}

/** The options leave no subject. */
export class NothingToMeasure extends Error {}

export class Bench {
  #interrupted = false;
  readonly #options: BenchOptions;
  readonly #view: BenchView;

  constructor(options: BenchOptions, view: BenchView) {
    this.#options = options;
    this.#view = view;
  }

  /** Ends what runs; `run` then resolves with what is done. */
  interrupt(): void {
    this.#interrupted = true;
    killAll();
  }

  async run(): Promise<{ report: BenchReport; failures: number }> {
    this.#view.building();
    const loadBefore = os.loadavg()[0] ?? 0;
    const machine = await examine(this.#options.backend);
    try {
      return await this.#measureAll(machine, loadBefore);
    } finally {
      killAll();
      machine.peers.remove();
    }
  }

  async #measureAll(machine: Machine, loadBefore: number): Promise<{ report: BenchReport; failures: number }> {
    const { scope, rounds, against } = this.#options;
    const quick = scope === 'quick';
    const workloads = select(workloadsFor(machine, scope), this.#options).filter((workload) => hasRoomFor(workload, machine));
    if (workloads.length === 0) {
      this.#view.nothing();
      throw new NothingToMeasure();
    }
    const report: Omit<BenchReport, 'interrupted'> & { interrupted: boolean } = {
      version: packageVersion(),
      started: new Date().toISOString(),
      os: { platform: process.platform, release: os.release(), arch: process.arch },
      cpu: { model: os.cpus()[0]?.model ?? 'unknown', count: os.cpus().length, loadBefore },
      runtime: runtimeInfo(),
      client: clientName(machine),
      pinned: canPin(),
      quick,
      short: scope === 'short',
      interrupted: false,
      rounds,
      results: [],
      ratios: [],
      absent: machine.absent.filter(
        ({ subject }) => against === null || against.includes(subject) || subject.startsWith('completion-port'),
      ),
    };
    this.#view.begin(report);
    const clock = new Clock(workloads, rounds, this.#view);
    let failures = 0;
    for (const workload of workloads) {
      const failed = (name: string, error: Error): void => {
        if (this.#interrupted) throw new Interrupted();
        failures++;
        report.absent.push({
          subject: `${name} in ${[workload.name, paramText(workload.params)].join(' ').trim()}`,
          reason: `failed: ${firstWords(error.message)}`,
        });
      };
      const measured = await this.#measure(workload, clock, failed);
      const results = resultsOf(workload, measured);
      const ratios = ratiosFor(workload, measured, quick);
      report.results.push(...results);
      report.ratios.push(...ratios);
      if (results.length > 0) this.#view.results(workload, results, ratios);
      if (this.#interrupted) break;
    }
    report.interrupted = this.#interrupted;
    this.#view.end(report);
    return { report, failures };
  }

  async #measure(workload: Workload, clock: Clock, failed: (name: string, error: Error) => void): Promise<Map<string, Measured>> {
    const entries: Entry[] = [];
    const results = new Map<string, Measured>();
    const step = (text: string): void => {
      if (this.#interrupted) throw new Interrupted();
      clock.step(`${workload.name}: ${text}`);
    };
    try {
      for (const subject of workload.subjects) {
        const name = fullName(subject);
        step(`starting ${name}`);
        const start = performance.now();
        try {
          entries.push({ name, running: await subject.start() });
        } catch (error) {
          failed(name, error as Error);
        }
        clock.started(performance.now() - start);
      }
      const quickSeconds = this.#options.scope === 'quick' ? clock.quickSeconds() : null;
      const timing = workload.single === true ? { quickSeconds, single: true } : { quickSeconds };
      await interleave(entries, this.#options.rounds, timing, results, { step, failed });
    } catch (error) {
      if (!(error instanceof Interrupted)) throw error;
    } finally {
      for (const { running } of entries) await running.stop().catch(() => {}); // an ended one has been reported
      clock.leave(workload);
    }
    return results;
  }
}

/** Reckons how long it takes, and how long a measurement of `--quick` may be. */
class Clock {
  readonly #begun = performance.now();
  readonly #view: BenchView;
  readonly #total: number;
  readonly #rounds: number;
  #done = 0;
  #subjectsLeft: number;
  #measurementsLeft: number;
  /** Runs of a length of their own. */
  #singlesLeft: number;
  #starts = 0;
  #startMs = 0;
  /** Steps that end with each workload, whatever failed in it. */
  #end = 0;

  constructor(workloads: readonly Workload[], rounds: number, view: BenchView) {
    this.#view = view;
    this.#rounds = rounds;
    this.#subjectsLeft = workloads.reduce((sum, { subjects }) => sum + subjects.length, 0);
    this.#measurementsLeft = workloads.reduce((sum, workload) => sum + this.#measurements(workload), 0);
    this.#singlesLeft = workloads.reduce((sum, workload) => sum + this.#singles(workload), 0);
    this.#total = workloads.reduce((sum, workload) => sum + this.#steps(workload), 0);
  }

  #measurements({ subjects, single }: Workload): number {
    return single === true ? 0 : subjects.length * (this.#rounds + quickWarmUps);
  }

  #singles({ subjects, single }: Workload): number {
    return single === true ? subjects.length * this.#rounds : 0;
  }

  #steps({ subjects, single }: Workload): number {
    return subjects.length * (this.#rounds + (single === true ? 1 : 2));
  }

  step(text: string): void {
    const elapsed = performance.now() - this.#begun;
    const msLeft = this.#done < 3 ? null : (elapsed / this.#done) * Math.max(0, this.#total - this.#done);
    this.#view.progress({ done: Math.min(this.#done, this.#total), total: this.#total, text, msLeft });
    this.#done++;
  }

  started(ms: number): void {
    this.#starts++;
    this.#startMs += ms;
    this.#subjectsLeft--;
  }

  /** At the beginning of a workload's rounds: the same length for all of them. */
  quickSeconds(): number {
    const startMs = this.#starts === 0 ? startMsGuess : this.#startMs / this.#starts;
    // A single run starts a process or two, and has something for it to do.
    const fixed = this.#subjectsLeft * startMs + this.#singlesLeft * 2 * startMs;
    const left = quickBudgetMs - (performance.now() - this.#begun) - fixed;
    const seconds = left / 1000 / Math.max(1, this.#measurementsLeft);
    return Math.min(quickSecondsMax, Math.max(quickSecondsMin, seconds));
  }

  leave(workload: Workload): void {
    this.#end += this.#steps(workload);
    this.#done = this.#end;
    this.#measurementsLeft -= this.#measurements(workload);
    this.#singlesLeft -= this.#singles(workload);
  }
}

/** Of what a program said of its end: which it was, and the line that names the error. */
function firstWords(message: string): string {
  const lines = message.split('\n').map((line) => line.trim());
  const named = lines.slice(1).find((line) => /Error\b/.test(line));
  return named === undefined ? (lines[0] ?? '') : `${(lines[0] ?? '').replace(/ended \((.*?)\).*/, 'ended ($1)')}: ${named}`;
}

/** O_DIRECT isn't there on every filesystem; one entry says so. */
function hasRoomFor(workload: Workload, machine: Machine): boolean {
  if (workload.params.direct !== true) return true;
  const file = path.join(os.tmpdir(), `completion-port-bench-direct-${process.pid}`);
  try {
    fs.closeSync(
      fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_EXCL | (fs.constants.O_DIRECT ?? Number.NaN)),
    );
    return true;
  } catch (error) {
    const subject = `${workload.name} with O_DIRECT`;
    if (!machine.absent.some((absent) => absent.subject === subject)) {
      machine.absent.push({ subject, reason: `not in ${os.tmpdir()}: ${(error as Error).message}` });
    }
    return false;
  } finally {
    fs.rmSync(file, { force: true });
  }
}

function resultsOf(workload: Workload, measured: ReadonlyMap<string, Measured>): BenchResult[] {
  const results: BenchResult[] = [];
  for (const subject of workload.subjects) {
    const of = measured.get(fullName(subject));
    if (of === undefined || of.last === null || of.ns.length === 0) continue;
    const { last } = of;
    results.push({
      workload: workload.name,
      params: workload.params,
      subject: subject.subject,
      variant: subject.variant,
      backend: subject.backend,
      unit: workload.unit,
      operations: of.operations,
      rounds: of.ns.length,
      cpuUsPerOp: spread(of.ns.map((ns) => ns / 1000)),
      opsPerSecond: spread(of.rate),
      latencyUs: last.latencyUs ?? null,
      bytesPerConnection: of.memory.length > 0 ? spread(of.memory).median : null,
      kernelBytesPerConnection: of.kernelMemory.length > 0 ? spread(of.kernelMemory).median : null,
      clientLimited: workload.spinning !== true && of.clientLimited * 2 > of.ns.length,
    });
  }
  return results;
}

/** Each of ours against each of the others. */
function ratiosFor(workload: Workload, measured: ReadonlyMap<string, Measured>, quick: boolean): BenchRatio[] {
  const nsOf = (subject: Subject): readonly number[] => measured.get(fullName(subject))?.ns ?? [];
  const ours = workload.subjects.filter(({ subject }) => subject === 'completion-port');
  const others = workload.subjects.filter(({ subject }) => subject !== 'completion-port');
  return ours.flatMap((own) =>
    others
      .filter((rival) => nsOf(own).length > 0 && nsOf(rival).length > 0)
      .map((rival) => {
        const ratios = ratiosOf(nsOf(own), nsOf(rival));
        return {
          workload: workload.name,
          params: workload.params,
          variant: own.variant,
          backend: own.backend,
          against: fullName(rival),
          ...judge(ratios),
          coarse: quick || ratios.length < roundsMin,
        };
      }),
  );
}
