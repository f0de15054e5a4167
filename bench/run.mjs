// The bars: every figure that the project holds itself to, in one run, with the means of `completion-port bench`. Subjects are measured
// side by side in interleaved rounds; a figure is the median over the rounds of the ratio of two subjects' CPU time an
// operation, its quartiles beside it. Needs Linux, two CPUs, taskset, a C compiler, and a built package.
//
// node bench/run.mjs [--only REGEXP] [--rounds N] [--quick] [--json FILE] [--list]

import { writeFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { buildPeers } from '../dist/bench/peers.js';
import { killAll } from '../dist/bench/processes.js';
import { interleave, ratiosOf, summary } from '../dist/bench/rounds.js';
import { measureAllocation } from './workloads/allocation.mjs';
import { workloads as closing } from './workloads/closing.mjs';
import { workloads as echo } from './workloads/echo.mjs';
import { workloads as programs } from './workloads/programs.mjs';

const DEFAULT_ROUNDS = 11;
const QUICK_ROUNDS = 3;
const MAX_ROUNDS = 100;
const ALLOCATION = 'allocation/beyond-packet';

const HELP = `npm run bench -- [OPTIONS]
Measures every figure of the package side by side with its peers, and says which bars are reached.

  --only REGEXP   figures whose name matches, e.g. 'echo/64/', 'plain:C', 'file-read'
  --rounds N      interleaved rounds (${DEFAULT_ROUNDS}); fewer than 9 say little
  --quick         ${QUICK_ROUNDS} short rounds: shows that it runs, not how fast
  --json FILE     the same as data
  --list          the names of the figures, nothing measured
`;

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const workloads = [...echo, ...programs, ...closing];
const nameOf = (workload, { subject, against }) => `${workload.name}/${subject}:${against}`;

function readOptions() {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        only: { type: 'string', default: '' },
        rounds: { type: 'string' },
        quick: { type: 'boolean', default: false },
        json: { type: 'string' },
        list: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    }));
  } catch (error) {
    fail(`${error.message} (see --help)`);
  }
  const rounds = values.rounds === undefined ? (values.quick ? QUICK_ROUNDS : DEFAULT_ROUNDS) : Number(values.rounds);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > MAX_ROUNDS) fail(`--rounds takes a number from 1 to ${MAX_ROUNDS}`);
  let only;
  try {
    only = new RegExp(values.only);
  } catch (error) {
    fail(`--only: ${error.message}`);
  }
  return { ...values, rounds, only };
}

function fail(message) {
  console.error(`bench: ${message}`);
  process.exit(2);
}

/** Progress on a terminal only, on one line that is written over. */
function progress(text) {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}

const microseconds = (ns) => (ns >= 1000 ? `${(ns / 1000).toFixed(2)} µs` : `${ns.toFixed(0)} ns`);

/** A short run of --quick, in seconds. */
const QUICK_SECONDS = 0.2;

/** Measures one workload's wanted figures; resolves with a row for each. */
async function measureWorkload(workload, figures, context, options) {
  const names = [...new Set(figures.flatMap(({ subject, against }) => [against, subject]))];
  const subjects = [];
  const results = new Map();
  try {
    for (const name of names) {
      progress(`${workload.name}: starting ${name}`);
      subjects.push({ name, running: await workload.start(name, context) });
    }
    await interleave(subjects, options.rounds, { quickSeconds: options.quick ? QUICK_SECONDS : null }, results, {
      step: (text) => progress(`${workload.name}: ${text}`),
      failed(_name, error) {
        throw error;
      },
    });
  } finally {
    for (const { running } of subjects) await running.stop();
    progress('');
  }
  const costs = names.map((name) => ({ name, ns: summary(results.get(name).ns), last: results.get(name).last }));
  const rows = figures.map(({ subject, against, bar }) => {
    const ratio = summary(ratiosOf(results.get(subject).ns, results.get(against).ns));
    return { name: nameOf(workload, { subject, against }), ratio, bar, reached: bar === null ? null : ratio.median <= bar };
  });
  return { costs, rows };
}

function printWorkload(workload, { costs, rows }) {
  console.log(`\n${workload.name}: ${workload.title}`);
  for (const { name, ns, last } of costs) {
    const latency = last.latencyUs ? `, latency p50 ${last.latencyUs.p50} p99 ${last.latencyUs.p99} µs` : '';
    const rate = last.messagesPerSecond ? `, ${Math.round(last.messagesPerSecond / 1000)}k/s` : '';
    console.log(`  ${name.padEnd(15)} ${microseconds(ns.median).padStart(9)} CPU a ${workload.unit}${rate}${latency}`);
  }
  for (const row of rows) printRow(row);
}

function printRow({ name, ratio, bar, reached }) {
  const verdict = reached === null ? '' : reached ? 'reached' : 'MISSED';
  const limit = bar === null ? 'no bar' : `≤ ${bar.toFixed(3)}`;
  const quartiles = `${ratio.low.toFixed(3)} to ${ratio.high.toFixed(3)}`;
  console.log(`    ${name.padEnd(34)} ${ratio.median.toFixed(3).padStart(7)}  (${quartiles})  ${limit.padEnd(8)} ${verdict}`);
}

const options = readOptions();
if (options.help) {
  console.log(HELP);
  process.exit(0);
}
const wanted = workloads
  .map((workload) => ({ workload, figures: workload.figures.filter((figure) => options.only.test(nameOf(workload, figure))) }))
  .filter(({ figures }) => figures.length > 0);
const wantAllocation = options.only.test(ALLOCATION);
if (wanted.length === 0 && !wantAllocation) fail('--only matches no figure; --list shows their names');
if (options.list) {
  for (const { workload, figures } of wanted) {
    for (const figure of figures)
      console.log(`${nameOf(workload, figure)}${figure.bar === null ? '' : ` ≤ ${figure.bar.toFixed(3)}`}`);
  }
  if (wantAllocation) console.log(ALLOCATION);
  process.exit(0);
}
if (process.platform !== 'linux') fail('this program measures by /proc and io_uring: it runs on Linux');
if (cpus().length < 2) fail('two CPUs are needed: one for the subject, one for its load');

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(signal, () => {
    killAll();
    process.kill(process.pid, signal); // now as if nobody had caught it
  });
}
process.on('exit', killAll);

const peers = await buildPeers();
if (peers.programs === null) fail(`the bars are ratios to C programs: ${peers.reason}`);
const context = { root, programs: peers.programs };
const report = {
  started: new Date().toISOString(),
  os: { platform: process.platform, release: release(), cpu: cpus()[0].model, cpus: cpus().length },
  runtime: { name: 'node', version: process.version },
  rounds: options.rounds,
  quick: options.quick,
  figures: [],
  costs: [],
};
console.log(
  `node ${process.version}, Linux ${release()}, ${cpus()[0].model}; ${options.rounds} rounds; ratios of CPU time an operation`,
);
console.log('median (quartiles) against the bar');

for (const { workload, figures } of wanted) {
  const measured = await measureWorkload(workload, figures, context, options);
  printWorkload(workload, measured);
  report.figures.push(...measured.rows);
  report.costs.push(...measured.costs.map((cost) => ({ workload: workload.name, ...cost })));
}
if (wantAllocation) {
  progress(ALLOCATION);
  const allocation = await measureAllocation(context);
  progress('');
  const reached = allocation.beyond <= allocation.bar;
  console.log('\nallocation: bytes of JavaScript heap an operation in steady state');
  console.log(
    `    ${allocation.bytesPerOperation.toFixed(2)} an operation, ${allocation.packetBytes.toFixed(2)} of them its packet; ${allocation.bytesPerEnter.toFixed(0)} a call of the kernel`,
  );
  const verdict = reached ? 'reached' : 'MISSED';
  console.log(`    ${ALLOCATION.padEnd(34)} ${allocation.beyond.toFixed(2).padStart(7)}  bytes  ≤ ${allocation.bar}  ${verdict}`);
  report.figures.push({ name: ALLOCATION, ...allocation, reached });
}

const barred = report.figures.filter(({ reached }) => reached !== null);
const missed = barred.filter(({ reached }) => !reached);
console.log(
  `\n${barred.length - missed.length} of ${barred.length} bars reached${missed.length > 0 ? `; missed: ${missed.map(({ name }) => name).join(', ')}` : ''}`,
);
if (options.quick) console.log('--quick: too few and too short rounds to conclude anything from');
if (options.json) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`);
