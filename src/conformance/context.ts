// Builds what a case is given (types.ts, `Context`) and takes it apart afterwards. Whatever a case made through its context is
// closed, killed or removed when it ends, in reverse order; then the process must be as it was: every port's `closed`
// fulfilled and no descriptor more than before. A case that leaves something behind fails.

import type { ChildProcess } from 'node:child_process';
import * as fs from 'node:fs';
import * as path from 'node:path';
import { Worker } from 'node:worker_threads';
import { createAssertions, Failure, showError, showPackets, Unable } from './check.js';
import { createNetwork } from './network.js';
import {
  collectGarbage,
  fdCount,
  fdLinks,
  missing,
  moduleUrl,
  residentBytes,
  runChild,
  runtimeInfo,
  startChild,
  threadCount,
} from './process.js';
import { createRandom, hash, pattern } from './random.js';
import { createTaking } from './taking.js';
import type { Api, ConformanceCase, Context, CreateOptions, Port } from './types.js';

export interface ContextSettings {
  readonly api: Api;
  /** The names that are under test, as offered: a missing one is undefined here. */
  readonly offered: Readonly<Record<string, unknown>>;
  readonly adapter: string | null;
  readonly backend: string;
  readonly seed: number;
  readonly scale: number;
  /** Make every port a shared one. */
  readonly shared: boolean;
  /** A folder of this run, in which each case gets its own. */
  readonly folder: string;
  /** Keeps what the case does now where the watchdog finds it. */
  doing(what: string): void;
}

export interface ContextOwner {
  readonly context: Context;
  /** An uncaught exception or unhandled rejection of the process. */
  uncaught(error: unknown): void;
  /** Rejects as soon as something outside the case's own flow fails it. */
  readonly broken: Promise<never>;
  /** Undoes everything; returns what was left behind, in words. */
  finish(): Promise<string[]>;
}

/** Null where this system doesn't tell it (an adapter's run on Windows without our addon). */
function openCount(): number | null {
  try {
    return fdCount();
  } catch (error) {
    if (error instanceof Unable) return null;
    throw error;
  }
}

/** How long closed ports and descriptors may take to go, after a case. */
const settleMs = 2000;

export function createContext(testCase: ConformanceCase, settings: ContextSettings): ContextOwner {
  const { api, backend, scale } = settings;
  const check = createAssertions();
  const fail: (message: string) => never = check.fail;
  const undo: { what: string; action: () => void | Promise<void> }[] = [];
  const before = { count: openCount(), links: fdLinks() };
  let folder: string | null = null;
  let files = 0;
  let collected: unknown[] | null = null;
  let breakCase: (error: unknown) => void = () => {};
  const broken = new Promise<never>((_, reject) => {
    breakCase = reject;
  });
  broken.catch(() => {
    // Whoever runs the case races it with this promise; a failure after that race isn't a second one.
  });

  const cleanup = (what: string, action: () => void | Promise<void>): void => {
    undo.push({ what, action });
  };

  const within = async <T>(ms: number, promise: Promise<T>, what: string): Promise<T> => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Failure(`${what}: nothing after ${ms} ms`)), ms);
    });
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
    }
  };

  const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  const eventually = async (condition: () => boolean, what: string, ms = 2000): Promise<void> => {
    const end = performance.now() + ms;
    for (let round = 0; !condition(); round++) {
      if (performance.now() > end) fail(`${what}: not so after ${ms} ms`);
      await (round < 50 ? turn() : sleep(1));
    }
  };

  const createPort = <C>(options?: CreateOptions): Port<C> => {
    const port = api.CompletionPort.create<C>({
      backend: backend as NonNullable<CreateOptions['backend']>,
      ...(settings.shared ? { shared: true } : {}),
      ...options,
    });
    cleanup('a port', async () => {
      port.close();
      await within(settleMs, port.closed, 'port.closed after the case');
    });
    return port;
  };

  const track = <H extends { close(): void }>(handle: H): H => {
    cleanup('a handle', () => handle.close());
    return handle;
  };

  const tempDir = (): string => {
    folder ??= fs.mkdtempSync(path.join(settings.folder, 'case-'));
    return folder;
  };

  const { take, takeSync, takeOneSync } = createTaking(settings.doing);
  const network = createNetwork({ api, track, cleanup, within, takeSync });

  const worker: Context['worker'] = (code, workerData) => {
    const prelude = `const { workerData, parentPort } = require('node:worker_threads'); const net = require('node:net'); const fs = require('node:fs');\n`;
    const thread = new Worker(prelude + code, { eval: true, workerData });
    thread.on('error', (error) => breakCase(new Failure(`a worker of the case failed: ${showError(error)}`)));
    cleanup('a worker', async () => void (await thread.terminate()));
    return thread;
  };

  // ---- Processes

  const childSettings = () => ({ adapter: settings.adapter, backend, shared: settings.shared, folder: tempDir() });
  const killAfter = (child: ChildProcess): void => {
    cleanup('a child process', async () => {
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
      const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
      child.kill('SIGKILL');
      await within(settleMs, gone, 'a child process ends');
    });
  };

  const context: Context = {
    ...check,
    api,
    moduleUrl: moduleUrl(settings.adapter),
    backend,
    runtime: runtimeInfo(),
    seed: settings.seed,
    scale,
    shared: settings.shared,
    random: createRandom(hash(testCase.id, settings.seed)),

    doing: settings.doing,
    count: (n, least = 1) => Math.max(least, Math.round(n * scale)),
    cleanup: (action) => cleanup('the case’s own clean-up', action),

    now: () => performance.now(),
    sleep,
    sleepSync(ms) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
    },
    spin(ms) {
      const end = performance.now() + ms;
      while (performance.now() < end);
    },
    turn,
    within,
    eventually,

    createPort,
    track,
    take,
    async takeOne(port, options) {
      const [packet] = await take(port, 1, options);
      return check.some(packet, 'a packet');
    },
    takeSync: (port, n, timeoutMs) => takeSync(port, n, timeoutMs),
    takeOneSync,
    nothing(port, ms = 0) {
      const packets = port.getManySync(512, ms);
      if (packets.length > 0) fail(`expected no packet within ${ms} ms, got ${showPackets(packets)}`);
    },

    room: (bytes) => new Uint8Array(settings.shared ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes)),

    tempDir,
    tempFile(name, content) {
      const file = path.join(tempDir(), name ?? `file-${files++}`);
      if (content !== undefined) fs.writeFileSync(file, content);
      return file;
    },
    openFile(port, key, file, flags = 'r+') {
      const handle = track(api.FileHandle.openSync(file, flags));
      port.associate(handle, key);
      return handle;
    },
    pattern,

    ...network,
    worker,

    fdCount,
    threadCount,
    residentBytes,
    gc: collectGarbage,
    child(code, options = {}) {
      settings.doing(`waiting for a child process (${testCase.id})`);
      return runChild(code, options, childSettings(), killAfter);
    },
    startChild(code, options = {}) {
      const child = startChild(code, options, childSettings(), 'pipe');
      killAfter(child);
      return child;
    },
    expectUncaught() {
      collected ??= [];
      return collected;
    },
    warnings() {
      const list: Error[] = [];
      const listen = (warning: Error): void => void list.push(warning);
      process.on('warning', listen);
      cleanup('a listener for warnings', () => void process.off('warning', listen));
      return list;
    },
    async native() {
      if (settings.adapter === null) {
        const url = new URL('../native.js', import.meta.url).href;
        const module = (await import(url)) as { native: Readonly<Record<string, unknown>> };
        return module.native;
      }
      const { native } = settings.offered;
      if (typeof native !== 'object' || native === null)
        throw new Unable('the adapter doesn’t offer the native module (`native`)');
      return native as Readonly<Record<string, unknown>>;
    },
  };

  return {
    context,
    broken,
    uncaught(error) {
      if (collected !== null) collected.push(error);
      else
        breakCase(
          new Failure(`uncaught while the case ran: ${showError(error)}${error instanceof Error ? `\n${error.stack}` : ''}`),
        );
    },
    async finish() {
      const problems: string[] = [];
      for (const { what, action } of undo.reverse()) {
        try {
          await action();
        } catch (error) {
          problems.push(`${what} could not be put away: ${showError(error)}`);
        }
      }
      // Behind whatever has a file open in it, whenever it was made: on Windows a file keeps its name, and its folder, until it is closed.
      if (folder !== null) {
        try {
          await fs.promises.rm(folder, { recursive: true, force: true, maxRetries: process.platform === 'win32' ? 10 : 0 });
        } catch (error) {
          problems.push(`the temporary folder could not be put away: ${showError(error)}`);
        }
      }
      if (before.count !== null) {
        const end = performance.now() + settleMs;
        // A socket's last reference may go with a worker thread or with the kernel's own deferred work, a moment later.
        while (fdCount() > before.count && performance.now() < end) await sleep(2);
        const left = fdCount() - before.count;
        if (left > 0) {
          const more = [...fdLinks()].filter(([fd, link]) => before.links.get(fd) !== link);
          const which = more.map(([fd, link]) => `${fd} (${link})`).join(', ');
          problems.push(which === '' ? `${left} descriptors left open` : `descriptors left open: ${which}`);
        }
      }
      return problems;
    },
  };
}

/** The reason why this machine can't run the case, null where it can. */
export function lacking(testCase: ConformanceCase): string | null {
  for (const need of testCase.needs ?? []) {
    const reason = missing(need);
    if (reason !== null) return reason;
  }
  return null;
}
