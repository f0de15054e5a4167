// Messages within one thread: post and getManySync in batches of 64 on a port, or a MessageChannel that always has 64
// messages under way.
//
// node bench/subjects/posts.mjs port|channel

import { MessageChannel } from 'node:worker_threads';
import { CompletionPort } from 'completion-port';
import { obeyCommands } from './commands.mjs';

const BATCH = 64;

const runs = {
  port() {
    const port = CompletionPort.create();
    let key = 0;
    return (seconds) => {
      const end = performance.now() + seconds * 1000;
      let done = 0;
      do {
        const first = key;
        for (let count = 0; count < BATCH; count++) port.post(key++);
        const packets = port.getManySync(BATCH, 0);
        if (packets.length !== BATCH || packets[0].key !== first) throw new Error('a post was lost');
        done += BATCH;
      } while (done % 4096 !== 0 || performance.now() < end);
      return { operations: done };
    };
  },

  channel() {
    const { port1, port2 } = new MessageChannel();
    let key = 0;
    return (seconds) =>
      new Promise((resolve) => {
        const end = performance.now() + seconds * 1000;
        let done = 0;
        let going = BATCH;
        let over = false;
        let expected = key;
        const onMessage = (message) => {
          if (message !== expected++) throw new Error('a message was lost');
          if (++done % 4096 === 0 && performance.now() >= end) over = true;
          if (!over) {
            port1.postMessage(key++);
          } else if (--going === 0) {
            port2.off('message', onMessage);
            resolve({ operations: done });
          }
        };
        port2.on('message', onMessage);
        for (let count = 0; count < BATCH; count++) port1.postMessage(key++);
      });
  },
};

const run = runs[process.argv[2]]();
process.on('SIGTERM', () => process.exit(0));
console.log('ready');
obeyCommands((_word, seconds) => run(seconds));
