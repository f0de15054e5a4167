// `completion-port build`: builds the addon of an installed package, because npm runs no install scripts of dependencies. The
// sources of ours and of liburing are in the package, Node-API's headers are dependencies of it, so nothing is fetched. It may
// not import anything that loads the addon: this command is what mends a missing one.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import { createRequire } from 'node:module';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { noPositionals, parseOptions } from './options.js';

const help = `Usage: completion-port build [options]

Builds the native addon of this package with CMake and a C++20 compiler (gcc 11, clang 14, on Windows
Visual Studio 2022, or newer). Nothing is downloaded. Does nothing if an addon of this version is there already.

Options:
  --debug      with debug assertions and symbols
  --force      even if there is an addon already
  --help, -h   this text

Environment:
  CC, CXX           the compilers
  CMAKE_GENERATOR   the build system that CMake writes for

Examples:
  npx completion-port build
  CXX=clang++ CC=clang npx completion-port build --force
`;

/** What CMakeLists.txt asks for. */
const cmakeMin = [3, 18] as const;

/** What has a backend. macOS and FreeBSD build it with kqueue, Windows with its completion ports. */
const platforms: readonly string[] = ['linux', 'darwin', 'freebsd', 'win32'];
const windows = process.platform === 'win32';

/** Enough of the compiler's output to see the first error of most failures. */
const logLinesMax = 60;

const packageFolder = fileURLToPath(new URL('../..', import.meta.url));
const require = createRequire(import.meta.url);
const exec = promisify(execFile);

/** Why nothing can be built, in words for the user. */
class BuildError extends Error {}

export async function run(argv: string[]): Promise<number> {
  const { values, positionals } = parseOptions('completion-port build', argv, {
    debug: { value: 'boolean' },
    force: { value: 'boolean' },
  });
  if (values.help) {
    process.stdout.write(help);
    return 0;
  }
  noPositionals('completion-port build', positionals);
  try {
    return await build(values.debug === true, values.force === true);
  } catch (error) {
    if (!(error instanceof BuildError)) throw error;
    process.stderr.write(`completion-port build: ${error.message}\n`);
    return 1;
  }
}

async function build(debug: boolean, force: boolean): Promise<number> {
  if (!platforms.includes(process.platform)) {
    throw new BuildError(`this version has backends for ${platforms.join(', ')}; this is ${process.platform}`);
  }
  const { version } = require('../../package.json') as { version: string };
  const output = path.join(packageFolder, 'build', `${process.platform}-${process.arch}`, 'completion_port.node');
  // An addon that is there says nothing about how it was built, so --debug always builds.
  if (!force && !debug && (await versionOf(output)) === version) {
    say(`${output} is there already, version ${version}; --force builds it again`);
    return 0;
  }
  if (process.platform === 'linux' && !fs.existsSync(path.join(packageFolder, 'native/linux/liburing/src/setup.c'))) {
    throw new BuildError(
      `the sources of liburing are missing in ${packageFolder}; install the package anew, in a clone run 'npm run build'`,
    );
  }
  const generator = await checkTools();
  const includes = [headersOf('node-api-headers', 'include'), headersOf('node-addon-api', '.')];

  const interruption = new Interruption();
  const scratch = fs.mkdtempSync(path.join(fs.realpathSync(os.tmpdir()), 'completion-port-build-'));
  try {
    say(`configuring${debug ? ' (debug)' : ''}`);
    await interruption.cmake([
      ...['-S', packageFolder, '-B', scratch, ...generator],
      `-DCMAKE_BUILD_TYPE=${debug ? 'Debug' : 'Release'}`,
      `-DCP_NODE_INCLUDE=${includes.map((folder) => folder.replaceAll('\\', '/')).join(';')}`,
    ]);
    say('compiling');
    // Visual Studio's build systems have both configurations in one folder.
    const config = debug ? 'Debug' : 'Release';
    await interruption.cmake(['--build', scratch, '--config', config, '--parallel', String(os.availableParallelism())]);
    install(path.join(scratch, 'out/completion_port.node'), output);
  } finally {
    fs.rmSync(scratch, { recursive: true, force: true, maxRetries: windows ? 10 : 0 });
    interruption.end();
  }
  const built = await versionOf(output);
  if (built !== version) {
    throw new BuildError(`${output} was built but can't be loaded by ${process.execPath}: ${built ?? (await loadError(output))}`);
  }
  say(`built ${output}`);
  return 0;
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** The version of an addon, asked in another process: loading a broken one could end this one. Null: it can't be loaded. */
async function versionOf(file: string): Promise<string | null> {
  if (!fs.existsSync(file)) return null;
  try {
    const { stdout } = await exec(process.execPath, ['-p', 'require(process.argv[1]).version', file]);
    return stdout.trim();
  } catch {
    return null; // why is asked by loadError, where it matters
  }
}

async function loadError(file: string): Promise<string> {
  try {
    await exec(process.execPath, ['-e', 'require(process.argv[1])', file]);
    return 'it loads now';
  } catch (error) {
    return String((error as { stderr?: string }).stderr ?? error).trim();
  }
}

/** The folder of a dependency's headers. */
function headersOf(name: string, folder: string): string {
  let manifest: string;
  try {
    manifest = require.resolve(`${name}/package.json`);
  } catch (cause) {
    throw Object.assign(new BuildError(`the dependency ${name} is missing; install the package with its dependencies`), {
      cause,
    });
  }
  return path.join(path.dirname(manifest), folder);
}

/** Whether the command can be run at all; its version is a line of what it prints. */
async function firstLine(command: string): Promise<string | null> {
  try {
    const { stdout } = await exec(command, ['--version']);
    return stdout.split('\n')[0] ?? '';
  } catch {
    return null; // missing or not runnable: the caller says what to install
  }
}

async function oneOf(commands: readonly (string | undefined)[]): Promise<boolean> {
  for (const command of commands) if (command && (await firstLine(command)) !== null) return true;
  return false;
}

/** Throws a BuildError that names everything that is missing at once. Returns the arguments that choose a build system. */
async function checkTools(): Promise<string[]> {
  const missing: string[] = [];
  const problems: string[] = [];
  const { CC, CXX, CMAKE_GENERATOR } = process.env;

  const cmake = await firstLine('cmake');
  const version = /(\d+)\.(\d+)/.exec(cmake ?? '');
  if (version === null) {
    missing.push('cmake');
    problems.push('cmake');
  } else if (Number(version[1]) < cmakeMin[0] || (Number(version[1]) === cmakeMin[0] && Number(version[2]) < cmakeMin[1])) {
    throw new BuildError(`cmake ${cmakeMin.join('.')} or newer is needed, this is ${cmake}`);
  }
  if (windows) {
    if (problems.length > 0)
      throw new BuildError(
        'missing: cmake; Visual Studio brings it ("C++ CMake tools for Windows"), or winget install Kitware.CMake',
      );
    // CMake finds Visual Studio by itself, or says that there is none. An architecture is for its build systems only.
    return CMAKE_GENERATOR === undefined ? ['-A', process.arch === 'arm64' ? 'ARM64' : 'x64'] : [];
  }
  // CC and CXX may carry flags, as make's do; CMake takes the first word as the compiler.
  if (!(await oneOf(CC ? [CC.split(' ')[0]] : ['cc', 'gcc', 'clang']))) {
    missing.push('gcc');
    problems.push(CC ? `a C compiler (CC=${CC} can't be run)` : 'a C compiler');
  }
  if (!(await oneOf(CXX ? [CXX.split(' ')[0]] : ['c++', 'g++', 'clang++']))) {
    missing.push('g++');
    problems.push(CXX ? `a C++ compiler (CXX=${CXX} can't be run)` : 'a C++ compiler');
  }
  const make = CMAKE_GENERATOR !== undefined || (await oneOf(['make', 'gmake']));
  const ninja = !make && (await oneOf(['ninja']));
  if (!make && !ninja) {
    missing.push('make');
    problems.push('make or ninja');
  }
  if (problems.length > 0) {
    throw new BuildError(
      `missing: ${problems.join(', ')}. Debian and Ubuntu: apt-get install ${missing.join(' ')}; ` +
        `Fedora: dnf install ${missing.map((name) => (name === 'g++' ? 'gcc-c++' : name)).join(' ')}; ` +
        `Alpine: apk add ${[...missing, 'linux-headers'].join(' ')}`,
    );
  }
  return ninja ? ['-G', 'Ninja'] : [];
}

/** Into its place by renaming, so that a process that has the old one loaded keeps it. */
function install(from: string, to: string): void {
  const temporary = `${to}.${process.pid}`;
  try {
    fs.mkdirSync(path.dirname(to), { recursive: true });
    fs.copyFileSync(from, temporary);
    fs.renameSync(temporary, to);
  } catch (cause) {
    fs.rmSync(temporary, { force: true });
    throw Object.assign(
      new BuildError(`can't write ${to} (${(cause as Error).message}); build as the user who installed the package`),
      { cause },
    );
  }
}

/** Runs cmake so that a signal ends its compilers too and nothing is left behind. */
class Interruption {
  #child: ChildProcess | undefined;
  #signal: NodeJS.Signals | undefined;
  readonly #onSignal = (signal: NodeJS.Signals): void => {
    this.#signal = signal;
    // The group: cmake alone would leave the compilers running for a while.
    if (this.#child?.pid === undefined || this.#child.exitCode !== null) return;
    // On Windows there are no groups; the console tells all of its processes.
    if (windows) this.#child.kill();
    else process.kill(-this.#child.pid, 'SIGTERM');
  };

  constructor() {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, this.#onSignal);
  }

  /** Resolves on success; throws with the end of the output otherwise. */
  async cmake(args: readonly string[]): Promise<void> {
    const output: Buffer[] = [];
    const code = await new Promise<number | null>((resolve, reject) => {
      if (this.#signal !== undefined) return resolve(null);
      const child = spawn('cmake', args, { stdio: ['ignore', 'pipe', 'pipe'], detached: !windows });
      this.#child = child;
      child.stdout.on('data', (data: Buffer) => output.push(data));
      child.stderr.on('data', (data: Buffer) => output.push(data));
      child.on('error', reject);
      child.on('close', resolve);
    });
    if (this.#signal !== undefined) throw new BuildError(`interrupted by ${this.#signal}`);
    if (code === 0) return;
    const lines = Buffer.concat(output).toString().trimEnd().split('\n');
    throw new BuildError(`cmake failed:\n${lines.slice(-logLinesMax).join('\n')}`);
  }

  /** After the clean-up: a signal that came meanwhile now does what it does to any process. */
  end(): void {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, this.#onSignal);
    if (this.#signal !== undefined) process.kill(process.pid, this.#signal);
  }
}
