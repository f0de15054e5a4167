// LIFE-01 and GET-07 with a shared port: a process ends while its threads wait, compute, post and get, or its main thread ends first.
// Each scene is a child, the same file again in each of its threads.

import { Crew, sharedPort } from '../support/threads.js';
import type { ConformanceCase, Context } from '../types.js';
import { variants } from '../variants.js';

const reference = 'ExitProcess ends every thread, waiting ones included, and the kernel cancels what is in flight';

/** `started()` makes workers, each attached; it comes back when `ready()` was called in each of them. */
const prelude = `
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
const main = isMainThread;
const port = main ? createPort({ shared: true, concurrency: 8 }) : CompletionPort.attach(workerData.token);
const flags = new Int32Array(main ? new SharedArrayBuffer(64) : workerData.flags);
const index = main ? -1 : workerData.index;
const ready = () => { Atomics.add(flags, 0, 1); Atomics.notify(flags, 0); };
const workers = [];
async function started(count = 3) {
  for (let index = 0; index < count; index++) {
    const worker = new Worker(new URL(import.meta.url), { workerData: { token: port.token, flags: flags.buffer, index } });
    worker.on('error', (error) => { if (error.message !== 'on purpose') { console.error(error); process.exit(98); } });
    workers.push(worker);
  }
  while (Atomics.load(flags, 0) < count) await new Promise((resolve) => setTimeout(resolve, 1));
  await new Promise((resolve) => setTimeout(resolve, 5));
}
const file = FileHandle.openSync(process.argv[1], 'r');
port.associate(file, 4);
const view = new Uint8Array(new SharedArrayBuffer(4096));
function fly() { for (let i = 0; i < 20; i++) { file.read(view, { position: 0 }); port.post(i); } }
`;

const scenes: Record<string, string> = {
  'exit with threads in blocking gets': 'if (main) { await started(); process.exit(STATUS); } ready(); port.getSync();',
  'exit with threads in event loops':
    'if (main) { await started(); fly(); process.exit(STATUS); } if (index === 0) port.dispatch(() => {}); else port.get(); ready();',
  'exit while threads post and get':
    'if (main) { await started(); process.exit(STATUS); } ready(); for (;;) { fly(); port.getManySync(32, 1); }',
  'exit from the main thread’s handler':
    'if (main) { await started(); port.dispatch((packet) => process.exit(STATUS)); fly(); } else { ready(); for (;;) { fly(); port.getManySync(3, 1); } }',
  'exit after a blocking get in the main thread':
    'if (main) { await started(); for (let i = 0; i < 20; i++) port.getSync(5); process.exit(STATUS); } ready(); for (;;) { port.post(1); port.getSync(1); }',
  'exit while threads close': `if (main) { await started(); process.exit(STATUS); } ready();
     for (;;) { const own = createPort({ shared: true }); own.post(1); own.getSync(0); own.close(); }`,
  'exit while a thread is terminated':
    'if (main) { await started(); for (const worker of workers) worker.terminate(); process.exit(STATUS); } ready(); for (;;) { fly(); port.getManySync(32, 1); }',
  'the main thread ends first': `if (main) { await started(); process.exitCode = STATUS; setTimeout(() => Atomics.store(flags, 1, 1), 20); }
     else { ready(); while (Atomics.load(flags, 1) === 0) port.getManySync(8, 5); }`,
  'the main thread ends first and a thread has the last word': `if (main) { await started(1); process.exitCode = STATUS; workers[0].on('exit', (code) => { if (code !== 0) process.exit(95); }); port.detach(); }
     else { ready(); setTimeout(() => { port.post(7); if (port.getSync(1000)?.key !== 7) process.exit(1); }, 30); }`,
  'a thread calls process.exit': `if (main) {
       let left = 3;
       await started();
       for (const worker of workers) worker.on('exit', (code) => { if (code !== 5) process.exit(97); if (--left === 0) { port.post(9); process.exit(port.getSync(1000).key === 9 ? STATUS : 96); } });
       Atomics.store(flags, 1, 1);
     } else { ready(); if (index === 1) { const wait = () => { if (Atomics.load(flags, 1) === 1) process.exit(5); setTimeout(wait, 1); }; port.get(); wait(); }
       else for (;;) { port.getSync(2); if (Atomics.load(flags, 1) === 1) process.exit(5); } }`,
  'a thread throws': `if (main) {
       let left = 3;
       await started();
       const feed = setInterval(() => port.post(1), 1);
       for (const worker of workers) worker.on('exit', (code) => {
         if (code !== 1) process.exit(97);
         if (--left > 0) return;
         clearInterval(feed);
         port.post(9);
         let last;
         do last = port.getSync(1000); while (last !== null && last.key !== 9);
         process.exit(last === null ? 96 : STATUS);
       });
     } else { if (index === 0) port.dispatch(() => { throw new Error('on purpose'); });
       else if (index === 1) port.get().then(() => { throw new Error('on purpose'); });
       else setImmediate(() => { port.getSync(); throw new Error('on purpose'); });
       ready(); }`,
  'an uncaught exception in the main thread': `if (main) { await started(); process.on('uncaughtException', () => process.exit(STATUS)); port.dispatch(() => { throw new Error('on purpose'); }); while (true) { port.post(1); await new Promise((resolve) => setTimeout(resolve, 1)); } }
     ready(); Atomics.wait(flags, 2, 0);`,
};

async function scene(t: Context, code: string): Promise<void> {
  const status = 2 + t.random.int(90);
  const result = await t.child(prelude + code.replaceAll('STATUS', String(status)), { timeoutMs: 6000 });
  t.equal(result.stderr, '', 'what the child printed on its standard error');
  t.equal(result.signal, null, 'signal that ended the child');
  t.equal(result.code, status, 'exit code of the child');
}

export const cases: readonly ConformanceCase[] = [
  ...variants(
    { clause: 'LIFE-01', title: 'a process whose threads use a shared port ends with its status', reference, timeoutMs: 20_000 },
    Object.fromEntries(Object.entries(scenes).map(([name, code]) => [name.replaceAll('’', ''), code])),
    async (t, code) => {
      sharedPort(t);
      await scene(t, code);
    },
  ),
  {
    id: 'LIFE-01/threads-at-any-moment',
    clause: 'LIFE-01',
    title: 'so it does at whatever moment',
    reference,
    soak: true,
    timeoutMs: 120_000,
    async run(t) {
      sharedPort(t);
      for (let i = 0; i < t.count(20, 2); i++) {
        const after = t.random.int(400);
        const roles = [
          'port.getSync(1);',
          'port.getManySync(16, 0);',
          'fly();',
          'port.blocking(() => port.post(1));',
          'port.defer(() => fly());',
        ];
        const role = t.random.pick(roles);
        t.doing(`child ${i}: exit after ${after} turns, threads in ${role}`);
        await scene(
          t,
          `if (main) { await started(2); let n = 0; port.dispatch(() => { if (n++ === ${after}) process.exit(STATUS); port.post(1); }); port.post(1); fly(); setTimeout(() => process.exit(STATUS), 300); }
           else { ready(); for (;;) { ${role} port.getManySync(64, 0); port.post(1); } }`,
        );
      }
    },
  },
  ...variants(
    {
      clause: 'GET-07',
      title: 'a waiting get keeps its own thread alive, an attached port alone doesn’t',
      reference: 'the portable rule: as a server that listens keeps a process alive',
    },
    { 'threads idle': 'idle', 'threads waiting': 'waiting', 'threads unref': 'unref' } as const,
    async (t, state) => {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 1);
      const gone = new Promise<number>((resolve) => crew.worker(0).once('exit', resolve));
      void crew.run(
        0,
        (w) => {
          if (w.data.state === 'unref') w.port.unref();
          if (w.data.state !== 'idle') w.port.get().catch(() => {});
          w.set('held', 1);
          w.parentPort.close();
        },
        { state },
      );
      await crew.reached('held', 1, 'the thread has nothing else to do');
      if (state === 'waiting') {
        let ended = false;
        void gone.then(() => {
          ended = true;
        });
        await t.sleep(60);
        t.equal(ended, false, 'whether the thread has ended while its get waits');
        port.post(1);
      }
      await t.within(3000, gone, 'the end of the thread');
      port.post(2);
      t.equal(t.takeOneSync(port).key, 2, 'key of a packet afterwards');
    },
  ),
];
