// What the suite asks of the process and the machine: descriptors, threads, memory, programs that work, and child
// processes with the package or adapter under test. Child output goes through files, not pipes: a runtime under Wine can't use
// pipes, and a child that nobody reads can't be held up by one.

import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Failure, Unable } from './check.js';
import type { Api, ChildOptions, ChildResult, Need } from './types.js';

export interface RuntimeInfo {
  readonly name: 'node' | 'bun' | 'deno';
  readonly version: string;
}

export function runtimeInfo(): RuntimeInfo {
  const { bun, deno, node } = process.versions as Record<string, string | undefined>;
  if (bun !== undefined) return { name: 'bun', version: bun };
  if (deno !== undefined) return { name: 'deno', version: deno };
  return { name: 'node', version: node ?? '' };
}

/** Arguments that make this runtime run the module `file`, `gc()` in reach if told. */
export function runtimeArguments(
  file: string,
  options: { gc?: boolean; flags?: readonly string[]; args?: readonly string[] } = {},
): string[] {
  const { gc = false, flags = [], args = [] } = options;
  switch (runtimeInfo().name) {
    case 'deno':
      return ['run', '-A', ...(gc ? ['--v8-flags=--expose-gc'] : []), ...flags, file, ...args];
    case 'bun':
      return [...(gc ? ['--expose-gc'] : []), ...flags, file, ...args];
    default:
      return [...(gc ? ['--expose-gc'] : []), ...flags, file, ...args];
  }
}

/** The package's own entry, beside this file in `dist/`. */
export const packageUrl = new URL('../index.js', import.meta.url).href;

/** The module of what is under test: the adapter, or the package. */
export function moduleUrl(adapter: string | null): string {
  return adapter === null ? packageUrl : pathToFileURL(path.resolve(adapter)).href;
}

interface AdapterModule {
  readonly default?: object;
}

/** What is under test: the package, or what an adapter's default export offers. A missing name throws `Unable` when it is read. */
export async function loadApi(adapter: string | null): Promise<{ api: Api; offered: Readonly<Record<string, unknown>> }> {
  const module = (await import(moduleUrl(adapter))) as AdapterModule;
  const offered = (module.default ?? module) as Record<string, unknown>;
  const api = new Proxy(offered, {
    get(target, name) {
      const value: unknown = Reflect.get(target, name);
      if (value === undefined && typeof name === 'string') throw new Unable(`the adapter doesn’t offer ${name}`);
      return value;
    },
  });
  return { api: api as unknown as Api, offered };
}

// ---- This process

type Counts = Readonly<Record<'descriptors' | 'handles' | 'threads', number>>;

/** Of Windows, which has no folder that lists what a process has open: asked of our addon, whatever is under test. */
let countProcess: (() => Counts) | null = null;

/** Once, before anything is counted. */
export async function prepareCounts(): Promise<void> {
  if (process.platform !== 'win32') return;
  try {
    const { native } = (await import(new URL('../native.js', import.meta.url).href)) as { native: { countProcess(): Counts } };
    countProcess = () => native.countProcess();
  } catch {
    // An adapter's run where our addon isn't built: what is to be counted is 'unable' then.
  }
}

function countOfWindows(which: keyof Counts): number {
  const count = countProcess?.()[which] ?? -1;
  if (count < 0) throw new Unable(`without this package's addon Windows tells no number of ${which}`);
  return count;
}

/** Descriptors that this process has open; on Windows the handles of what has one elsewhere: files, sockets, pipes and completion ports. */
export function fdCount(): number {
  return process.platform === 'win32' ? countOfWindows('descriptors') : fdLinks().size;
}

/** All handles of this process on Windows, those that its threads wait for, too; elsewhere its descriptors. */
export function handleCount(): number {
  return process.platform === 'win32' ? countOfWindows('handles') : fdLinks().size;
}

/** The open descriptors and what each is, from /proc (Linux) or /dev/fd (macOS, BSD; no description there). None on Windows. */
export function fdLinks(): Map<string, string> {
  if (process.platform === 'win32') return new Map();
  const folder = process.platform === 'linux' ? '/proc/self/fd' : '/dev/fd';
  let names: string[];
  try {
    names = fs.readdirSync(folder);
  } catch (error) {
    throw new Unable(`this OS doesn't list a process's descriptors in ${folder}: ${String(error)}`);
  }
  const links = new Map<string, string>();
  for (const name of names) {
    try {
      links.set(name, process.platform === 'linux' ? fs.readlinkSync(`${folder}/${name}`) : 'open');
    } catch (error) {
      // The descriptor that read the folder itself is listed, but closed by now.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return links;
}

export function threadCount(): number {
  if (process.platform === 'win32') return countOfWindows('threads');
  if (process.platform !== 'linux')
    throw new Unable('only Linux and Windows tell a process’s threads (/proc/self/task, CreateToolhelp32Snapshot)');
  return fs.readdirSync('/proc/self/task').length;
}

export function residentBytes(): number {
  return process.memoryUsage.rss();
}

export function collectGarbage(): void {
  const { gc, Bun } = globalThis as { gc?: () => void; Bun?: { gc(full: boolean): void } };
  if (gc !== undefined) gc();
  else if (Bun !== undefined) Bun.gc(true);
  else throw new Unable('this process was started without --expose-gc');
}

// ---- The machine

const tried = new Map<Need, string | null>();

/** Null where the machine has it, otherwise what is missing, in words. Tried once a process. */
export function missing(need: Need): string | null {
  let answer = tried.get(need);
  if (answer === undefined) {
    answer = lookFor(need);
    tried.set(need, answer);
  }
  return answer;
}

function lookFor(need: Need): string | null {
  const works = (command: string, ...args: string[]): string | null => {
    const result = spawnSync(command, args, { stdio: 'ignore', timeout: 5000 });
    if (result.error !== undefined) return `${command} can't be run: ${result.error.message}`;
    return result.status === 0 ? null : `'${[command, ...args].join(' ')}' ends with ${result.status ?? result.signal}`;
  };
  switch (need) {
    case 'linux':
      return process.platform === 'linux' ? null : 'Linux only';
    case 'proc':
      // Under Wine there is the one of Linux, but of another process.
      return process.platform === 'linux' && fs.existsSync('/proc/self/status') ? null : 'no /proc here';
    case 'root':
      return process.getuid?.() === 0 ? null : 'needs to be root';
    case 'setpriv':
      return works('setpriv', '--bounding-set=-dac_override,-dac_read_search,-ipc_lock', '--inh-caps=-all', 'true');
    case 'unshare':
      return works('unshare', '-n', 'true');
    case 'mount':
      return works('unshare', '-m', 'mount', '-t', 'tmpfs', '-o', 'size=64k', 'none', '/mnt');
    case 'ipv6':
      return Object.values(os.networkInterfaces()).some((list) => list?.some((entry) => entry.address === '::1'))
        ? null
        : 'no IPv6 loopback address (::1)';
  }
}

// ---- Child processes

export interface ChildSettings {
  readonly adapter: string | null;
  readonly backend: string;
  /** Make every port a shared one. */
  readonly shared: boolean;
  /** A folder for the script and its output. */
  readonly folder: string;
}

let scripts = 0;

function writeScript(code: string, settings: ChildSettings): string {
  const url = moduleUrl(settings.adapter);
  const file = path.join(settings.folder, `child-${process.pid}-${scripts++}.mjs`);
  fs.writeFileSync(
    file,
    `import * as moduleUnderTest from ${JSON.stringify(url)};
const { CompletionPort, FileHandle, TcpListener, TcpSocket, Operation } = moduleUnderTest.default ?? moduleUnderTest;
const backend = ${JSON.stringify(settings.backend)};
const createPort = (options) => CompletionPort.create({ backend, ${settings.shared ? 'shared: true, ' : ''}...options });
const room = (bytes) => new Uint8Array(new ${settings.shared ? 'SharedArrayBuffer' : 'ArrayBuffer'}(bytes));
${code}
`,
  );
  return file;
}

export function startChild(
  code: string,
  options: ChildOptions,
  settings: ChildSettings,
  stdio: SpawnOptions['stdio'],
): ChildProcess {
  const args = runtimeArguments(writeScript(code, settings), options);
  const [command = process.execPath, ...before] = options.wrap ?? [];
  const environment: NodeJS.ProcessEnv = { ...process.env };
  for (const [name, value] of Object.entries(options.env ?? {})) {
    if (value === undefined) delete environment[name];
    else environment[name] = value;
  }
  const all = options.wrap === undefined ? args : [...before, process.execPath, ...args];
  return spawn(command, all, { stdio, env: environment, cwd: options.cwd ?? settings.folder });
}

export async function runChild(
  code: string,
  options: ChildOptions,
  settings: ChildSettings,
  started: (child: ChildProcess) => void,
): Promise<ChildResult> {
  const limit = options.timeoutMs ?? 8000;
  const base = path.join(settings.folder, `output-${process.pid}-${scripts}`);
  const out = fs.openSync(`${base}.out`, 'w+');
  const err = fs.openSync(`${base}.err`, 'w+');
  try {
    const begin = performance.now();
    const child = startChild(code, options, settings, ['ignore', out, err]);
    started(child);
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      child.kill('SIGKILL');
    }, limit);
    const [exitCode, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve, reject) => {
      child.once('error', reject);
      child.once('exit', (code, signal) => resolve([code, signal]));
    }).finally(() => clearTimeout(timer));
    const stdout = fs.readFileSync(`${base}.out`, 'utf8');
    const stderr = fs.readFileSync(`${base}.err`, 'utf8');
    if (late)
      throw new Failure(
        `a child process was still running after ${limit} ms; it printed ${JSON.stringify((stdout + stderr).slice(-800))}`,
      );
    return { code: exitCode, signal, stdout, stderr, durationMs: performance.now() - begin };
  } finally {
    fs.closeSync(out);
    fs.closeSync(err);
  }
}

/** This file's folder, for those that start the suite's processes. */
export const conformanceFolder = path.dirname(fileURLToPath(import.meta.url));
