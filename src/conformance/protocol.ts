// What the runner and the processes that run its cases say to each other. A job goes to the process as a JSON file, its
// answers come back as JSON lines in another: files work where pipes don't (Wine), can be read while the process is
// blocked, and survive its crash.

export interface JobItem {
  readonly id: string;
  readonly seed: number;
}

export interface Job {
  /** Only say which backends there are. */
  readonly probe: boolean;
  readonly adapter: string | null;
  /** Module that exports `cases`: a file URL. */
  readonly registry: string;
  /** `auto`: what the port under test chooses. */
  readonly backend: string;
  readonly scale: number;
  /** Make every port a shared one. */
  readonly shared: boolean;
  /** The run's temporary folder. */
  readonly folder: string;
  readonly log: string;
  readonly items: readonly JobItem[];
}

export interface BackendState {
  readonly name: string;
  readonly available: boolean;
  readonly reason: string | null;
}

export type Outcome = 'pass' | 'fail' | 'unable' | 'n/a';

export type LogRecord =
  | { readonly type: 'backends'; readonly backends: readonly BackendState[] }
  | {
      readonly type: 'hello';
      readonly backend: string;
      readonly features: Readonly<Record<string, boolean>>;
      readonly fallbackReason: string | null;
    }
  /** The thing under test can't be used at all: no case was started. */
  | { readonly type: 'refused'; readonly message: string }
  | { readonly type: 'start'; readonly item: number }
  | { readonly type: 'doing'; readonly what: string }
  /** The case's own time is over: its clean-up begins. */
  | { readonly type: 'cleanup' }
  | {
      readonly type: 'done';
      readonly item: number;
      readonly outcome: Outcome;
      /** Why it failed, or why it couldn't run. */
      readonly message: string | null;
      readonly durationMs: number;
    }
  /** A case failed: the process may be in any state, the rest belongs in a new one. */
  | { readonly type: 'spent' };

/** The limit of a case that names none. */
export const defaultTimeoutMs = 10_000;
/** A case ends itself at its limit, unless it blocks its thread; so long afterwards its process is killed. */
export const graceMs = 1_500;
/** The limit of a case's clean-up. */
export const cleanupMs = 5_000;
