// The system packages that builds and tests need. As root on Debian they are installed by apt-get; anywhere else the
// script names them with the command and stops, because installing software is not for a build to decide.
//
//   node scripts/setup.mjs [NAME …]     all of them, or the named ones

import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { $ } from 'zx';
import { Failure, runMain, say } from './lib/log.mjs';

/** Command → Debian package that brings it. */
const packages = {
  chromium: 'chromium',
  cmake: 'cmake',
  make: 'make',
  gcc: 'gcc',
  'g++': 'g++',
  'clang++-14': 'clang-14',
  'clang-format': 'clang-format',
  'libc++': 'libc++-14-dev',
  'libc++abi': 'libc++abi-14-dev',
  nm: 'binutils',
  curl: 'curl',
  'mkfs.ext4': 'e2fsprogs',
  mount: 'mount',
  prlimit: 'util-linux',
  setpriv: 'util-linux',
  spin: 'spin',
  taskset: 'util-linux',
  unshare: 'util-linux',
  wine: 'wine',
  'x86_64-w64-mingw32-g++-posix': 'g++-mingw-w64-x86-64-posix',
};

/** What is no command: where it lies. */
const places = {
  'libc++': '/usr/lib/llvm-14/include/c++/v1/version',
  'libc++abi': '/usr/lib/llvm-14/lib/libc++abi.so',
};

/** What a build needs, and what the model (scripts/model.mjs) and the tests need besides. */
export const buildTools = ['cmake', 'make', 'gcc', 'g++'];
export const modelTools = ['spin', 'gcc'];
export const windowsBuildTools = ['cmake', 'make', 'x86_64-w64-mingw32-g++-posix'];
export const testTools = ['chromium', 'nm', 'curl', 'mkfs.ext4', 'mount', 'prlimit', 'setpriv', 'spin', 'taskset', 'unshare'];

function isThere(command) {
  if (command in places) return existsSync(places[command]);
  // A user's PATH often lacks the folders of mkfs and the like.
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return folders.some((folder) => {
    try {
      accessSync(join(folder, command), constants.X_OK);
      return true;
    } catch {
      return false; // not in this folder of PATH
    }
  });
}

function missingOf(commands) {
  const unknown = commands.filter((command) => !(command in packages));
  if (unknown.length > 0) {
    throw new Failure(`unknown tool ${unknown.join(', ')}; known: ${Object.keys(packages).join(', ')}`, 2);
  }
  return commands.filter((command) => !isThere(command));
}

/** Makes sure that `commands` are in PATH, or throws a `Failure` that says how to get them. */
export async function ensureTools(commands) {
  const missing = missingOf(commands);
  if (missing.length === 0) return;
  const names = [...new Set(missing.map((command) => packages[command]))];
  const isDebian = existsSync('/etc/debian_version') && isThere('apt-get');
  if (!isDebian || process.getuid?.() !== 0) {
    const how = isDebian ? `run: sudo apt-get install -y ${names.join(' ')}` : "install them with your system's package manager";
    throw new Failure(`missing on this machine: ${missing.join(', ')} (Debian: ${names.join(' ')}); ${how}`);
  }
  say(`installing ${names.join(' ')}`);
  const apt = $({
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    stdio: ['ignore', 'pipe', 'pipe'],
    nothrow: true,
    quiet: true,
  });
  const install = () => apt`apt-get install -y --no-install-recommends ${names}`;
  let result = await install();
  if (result.exitCode !== 0) {
    // The package lists may be absent (a container) or old: fetch them once and try again.
    await apt`apt-get update`;
    result = await install();
  }
  const still = missingOf(commands);
  if (still.length > 0) {
    throw new Failure(`apt-get could not install ${still.join(', ')}:\n${result.stderr || result.stdout}`);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(async () => {
    const names = process.argv.slice(2);
    if (names.includes('--help')) {
      process.stdout.write(`usage: node scripts/setup.mjs [NAME …]\nnames: ${Object.keys(packages).join(' ')}\n`);
      return;
    }
    await ensureTools(names.length > 0 ? names : [...buildTools, ...testTools, 'clang-format']);
  });
}
