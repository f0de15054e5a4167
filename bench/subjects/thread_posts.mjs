// Messages of one number from this thread to waiting workers, one way, in bursts: a post to a shared port whose threads block in
// getManySync, or postMessage to workers that wait in their event loops. Each burst ends when the last of it has been taken.
//
// node bench/subjects/thread_posts.mjs port|post-message [WORKERS [BURST]]
// node bench/subjects/thread_posts.mjs idle [WORKERS]        waits only: what idle waiters cost

import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { CompletionPort } from 'completion-port';
import { obeyCommands } from './commands.mjs';

const TAKEN = 0;

function work({ mode, token, counter, burstOf }) {
  if (mode === 'post-message') {
    parentPort.on('message', (message) => {
      if (typeof message !== 'number') throw new Error(`not a number: ${message}`);
      if ((Atomics.add(counter, TAKEN, 1) + 1) % burstOf === 0) Atomics.notify(counter, TAKEN);
    });
    parentPort.postMessage('ready');
    return;
  }
  const port = CompletionPort.attach(token);
  parentPort.postMessage('ready');
  try {
    for (;;) {
      const packets = port.getManySync(64);
      for (const packet of packets) if (packet.kind !== 'post') throw new Error(`not a post: ${packet.kind}`);
      const before = Atomics.add(counter, TAKEN, packets.length);
      if (Math.floor((before + packets.length) / burstOf) > Math.floor(before / burstOf)) Atomics.notify(counter, TAKEN);
    }
  } catch (error) {
    if (error.code !== 'ERR_PORT_CLOSED') throw error;
  }
}

async function main(mode, count, burstOf) {
  const counter = new Int32Array(new SharedArrayBuffer(4));
  const port = mode === 'post-message' ? null : CompletionPort.create({ shared: true, concurrency: count });
  const workers = Array.from(
    { length: count },
    () => new Worker(new URL(import.meta.url), { workerData: { mode, token: port?.token, counter, burstOf } }),
  );
  await Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))));
  let sent = 0;
  const burst = () => {
    for (let i = 0; i < burstOf; i++) {
      if (port !== null) port.post(i);
      else workers[i % count].postMessage(i);
    }
    sent = (sent + burstOf) | 0;
    for (let taken = Atomics.load(counter, TAKEN); taken !== sent; taken = Atomics.load(counter, TAKEN)) {
      Atomics.wait(counter, TAKEN, taken, 100);
    }
  };
  const run = (seconds) => {
    const end = performance.now() + seconds * 1000;
    let operations = 0;
    if (mode === 'idle') return new Promise((resolve) => setTimeout(resolve, seconds * 1000, { operations: 1 }));
    while (performance.now() < end) {
      burst();
      operations += burstOf;
    }
    return { operations };
  };
  console.log('ready');
  obeyCommands((_word, seconds) => run(seconds));
}

if (isMainThread) await main(process.argv[2], Number(process.argv[3] ?? 1), Number(process.argv[4] ?? 1024));
else work(workerData);
