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

/** What goes on in the event loop of a worker that waits in a blocking get: libuv calls the loop, which doesn't run. */
const situations = {
  'nothing else': '',
  'a message in its event loop': "for (const worker of workers) worker.postMessage('one');",
  'a message that it has been given before':
    "for (const worker of workers) worker.postMessage('one'); for (const _ of workers) port.post(0); await settled();",
};

const waits = `
  import { parentPort, workerData } from 'node:worker_threads';
  import { CompletionPort } from 'completion-port';
  parentPort.on('message', () => {});
  const port = CompletionPort.attach(workerData);
  while (true) {
    port.getSync();
    await new Promise((resolve) => setTimeout(resolve, 5));
  }`;

/** Of a program with five workers that have waited for more than a second. How long they wait is what is tested; on a slow machine it is less: no race. */
const longWaits = (backend: string) => `
  import { Worker } from 'node:worker_threads';
  import { CompletionPort } from 'completion-port';
  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const port = CompletionPort.create({ backend: '${backend}', shared: true, concurrency: 5 });
  const workers = Array.from({ length: 5 }, () => new Worker(${JSON.stringify(waits)}, { eval: true, workerData: port.token }));
  const settled = async () => {
    do await sleep(20);
    while (port.stats().waiting < 5 || port.stats().queued > 0);
  };
  await settled();
  await sleep(1200);
`;

/** Runs a program and parses what it prints. */
function printed(source: string): unknown {
  const { stdout, stderr, signal } = spawnSync(process.execPath, ['--input-type=module', '-e', source], {
    cwd: root,
    encoding: 'utf8',
    timeout: 50_000,
  });
  expect(signal, `it hung; ${stderr}`).toBe(null);
  expect(stdout, stderr).toMatch(/^\{/);
  return JSON.parse(stdout);
}

test.each(['io_uring', 'epoll'].flatMap((backend) => Object.keys(situations).map((situation) => [backend, situation] as const)))(
  '%s: a worker that has waited for long ends within 100 ms of its termination: %s',
  { timeout: 60_000 },
  (backend, situation) => {
    const source = `${longWaits(backend)}
    ${situations[situation as keyof typeof situations]}
    await sleep(${situation === 'nothing else' ? 0 : 1200});
    const times = [];
    for (const worker of workers) {
      const begin = performance.now();
      await worker.terminate();
      times.push(performance.now() - begin);
    }
    const { threads, waiting } = port.stats();
    port.close();
    console.log(JSON.stringify({ times, threads, waiting }));`;
    const { times, threads, waiting } = printed(source) as { times: number[]; threads: number; waiting: number };
    expect([threads, waiting]).toEqual([1, 0]);
    // The one in the middle, as in THREAD-05. And none waits for the end of its slice, 2 s or more.
    expect(times.sort((a, b) => a - b)[2], `of ${times.join(', ')} ms`).toBeLessThan(100);
    expect(times[4], `of ${times.join(', ')} ms`).toBeLessThan(1500);
  },
);

// What is sent to the worker for the snapshot comes while its loop is in a callback, which then waits: the loop stays sent for, and isn't sent for again
// by who terminates it. (Where the worker was quicker than this thread, the snapshot comes into the wait: no less to be survived.)
test.each(['io_uring', 'epoll'])(
  '%s: a worker that waits in a callback before which its loop was sent for ends within 100 ms, too',
  { timeout: 60_000 },
  (backend) => {
    const waits = `
      import { stat } from 'node:fs';
      import { parentPort, workerData } from 'node:worker_threads';
      import { CompletionPort } from 'completion-port';
      const port = CompletionPort.attach(workerData);
      setTimeout(() => {
        stat('.', () => port.getSync());
        parentPort.postMessage('busy');
        for (const end = Date.now() + 400; Date.now() < end; );
      }, 50);`;
    const source = `
      import { Worker } from 'node:worker_threads';
      import { once } from 'node:events';
      import { CompletionPort } from 'completion-port';
      const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
      const times = [];
      for (let round = 0; round < 3; round++) {
        const port = CompletionPort.create({ backend: '${backend}', shared: true });
        const worker = new Worker(${JSON.stringify(waits)}, { eval: true, workerData: port.token });
        await once(worker, 'message');
        for await (const chunk of await worker.getHeapSnapshot()) chunk;
        while (port.stats().waiting < 1) await sleep(5);
        await sleep(1200);
        const begin = performance.now();
        await worker.terminate();
        times.push(performance.now() - begin);
        port.close();
      }
      console.log(JSON.stringify({ times }));`;
    const { times } = printed(source) as { times: number[] };
    expect(times.sort((a, b) => a - b)[1], `of ${times.join(', ')} ms`).toBeLessThan(100);
    expect(times[2], `of ${times.join(', ')} ms`).toBeLessThan(1500);
  },
);

// Five threads that looked every 80 ms would be scheduled 62 times in a second; each comes back to JavaScript every 2 s at that age, or more rarely.
test.each(['io_uring', 'epoll'])(
  '%s: workers that have waited for long sleep, and are there for a packet, and for a heap snapshot',
  { timeout: 60_000 },
  (backend) => {
    const source = `${longWaits(backend)}
    import { readdirSync, readFileSync } from 'node:fs';
    // Between the looks that end the first interval and the slice's end; the quietest of some seconds, since the runtime's own threads have work at times.
    const switches = () => {
      let sum = 0;
      for (const thread of readdirSync('/proc/self/task'))
        if (Number(thread) !== process.pid) sum += Number(/^voluntary_ctxt_switches:\\s+(\\d+)/m.exec(readFileSync('/proc/self/task/' + thread + '/status', 'utf8'))[1]);
      return sum;
    };
    const counts = [];
    for (let i = 0; i < 4; i++) {
      const before = switches();
      await sleep(1000);
      counts.push(switches() - before);
    }
    // Read to its end: without a port, too, Node 20 crashes at its exit over a snapshot that nobody has read.
    for await (const chunk of await workers[0].getHeapSnapshot()) chunk;
    // To five threads at most, of which each comes back for more: none of the packets is left.
    for (let i = 0; i < 20; i++) port.post(i);
    await settled();
    const { queued, waiting } = port.stats();
    for (const worker of workers) await worker.terminate();
    port.close();
    console.log(JSON.stringify({ counts, queued, waiting }));`;
    const { counts, queued, waiting } = printed(source) as { counts: number[]; queued: number; waiting: number };
    expect([queued, waiting]).toEqual([0, 5]);
    expect(Math.min(...counts), `of ${counts.join(', ')} in a second each`).toBeLessThan(30);
  },
);
