// poolThreads: how many operations of a port may block a thread at once. A sync that takes its time is made by the tests' own addon
// (COMPLETION_PORT_TEST_STALL); opens never block (O_NONBLOCK), so a FIFO can't stand for one. COMPLETION_PORT_TEST_SLOW_DISK makes each job slow.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { CompletionPort } from 'completion-port';
import { describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../', import.meta.url));

/** Runs a module on epoll with syncs that take `stallMs`; what it prints, as JSON. */
function run(stallMs: number, body: string, more: Record<string, string> = {}): unknown {
  const source = `
    import * as fs from 'node:fs';
    import * as os from 'node:os';
    import * as path from 'node:path';
    import { CompletionPort } from 'completion-port';
    const file = path.join(os.tmpdir(), 'completion-port-pool-' + process.pid);
    fs.writeFileSync(file, '');
    process.on('exit', () => fs.rmSync(file));
    const threads = () => fs.readdirSync('/proc/self/task').filter((id) => {
      try {
        return fs.readFileSync('/proc/self/task/' + id + '/comm', 'utf8').trim() === 'cp-file-pool';
      } catch {
        return false; // it has just ended
      }
    }).length;
    const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
    /** The largest number of threads of the pool that was seen until \`done()\`. */
    const most = async (done) => {
      let seen = 0;
      while (!done()) {
        seen = Math.max(seen, threads());
        await sleep(5);
      }
      return seen;
    };
    const { FileHandle } = await import('completion-port');
    const opened = (port) => {
      const handle = FileHandle.openSync(file, 'r+');
      port.associate(handle, 1);
      return handle;
    };
    const print = (value) => process.stdout.write(JSON.stringify(value));
    ${body}`;
  const env = { ...process.env, COMPLETION_PORT_BUILD: 'test', COMPLETION_PORT_TEST_STALL: `${stallMs}`, ...more };
  const args = ['--input-type=module', '-e', source];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, env, encoding: 'utf8', timeout: 60_000 });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return JSON.parse(stdout);
}

const syncs = (poolThreads: string, count: number) => `
  const port = CompletionPort.create({ backend: 'epoll'${poolThreads} });
  const handle = opened(port);
  let left = ${count};
  port.dispatch((packet) => {
    if (packet.error !== null) throw packet.error;
    left--;
  });
  const begin = performance.now();
  for (let i = 0; i < ${count}; i++) handle.sync();
  port.flush();
  const seen = await most(() => left === 0);
  print({ seen, ms: performance.now() - begin });
  port.close();`;

test.each([
  ['', 4],
  [', poolThreads: 1', 1],
  [', poolThreads: 9', 9],
])('of more operations that block than threads so many run at once: { %s }', { timeout: 60_000 }, (option, threads) => {
  const stallMs = 300;
  const rounds = 2;
  const { seen, ms } = run(stallMs, syncs(option, threads * rounds)) as { seen: number; ms: number };
  expect(seen).toBe(threads);
  // The second round waited for the first: a bound from below only, whatever else the machine does.
  expect(ms).toBeGreaterThanOrEqual(stallMs * rounds - 1);
});

test('a port with a larger share leaves others theirs, and its threads end with it', { timeout: 60_000 }, () => {
  const result = run(
    300,
    `
    const large = CompletionPort.create({ backend: 'epoll', poolThreads: 6 });
    const small = CompletionPort.create({ backend: 'epoll', poolThreads: 1 });
    let largeLeft = 6;
    const order = [];
    large.dispatch(() => largeLeft--);
    small.dispatch((packet) => order.push(packet.operationId));
    const handle = opened(small);
    for (let i = 0; i < 3; i++) handle.sync({ id: i });
    small.flush();
    const alone = await most(() => order.length === 3);
    const other = opened(large);
    for (let i = 0; i < 6; i++) other.sync();
    large.flush();
    const both = await most(() => largeLeft === 0);
    large.close();
    await large.closed;
    // Threads without work end after a second.
    for (let i = 0; i < 200 && threads() > 0; i++) await sleep(50);
    print({ order, alone, both, after: threads() });
    small.close();`,
  );
  expect(result).toEqual({ order: [0, 1, 2], alone: 1, both: 6, after: 0 });
});

test('a close waits for none of them, and what had not begun never will', { timeout: 60_000 }, () => {
  const stallMs = 2000;
  const result = run(
    stallMs,
    `
    const port = CompletionPort.create({ backend: 'epoll', poolThreads: 1 });
    const handle = opened(port);
    fs.writeFileSync(file, 'as before');
    handle.sync();
    for (let i = 0; i < 5; i++) handle.truncate(0);
    port.flush();
    while (threads() === 0) await sleep(5);
    const begin = performance.now();
    port.close();
    const close = performance.now() - begin;
    await port.closed;
    print({ close, closed: performance.now() - begin, text: fs.readFileSync(file, 'utf8') });`,
  ) as { close: number; closed: number; text: string };
  expect(result.close).toBeLessThan(stallMs / 2);
  // What runs can't be stopped, and holds the port's memory; the truncations behind it were taken back.
  expect(result.closed).toBeGreaterThan(stallMs / 2);
  expect(result.text).toBe('as before');
});

test('a worker is terminated while jobs of its are held back by the bound: they never run', { timeout: 60_000 }, () => {
  const stallMs = 500;
  const result = run(
    stallMs,
    `
    const { Worker } = await import('node:worker_threads');
    fs.writeFileSync(file, 'as before');
    const worker = new Worker(\`
      import { parentPort, workerData } from 'node:worker_threads';
      import { CompletionPort, FileHandle } from 'completion-port';
      const port = CompletionPort.create({ backend: 'epoll', poolThreads: 1 });
      const handle = FileHandle.openSync(workerData, 'r+');
      port.associate(handle, 1);
      handle.sync();
      for (let i = 0; i < 5; i++) handle.truncate(0);
      port.flush();
      parentPort.postMessage('started');
      setInterval(() => {}, 1000);
    \`, { eval: true, workerData: file });
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    while (threads() === 0) await sleep(5);
    const code = await worker.terminate();
    // The pool is the process's, and serves it further; whatever is in line there comes before this.
    const port = CompletionPort.create({ backend: 'epoll', poolThreads: 1 });
    const handle = opened(port);
    handle.sync();
    const { error } = await port.get();
    const text = fs.readFileSync(file, 'utf8');
    port.close();
    await port.closed;
    for (let i = 0; i < 200 && threads() > 0; i++) await sleep(50);
    print({ code, error, text, after: threads() });`,
  );
  expect(result).toEqual({ code: 1, error: null, text: 'as before', after: 0 });
});

describe('an environment ends while jobs of its are under way: nobody waits for the disk, nothing is left', () => {
  const diskMs = 3000;
  const more = { COMPLETION_PORT_TEST_SLOW_DISK: `${diskMs}`, COMPLETION_PORT_DISABLE: 'read_nowait,ftruncate,statx' };
  // Into and out of memory of its own, the arena and copies; calls without memory, and an open.
  const worker = `
    import { parentPort, workerData } from 'node:worker_threads';
    import { CompletionPort, FileHandle } from 'completion-port';
    const { file, options, token } = workerData;
    const port = token === undefined ? CompletionPort.create(options) : CompletionPort.attach(token);
    const handle = FileHandle.openSync(file, 'r+');
    const other = FileHandle.openSync(file, 'r');
    port.associate(handle, 1);
    port.associate(other, 2);
    const own = new Uint8Array(new SharedArrayBuffer(1 << 16));
    other.read(own, { position: 0 });
    other.read(port.allocate(1 << 16), { position: 0 });
    handle.write(new Uint8Array(3 << 20).fill(7), { position: 0 });
    handle.writev([own, new Uint8Array(10)], { position: 100 });
    handle.truncate(4096);
    handle.sync();
    port.open(file, 'r', { key: 3 });
    port.flush();
    parentPort.postMessage('started');
    setInterval(() => {}, 1000);`;

  test.each([
    ['a private port on epoll', `{ backend: 'epoll', poolThreads: 8 }`, false, 7],
    ['a shared port on epoll, its only thread', `{ backend: 'epoll', poolThreads: 8, shared: true }`, false, 7],
    ['a shared port on epoll, one of two threads', `{ backend: 'epoll', poolThreads: 8, shared: true }`, true, 7],
    ['what io_uring leaves to the pool', `{ backend: 'io_uring', poolThreads: 8 }`, false, 1],
  ])('%s', { timeout: 60_000 }, (_, options, attached, jobs) => {
    const result = run(
      1,
      `
      const { Worker } = await import('node:worker_threads');
      fs.writeFileSync(file, Buffer.alloc(1 << 17, 1));
      const descriptors = () => fs.readdirSync('/proc/self/fd').length;
      const options = ${options};
      const port = ${attached} ? CompletionPort.create(options) : null;
      const times = [];
      let before; // once a worker has been: the first one leaves one of the runtime's own
      for (let round = 0; round < 3; round++) {
        if (round > 0) before ??= descriptors();
        const worker = new Worker(${JSON.stringify(worker)}, { eval: true, workerData: { file, options, token: port?.token } });
        await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
        while (threads() < ${jobs}) await sleep(5);
        const begin = performance.now();
        await worker.terminate();
        times.push(performance.now() - begin);
        // What another thread has of them: three worked in memory of the thread's own, and have ended with it.
        if (port !== null) {
          for (let canceled = 0; canceled < 3; ) {
            for (const packet of port.getManySync(8, 1000)) {
              canceled += Number(packet.error?.code === 'ECANCELED');
              packet.result?.close?.();
            }
          }
          times.push(performance.now() - begin);
        }
        for (let i = 0; i < 400 && threads() > 0; i++) await sleep(50);
        while ((port?.inFlight ?? 0) > 0) for (const packet of port.getManySync(8, 100)) packet.result?.close?.();
      }
      port?.close();
      await port?.closed;
      for (let i = 0; i < 100 && descriptors() > before; i++) await sleep(20);
      print({ longest: Math.max(...times), threads: threads(), more: Math.max(descriptors() - before, 0) });`,
      more,
    ) as { longest: number; threads: number; more: number };
    expect(result).toEqual({ longest: expect.any(Number), threads: 0, more: 0 });
    // A bound in words is 100 ms; whoever waited for the disk would have waited for all of this.
    expect(result.longest).toBeLessThan(diskMs / 2);
  });

  test('and so does a process', { timeout: 60_000 }, () => {
    const begin = performance.now();
    const atExit = run(
      1,
      `
      const port = CompletionPort.create({ backend: 'epoll' });
      const handle = opened(port);
      handle.write(new Uint8Array(100), { position: 0 });
      handle.sync();
      port.flush();
      while (threads() < 2) await sleep(5);
      process.once('exit', () => fs.writeSync(1, String(performance.now())));
      setTimeout(() => process.exit(0), 10);
      await new Promise(() => {});`,
      more,
    ) as number;
    expect(performance.now() - begin - atExit).toBeLessThan(diskMs / 2);
  });
});

test('ports that nobody has any more are collected, their share of threads and their descriptors with them', {
  timeout: 60_000,
}, () => {
  const result = run(
    1,
    `
    const { setFlagsFromString } = await import('node:v8');
    const { runInNewContext } = await import('node:vm');
    setFlagsFromString('--expose-gc');
    const gc = runInNewContext('gc');
    const descriptors = () => fs.readdirSync('/proc/self/fd').length;
    let collected = 0;
    const registry = new FinalizationRegistry(() => collected++);
    const use = async (poolThreads) => {
      const port = CompletionPort.create({ backend: 'epoll', poolThreads, arenaBytes: 65536 });
      registry.register(port, null);
      const handle = opened(port);
      for (let i = 0; i < poolThreads * 2; i++) handle.sync();
      let left = poolThreads * 2;
      while (left > 0) left -= (await port.getMany(64)).length;
      handle.close();
    };
    await use(1);
    const before = descriptors();
    const ports = 200;
    for (let i = 0; i < ports; i++) {
      await use(1 + (i % 7));
      if (i % 20 === 19) gc();
    }
    for (let i = 0; i < 200 && (collected <= ports || descriptors() > before || threads() > 0); i++) {
      gc();
      await sleep(20);
    }
    print({ collected, more: Math.max(descriptors() - before, 0), threads: threads() });`,
  );
  expect(result).toEqual({ collected: 201, more: 0, threads: 0 });
});

test('another number of threads is refused, on any backend', () => {
  for (const backend of ['io_uring', 'epoll'] as const) {
    for (const poolThreads of [0, 1025, 1.5, -1, Number.NaN]) {
      expect(() => CompletionPort.create({ backend, poolThreads })).toThrow(
        expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }),
      );
    }
    expect(() => CompletionPort.create({ backend, poolThreads: '4' as unknown as number })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }),
    );
    for (const poolThreads of [1, 1024]) CompletionPort.create({ backend, poolThreads }).close();
  }
});
