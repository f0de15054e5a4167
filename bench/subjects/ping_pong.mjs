// One message to a worker thread and one back, again and again: latency between threads. Through two shared ports, a MessageChannel's
// postMessage, or Atomics.waitAsync (in both threads: neither may block its event loop there).
//
// node bench/subjects/ping_pong.mjs block|dispatch|postMessage|Atomics.waitAsync

import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { CompletionPort } from 'completion-port';
import { obeyCommands, percentiles } from './commands.mjs';

const CHECK_EVERY = 16;
const SAMPLES_MAX = 1 << 18;

/** Waits until `cell` no longer holds `value`, without blocking. */
async function changed(cells, cell, value) {
  while (Atomics.load(cells, cell) === value) {
    const { async, value: told } = Atomics.waitAsync(cells, cell, value);
    if (async) await told;
  }
}

const work = {
  async block({ there, back }) {
    const requests = CompletionPort.attach(there);
    const answers = CompletionPort.attach(back);
    parentPort.postMessage('ready');
    for (;;) answers.post(requests.getSync().key);
  },
  dispatch({ there, back }) {
    const requests = CompletionPort.attach(there);
    const answers = CompletionPort.attach(back);
    requests.dispatch((packet) => answers.post(packet.key));
    parentPort.postMessage('ready');
  },
  postMessage() {
    parentPort.on('message', (number) => parentPort.postMessage(number));
    parentPort.postMessage('ready');
  },
  async 'Atomics.waitAsync'({ cells }) {
    const alive = setInterval(() => {}, 1000); // a waiting promise alone keeps no thread alive
    parentPort.postMessage('ready');
    for (let last = 0; ; ) {
      await changed(cells, 0, last);
      last = Atomics.load(cells, 0);
      Atomics.store(cells, 1, last);
      Atomics.notify(cells, 1);
      alive.refresh();
    }
  },
};

async function main(form) {
  const onPorts = form === 'block' || form === 'dispatch';
  const requests = onPorts ? CompletionPort.create({ shared: true }) : null;
  const answers = onPorts ? CompletionPort.create({ shared: true }) : null;
  const cells = new Int32Array(new SharedArrayBuffer(8));
  const worker = new Worker(new URL(import.meta.url), {
    workerData: { form, there: requests?.token, back: answers?.token, cells },
  });
  await new Promise((resolve) => worker.once('message', resolve));
  let number = 0;
  const latencies = [];
  const expect = (answer) => {
    if (answer !== number) throw new Error(`${answer} came back in place of ${number}`);
  };
  const note = (start) => {
    if (latencies.length < SAMPLES_MAX) latencies.push((performance.now() - start) * 1000);
  };
  const answerOf = (operations) => ({ operations, latencyUs: percentiles(latencies) });

  /** `send` sends a number; its answer comes to what `onAnswer` was given. */
  const withHandler = (send, onAnswer) => (seconds) =>
    new Promise((resolve) => {
      const end = performance.now() + seconds * 1000;
      let done = 0;
      let start = performance.now();
      const stop = onAnswer((answer) => {
        expect(answer);
        note(start);
        if (++done % CHECK_EVERY === 0 && performance.now() >= end) {
          stop();
          resolve(answerOf(done));
          return;
        }
        start = performance.now();
        send(++number);
      });
      start = performance.now();
      send(++number);
    });

  const runs = {
    block(seconds) {
      const end = performance.now() + seconds * 1000;
      let done = 0;
      while (done % CHECK_EVERY !== 0 || performance.now() < end) {
        const start = performance.now();
        requests.post(++number);
        expect(answers.getSync().key);
        note(start);
        done++;
      }
      return answerOf(done);
    },
    dispatch: withHandler(
      (value) => requests.post(value),
      (handler) => {
        const consumer = answers.dispatch((packet) => handler(packet.key));
        return () => consumer.stop();
      },
    ),
    postMessage: withHandler(
      (value) => worker.postMessage(value),
      (handler) => {
        worker.on('message', handler);
        return () => worker.off('message', handler);
      },
    ),
    async 'Atomics.waitAsync'(seconds) {
      const end = performance.now() + seconds * 1000;
      let done = 0;
      while (done % CHECK_EVERY !== 0 || performance.now() < end) {
        const start = performance.now();
        Atomics.store(cells, 0, ++number);
        Atomics.notify(cells, 0);
        await changed(cells, 1, number - 1);
        expect(Atomics.load(cells, 1));
        note(start);
        done++;
      }
      return answerOf(done);
    },
  };
  console.log('ready');
  obeyCommands((_word, seconds) => {
    latencies.length = 0;
    return runs[form](seconds);
  });
}

if (isMainThread) await main(process.argv[2]);
else await work[workerData.form](workerData);
