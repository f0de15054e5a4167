// The processes that a benchmark measures: started pinned to one CPU, spoken to in lines, their CPU time read out of
// /proc. A figure is CPU time of the subject's process, all its threads, and never wall-clock time: the machine has other
// guests, and a server that sleeps half the time is not twice as slow.

import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

/** The measured process has a CPU for itself, and so has what loads it. */
export const SUBJECT_CPU = 0;
export const LOAD_CPU = 1;

/** How long a process may take to answer before the benchmark gives up, in ms; connecting 8,000 times is the longest. */
const ANSWER_MS = 120_000;

/**
 * CPU time of a process and all its threads so far, in ns. The figure of a thread that is running may be 4 ms old; one
 * that sleeps, as every subject does between two runs, is exact.
 */
export function cpuNs(pid) {
  const folder = `/proc/${pid}/task`;
  let sum = 0;
  for (const thread of readdirSync(folder)) {
    sum += Number(readFileSync(`${folder}/${thread}/schedstat`, 'utf8').split(' ', 1)[0]);
  }
  return sum;
}

const running = new Set();

/** Ends every process that was started here: nothing may outlive an interrupted benchmark. */
export function killAll() {
  for (const child of running) child.kill('SIGKILL');
}

/** A child process that prints lines; `ask` sends it one and resolves with the next that it prints, as JSON. */
export class LineProcess {
  #child;
  #waiting = [];
  #lines = [];
  #ended = null;
  #errors = '';

  constructor(command, args, { cpu = null, env = process.env } = {}) {
    this.name = [command, ...args].join(' ');
    const pinned = cpu === null ? [command, ...args] : ['taskset', '-c', String(cpu), command, ...args];
    // taskset replaces itself by the command, so the process id is the command's own.
    this.#child = spawn(pinned[0], pinned.slice(1), { stdio: ['pipe', 'pipe', 'pipe'], env });
    running.add(this.#child);
    this.#child.stdin.on('error', () => {}); // an ended child is reported by `close` below
    this.#child.stderr.setEncoding('utf8').on('data', (text) => {
      this.#errors = (this.#errors + text).slice(-2000);
    });
    createInterface({ input: this.#child.stdout }).on('line', (line) => {
      const waiter = this.#waiting.shift();
      if (waiter) waiter.resolve(line);
      else this.#lines.push(line);
    });
    this.#child.on('error', (error) => this.#end(error.message));
    this.#child.on('close', (code, signal) => {
      running.delete(this.#child);
      this.#end(signal ?? `exit ${code}`);
    });
  }

  #end(how) {
    this.#ended ??= how;
    for (const waiter of this.#waiting.splice(0)) waiter.reject(this.#error(`ended (${this.#ended})`));
  }

  #error(what) {
    const said = this.#errors.trim();
    return new Error(`${this.name} ${what}${said ? `: ${said}` : ''}`);
  }

  get pid() {
    return this.#child.pid;
  }

  /** The next line of its standard output. */
  async line() {
    if (this.#lines.length > 0) return this.#lines.shift();
    if (this.#ended !== null) throw this.#error(`ended (${this.#ended})`);
    let timer;
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting.push({ resolve, reject });
        timer = setTimeout(() => reject(this.#error(`gave no answer in ${ANSWER_MS / 1000} s`)), ANSWER_MS);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Sends a command and resolves with its answer. */
  async ask(command) {
    this.#child.stdin.write(`${command}\n`);
    return JSON.parse(await this.line());
  }

  /** Ends the process and waits until it is gone. */
  async stop() {
    if (this.#ended !== null) return;
    const gone = new Promise((resolve) => this.#child.once('close', resolve));
    this.#child.kill('SIGTERM');
    const late = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
    await gone;
    clearTimeout(late);
  }
}

/** Waits for `listening on HOST:PORT` and resolves with the port. */
export async function listeningPort(server) {
  const line = await server.line();
  const match = /^listening on .*:(\d+)$/.exec(line);
  if (!match) throw new Error(`${server.name} printed "${line}" in place of its address`);
  return Number(match[1]);
}
