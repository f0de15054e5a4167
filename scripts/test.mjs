// npm test: everything that can be tested on this machine, step by step, with a table at the end and the sum as the last
// line. Each step's counts are left in build/reports/test.json.
//
//   npm test -- [--full] [--only STEP,…] [--seed N]

import { createWriteStream, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs, stripVTControlCharacters } from 'node:util';
import { Failure, runMain, say } from './lib/log.mjs';
import { buildFolder, cliFile, denyUringFile, reportFolder, root } from './lib/paths.mjs';
import { run } from './lib/run.mjs';
import { buildTools, ensureTools, testTools } from './setup.mjs';
import { testKqueueShort } from './test-kqueue.mjs';
import { testMachO } from './test-macho.mjs';
import { testProgram } from './test-program.mjs';
import { prepareWine, testWine, testWineShort } from './test-wine.mjs';

const usage = `usage: npm test -- [options]

  --full        every count at scale 1 (npm run test:full)
  --only STEP,… some steps: build, docs, lint, types, vitest, native, conformance, shared, epoll, epoll-shared, seccomp, kqueue,
                program, macho, wine
  --seed N      seed of the native stress tests and of the conformance suite
examples:
  npm test
  npm test -- --only vitest,conformance
`;

const minute = 60_000;
const node = process.execPath;
const bin = (path) => join(root, 'node_modules', path);
const one = (reason) => ({ passed: reason === null ? 1 : 0, failed: reason === null ? 0 : 1, note: reason ?? '' });

function readReport(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return null; // the step reports that it left none
  }
}

/** Of what a test said, as much as a line's reader needs: a log may be cut to its tail. */
const shortened = (message) => {
  const lines = stripVTControlCharacters(message)
    .split('\n')
    .filter((line) => !/^\s*(at |$)/.test(line));
  return lines.slice(0, 12).join('\n  ').slice(0, 1200);
};

/** Name → what to run; each resolves to `{ passed, failed, note, failures? }`. Later steps rely on `build`. */
const steps = {
  async build() {
    return one((await run(node, ['scripts/build.mjs', '--test-build'], { limitMs: 20 * minute })).reason);
  },

  /** Before the tests of the pages and of npm start, which would otherwise make them at the same time. */
  async docs() {
    return one((await run(node, ['scripts/docs.mjs'], { limitMs: 5 * minute })).reason);
  },

  async lint() {
    return one((await run(node, ['scripts/lint.mjs'], { limitMs: 5 * minute })).reason);
  },

  async types() {
    return one((await run(node, [bin('typescript/bin/tsc'), '-p', 'tsconfig.json'], { limitMs: 5 * minute })).reason);
  },

  async vitest() {
    const file = join(reportFolder, 'vitest.json');
    rmSync(file, { force: true });
    const { reason } = await run(
      node,
      [bin('vitest/vitest.mjs'), 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${file}`],
      { limitMs: 30 * minute },
    );
    const report = readReport(file);
    if (report === null) return one(reason ?? 'it left no report');
    // A file that can't even be loaded has no tests to count, and neither has an unhandled error.
    const broken = report.testResults.filter((result) => result.status === 'failed' && result.assertionResults.length === 0);
    let failed = report.numFailedTests + broken.length;
    if (reason !== null && failed === 0) failed = 1;
    const left = report.testResults
      .flatMap((result) => result.assertionResults)
      .filter((test) => test.status !== 'passed' && test.status !== 'failed');
    // Nothing is skipped in silence: what this machine lacks is named here, and is a failure where everything must be there.
    if (left.length > 0) say(`skipped:\n  ${left.map((test) => test.fullName).join('\n  ')}`);
    const names = report.testResults
      .flatMap((result) => result.assertionResults)
      .filter((test) => test.status === 'failed')
      .map((test) => `${test.fullName}: ${shortened(test.failureMessages.join('\n'))}`);
    return {
      passed: report.numPassedTests,
      failed: failed + (process.env.CI ? left.length : 0),
      failures: [...names, ...broken.map((result) => result.name)],
      note: [reason, left.length > 0 ? `${left.length} skipped` : ''].filter(Boolean).join(', '),
    };
  },

  async native({ seed }) {
    const file = join(reportFolder, 'native.json');
    rmSync(file, { force: true });
    const args = ['scripts/test-native.mjs', ...(seed === undefined ? [] : ['--seed', seed])];
    const { reason } = await run(node, args, { limitMs: 45 * minute });
    const report = readReport(file);
    if (report === null) return one(reason ?? 'it left no report');
    return { passed: report.passed, failed: report.failed || (reason === null ? 0 : 1), note: reason ?? '' };
  },

  conformance: ({ seed }) => conformance('conformance', seed),

  /** The cases of one thread once more, on shared ports. */
  shared: ({ seed }) => conformance('shared', seed, ['--shared']),

  /** The second backend: the same cases with smaller counts. Only with --full: `seccomp` is the same backend, chosen otherwise. */
  epoll: (values) => conformance('epoll', values.seed, ['--backend', 'epoll', ...smaller(values)]),
  'epoll-shared': (values) => conformance('epoll-shared', values.seed, ['--backend', 'epoll', '--shared', ...smaller(values)]),

  /** Where io_uring is denied for real the port's own choice is epoll, and all else is as before. */
  seccomp: (values) => conformance('seccomp', values.seed, smaller(values), [denyUringFile, 'EPERM']),

  /** The kqueue backend over its stand-in: a part of npm run test:kqueue. */
  kqueue: ({ seed }) => testKqueueShort(seed === undefined ? undefined : Number(seed)),

  /** native/test as it is built without CMake and Node, with the C++ library of FreeBSD and macOS and with Linux's own. */
  program: ({ seed }) => testProgram({ seed: seed === undefined ? undefined : Number(seed) }),

  /** The addon for macOS, compiled and looked at. */
  macho: async () => ({ note: '', ...(await testMachO()) }),

  /** Compiled for Windows, and under Wine native/test and a part of the suite; --full runs the suite whole (npm run test:wine). */
  async wine({ full }) {
    try {
      await prepareWine();
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      return process.env.CI ? one(error.message) : { passed: 0, failed: 0, note: `not run: ${error.message}` };
    }
    return full ? testWine({ scale: '1' }) : testWineShort();
  },
};

/** Steps that compile for themselves, beside whose predecessors scripts/build-ahead.mjs does it. */
const builtAhead = ['native', 'kqueue', 'program', 'macho', 'wine'];

/** Starts it; resolves when it has ended. What it prints goes to a file: it would stand in the middle of another step's output. */
async function buildAhead() {
  const file = join(buildFolder, 'ahead.log');
  say(`compiling for later steps meanwhile; its output: ${file}`);
  const output = createWriteStream(file);
  const { reason } = await run(node, ['scripts/build-ahead.mjs'], { limitMs: 30 * minute, stdout: output, stderr: output });
  output.end();
  if (reason !== null) say(`compiling ahead: ${reason}; the steps build again what is missing`);
}

/** Without the one case whose bound (memory, behind a thousand threads) holds for its full count only: a runtime's first hundred cost more. */
const smaller = ({ full }) => (full ? [] : ['--scale', '0.1', '--filter', '^(?!THREAD-11$)']);

/** `before`: a command that starts the suite's own. */
async function conformance(step, seed, options = [], before = []) {
  const file = join(reportFolder, `steps/${step}.json`);
  rmSync(file, { force: true });
  const [command, ...args] = [
    ...before,
    node,
    cliFile,
    'conformance',
    '--json',
    file,
    ...options,
    ...(seed === undefined ? [] : ['--seed', seed]),
  ];
  const { reason } = await run(command, args, { limitMs: 15 * minute });
  const report = readReport(file);
  if (report === null) return one(reason ?? 'it left no report');
  const { pass, fail, gated, unable, 'n/a': without } = report.totals;
  const others = Object.entries({ gated, unable, 'n/a': without }).filter(([, count]) => count > 0);
  const failed = fail + (process.env.CI ? unable : 0);
  const failures = report.cases
    .filter(({ verdict }) => verdict === 'fail' || verdict === 'unable')
    .map(({ id, verdict, error, reason: why }) => `${id}: ${verdict}: ${error ?? why}`);
  return {
    passed: pass,
    failed: failed || (reason === null ? 0 : 1),
    failures,
    note: [reason, ...others.map(([verdict, count]) => `${count} ${verdict}`)].filter(Boolean).join(', '),
  };
}

/** Steps that need Linux; `macho` needs the compiler that is pinned for it, `wine` the processor that node.exe is for. */
const linuxOnly = [
  ...['vitest', 'native', 'conformance', 'shared', 'epoll', 'epoll-shared', 'seccomp', 'kqueue', 'program', 'macho', 'wine'],
];
const notRun = (name, { full, only }) => {
  if (name === 'epoll' && !full && only === undefined) return 'with --full, or by its name; seccomp runs the same backend';
  if (process.platform !== 'linux' && linuxOnly.includes(name)) return 'needs Linux';
  if (process.arch === 'x64') return null;
  return name === 'macho' ? 'zig is pinned for x86-64' : name === 'wine' ? 'node.exe is pinned for x86-64' : null;
};

await runMain(async () => {
  let values;
  try {
    values = parseArgs({
      options: {
        full: { type: 'boolean' },
        only: { type: 'string' },
        seed: { type: 'string' },
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
  const only = values.only?.split(',') ?? Object.keys(steps);
  for (const name of only) {
    if (!(name in steps)) throw new Failure(`unknown step ${name}; the steps are ${Object.keys(steps).join(', ')}`, 2);
  }
  await ensureTools([...buildTools, ...testTools]);
  mkdirSync(join(reportFolder, 'steps'), { recursive: true });

  const results = [];
  let broken = false;
  let ahead = null;
  for (const name of Object.keys(steps).filter((step) => only.includes(step))) {
    const without = broken ? 'the build failed' : notRun(name, values);
    if (without !== null) {
      results.push({ name, passed: 0, failed: 0, seconds: 0, note: `not run: ${without}` });
      continue;
    }
    // Only beside vitest, which is long and mostly waits; the steps behind it have the machine to themselves.
    if (name === 'vitest' && only.some((step) => builtAhead.includes(step))) ahead = buildAhead();
    else if (name !== 'vitest') await ahead;
    say(`── ${name} ──`);
    const started = performance.now();
    const result = await steps[name](values);
    results.push({ name, ...result, seconds: Math.round((performance.now() - started) / 1000) });
    broken ||= name === 'build' && result.failed > 0;
  }

  const passed = results.reduce((sum, result) => sum + result.passed, 0);
  const failed = results.reduce((sum, result) => sum + result.failed, 0);
  writeFileSync(join(reportFolder, 'test.json'), `${JSON.stringify({ passed, failed, steps: results }, null, 2)}\n`);
  const row = (cells) =>
    `${cells[0].padEnd(14)}${cells[1].padStart(8)}${cells[2].padStart(8)}${cells[3].padStart(8)}  ${cells[4]}`.trimEnd();
  const lines = [
    row(['step', 'passed', 'failed', 'seconds', '']),
    ...results.map(({ name, passed, failed, seconds, note }) => row([name, `${passed}`, `${failed}`, `${seconds}`, note])),
    `${passed} passed, ${failed} failed`,
  ];
  // Once more at the end: where only the tail of a log is kept, it still says what failed.
  const failures = results.flatMap((result) => (result.failures ?? []).map((failure) => `FAILED ${result.name}: ${failure}`));
  process.stdout.write(`\n${[...failures, ...lines].join('\n')}\n`);
  return failed === 0 && passed > 0 ? 0 : 1;
});
