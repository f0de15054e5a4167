// Compiles the C programs of bench/peers against the vendored liburing into build/bench/. liburing's ./configure writes
// beside its sources, so it runs in a copy, as CMakeLists.txt has it. A program that is newer than its source and
// liburing is left as it is.
//
// node bench/build-peers.mjs        prints the path of each program

import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const source = join(root, 'native', 'linux', 'liburing');
const output = join(root, 'build', 'bench');
const copy = join(output, 'liburing');
const compiler = process.env.CC ?? 'cc';
const programs = ['uring_echo', 'epoll_echo', 'echo_client'];

const run = (command, args, cwd) => execFileSync(command, args, { cwd, stdio: ['ignore', 'pipe', 'inherit'] });

/** liburing's objects, out of a configured copy; made once. */
function buildLiburing() {
  const stamp = join(copy, 'compiled');
  if (!existsSync(stamp)) {
    if (!existsSync(join(source, 'src', 'setup.c'))) {
      throw new Error('liburing is missing in native/linux/liburing: run `node scripts/vendor-liburing.mjs`');
    }
    rmSync(copy, { recursive: true, force: true });
    mkdirSync(copy, { recursive: true });
    for (const part of ['configure', 'Makefile.common', 'Makefile.quiet', 'liburing.spec', 'src']) {
      cpSync(join(source, part), join(copy, part), { recursive: true });
    }
    run('sh', ['./configure', `--cc=${compiler}`], copy);
    // As its own Makefile does where configure finds that it needs no libc.
    const freestanding = /define CONFIG_NOLIBC/.test(readFileSync(join(copy, 'config-host.h'), 'utf8'));
    const parts = ['setup', 'queue', 'register', 'syscall', 'version', ...(freestanding ? ['nolibc'] : [])];
    run(
      compiler,
      [
        ...['-c', '-O2', '-DNDEBUG', '-w', '-D_GNU_SOURCE', '-D_LARGEFILE_SOURCE', '-D_FILE_OFFSET_BITS=64'],
        ...['-DLIBURING_INTERNAL', '-include', 'config-host.h', '-Isrc/include', '-fno-stack-protector'],
        ...(freestanding ? ['-ffreestanding', '-fno-builtin'] : []),
        ...parts.map((part) => join('src', `${part}.c`)),
      ],
      copy,
    );
    writeFileSync(stamp, '');
  }
  const objects = readdirSync(copy).filter((name) => name.endsWith('.o'));
  return objects.map((name) => join(copy, name));
}

/**
 * Builds what is missing or old.
 * @returns {Record<string, string>} the path of each program by its name
 */
export function buildPeers() {
  const objects = buildLiburing();
  const paths = {};
  for (const name of programs) {
    const file = join(root, 'bench', 'peers', `${name}.c`);
    const program = join(output, name);
    paths[name] = program;
    if (existsSync(program)) {
      const built = statSync(program).mtimeMs;
      if ([file, ...objects].every((input) => statSync(input).mtimeMs < built)) continue;
    }
    const include = join(copy, 'src', 'include');
    run(compiler, ['-O2', '-DNDEBUG', '-std=gnu11', '-Wall', '-Wextra', '-isystem', include, '-o', program, file, ...objects]);
  }
  return paths;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const path of Object.values(buildPeers())) console.log(path);
}
