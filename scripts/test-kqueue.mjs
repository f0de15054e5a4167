// npm run test:kqueue: the kqueue backend on Linux, over a stand-in for kqueue (test/kqueue-shim) that behaves as XNU or as FreeBSD: the
// conformance suite, with and without faults; native/test under sanitizers, with faults; and the addon for macOS, compiled and looked at.
//
//   npm run test:kqueue -- [--short] [--only STEP,…] [--seed N] [--seeds N] [--whole N] [--scale X]

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { buildKqueue, buildTypeScript, loud } from './build.mjs';
import { Failure, runMain, say } from './lib/log.mjs';
import { buildFolder, cliFile, reportFolder, root } from './lib/paths.mjs';
import { run } from './lib/run.mjs';
import { buildTools, ensureTools, testTools } from './setup.mjs';
import { testMachO } from './test-macho.mjs';
import { sanitizers } from './test-native.mjs';
import { testProgram } from './test-program.mjs';

const usage = `usage: npm run test:kqueue -- [options]

  --short       what npm test runs: one part of the suite over one kernel, with faults
  --only STEP,… some steps: shim, xnu, freebsd, xnu-shared, freebsd-shared, faults, address, thread, program,
                macho
  --seed N      the first seed of the faults (1)
  --seeds N     how many seeds of the faults the sanitizers see (10)
  --whole N     how many of them over all cases (10); the others over the reactor's own: reactor/ and disk/
  --scale X     multiplies the counts inside cases (0.1)
examples:
  npm run test:kqueue
  npm run test:kqueue -- --only address,thread --seeds 100
`;

const minute = 60_000;
const kernels = ['xnu', 'freebsd'];
/** Its bound (memory, behind a thousand threads) holds for its full count only; and gates are decided where nothing else goes wrong. */
const whole = '^(?!THREAD-11$)';
const withFaults = '^(?!THREAD-11$|CONC-06)';
/** Where a poller matters most. */
const short = '^(TCP|CANCEL|CLOSE|ORDER|WAKE|FLUSH|POST-07|ERR)';

const environment = (kernel, faults) => ({
  COMPLETION_PORT_KQUEUE_SHIM: kernel,
  COMPLETION_PORT_KQUEUE_FAULTS: faults ?? '',
});

/** One run of the suite; `{ passed, failed, failures, note }`. */
async function conformance(name, { scale, filter, options = [], kernel, faults }) {
  const file = join(reportFolder, `steps/kqueue-${name}.json`);
  mkdirSync(join(reportFolder, 'steps'), { recursive: true });
  rmSync(file, { force: true });
  const args = [cliFile, 'conformance', '--backend', 'kqueue', '--json', file, '--scale', scale, '--filter', filter, ...options];
  const { reason } = await run(process.execPath, args, { env: environment(kernel, faults), limitMs: 20 * minute });
  let report;
  try {
    report = JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return { passed: 0, failed: 1, failures: [`${name}: ${reason ?? 'it left no report'}`], note: '' };
  }
  const { pass, fail, gated, unable } = report.totals;
  const failures = report.cases
    .filter(({ verdict }) => verdict === 'fail' || verdict === 'unable')
    .map(({ id, verdict, error, reason: why }) => `${name}: ${id}: ${verdict}: ${error ?? why}`);
  const failed = fail + (process.env.CI ? unable : 0);
  if (failed === 0 && reason !== null) failures.push(`${name}: ${reason}`);
  return { passed: pass, failed: failed || (reason === null ? 0 : 1), failures, note: `${gated} gated, ${unable} unable` };
}

/** Configures and builds the Node-free programs with a sanitizer; the folder that they lie in. */
async function buildNative(name) {
  const folder = join(buildFolder, 'cmake', `native-kqueue-${name}`);
  const { sanitize } = sanitizers[name];
  say(`building native/test over the stand-in with -fsanitize=${sanitize}`);
  mkdirSync(folder, { recursive: true });
  const options = ['-DCP_ADDON=OFF', '-DCP_NATIVE_TEST=ON', '-DCP_KQUEUE_SHIM=ON', '-DCP_WERROR=ON', `-DCP_SANITIZE=${sanitize}`];
  await loud`cmake -S ${root} -B ${folder} -DCMAKE_BUILD_TYPE=Debug ${options}`;
  await loud`cmake --build ${folder} --parallel ${availableParallelism()}`;
  return join(folder, 'out');
}

async function runProgram(label, file, args, env) {
  const { reason, tail } = await run(file, args, { env, limitMs: 20 * minute, stdout: process.stderr });
  const counts = [...tail.matchAll(/^(\d+) passed, (\d+) failed$/gm)].at(-1);
  const [passed, failed] = counts === undefined ? [0, 0] : [Number(counts[1]), Number(counts[2])];
  const wrong = reason ?? (counts === undefined ? 'it printed no count' : null);
  return { passed, failed: failed || (wrong === null ? 0 : 1), failures: wrong === null ? [] : [`${label}: ${wrong}`], note: '' };
}

const add = (a, b) => ({
  passed: a.passed + b.passed,
  failed: a.failed + b.failed,
  failures: [...a.failures, ...b.failures],
  note: b.note || a.note,
});
const none = { passed: 0, failed: 0, failures: [], note: '' };

/** The stand-in itself against the table of what the two kernels do. */
async function shim() {
  const folder = await buildNative('address');
  let sum = none;
  for (const kernel of kernels) {
    const env = { ...sanitizers.address.env, ...environment(kernel) };
    sum = add(sum, await runProgram(`shim as ${kernel}`, join(folder, 'cp_shim_test'), [], env));
  }
  return sum;
}

/**
 * native/test: each kernel once as it is, then seed by seed with faults, all cases or the reactor's own stress, and streams in pieces of any
 * size.
 */
async function native(name, { seed, seeds, whole }) {
  const folder = await buildNative(name);
  const file = join(folder, 'cp_native_test');
  // The program's own, before ours: it says what it didn't come to.
  const limit = ['--seconds', `${19 * 60}`];
  let sum = none;
  const go = async (kernel, faults, args) => {
    const env = { ...sanitizers[name].env, ...environment(kernel, faults) };
    // A process with an idle thread of the pool is made to wait for a second at its end, which a hundred seeds can't (TSan's atexit_sleep_ms).
    if (env.TSAN_OPTIONS) env.TSAN_OPTIONS = `${env.TSAN_OPTIONS.replace('tsan.supp', 'tsan-shim.supp')}:atexit_sleep_ms=20`;
    const label = `${name}, ${kernel}${faults === undefined ? '' : `, faults ${faults}`}`;
    say(label);
    sum = add(sum, await runProgram(label, file, args, env));
  };
  for (const kernel of kernels) await go(kernel, undefined, ['--stress', '--scale', '0.1', ...limit]);
  for (let i = 0; i < seeds; i++) {
    const number = seed + i;
    const kernel = kernels[i % 2];
    for (const filter of i < whole
      ? [[]]
      : [
          ['--filter', 'reactor/'],
          ['--filter', 'disk/'],
        ])
      await go(kernel, `${number}`, ['--stress', '--scale', '0.02', '--seed', `${number}`, ...filter, ...limit]);
    await go(kernel, `${number},3,1`, ['--filter', 'reactor/stream', '--seed', `${number}`, ...limit]);
  }
  return sum;
}

const steps = {
  shim,
  xnu: ({ scale }) => conformance('xnu', { kernel: 'xnu', scale, filter: whole }),
  freebsd: ({ scale }) => conformance('freebsd', { kernel: 'freebsd', scale, filter: whole }),
  'xnu-shared': ({ scale }) => conformance('xnu-shared', { kernel: 'xnu', scale, filter: whole, options: ['--shared'] }),
  'freebsd-shared': ({ scale }) =>
    conformance('freebsd-shared', { kernel: 'freebsd', scale, filter: whole, options: ['--shared'] }),
  async faults({ scale, seed }) {
    let sum = none;
    for (const [i, kernel] of kernels.entries()) {
      const faults = `${seed + i}`;
      const options = i === 0 ? [] : ['--shared'];
      sum = add(sum, await conformance(`${kernel}-faults-${faults}`, { kernel, scale, filter: withFaults, faults, options }));
    }
    return sum;
  },
  address: (options) => native('address', options),
  thread: (options) => native('thread', options),
  program: ({ seed }) => testProgram({ only: 'libc++', seed }),
  macho: () => testMachO(),
};

export async function testKqueue(options, only = Object.keys(steps)) {
  if (process.platform !== 'linux') throw new Failure('the stand-in for kqueue needs Linux', 2);
  await ensureTools([...buildTools, ...testTools]);
  await buildTypeScript();
  await buildKqueue();
  let sum = none;
  for (const name of Object.keys(steps).filter((step) => only.includes(step))) {
    const result = await steps[name](options);
    say(`kqueue/${name}: ${result.passed} passed, ${result.failed} failed${result.note ? `, ${result.note}` : ''}`);
    sum = add(sum, { ...result, note: '' });
  }
  mkdirSync(reportFolder, { recursive: true });
  writeFileSync(join(reportFolder, 'kqueue.json'), `${JSON.stringify(sum, null, 2)}\n`);
  return sum;
}

/** What `npm test` runs. */
export async function testKqueueShort(seed = 1) {
  await ensureTools(buildTools);
  await buildKqueue();
  const kernel = kernels[seed % 2];
  return conformance(`${kernel}-short`, { kernel, scale: '0.05', filter: short, faults: `${seed}` });
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(async () => {
    let values;
    try {
      const text = { type: 'string' };
      const options = {
        short: { type: 'boolean' },
        only: text,
        seed: text,
        seeds: text,
        whole: text,
        scale: text,
        help: { type: 'boolean' },
      };
      values = parseArgs({ options }).values;
    } catch (error) {
      throw new Failure(`${error.message}\n${usage}`, 2);
    }
    if (values.help) {
      process.stdout.write(usage);
      return 0;
    }
    const number = (name, value, least) => {
      const given = Number(value);
      if (!Number.isSafeInteger(given) || given < least) throw new Failure(`--${name} takes a whole number from ${least} on`, 2);
      return given;
    };
    const seed = number('seed', values.seed ?? '1', 0);
    const seeds = number('seeds', values.seeds ?? '10', 1);
    const whole = number('whole', values.whole ?? '10', 0);
    const only = values.only?.split(',');
    for (const name of only ?? []) {
      if (!(name in steps)) throw new Failure(`unknown step ${name}; the steps are ${Object.keys(steps).join(', ')}`, 2);
    }
    const { passed, failed, failures } = values.short
      ? await testKqueueShort(seed)
      : await testKqueue({ seed, seeds, whole, scale: values.scale ?? '0.1' }, only);
    process.stdout.write(
      `${[...failures.map((failure) => `FAILED ${failure}`), `${passed} passed, ${failed} failed`].join('\n')}\n`,
    );
    return failed === 0 && passed > 0 ? 0 : 1;
  });
}
