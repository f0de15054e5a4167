// The process in which cases run, one after the other, so that a case which blocks or crashes takes neither the runner nor
// the other cases with it. Started by runner.ts with the path of a job; not meant to be started by hand.

import { once } from 'node:events';
import * as fs from 'node:fs';
import * as net from 'node:net';
import { Failure, NotApplicable, showError, Unable } from './check.js';
import { createContext, lacking } from './context.js';
import { loadApi, prepareCounts } from './process.js';
import { type BackendState, cleanupMs, defaultTimeoutMs, type Job, type LogRecord, type Outcome } from './protocol.js';
import { lacksInverted } from './support/inverted.js';
import type { Api, ConformanceCase } from './types.js';

const job = JSON.parse(fs.readFileSync(process.argv[2] ?? '', 'utf8')) as Job;
const log = fs.openSync(job.log, 'a');

function tell(record: LogRecord): void {
  fs.writeSync(log, `${JSON.stringify(record)}\n`);
}

let lastDoing = '';
function doing(what: string): void {
  if (what === lastDoing) return;
  lastDoing = what;
  tell({ type: 'doing', what });
}

/** Set while a case runs: errors that nothing catches belong to it. */
let receiver: ((error: unknown) => void) | null = null;

function uncaught(error: unknown): void {
  if (receiver !== null) {
    receiver(error);
    return;
  }
  fs.writeSync(2, `uncaught between two cases: ${error instanceof Error ? error.stack : showError(error)}\n`);
  process.exit(70);
}

// A runner that was killed can't end this process: it ends itself as soon as it has another parent.
const parent = process.ppid;
setInterval(() => {
  if (process.ppid !== parent) process.exit(71);
}, 500).unref();

/** Opens what a process opens once and keeps, before a case counts descriptors: libuv holds one back for its listeners. */
async function warmUp(): Promise<void> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  server.close();
  await once(server, 'close');
}

function probe(api: Api): BackendState[] {
  // An adapter need not offer `probe`: then there is the one backend that it chooses.
  if (typeof api.CompletionPort.probe === 'function') {
    return api.CompletionPort.probe().map(({ name, available, reason }) => ({ name, available, reason: reason ?? null }));
  }
  const port = api.CompletionPort.create();
  const { name } = port.backend;
  port.close();
  return [{ name, available: true, reason: null }];
}

async function runCase(
  testCase: ConformanceCase,
  seed: number,
  api: Api,
  offered: Record<string, unknown>,
  backend: string,
): Promise<{ outcome: Outcome; message: string | null }> {
  if (testCase.backends !== undefined && !testCase.backends.includes(backend)) {
    return { outcome: 'n/a', message: `of ${testCase.backends.join(', ')} only` };
  }
  if (job.shared && testCase.notShared !== undefined) return { outcome: 'n/a', message: testCase.notShared };
  const inverted = lacksInverted(testCase, backend);
  if (inverted !== null) return { outcome: 'n/a', message: inverted };
  const lack = lacking(testCase);
  if (lack !== null) return { outcome: 'unable', message: lack };

  const owner = createContext(testCase, {
    api,
    offered,
    adapter: job.adapter,
    backend,
    seed,
    scale: job.scale,
    shared: job.shared,
    folder: job.folder,
    doing,
  });
  receiver = owner.uncaught;
  const limit = testCase.timeoutMs ?? defaultTimeoutMs;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let outcome: Outcome = 'pass';
  let message: string | null = null;
  try {
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Failure(`not done after ${limit} ms${lastDoing === '' ? '' : `; it was ${lastDoing}`}`)),
        limit,
      );
    });
    const run = (async () => testCase.run(owner.context))();
    await Promise.race([run, owner.broken, late]);
    // An uncaught exception of the case's last act arrives a turn later.
    await new Promise((resolve) => setImmediate(resolve));
    await Promise.race([owner.broken, Promise.resolve()]);
  } catch (error) {
    if (error instanceof Unable) outcome = 'unable';
    else if (error instanceof NotApplicable) outcome = 'n/a';
    else outcome = 'fail';
    message = outcome !== 'fail' || error instanceof Failure ? (error as Error).message : unexpected(error);
    if (error instanceof Failure) message += place(error);
  } finally {
    clearTimeout(timer);
  }
  tell({ type: 'cleanup' });
  const problems = await limited(owner.finish());
  receiver = null;
  if (problems.length > 0) {
    if (outcome === 'fail') message = `${message}; ${problems.join('; ')}`;
    else {
      outcome = 'fail';
      message = problems.join('; ');
    }
  }
  return { outcome, message };
}

async function limited(finished: Promise<string[]>): Promise<string[]> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<string[]>((resolve) => {
    timer = setTimeout(() => resolve([`its things could not be put away within ${cleanupMs - 1000} ms`]), cleanupMs - 1000);
  });
  return Promise.race([finished, late]).finally(() => clearTimeout(timer));
}

function unexpected(error: unknown): string {
  return `it threw ${showError(error)}${place(error)}`;
}

/** The line of the case that an error came from, for people: `cases/cancel.js:120`. */
function place(error: unknown): string {
  if (!(error instanceof Error) || error.stack === undefined) return '';
  const line = error.stack.split('\n').find((text) => /[\\/]cases[\\/]/.test(text));
  const match = line === undefined ? null : /cases[\\/][^):]+:\d+/.exec(line);
  return match === null ? '' : ` (${match[0]})`;
}

async function main(): Promise<void> {
  let api: Api;
  let offered: Readonly<Record<string, unknown>>;
  let backend: string;
  try {
    ({ api, offered } = await loadApi(job.adapter));
    if (job.probe) {
      tell({ type: 'backends', backends: probe(api) });
      return;
    }
    const port = api.CompletionPort.create({ backend: job.backend as 'auto', ...(job.shared ? { shared: true } : {}) });
    if (job.shared && !port.shared) throw new Unable('what is under test has no shared ports');
    backend = port.backend.name;
    tell({ type: 'hello', backend, features: { ...port.backend.features }, fallbackReason: port.backend.fallbackReason ?? null });
    port.close();
    await port.closed;
    await prepareCounts();
    await warmUp();
  } catch (error) {
    tell({ type: 'refused', message: error instanceof Unable ? error.message : showError(error) });
    return;
  }
  process.on('uncaughtException', uncaught);
  process.on('unhandledRejection', uncaught);

  const { cases } = (await import(job.registry)) as { cases: readonly ConformanceCase[] };
  const byId = new Map(cases.map((entry) => [entry.id, entry]));
  for (const [index, item] of job.items.entries()) {
    const testCase = byId.get(item.id);
    if (testCase === undefined) throw new Error(`the registry has no case ${item.id}`);
    tell({ type: 'start', item: index });
    lastDoing = '';
    const begin = performance.now();
    const { outcome, message } = await runCase(testCase, item.seed, api, offered, backend);
    tell({ type: 'done', item: index, outcome, message, durationMs: performance.now() - begin });
    if (outcome === 'fail') {
      tell({ type: 'spent' });
      process.exit(0);
    }
  }
}

await main();
// A case may have left something that keeps the loop alive; everything that counts has been checked.
process.exit(0);
