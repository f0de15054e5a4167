// The report of `completion-port bench` as it is written to JSON, and what the runner asks of a workload. The format is relied on by
// others (`bench compare`, the page, people's scripts): fields may join it, none may change.

/** Over the rounds. */
export interface Spread {
  readonly min: number;
  readonly median: number;
  readonly max: number;
}

export type Params = Readonly<Record<string, string | number | boolean>>;

export interface Latency {
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
}

export interface BenchResult {
  readonly workload: string;
  readonly params: Params;
  readonly subject: string;
  readonly variant: string;
  /** The backend of the port; null where the subject is no port of this package. */
  readonly backend: string | null;
  /** What one operation is: an echo, a read, a message. */
  readonly unit: string;
  /** Counted ones, of all rounds. */
  readonly operations: number;
  readonly rounds: number;
  readonly cpuUsPerOp: Spread;
  readonly opsPerSecond: Spread;
  /** Of the last round; null where a single operation's time isn't seen. */
  readonly latencyUs: Latency | null;
  /** Process memory a connection; null but in `idle`. */
  readonly bytesPerConnection: number | null;
  /** The kernel's, both ends; null where it can't be told. */
  readonly kernelBytesPerConnection: number | null;
  /** In most rounds the client had no CPU time left and the subject had: its rate and latency say nothing, its CPU time does. */
  readonly clientLimited: boolean;
}

export interface BenchRatio {
  readonly workload: string;
  readonly params: Params;
  readonly variant: string;
  readonly backend: string | null;
  readonly against: string;
  /** Null: refused, for `reason`. */
  readonly cpu: Spread | null;
  readonly reason: string | null;
  /** Too few and too short rounds to conclude anything from. */
  readonly coarse: boolean;
}

export interface Absent {
  readonly subject: string;
  readonly reason: string;
}

export interface BenchReport {
  readonly version: string;
  readonly started: string;
  readonly os: { readonly platform: string; readonly release: string; readonly arch: string };
  readonly cpu: { readonly model: string; readonly count: number; readonly loadBefore: number };
  readonly runtime: { readonly name: string; readonly version: string };
  /** The client of the TCP workloads, and whether subject and client had a CPU each. */
  readonly client: string;
  readonly pinned: boolean;
  readonly quick: boolean;
  /** A choice of the parameter sets, each measured as in a whole run. */
  readonly short?: boolean;
  readonly interrupted: boolean;
  readonly rounds: number;
  readonly results: BenchResult[];
  readonly ratios: BenchRatio[];
  readonly absent: Absent[];
}

/** What one run of a subject answers. */
export interface Answer {
  readonly operations: number;
  /** Wall-clock time of the run; the runner's own measure where it is missing. */
  readonly seconds?: number;
  /** CPU time of the run, of a subject that ends within it or knows better than a look at its process. */
  readonly cpuNs?: number;
  readonly latencyUs?: Latency;
  readonly clientCpuSeconds?: number;
  readonly bytesPerConnection?: number | null;
  readonly kernelBytesPerConnection?: number | null;
}

/** A subject that has been started. */
export interface Running {
  /** The measured process; null where each run is a process of its own and answers with `cpuNs`. */
  readonly pid: number | null;
  /** Before each run, not counted. */
  prepare?(): Promise<void>;
  run(seconds: number): Promise<Answer>;
  /** Throws if what it moved is wrong; asked once, after all rounds. */
  check?(): Promise<void>;
  stop(): Promise<void>;
}

export interface Subject {
  /** `completion-port`, or what it is compared with. */
  readonly subject: string;
  readonly variant: string;
  readonly backend: string | null;
  start(): Promise<Running>;
}

/** How much of it all: every parameter set and variant, a choice of both, or one set a workload. */
export type Scope = 'whole' | 'short' | 'quick';

/** A workload with one set of parameters. */
export interface Workload {
  readonly name: string;
  readonly params: Params;
  readonly title: string;
  readonly unit: string;
  /** The parameter set that `--quick` takes. */
  readonly quick: boolean;
  /** A parameter set that `--short` takes; where it isn't said, those of `--quick`. */
  readonly short?: boolean;
  /** A run is one thing of its own length: it is neither repeated nor warmed up. */
  readonly single?: boolean;
  /** The client never sleeps, so that its CPU time says nothing. */
  readonly spinning?: boolean;
  readonly subjects: readonly Subject[];
}

/** The unit with its article: "an echo". */
export const oneOf = (unit: string): string => `${/^[aeiou]/.test(unit) ? 'an' : 'a'} ${unit}`;
