// Compiles the C programs of bench/peers against the liburing of this package into build/bench/ of the package, or, where that
// can't be written, into a temporary folder that is removed at the end. liburing's ./configure writes beside its sources, so it
// runs in a copy, as CMakeLists.txt has it. A program that is newer than its source and liburing is left as it is.

import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { findCommand } from './processes.js';

/** The folder of the package: bench/, examples/ and native/ are in it. */
export const packageFolder = fileURLToPath(new URL('../..', import.meta.url));

const programs = ['uring_echo', 'epoll_echo', 'echo_client', 'uring_ops'] as const;
export type PeerName = (typeof programs)[number];

export type Peers =
  | { readonly programs: Readonly<Record<PeerName, string>>; readonly reason: null; remove(): void }
  | { readonly programs: null; readonly reason: string; remove(): void };

const exec = promisify(execFile);
const source = path.join(packageFolder, 'native/linux/liburing');
const compiler = process.env.CC || 'cc';

/** liburing's objects, out of a configured copy; made once. */
async function buildLiburing(output: string): Promise<string[]> {
  const copy = path.join(output, 'liburing');
  const stamp = path.join(copy, 'compiled');
  if (!fs.existsSync(stamp)) {
    fs.rmSync(copy, { recursive: true, force: true });
    fs.mkdirSync(copy, { recursive: true });
    for (const part of ['configure', 'Makefile.common', 'Makefile.quiet', 'liburing.spec', 'src']) {
      fs.cpSync(path.join(source, part), path.join(copy, part), { recursive: true });
    }
    await exec('sh', ['./configure', `--cc=${compiler}`], { cwd: copy });
    // As its own Makefile does where configure finds that it needs no libc.
    const freestanding = /define CONFIG_NOLIBC/.test(fs.readFileSync(path.join(copy, 'config-host.h'), 'utf8'));
    const parts = ['setup', 'queue', 'register', 'syscall', 'version', ...(freestanding ? ['nolibc'] : [])];
    await exec(
      compiler,
      [
        ...['-c', '-O2', '-DNDEBUG', '-w', '-D_GNU_SOURCE', '-D_LARGEFILE_SOURCE', '-D_FILE_OFFSET_BITS=64'],
        ...['-DLIBURING_INTERNAL', '-include', 'config-host.h', '-Isrc/include', '-fno-stack-protector'],
        ...(freestanding ? ['-ffreestanding', '-fno-builtin'] : []),
        ...parts.map((part) => path.join('src', `${part}.c`)),
      ],
      { cwd: copy },
    );
    fs.writeFileSync(stamp, '');
  }
  return fs
    .readdirSync(copy)
    .filter((name) => name.endsWith('.o'))
    .map((name) => path.join(copy, name));
}

async function compile(output: string): Promise<Record<PeerName, string>> {
  const objects = await buildLiburing(output);
  const paths = {} as Record<PeerName, string>;
  for (const name of programs) {
    const file = path.join(packageFolder, 'bench/peers', `${name}.c`);
    const header = path.join(packageFolder, 'bench/peers/echo_server.h');
    const program = path.join(output, name);
    paths[name] = program;
    if (fs.existsSync(program)) {
      const built = fs.statSync(program).mtimeMs;
      if ([file, header, ...objects].every((input) => fs.statSync(input).mtimeMs < built)) continue;
    }
    const include = path.join(output, 'liburing/src/include');
    const flags = ['-O2', '-DNDEBUG', '-std=gnu11', '-Wall', '-Wextra', '-isystem', include];
    await exec(compiler, [...flags, '-o', `${program}.new`, file, ...objects]);
    fs.renameSync(`${program}.new`, program); // whole or not at all, where the build is interrupted
  }
  return paths;
}

function outputFolder(): { folder: string; temporary: boolean } {
  const own = path.join(packageFolder, 'build/bench');
  try {
    fs.mkdirSync(own, { recursive: true });
    fs.accessSync(own, fs.constants.W_OK);
    return { folder: own, temporary: false };
  } catch {
    // another user's installation, say
    return { folder: fs.mkdtempSync(path.join(os.tmpdir(), 'completion-port-bench-')), temporary: true };
  }
}

/** Builds what is missing or old. */
export async function buildPeers(): Promise<Peers> {
  const none = (reason: string): Peers => ({ programs: null, reason, remove() {} });
  if (process.platform !== 'linux') return none(`the C programs are for Linux, this is ${process.platform}`);
  if (!fs.existsSync(path.join(source, 'src/setup.c'))) return none('the sources of liburing are missing in the package');
  if (findCommand(compiler) === null && !fs.existsSync(compiler))
    return none(`no C compiler (${compiler}) is in PATH; CC names another`);
  const { folder, temporary } = outputFolder();
  const remove = (): void => {
    if (temporary) fs.rmSync(folder, { recursive: true, force: true });
  };
  try {
    return { programs: await compile(folder), reason: null, remove };
  } catch (error) {
    remove();
    const { stderr, message } = error as { stderr?: string; message: string };
    const said = (stderr?.trim() || message).split('\n')[0];
    return none(`the C programs don't compile: ${said}`);
  }
}
