// The models of the packet queue and of what wakes event loops and the driver (native/core/model/) under the model checker spin: every state
// of small configurations is searched for a broken rule, then for a run in which a packet or a waiter is left for ever; then each mutant has
// to be caught by the property that is named with it here. `npm run test:native` includes this.
//
//   node scripts/model.mjs [--filter REGEXP]

import { mkdirSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { $ } from 'zx';
import { Failure, runMain, say } from './lib/log.mjs';
import { buildFolder, root } from './lib/paths.mjs';
import { run } from './lib/run.mjs';
import { ensureTools, modelTools } from './setup.mjs';

const usage = `usage: node scripts/model.mjs [options]

  --filter REGEXP   only checks whose name matches
examples:
  node scripts/model.mjs
  node scripts/model.mjs --filter 'threads|MUTANT_MISSED_POST'
`;

const modelsFolder = join(root, 'native/core/model');
const modelFolder = join(buildFolder, 'model');

/** No check comes near either, unless the model grew. */
const runLimitMs = 5 * 60_000;
const memoryLimitMiB = 4000;

// Which unusual events a configuration has; the macros are explained at the top of packet_queue.pml.
const threadEvents = { TIMEOUTS: 1, POLLS: 1, ENDS: 1, BLOCKING: 1, CLOSES: 1 };
const loopEvents = { ...threadEvents, ABORTS: 1, HANGS: 1 };
const sleepEvents = { ...threadEvents, SLEEPS: 1 };

const threads = { ...threadEvents, THREADS: 3 };
const loops = { ...loopEvents, THREADS: 1, LOOPS: 2 };
const watcher = { ...sleepEvents, THREADS: 2, POSTERS: 1, PACKETS: 4, UNUSUAL: 3 };
const polling = { POLLS: 2, SLEEPS: 1, THREADS: 2, POSTERS: 1, PACKETS: 2 };
const small = { POSTERS: 1, PACKETS: 2 };

/** Name → macros: every assertion holds in every state. */
const safety = {
  'threads, concurrency 1': threads,
  'threads, concurrency 2': { ...threads, CONCURRENCY: 2, PACKETS: 2 },
  'event loops, concurrency 1': loops,
  'event loops, concurrency 2': { ...loops, CONCURRENCY: 2, PACKETS: 2 },
  'threads and event loops': { ...loopEvents, THREADS: 2, LOOPS: 2, PACKETS: 2, UNUSUAL: 1 },
  'watcher, concurrency 1': watcher,
  'watcher, concurrency 2': { ...watcher, CONCURRENCY: 2 },
};

/** Name → the property and the macros: it holds for every run in which each thread that can go on does at last (weak fairness). */
const liveness = {
  'each packet, threads': ['each_delivered', { ...threads, THREADS: 2, UNUSUAL: 3 }],
  'each packet, event loops': ['each_delivered', { ...loops, ...small }],
  'each packet, watcher': ['each_delivered', { ...watcher, PACKETS: 2 }],
  'each packet, watcher and polling': ['each_delivered', polling],
  'each wait, close': ['close_ends', { ...loops, LOOPS: 1, ...small }],
};

/** Macro → the property that catches it and where. A READING is a rule as it was written once, and found wrong. */
const mutants = {
  MUTANT_MISSED_POST: ['no_lost_wakeup', threads],
  MUTANT_WAKES_ALL: ['lifo_order', threads],
  MUTANT_FIFO_WAITERS: ['lifo_order', threads],
  MUTANT_FORGETS_PLACE: ['no_lost_wakeup', threads],
  MUTANT_LOSES_HANDED: ['delivered_once', threads],
  MUTANT_COUNTS_BLOCKED: ['no_lost_wakeup', threads],
  MUTANT_NULL_IS_FREE: ['limit_kept', threads],
  MUTANT_LOSES_TURN: ['lifo_order', threads],
  MUTANT_CLEARS_LATE: ['no_lost_signal', threads],
  MUTANT_TIMES_OUT_HANDED: ['delivered_once', threads],
  MUTANT_GIVES_LENT_UP: ['places_kept', watcher],
  MUTANT_KEEPS_CLAIM: ['no_lost_wakeup', loops],
  MUTANT_TRUSTS_CLAIMS: ['each_delivered', { ...loops, ...small }],
  MUTANT_CLOSES_THREADS_ONLY: ['close_ends', { ...loops, LOOPS: 1, ...small }],
  READING_FRONT: ['fifo_order', { ...threads, CONCURRENCY: 2 }],
  READING_CLAIMS_HOLD: ['free_thread_released', loops],
  READING_BLOCKING_ADDS: ['no_lost_wakeup', threads],
  READING_RECORD_DIES: ['record_alive', threads],
  READING_FORGETS_LENT: ['above_for_a_moment', watcher],
  READING_WATCHES_WAITERS: ['each_delivered', polling],
};

// A thread with packets before it beside one that tells the driver of each of its starts; two such threads; and one by itself.
const dozing = { PUBLISHERS: 1, WORKS: 1, REAPS: 1, STARTERS: 1, POSTS: 1 };
const dozingTwo = { PUBLISHERS: 0, REAPS: 0, RETRIES: 0, STARTERS: 2 };
const dozingAlone = { PUBLISHERS: 0, REAPS: 1, STARTERS: 1, POSTS: 1 };

/** Name → the file, the macros, and where it is about runs without end, the property: of the models of what wakes. */
const wakes = {
  'event loop': ['notifier', {}],
  'event loop, helper thread': ['notifier', { HELPER: 1 }],
  sleep: ['sleep', {}],
  driver: ['driver', {}],
  'driver, dozing': ['driver', dozing],
  'driver, dozing, closed at any moment': ['driver', { ...dozing, CLOSES: 1 }],
  'driver, dozing, two threads': ['driver', dozingTwo],
  'driver, dozing, two threads, closed at any moment': ['driver', { ...dozingTwo, CLOSES: 1 }],
  'each start is submitted, dozing': ['driver', { ...dozingAlone, CLOSES: 1 }, 'each_submitted'],
};

/** Macro → the property that catches it, the file and the macros. */
const wakeMutants = {
  MUTANT_CLEARS_FLAG_FIRST: ['all_looked_at', 'notifier', {}],
  MUTANT_LOOKS_FIRST: ['all_looked_at', 'notifier', {}],
  MUTANT_CALLED_AFTER_LOOK: ['all_looked_at', 'notifier', { HELPER: 1 }],
  MUTANT_SIGNALS_ALWAYS: ['nothing_slept_over', 'sleep', {}],
  MUTANT_DOZES_LATE: ['nothing_slept_over', 'sleep', {}],
  MUTANT_KEEPS_DOZES: ['nothing_slept_over', 'sleep', {}],
  MUTANT_TRUSTS_DESCRIPTOR: ['nothing_slept_over', 'sleep', {}],
  MUTANT_TAKES_KICK: ['nothing_slept_over', 'driver', {}],
  MUTANT_KEEPS_KICKED: ['nothing_slept_over', 'driver', {}],
  MUTANT_WAITS_LATE: ['nothing_slept_over', 'driver', {}],
  MUTANT_FORGETS_AGAIN: ['nothing_slept_over', 'driver', {}],
  MUTANT_DOZES_ON: ['doze_has_an_end', 'driver', dozing],
  MUTANT_DOZES_LONGER: ['doze_has_an_end', 'driver', dozing],
  MUTANT_POSTPONES_ALWAYS: ['doze_has_an_end', 'driver', dozing],
  MUTANT_RESTS_QUIETLY: ['told_at_rest', 'driver', dozing],
  MUTANT_LEAVES_QUIETLY: ['nothing_slept_over', 'driver', dozingTwo],
  MUTANT_STOPS_QUIETLY: ['stop_ends', 'driver', dozingAlone],
};

const isLiveness = (property) => ['each_delivered', 'close_ends', 'each_submitted'].includes(property);

const checks = [
  ...Object.entries(safety).map(([name, macros]) => ({ name, property: null, macros, caught: false })),
  ...Object.entries(liveness).map(([name, [property, macros]]) => ({ name, property, macros, caught: false })),
  ...Object.entries(mutants).map(([name, [property, macros]]) => ({
    name,
    property,
    macros: { ...macros, [name]: 1 },
    caught: true,
  })),
  ...Object.entries(wakes).map(([name, [model, macros, property = null]]) => ({ name, model, property, macros, caught: false })),
  // In a run without end as well: what the doze's end would have submitted never is.
  {
    name: 'MUTANT_DOZES_ON, for ever',
    model: 'driver',
    property: 'each_submitted',
    macros: { ...dozingAlone, MUTANT_DOZES_ON: 1 },
    caught: true,
  },
  ...Object.entries(wakeMutants).map(([name, [property, model, macros]]) => ({
    name,
    model,
    property,
    macros: { ...macros, [name]: 1 },
    caught: true,
  })),
];

/** Generates and compiles the search for one check, in a folder of its own. Resolves to the folder. */
async function build({ name, model = 'packet_queue', property, macros, caught }) {
  const modelFile = join(modelsFolder, `${model}.pml`);
  const folder = join(modelFolder, name.replace(/[^\w]+/g, '-'));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const live = isLiveness(property);
  const defines = Object.entries({ ...macros, ...(live ? { [property.toUpperCase()]: 1 } : {}) }).map(
    ([macro, value]) => `-D${macro}=${value}`,
  );
  const tool = $({ cwd: folder, quiet: true, nothrow: true });
  const generated = await tool`spin ${defines} -a ${modelFile}`;
  if (generated.exitCode !== 0) throw new Failure(`spin does not understand the model:\n${generated.stdout}${generated.stderr}`);
  // Only the searches for a broken assertion are long enough to be worth compiling well.
  const options = [live || caught ? '-O0' : '-O1', `-DMEMLIM=${memoryLimitMiB}`, ...(live ? ['-DNFAIR=3'] : ['-DSAFETY'])];
  const compiled = await tool`gcc -w ${options} -o pan pan.c`;
  if (compiled.exitCode !== 0) throw new Failure(`gcc does not compile spin's output:\n${compiled.stderr}`);
  // For a person, in the repository's folder: shows how the property came to be broken.
  const replay = `cd ${relative(root, folder)} && spin ${defines.join(' ')} -k ${model}.pml.trail -t -p -g ${relative(folder, modelFile)}`;
  return { folder, replay };
}

/** What pan says: the property that is broken or null, the number of states, and in words why it can't be relied on. */
function read(output, { reason, property }) {
  const broken = /assertion violated (\w+)/.exec(output)?.[1] ?? (/acceptance cycle/.test(output) ? property : null);
  const states = Number(/(\d+) states, stored/.exec(output)?.[1] ?? 0);
  const errors = /errors: (\d+)/.exec(output)?.[1];
  let doubt = null;
  if (reason !== null) doubt = reason;
  else if (errors === undefined) doubt = 'it printed no result';
  else if (broken === null && errors !== '0') doubt = /^pan:\d+: .*$/m.exec(output)?.[0] ?? `${errors} errors`;
  // A search that was cut short proves nothing, but what it did find is found.
  else if (broken === null && /Search not completed|max search depth too small/.test(output)) doubt = 'the search was cut short';
  return { broken, states, doubt };
}

/** One check. Resolves to null, or to what is wrong. */
async function check(one) {
  const started = performance.now();
  const { folder, replay } = await build(one);
  const live = isLiveness(one.property);
  let output = '';
  const { reason } = await run(
    join(folder, 'pan'),
    ['-m100000', '-n', one.caught ? '-w18' : '-w24', ...(live ? ['-a', '-f', '-A'] : ['-E'])],
    {
      cwd: folder,
      limitMs: runLimitMs,
      stdout: { write: (data) => (output += data) },
    },
  );
  const { broken, states, doubt } = read(output, { reason, property: one.property });
  const figures = `${states} states, ${((performance.now() - started) / 1000).toFixed(1)} s`;
  let wrong = doubt;
  if (wrong === null && one.caught && broken === null) wrong = `not caught; ${one.property} should have been broken`;
  if (wrong === null && one.caught && broken !== one.property) wrong = `broke ${broken}, not ${one.property}`;
  if (wrong === null && !one.caught && broken !== null) wrong = `${broken} is broken; to see how: ${replay}`;
  say(`model/${one.name}: ${wrong ?? (one.caught ? `caught by ${broken}` : 'holds')} (${figures})`);
  return wrong;
}

/** Runs the checks whose name matches. Resolves to `{ name, passed, failed, reason }`, as test-native.mjs counts its runs. */
export async function checkModel({ filter } = {}) {
  await ensureTools(modelTools);
  const version = await $({ quiet: true, nothrow: true })`spin -V`;
  if (!/^Spin Version/.test(version.stdout)) {
    throw new Failure('the spin in PATH is not the model checker (spinroot.com; Debian: spin)');
  }
  const left = checks.filter(({ name }) => filter === undefined || filter.test(name));
  const wrong = [];
  let passed = 0;
  const worker = async () => {
    for (let one = left.shift(); one !== undefined; one = left.shift()) {
      const reason = await check(one);
      if (reason === null) passed++;
      else wrong.push(`${one.name}: ${reason}`);
    }
  };
  await Promise.all(Array.from({ length: Math.min(availableParallelism(), 8) }, worker));
  return { name: 'model', passed, failed: wrong.length, reason: wrong.length > 0 ? wrong.join('; ') : null };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(async () => {
    let values;
    let filter;
    try {
      values = parseArgs({ options: { filter: { type: 'string' }, help: { type: 'boolean' } } }).values;
      filter = values.filter === undefined ? undefined : new RegExp(values.filter);
    } catch (error) {
      throw new Failure(`${error.message}\n${usage}`, 2);
    }
    if (values.help) {
      process.stdout.write(usage);
      return 0;
    }
    const { passed, failed } = await checkModel({ filter });
    process.stdout.write(`${passed} passed, ${failed} failed\n`);
    return failed === 0 && passed > 0 ? 0 : 1;
  });
}
