// The processes that a benchmark measures: started pinned to one CPU where that can be, spoken to in lines, their CPU time read
// from outside. A figure is CPU time of the subject's process, all its threads, and never wall-clock time: the machine has other
// guests, and a server that sleeps half the time is not twice as slow.

import { type ChildProcessByStdio, execFileSync, spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

/** The measured process has a CPU for itself, and so has what loads it. */
export const SUBJECT_CPU = 0;
export const LOAD_CPU = 1;

/** How long a process may take to answer before the benchmark gives up; connecting 10,000 times is the longest. */
const answerMsMax = 120_000;
/** How much of what a child says of its failure is kept. */
const errorCharactersMax = 2000;

/** The file of a command in PATH, or null. */
export function findCommand(name: string): string | null {
  for (const folder of (process.env.PATH ?? '').split(path.delimiter)) {
    const file = path.join(folder, name);
    try {
      fs.accessSync(file, fs.constants.X_OK);
      return file;
    } catch {
      // not in this folder of PATH
    }
  }
  return null;
}

let taskset: string | null | undefined;

/** Whether processes can be pinned here: it takes two CPUs and taskset(1). */
export function canPin(): boolean {
  taskset ??= process.platform === 'linux' && os.cpus().length >= 2 ? findCommand('taskset') : null;
  return taskset !== null;
}

/** ps(1)'s `[[dd-]hh:]mm:ss[.cc]` in ns. */
export function parsePsTime(text: string): number {
  const match = /^(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+(?:[.,]\d+)?)$/.exec(text.trim());
  if (match === null) throw new Error(`ps printed '${text.trim()}' in place of a time`);
  const [, days = '0', hours = '0', minutes = '0', seconds = '0'] = match;
  const whole = (Number(days) * 24 + Number(hours)) * 60 + Number(minutes);
  return Math.round((whole * 60 + Number(seconds.replace(',', '.'))) * 1e9);
}

/**
 * CPU time of a process and all its threads so far, in ns. On Linux the figure of a thread that is running may be 4 ms old; one
 * that sleeps, as every subject does between two runs, is exact. Elsewhere it is ps(1)'s, in steps of 10 ms. Threads that end
 * within a run would be missed: no subject has such.
 */
export function cpuNs(pid: number): number {
  if (process.platform !== 'linux') {
    return parsePsTime(execFileSync('ps', ['-o', 'time=', '-p', String(pid)], { encoding: 'utf8' }));
  }
  const folder = `/proc/${pid}/task`;
  let sum = 0;
  for (const thread of fs.readdirSync(folder)) {
    try {
      sum += Number(fs.readFileSync(`${folder}/${thread}/schedstat`, 'utf8').split(' ', 1)[0]);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT' && (error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }
  return sum;
}

let guard: readonly string[] | undefined;

/**
 * What ends a child with this process, however that ends (SIGKILL runs nothing here): setpriv(1) of util-linux, which sets prctl(2)'s
 * PR_SET_PDEATHSIG and replaces itself by the command. Empty where there is none, or one that can't (BusyBox's).
 */
function withParent(): readonly string[] {
  if (guard !== undefined) return guard;
  guard = ['setpriv', '--pdeathsig', 'KILL'];
  if (process.platform !== 'linux' || spawnSync('setpriv', ['--pdeathsig', 'KILL', 'true'], { stdio: 'ignore' }).status !== 0)
    guard = [];
  return guard;
}

type Child = ChildProcessByStdio<Writable, Readable, Readable>;

const running = new Set<Child>();

/** Ends every process that was started here: nothing may outlive an interrupted benchmark. */
export function killAll(): void {
  for (const child of running) child.kill('SIGKILL');
}

interface Waiter {
  resolve(line: string): void;
  reject(error: Error): void;
}

/** A child process that prints lines; `ask` sends it one and resolves with the next that it prints, as JSON. */
export class LineProcess {
  readonly name: string;
  readonly #child: Child;
  readonly #waiting: Waiter[] = [];
  readonly #lines: string[] = [];
  #ended: string | null = null;
  #errors = '';

  constructor(
    command: string,
    args: readonly string[],
    { cpu = null, env = process.env }: { cpu?: number | null; env?: NodeJS.ProcessEnv } = {},
  ) {
    this.name = [command, ...args].join(' ');
    // taskset replaces itself by the command, so the process id is the command's own. A group of its own: Ctrl-C on the terminal
    // is for the benchmark, which then ends it.
    const pinned = cpu === null || !canPin() ? [] : ['taskset', '-c', String(cpu)];
    const line = [...withParent(), ...pinned, command, ...args];
    this.#child = spawn(line[0] as string, line.slice(1), { stdio: ['pipe', 'pipe', 'pipe'], env, detached: true });
    running.add(this.#child);
    this.#child.stdin.on('error', () => {}); // an ended child is reported by `close` below
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#errors = (this.#errors + text).slice(-errorCharactersMax);
    });
    createInterface({ input: this.#child.stdout }).on('line', (text) => {
      const waiter = this.#waiting.shift();
      if (waiter) waiter.resolve(text);
      else this.#lines.push(text);
    });
    this.#child.on('error', (error) => this.#end(error.message));
    this.#child.on('close', (code, signal) => {
      running.delete(this.#child);
      this.#end(signal ?? `exit ${code}`);
    });
  }

  #end(how: string): void {
    this.#ended ??= how;
    for (const waiter of this.#waiting.splice(0)) waiter.reject(this.#error(`ended (${this.#ended})`));
  }

  #error(what: string): Error {
    const said = this.#errors.trim();
    return new Error(`${this.name} ${what}${said ? `: ${said}` : ''}`);
  }

  get pid(): number {
    if (this.#child.pid === undefined) throw this.#error('did not start');
    return this.#child.pid;
  }

  /** The next line of its standard output. */
  async line(): Promise<string> {
    const first = this.#lines.shift();
    if (first !== undefined) return first;
    if (this.#ended !== null) throw this.#error(`ended (${this.#ended})`);
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting.push({ resolve, reject });
        timer = setTimeout(() => reject(this.#error(`gave no answer in ${answerMsMax / 1000} s`)), answerMsMax);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Sends a command and resolves with its answer. */
  async ask<T>(command: string): Promise<T> {
    this.#child.stdin.write(`${command}\n`);
    return JSON.parse(await this.line()) as T;
  }

  /** Ends the process and waits until it is gone. */
  async stop(): Promise<void> {
    if (this.#ended !== null) return;
    const gone = new Promise((resolve) => this.#child.once('close', resolve));
    this.#child.kill('SIGTERM');
    const late = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
    await gone;
    clearTimeout(late);
  }
}

/** Waits for `listening on HOST:PORT` and resolves with the port. */
export async function listeningPort(server: LineProcess): Promise<number> {
  const line = await server.line();
  const match = /^listening on .*:(\d+)$/.exec(line);
  if (match === null) throw new Error(`${server.name} printed "${line}" in place of its address`);
  return Number(match[1]);
}
