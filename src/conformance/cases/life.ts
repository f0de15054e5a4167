// The family LIFE: a process that exits while a port is at work keeps its exit status, and neither crashes nor hangs. Each scene
// is a child; what it leaves in flight and what is about to wake its loop differs.

import { eventLoops } from '../support/inverted.js';
import type { ChildResult, ConformanceCase, Context } from '../types.js';
import { variants } from '../variants.js';

const reference = 'ExitProcess ends every thread, waiting ones included, and the kernel cancels what is in flight';

/** What the scenes have at hand: a port with a listener, a connection and a file, and operations of each in flight. */
const prelude = `
import { isMainThread, Worker, workerData } from 'node:worker_threads';
const port = createPort(typeof options === 'undefined' ? {} : options);
const listener = TcpListener.listenSync({ port: 0 });
port.associate(listener, 1);
const client = TcpSocket.openSync();
port.associate(client, 2);
client.connect({ host: '127.0.0.1', port: listener.address.port });
listener.accept();
let server = null;
for (let i = 0; i < 2; i++) { const packet = port.getSync(5000); if (packet.kind === 'accept') server = packet.result; }
port.associate(server, 3);
const file = FileHandle.openSync(process.argv[1], 'r');
port.associate(file, 4);
const buffers = [room(4096), port.allocate(4096), new Uint8Array(new SharedArrayBuffer(4096))];
/** Operations that wait, and some that finish at any moment from now on: their completions wake the loop. */
function fly() {
  for (const buffer of buffers) client.recv(buffer);
  listener.accept();
  for (let i = 0; i < 20; i++) { file.read(buffers[i % 3], { position: 0 }); client.send(buffers[i % 3]); server.recv(buffers[(i + 1) % 3]); }
}
`;

/** Ends with \`process.exit(status)\`, from many places. \`STATUS\` is replaced by a number. */
const scenes: Record<string, string> = {
  'in a handler':
    'port.dispatch((packet) => { if (packet.key === 9) process.exit(STATUS); }); fly(); port.post(9); port.post(8);',
  'in a handler of an operation':
    "port.dispatch((packet) => { if (packet.kind === 'read') { fly(); process.exit(STATUS); } }); fly();",
  'in the first handler of many':
    'let calls = 0; port.dispatch(() => { if (++calls > 1) process.reallyExit(99); process.exit(STATUS); }); for (let i = 0; i < 1000; i++) port.post(i);',
  'after an awaited get': 'fly(); await port.get(); process.exit(STATUS);',
  'after an awaited getMany': 'fly(); await port.getMany(100); process.exit(STATUS);',
  'in a for await': 'fly(); for await (const packet of port) process.exit(STATUS);',
  'after a blocking get': 'fly(); port.getSync(); process.exit(STATUS);',
  'between blocking gets': 'for (let i = 0; ; i++) { fly(); port.getManySync(50, 10); if (i === 3) process.exit(STATUS); }',
  'before anything was flushed': 'fly(); process.exit(STATUS);',
  'with gets waiting':
    'fly(); for (let i = 0; i < 5; i++) { port.get({ timeout: 1000 }); port.getMany(3); } setTimeout(() => process.exit(STATUS), 5);',
  'with wakes pending':
    'port.dispatch(() => {}); fly(); setImmediate(() => { fly(); port.flush(); for (let i = 0; i < 10; i++) port.post(i); process.exit(STATUS); });',
  'in a microtask of a handler': 'port.dispatch(() => { Promise.resolve().then(() => process.exit(STATUS)); }); fly();',
  'in nextTick of a handler': 'port.dispatch(() => { process.nextTick(() => process.exit(STATUS)); }); fly();',
  'in a get inside a handler': 'port.dispatch(() => { port.getSync(100); process.exit(STATUS); }); fly();',
  'after close': 'fly(); port.dispatch(() => {}); port.flush(); port.close(); process.exit(STATUS);',
  'while the close runs': 'fly(); port.flush(); port.close(); setImmediate(() => process.exit(STATUS));',
  'with close in the exit event':
    "process.on('exit', () => { port.close(); client.close(); server.close(); }); fly(); port.dispatch(() => {}); setTimeout(() => process.exit(STATUS), 3);",
  'with exit in the exit event': "process.on('exit', () => process.exit(STATUS)); port.dispatch(() => process.exit(1)); fly();",
  'by process.exitCode': 'process.exitCode = STATUS; fly(); port.unref(); port.dispatch(() => {}); setTimeout(() => {}, 10);',
  'in an abort listener':
    "const abort = new AbortController(); abort.signal.addEventListener('abort', () => process.exit(STATUS)); port.get({ signal: abort.signal }); client.recv(buffers[0], { signal: abort.signal }); setTimeout(() => abort.abort(), 3);",
};

/** Workers with ports of their own: the same file again, in a thread. What the worker does is `role`. */
const threads: Record<string, string> = {
  'a worker in a blocking get': 'if (isMainThread) started(); else { ready(); port.getSync(); }',
  'a worker in a loop of blocking gets':
    'if (isMainThread) started(); else { ready(); for (;;) { fly(); port.getManySync(16, 1); } }',
  'a worker that dispatches': 'if (isMainThread) started(); else { port.dispatch(() => fly()); fly(); ready(); }',
  'a main thread in a blocking get':
    'if (isMainThread) { started(true); port.getSync(50); process.exit(STATUS); } else { port.dispatch(() => fly()); fly(); ready(); }',
};

const threadPrelude = `
const flag = isMainThread ? new Int32Array(new SharedArrayBuffer(4)) : new Int32Array(workerData);
function ready() { Atomics.store(flag, 0, 1); Atomics.notify(flag, 0); }
function started(wait = false) {
  const worker = new Worker(new URL(import.meta.url), { workerData: flag.buffer });
  worker.on('error', (error) => { console.error(error); process.exit(98); });
  const look = setInterval(() => { if (!wait && Atomics.load(flag, 0) === 1) { clearInterval(look); setTimeout(() => process.exit(STATUS), 10); } }, 1);
}
`;

function checkEnd(t: Context, result: ChildResult, status: number): void {
  t.equal(result.stderr, '', 'what the child printed on its standard error');
  t.equal(result.signal, null, 'signal that ended the child');
  t.equal(result.code, status, 'exit code of the child');
}

async function run(t: Context, code: string, times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    const status = 2 + t.random.int(90);
    checkEnd(t, await t.child(code.replaceAll('STATUS', String(status)), { timeoutMs: 5000 }), status);
  }
}

export const cases: ConformanceCase[] = [
  ...variants(
    { clause: 'LIFE-01', title: 'process.exit keeps its status, without crash or hang', reference, timeoutMs: 20_000 },
    scenes,
    async (t, scene) => {
      for (const eventLoop of eventLoops(t)) await run(t, `var options = { eventLoop: '${eventLoop}' };${prelude}${scene}`, 1);
    },
  ),
  ...variants(
    { clause: 'LIFE-01', title: 'so it does beside other threads that use ports', reference, timeoutMs: 20_000 },
    threads,
    (t, scene) => run(t, `${prelude}${threadPrelude}${scene}`, 3),
  ),
  {
    id: 'LIFE-01/at-any-moment',
    clause: 'LIFE-01',
    title: 'so it does at whatever moment, completions and posts about to wake the loop',
    reference,
    soak: true,
    timeoutMs: 120_000,
    async run(t) {
      const ends = [
        (after: number): string => `if (calls >= ${after}) process.exit(STATUS);`,
        (after: number): string => `if (calls === ${after}) setImmediate(() => process.exit(STATUS));`,
        (after: number): string => `if (calls === ${after}) Promise.resolve().then(() => process.exit(STATUS));`,
        (after: number): string =>
          `if (calls === ${after}) { const until = performance.now() + ${after / 100}; while (performance.now() < until); process.exit(STATUS); }`,
      ];
      for (let i = 0; i < t.count(40, 2); i++) {
        const eventLoop = t.random.pick(eventLoops(t));
        const end = t.random.pick(ends)(1 + t.random.int(300));
        const scene = `let calls = 0; port.dispatch((packet) => { calls++; ${end} if (packet.kind !== 'post') port.post(1); if (port.inFlight < 40) fly(); }); fly();`;
        t.doing(`child ${i}: ${eventLoop}, ${end}`);
        await run(t, `var options = { eventLoop: '${eventLoop}' };${prelude}${scene}`, 1);
      }
    },
  },
  {
    id: 'LIFE-01/uncaught',
    clause: 'LIFE-01',
    title: 'an uncaught exception out of a handler, a continuation or after a get ends it with 1',
    reference,
    async run(t) {
      for (const scene of [
        "port.dispatch(() => { throw new Error('on purpose'); }); fly();",
        "fly(); await port.get(); throw new Error('on purpose');",
        "fly(); port.getSync(); throw new Error('on purpose');",
        "fly(); port.get().then(() => { throw new Error('on purpose'); });",
      ]) {
        const result = await t.child(prelude + scene, { timeoutMs: 5000 });
        t.equal(result.signal, null, 'signal that ended the child');
        t.equal(result.code, 1, `exit code of the child (${scene})`);
        t.ok(result.stderr.includes('on purpose'), `the message in: ${result.stderr}`);
      }
    },
  },
  {
    id: 'LIFE-01/signal',
    clause: 'LIFE-01',
    title: 'a signal ends a process that blocks in a get, or sleeps in its event loop',
    reference,
    needs: ['linux'],
    async run(t) {
      for (const scene of ['port.getSync();', 'port.getManySync(5);', 'port.dispatch(() => {});', 'port.get();']) {
        const child = t.startChild(`${prelude}listener.accept(); console.log('ready'); ${scene}`);
        const ended = new Promise<string | null>((resolve) => child.once('exit', (_, signal) => resolve(signal)));
        await t.within(5000, new Promise((resolve) => child.stdout?.once('data', resolve)), 'the child is ready');
        await t.sleep(30);
        child.kill('SIGTERM');
        t.equal(await t.within(3000, ended, `the end of a child in ${scene}`), 'SIGTERM', 'signal that ended the child');
      }
    },
  },
];
