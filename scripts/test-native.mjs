// npm run test:native: builds native/test (core and backend without Node) under AddressSanitizer with
// UndefinedBehaviorSanitizer and under ThreadSanitizer, and runs both on each backend; and checks the model of the packet queue.
//
//   npm run test:native -- [--only address|thread|model] [--seed N] [--scale X]

import { mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { loud } from './build.mjs';
import { Failure, runMain, say } from './lib/log.mjs';
import { buildFolder, reportFolder, root } from './lib/paths.mjs';
import { run } from './lib/run.mjs';
import { checkModel } from './model.mjs';
import { buildTools, ensureTools, modelTools } from './setup.mjs';
import { vendorLiburing } from './vendor-liburing.mjs';

const usage = `usage: npm run test:native -- [options]

  --only NAME   one of address and thread, the two sanitizer builds, and model (scripts/model.mjs)
  --seed N      seed of the stress tests (printed by each run)
  --scale X     multiplies the counts inside tests; 1 is the default
examples:
  npm run test:native
  npm run test:native -- --only thread --seed 42
`;

export const sanitizers = {
  address: {
    sanitize: 'address,undefined',
    env: {
      ASAN_OPTIONS: 'detect_leaks=1:abort_on_error=0:exitcode=99:detect_stack_use_after_return=1',
      UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
    },
  },
  thread: {
    sanitize: 'thread',
    env: {
      TSAN_OPTIONS: `halt_on_error=1:exitcode=99:second_deadlock_stack=1:suppressions=${join(root, 'native/test/tsan.supp')}`,
    },
  },
};

/** No run takes this long unless it hangs. */
const runLimitMs = 20 * 60_000;
/** The program's own limit, before that: it says what it didn't come to. */
const programSeconds = 19 * 60;

/** native/test with a sanitizer; its file. */
export async function buildSanitized(name) {
  await ensureTools(buildTools);
  await vendorLiburing();
  const folder = join(buildFolder, 'cmake', `native-${name}`);
  say(`building native/test with -fsanitize=${sanitizers[name].sanitize}`);
  mkdirSync(folder, { recursive: true });
  await loud`cmake -S ${root} -B ${folder} -DCMAKE_BUILD_TYPE=Debug -DCP_ADDON=OFF -DCP_NATIVE_TEST=ON -DCP_WERROR=ON -DCP_SANITIZE=${sanitizers[name].sanitize}`;
  await loud`cmake --build ${folder} --parallel ${availableParallelism()}`;
  return join(folder, 'out/cp_native_test');
}

/** Runs the program with its output passed on, and reads its closing line `N passed, N failed`. */
async function runProgram(name, program, backend, args) {
  say(`native/${name} on ${backend}`);
  const { reason, tail } = await run(program, ['--backend', backend, '--stress', '--seconds', `${programSeconds}`, ...args], {
    env: sanitizers[name].env,
    limitMs: runLimitMs,
    stdout: process.stderr,
  });
  const counts = [...tail.matchAll(/^(\d+) passed, (\d+) failed$/gm)].at(-1);
  const passed = counts ? Number(counts[1]) : 0;
  const failed = counts ? Number(counts[2]) : 0;
  const wrong = reason ?? (counts ? null : 'it printed no count');
  // A sanitizer's finding or a crash may come before or after the count: it is a failure in any case.
  return { name, passed, failed: failed === 0 && wrong !== null ? 1 : failed, reason: wrong };
}

/** Builds once, runs each backend, and adds up. */
async function runBackends(name, args) {
  const program = await buildSanitized(name);
  const sum = { name, passed: 0, failed: 0, reason: null };
  for (const backend of ['io_uring', 'epoll']) {
    const { passed, failed, reason } = await runProgram(name, program, backend, args);
    sum.passed += passed;
    sum.failed += failed;
    sum.reason ??= reason === null ? null : `${backend}: ${reason}`;
  }
  return sum;
}

/** Name → what runs it; resolves to `{ name, passed, failed, reason }`. */
const runs = {
  model: () => checkModel(),
  address: (args) => runBackends('address', args),
  thread: (args) => runBackends('thread', args),
};

export async function testNative({ only, seed, scale } = {}) {
  await ensureTools([...buildTools, ...modelTools]);
  const args = [...(seed === undefined ? [] : ['--seed', seed]), ...(scale === undefined ? [] : ['--scale', scale])];
  const results = [];
  for (const name of only === undefined ? Object.keys(runs) : [only]) {
    const result = await runs[name](args);
    say(`native/${name}: ${result.passed} passed, ${result.failed} failed${result.reason ? ` (${result.reason})` : ''}`);
    results.push(result);
  }
  const total = {
    passed: results.reduce((sum, result) => sum + result.passed, 0),
    failed: results.reduce((sum, result) => sum + result.failed, 0),
    runs: results,
  };
  mkdirSync(reportFolder, { recursive: true });
  writeFileSync(join(reportFolder, 'native.json'), `${JSON.stringify(total, null, 2)}\n`);
  return total;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(async () => {
    let values;
    try {
      values = parseArgs({
        options: {
          only: { type: 'string' },
          seed: { type: 'string' },
          scale: { type: 'string' },
          help: { type: 'boolean' },
        },
      }).values;
    } catch (error) {
      throw new Failure(`${error.message}\n${usage}`, 2);
    }
    if (values.help) {
      process.stdout.write(usage);
      return 0;
    }
    if (values.only !== undefined && !(values.only in runs)) {
      throw new Failure(`--only takes ${Object.keys(runs).join(', ')}`, 2);
    }
    const { passed, failed } = await testNative(values);
    process.stdout.write(`${passed} passed, ${failed} failed\n`);
    return failed === 0 && passed > 0 ? 0 : 1;
  });
}
