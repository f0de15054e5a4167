// Worker threads for an example that serves with several: they run the example's own module, with the same command line. The main
// thread keeps the signals, and ends the process if a worker fails.

import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';

export class Pool {
  #url;
  #workers = [];

  /** @param {string} url the module that a worker runs: `import.meta.url` */
  constructor(url) {
    this.#url = new URL(url);
  }

  /** Starts one more worker, and resolves with the first message that it sends. */
  add(workerData) {
    const worker = new Worker(this.#url, { argv: process.argv.slice(2), workerData });
    this.#workers.push(worker);
    worker.once('error', (error) => {
      console.error(`${basename(fileURLToPath(this.#url))}: a worker failed: ${error.stack ?? error}`);
      process.exit(1);
    });
    // What a worker that ends by itself had to say, it has said.
    worker.once('exit', (code) => {
      if (code !== 0) process.exit(code);
    });
    return new Promise((resolve) => worker.once('message', resolve));
  }

  /** Sends a message to every worker. */
  tell(message) {
    for (const worker of this.#workers) worker.postMessage(message);
  }
}
