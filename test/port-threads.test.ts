// Threads that come to a shared port at the very moment at which its last one leaves: they join it, or are told that it is closed. And threads that
// have waited for long, whose sleep native code looks after.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../', import.meta.url));

const worker = `
  import { parentPort, workerData } from 'node:worker_threads';
  import { CompletionPort } from 'completion-port';
  parentPort.on('message', ({ token, spins }) => {
    Atomics.store(workerData, 0, 1);
    while (Atomics.load(workerData, 0) !== 2);
    for (let i = 0; i < spins; i++) Atomics.load(workerData, 1);
    let outcome = 'attached';
    try {
      const port = CompletionPort.attach(token);
      port.post(1);
      port.detach();
    } catch (error) {
      outcome = error.code;
    }
    parentPort.postMessage(outcome);
  });`;

test.each(['io_uring', 'epoll'])('%s: attach while the last thread detaches', { timeout: 60_000 }, (backend) => {
  const source = `
    import { Worker } from 'node:worker_threads';
    import { CompletionPort } from 'completion-port';
    const flag = new Int32Array(new SharedArrayBuffer(8));
    const worker = new Worker(${JSON.stringify(worker)}, { eval: true, workerData: flag });
    const outcomes = new Set();
    let seed = 1;
    const random = (n) => (seed = (seed * 48271) % 2147483647) % n;
    for (let round = 0; round < 300; round++) {
      const port = CompletionPort.create({ backend: '${backend}', shared: true, maxOperations: 16, arenaBytes: 65_536 });
      Atomics.store(flag, 0, 0);
      const answer = new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
      worker.postMessage({ token: port.token, spins: random(600) });
      while (Atomics.load(flag, 0) === 0) await new Promise((resolve) => setImmediate(resolve));
      Atomics.store(flag, 0, 2);
      for (let i = random(600); i > 0; i--) Atomics.load(flag, 1);
      port.detach();
      outcomes.add(await answer);
      worker.removeAllListeners('error');
    }
    await worker.terminate();
    console.log(JSON.stringify([...outcomes].filter((each) => each !== 'attached')));`;
  const { stdout, stderr, signal } = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
    cwd: root,
    encoding: 'utf8',
    timeout: 50_000,
  });
  expect(signal, `it hung; ${stderr}`).toBe(null);
  expect(stdout, stderr).toBe('["ERR_PORT_CLOSED"]\n');
});

test.each(['io_uring', 'epoll'])(
  '%s: a worker that has waited for long ends within 100 ms of its termination',
  { timeout: 60_000 },
  (backend) => {
    const waits = `
    import { workerData } from 'node:worker_threads';
    import { CompletionPort } from 'completion-port';
    CompletionPort.attach(workerData).getSync();`;
    const source = `
    import { Worker } from 'node:worker_threads';
    import { CompletionPort } from 'completion-port';
    const port = CompletionPort.create({ backend: '${backend}', shared: true });
    const workers = Array.from({ length: 5 }, () => new Worker(${JSON.stringify(waits)}, { eval: true, workerData: port.token }));
    while (port.stats().waiting < 5) await new Promise((resolve) => setTimeout(resolve, 5));
    // How long they wait is what is tested, from half a second on; on a slow machine the first slices go on, which end sooner: no race.
    await new Promise((resolve) => setTimeout(resolve, 1200));
    const times = [];
    for (const worker of workers) {
      const begin = performance.now();
      await worker.terminate();
      times.push(performance.now() - begin);
    }
    const { threads, waiting } = port.stats();
    port.close();
    console.log(JSON.stringify({ times, threads, waiting }));`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
      cwd: root,
      encoding: 'utf8',
      timeout: 50_000,
    });
    expect(stdout, stderr).toMatch(/^\{"times"/);
    const { times, threads, waiting } = JSON.parse(stdout) as { times: number[]; threads: number; waiting: number };
    expect([threads, waiting]).toEqual([1, 0]);
    // The one in the middle, as in THREAD-05.
    expect(times.sort((a, b) => a - b)[2], `of ${times.join(', ')} ms`).toBeLessThan(100);
  },
);
