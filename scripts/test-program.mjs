// node scripts/test-program.mjs: native/test as somebody builds it on a system that has nothing but a shell and a compiler (native/test/build.sh):
// with clang 14 and its libc++, of FreeBSD 13's generation, over the stand-in for kqueue, run as XNU and as FreeBSD; and with g++ for Linux, run on
// io_uring and epoll. test-macho.mjs compiles the same program for macOS.

import { mkdirSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { loud } from './build.mjs';
import { Failure, runMain, say } from './lib/log.mjs';
import { buildFolder, liburingFolder, root } from './lib/paths.mjs';
import { run } from './lib/run.mjs';
import { filesBelow, fingerprint, isFresh, writeStamp } from './lib/stamp.mjs';
import { ensureTools } from './setup.mjs';
import { vendorLiburing } from './vendor-liburing.mjs';

const usage = `usage: node scripts/test-program.mjs [--only NAME] [--seed N]

Builds native/test with native/test/build.sh and runs its clauses.
  --only NAME   libc++ (over the stand-in for kqueue) or linux (io_uring and epoll)
  --seed N      the seed of what is random (1)
`;

/** Each clause that a port of one thread or of many must keep, by far; fewer would mean that cases were lost. */
const leastPassed = 60;
/** The program's own limit is a minute; behind it stands a machine that is busy with other things. */
const seconds = 300;
const kernels = ['xnu', 'freebsd'];

/** Builds the program `name`, unless it is up to date; its file. `env` is build.sh's. */
export async function buildProgram(name, env) {
  const file = join(buildFolder, 'test', `program-${name}`);
  const inputs = [
    ...filesBelow([join(root, 'native'), join(root, 'test/kqueue-shim')], ['liburing', 'addon', 'model']),
    ...filesBelow([join(liburingFolder, '.vendored')]),
  ];
  const print = fingerprint(inputs, JSON.stringify(env));
  if (isFresh(`program-${name}`, print)) return file;
  say(`building native/test with build.sh: ${name}`);
  mkdirSync(join(buildFolder, 'test'), { recursive: true });
  rmSync(`${file}.build`, { recursive: true, force: true }); // of a build that was ended hard
  const strict = { ...env, CXXFLAGS: `${env.CXXFLAGS ?? ''} -O0 -Werror`, JOBS: `${availableParallelism()}` };
  const done = await loud({ env: { ...process.env, ...strict } })`sh ${join(root, 'native/test/build.sh')} ${file}`.nothrow();
  if (done.exitCode !== 0) throw new Failure(`native/test/build.sh failed for ${name}; its words stand above`);
  writeStamp(`program-${name}`, print, [file]);
  return file;
}

/** One run: `{ passed, failed, failures }`. */
async function runProgram(label, file, seed, env) {
  say(label);
  const args = ['--seconds', `${seconds}`, '--seed', `${seed}`];
  const { reason, tail } = await run(file, args, { env, limitMs: (seconds + 60) * 1000, stdout: process.stderr });
  const counts = /^(\d+) passed, (\d+) failed$/m.exec(tail.split('\n').slice(-3).join('\n'));
  const [passed, failed] = counts === null ? [0, 0] : [Number(counts[1]), Number(counts[2])];
  let wrong = reason ?? (counts === null ? 'it printed no count' : null);
  if (wrong === null && passed < leastPassed) wrong = `only ${passed} cases passed`;
  return { passed, failed: failed || (wrong === null ? 0 : 1), failures: wrong === null ? [] : [`${label}: ${wrong}`] };
}

/** Name → builds the program; its file. */
const builds = {
  async 'libc++'() {
    await ensureTools(['clang++-14', 'libc++', 'libc++abi']);
    return buildProgram('libc++', { CXX: 'clang++-14', CXXFLAGS: '-stdlib=libc++', KQUEUE_SHIM: '1' });
  },
  async linux() {
    await ensureTools(['g++']);
    await vendorLiburing();
    return buildProgram('linux', { CXX: 'g++' });
  },
};

export async function buildPrograms() {
  for (const build of Object.values(builds)) await build();
}

const parts = {
  async 'libc++'(seed) {
    const file = await builds['libc++']();
    const results = [];
    for (const kernel of kernels)
      results.push(await runProgram(`libc++, kqueue as ${kernel}`, file, seed, { COMPLETION_PORT_KQUEUE_SHIM: kernel }));
    return results;
  },
  async linux(seed) {
    return [await runProgram('io_uring and epoll', await builds.linux(), seed, {})];
  },
};

export async function testProgram({ only, seed = 1 } = {}) {
  if (process.platform !== 'linux') throw new Failure('this builds for Linux; elsewhere: sh native/test/build.sh OUT', 2);
  const sum = { passed: 0, failed: 0, failures: [], note: '' };
  for (const name of only === undefined ? Object.keys(parts) : [only]) {
    for (const { passed, failed, failures } of await parts[name](seed)) {
      sum.passed += passed;
      sum.failed += failed;
      sum.failures.push(...failures);
    }
  }
  return sum;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(async () => {
    let values;
    try {
      values = parseArgs({ options: { only: { type: 'string' }, seed: { type: 'string' }, help: { type: 'boolean' } } }).values;
    } catch (error) {
      throw new Failure(`${error.message}\n${usage}`, 2);
    }
    if (values.help) {
      process.stdout.write(usage);
      return 0;
    }
    if (values.only !== undefined && !(values.only in parts))
      throw new Failure(`--only takes ${Object.keys(parts).join(', ')}`, 2);
    const seed = Number(values.seed ?? '1');
    if (!Number.isSafeInteger(seed) || seed < 0) throw new Failure('--seed takes a whole number from 0 on', 2);
    const { passed, failed, failures } = await testProgram({ only: values.only, seed });
    process.stdout.write(`${[...failures.map((each) => `FAILED ${each}`), `${passed} passed, ${failed} failed`].join('\n')}\n`);
    return failed === 0 && passed > 0 ? 0 : 1;
  });
}
