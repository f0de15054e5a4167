// The families WAKE and FLUSH: an event loop that sleeps is woken by the port's I/O alone, and what was started begins without
// anybody asking for its packet.

import * as fs from 'node:fs';
import type * as net from 'node:net';
import { alsoInverted, eventLoops } from '../support/inverted.js';
import { reasons } from '../support/shared.js';
import type { ConformanceCase, Context, Port, TcpSocket } from '../types.js';
import { variants, waysAsync } from '../variants.js';
import { childAnswer } from './buffers.js';

/** An endless consumer in each way; a packet goes to `onPacket`. The last packet is followed by `done = true`. */
const consumers: Record<string, string> = {
  get: '(async () => { while (!done) onPacket(await port.get()); })();',
  getMany: '(async () => { while (!done) for (const packet of await port.getMany(8)) onPacket(packet); })();',
  iterator: '(async () => { for await (const packet of port) { onPacket(packet); if (done) return; } })();',
  dispatch: 'const consumer = port.dispatch((packet) => { onPacket(packet); if (done) consumer.stop(); });',
};

/** A child that answers each byte with one, from connect to the end, with nothing but the port in its event loop. */
const echo = (options: string, number: number, way: string): string => `
let done = false;
const port = createPort(${options});
const socket = TcpSocket.openSync();
const buffer = room(1);
function onPacket(packet) {
  if (packet.error !== null) throw packet.error;
  if (packet.kind === 'connect' || packet.kind === 'send') socket.recv(buffer);
  else if (packet.kind === 'recv' && packet.bytesTransferred === 1) socket.send(buffer);
  else { done = true; socket.close(); }
}
port.associate(socket, 1);
socket.connect({ host: '127.0.0.1', port: ${number} });
${consumers[way]}
`;

/** Plays with such a child: after each byte it has time to fall asleep, and nothing but the next byte can wake it. */
async function play(t: Context, options: string, way: string, rounds: number, env: Record<string, string> = {}): Promise<void> {
  let arrived: (socket: net.Socket) => void = () => {};
  const connection = new Promise<net.Socket>((resolve) => {
    arrived = resolve;
  });
  const { port } = await t.peerServer((socket) => arrived(socket));
  const ended = t.child(echo(options, port, way), { timeoutMs: 8000, env });
  const early = ended.then((result) => t.fail(`the child ended with ${result.code ?? result.signal}: ${result.stderr}`));
  const socket = await Promise.race([connection, early]);
  for (let round = 0; round < rounds; round++) {
    await t.sleep(t.random.int(12));
    socket.write('x');
    const answer = await Promise.race([t.readPeer(socket, 1, 3000), early]);
    t.equal(answer.length, 1, `bytes of the answer in round ${round}`);
  }
  early.catch(() => {});
  socket.end();
  const result = await ended;
  t.equal(result.stderr, '', 'what the child printed on its standard error');
  t.equal(result.code, 0, 'exit code of the child, which ends because nothing is left to do');
}

/** A server in a thread of its own, which counts in shared memory what it receives: it is seen while this thread blocks. */
async function countingPeer(t: Context): Promise<{ number: number; received: () => number }> {
  const counter = new Int32Array(new SharedArrayBuffer(4));
  const worker = t.worker(
    `const counter = new Int32Array(workerData);
     net.createServer((socket) => { socket.on('error', () => {}); socket.on('data', (chunk) => Atomics.add(counter, 0, chunk.length)); })
     .listen(0, '127.0.0.1', function () { parentPort.postMessage(this.address().port); });`,
    counter.buffer,
  );
  const number = await t.within(5000, new Promise<number>((resolve) => worker.once('message', resolve)), 'a server in a worker');
  return { number, received: () => Atomics.load(counter, 0) };
}

async function connectedSocket(t: Context, port: Port, number: number): Promise<TcpSocket> {
  const socket = t.track(t.api.TcpSocket.openSync());
  port.associate(socket, 1);
  socket.connect({ host: '127.0.0.1', port: number });
  t.succeeded(await t.takeOne(port), 'the connect');
  return socket;
}

/** Computes, for a second at most, until `condition` holds: nothing of the event loop or of the package runs meanwhile. */
function computeUntil(t: Context, condition: () => boolean, what: string): void {
  const end = t.now() + 1000;
  while (!condition()) if (t.now() > end) t.fail(`${what} within a second of computing`);
}

type Job = (t: Context, start: () => void) => Promise<void>;
/** A job that starts something, after which the next thing this thread does is to compute. */
const jobs: Record<string, Job> = {
  immediate: (t, start) =>
    new Promise((resolve) => {
      setImmediate(start);
      setImmediate(() => resolve(void t.doing('computing')));
    }),
  microtask: async (_, start) => {
    await null;
    start();
    await new Promise((resolve) => setImmediate(resolve));
  },
  'promise chain': (_, start) =>
    new Promise((resolve) => {
      // Begun by the end of the job: its microtasks are part of it, and the computing comes as the next job.
      setTimeout(() => {
        start();
        Promise.resolve().then(() => setImmediate(() => resolve()));
      }, 1);
    }),
  handler: async (t, start) => {
    const other = t.createPort();
    other.post(1);
    await new Promise<void>((resolve) => {
      other.dispatch(() => {
        start();
        setImmediate(() => resolve());
      });
    });
  },
};

export const cases: ConformanceCase[] = alsoInverted(
  [
    ...['plain', 'inverted'].flatMap((eventLoop) =>
      variants(
        {
          clause: 'WAKE-01',
          title: `an event loop asleep is woken by I/O alone (eventLoop: '${eventLoop}')`,
          ...(eventLoop === 'inverted' ? { notShared: reasons.inverted } : {}),
          reference: 'a thread that waits on the port is released by a completion, whatever else it waits for',
        },
        Object.fromEntries(waysAsync.map((way) => [`${eventLoop} ${way}`, way])),
        (t, way) => play(t, `{ eventLoop: '${eventLoop}' }`, way, 20),
      ),
    ),
    ...variants<string>(
      {
        clause: 'WAKE-01',
        title: 'a thread with nothing to do sleeps, whatever lies unread in its ports and however many of them it has',
        reference: 'a queued packet that nobody waits for wakes no thread',
      },
      {
        'sleeps-over-a-post': 'await stopped(); port.post(1);',
        'sleeps-over-a-post-beside-another-port': `
          await stopped();
          createPort(options).dispatch(() => {});
          port.post(1);`,
        'sleeps-over-a-completion': 'await stopped(); file.read(new Uint8Array(new SharedArrayBuffer(1)), { position: 0 });',
        'sleeps-with-two-ports': `
          port.dispatch(() => {});
          createPort(options).dispatch(() => {});`,
      },
      async (t, what) => {
        for (const eventLoop of eventLoops(t)) {
          const answer = await childAnswer<{ loops: number; cpu: number }>(
            t,
            `
            const options = { eventLoop: '${eventLoop}' };
            const port = createPort(options);
            const file = FileHandle.openSync(process.argv[2], 'r');
            port.associate(file, 1);
            const timer = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
            /** The port has had a consumer in the event loop, and has none now. */
            const stopped = async () => { const consumer = port.dispatch(() => {}); await timer(5); consumer.stop(); await timer(5); };
            ${what}
            // The turns that the above has begun, and whatever the runtime does at its start, are over.
            await timer(100);
            const loops = () => performance.nodeTiming?.uvMetricsInfo?.loopCount ?? 0;
            const before = loops();
            const cpu = process.cpuUsage();
            await timer(300);
            const { user, system } = process.cpuUsage(cpu);
            console.log(JSON.stringify({ loops: loops() - before, cpu: (user + system) / 1000 }));
            process.exit(0);
            `,
            { args: [t.tempFile('file', 'x')] },
          );
          t.less(answer.loops, 50, `turns of the event loop in 300 ms of idleness (${eventLoop})`);
          t.less(answer.cpu, 200, `milliseconds of computing in 300 ms of idleness (${eventLoop})`);
        }
      },
    ),
    {
      id: 'WAKE-01/two-ports',
      clause: 'WAKE-01',
      notShared: reasons.inverted,
      title: 'two ports of one thread wake it both, each for what is its own',
      reference: 'a thread may wait on one port at a time; an event loop waits on all of its ports',
      async run(t) {
        for (const first of ['plain', 'inverted']) {
          for (const second of ['plain', 'inverted']) {
            const answer = await childAnswer<{ rounds: number; posts: number; inverted: (boolean | undefined)[] }>(
              t,
              `
              const ports = [createPort({ eventLoop: '${first}' }), createPort({ eventLoop: '${second}' })];
              const listener = TcpListener.listenSync({ port: 0 });
              const client = TcpSocket.openSync();
              const sockets = [];
              const buffers = ports.map(() => new Uint8Array(1));
              let rounds = 0, posts = 0;
              const said = () => console.log(JSON.stringify({ rounds, posts, inverted: ports.map((port) => port.backend.features.inverted) }));
              ports.forEach((port, i) => port.dispatch((packet) => {
                if (packet.error !== null) throw packet.error;
                if (packet.kind === 'accept') { sockets[0] = packet.result; port.associate(packet.result, 1); }
                if (packet.kind === 'connect') sockets[1] = client;
                if (packet.kind === 'accept' || packet.kind === 'connect') sockets[i].recv(buffers[i]);
                if (sockets.length === 2 && sockets[0] !== undefined && rounds === 0) { rounds = 1; sockets[0].send(new Uint8Array(1)); }
                if (packet.kind === 'post') posts++;
                if (packet.kind !== 'recv') return;
                ports[1 - i].post(rounds);
                if (++rounds >= 200) { said(); process.exit(0); }
                sockets[i].recv(buffers[i]);
                sockets[i].send(new Uint8Array(1));
              }));
              ports[0].associate(listener, 1);
              ports[1].associate(client, 1);
              listener.accept();
              client.connect({ host: '127.0.0.1', port: listener.address.port });
              setTimeout(() => { said(); process.exit(0); }, 3000);
              `,
            );
            t.equal(answer.rounds, 200, `bytes that went to and fro between a ${first} and a ${second} port`);
            t.atLeast(answer.posts, 150, 'posts to the other port that were delivered meanwhile');
            const chosen = answer.inverted.filter((each) => each === true).length;
            t.less(chosen, 2, 'ports of the thread that are inverted');
          }
        }
      },
    },
    {
      id: 'WAKE-01/ring-modes',
      clause: 'WAKE-01',
      title: 'so it is in each ring mode: with any one feature left unused',
      reference: 'the portable rule: older kernels lack features, and wake all the same',
      timeoutMs: 90_000,
      soak: true,
      async run(t) {
        const port = t.createPort();
        const features = Object.entries(port.backend.features).filter(([, there]) => there);
        for (const [feature] of features) {
          t.doing(`without ${feature}`);
          for (const eventLoop of eventLoops(t)) {
            const env = { COMPLETION_PORT_DISABLE: feature };
            await play(t, `{ eventLoop: '${eventLoop}' }`, eventLoop === 'plain' ? 'dispatch' : 'get', 5, env);
          }
        }
        t.doing('without any of them');
        const without = { COMPLETION_PORT_DISABLE: features.map(([feature]) => feature).join(',') };
        await play(t, '{}', 'dispatch', 5, without);
      },
    },
    ...variants(
      {
        clause: 'WAKE-01',
        title: 'files, accepts and timeouts of operations wake it, too',
        notShared: { 'kinds inverted': reasons.inverted },
        reference: 'a thread that waits on the port is released by a completion',
      },
      { 'kinds plain': 'plain', 'kinds inverted': 'inverted' },
      async (t, eventLoop) => {
        const result = await t.child(
          `import { readFileSync } from 'node:fs';
         const port = createPort({ eventLoop: '${eventLoop}' });
         const file = FileHandle.openSync(process.argv[1], 'r');
         port.associate(file, 1);
         const listener = TcpListener.listenSync({ port: 0 });
         port.associate(listener, 2);
         const client = TcpSocket.openSync();
         port.associate(client, 3);
         const seen = [];
         const want = async (start, kind) => {
           start();
           const packet = await port.get();
           seen.push(packet.kind === kind ? (packet.error?.code ?? 'ok') : packet.kind);
           return packet;
         };
         for (let i = 0; i < 10; i++) await want(() => file.read(room(8192), { position: 0 }), 'read');
         await want(() => file.size(), 'size');
         const opened = await want(() => port.open(process.argv[1], 'r', { key: 4 }), 'open');
         opened.result.close();
         await want(() => listener.accept({ timeout: 30 }), 'accept');
         listener.accept();
         client.connect({ host: '127.0.0.1', port: listener.address.port });
         const pair = [await port.get(), await port.get()];
         seen.push(...pair.map((packet) => packet.kind).sort());
         const accepted = pair.find((packet) => packet.kind === 'accept');
         await want(() => client.recv(room(1), { timeout: 20 }), 'recv');
         accepted.result.close(); client.close(); listener.close(); file.close();
         console.log(seen.join(' '));`,
          { timeoutMs: 8000 },
        );
        t.equal(result.code, 0, `exit code (${result.stderr})`);
        t.equal(result.stdout, `${'ok '.repeat(12)}ETIMEDOUT accept connect ETIMEDOUT\n`, 'what came');
      },
    ),

    ...variants(
      {
        clause: 'FLUSH-01',
        title: 'start, then compute for a second: it begins by the end of the job, with no get at all',
        reference: 'the I/O of a thread that computes goes on: starting it is what begins it',
      },
      Object.fromEntries(Object.entries(jobs).map(([name, job]) => [`send in ${name}`, job])),
      async (t, job) => {
        const port = t.createPort();
        const { number, received } = await countingPeer(t);
        const socket = await connectedSocket(t, port, number);
        for (let round = 1; round <= 3; round++) {
          await job(t, () => void socket.send(new Uint8Array(10)));
          computeUntil(t, () => received() >= 10 * round, 'the peer has received what was sent');
          t.succeeded(await t.takeOne(port), 'the send');
        }
      },
    ),
    ...variants(
      {
        clause: 'FLUSH-01',
        title: 'a write to a file begins, too',
        reference: 'the I/O of a thread that computes goes on',
      },
      Object.fromEntries(Object.entries(jobs).map(([name, job]) => [`write in ${name}`, job])),
      async (t, job) => {
        const port = t.createPort();
        const path = t.tempFile('file', '');
        const file = t.openFile(port, 1, path);
        for (let round = 1; round <= 3; round++) {
          await job(t, () => void file.write(Buffer.from('abc'), { position: 3 * (round - 1) }));
          computeUntil(t, () => fs.statSync(path).size === 3 * round, 'the file has grown');
          t.succeeded(await t.takeOne(port), 'the write');
        }
      },
    ),
    {
      id: 'FLUSH-01/flush',
      clause: 'FLUSH-01',
      title: 'flush() begins it at once, within the job',
      reference: 'the portable rule: a program decides when what it started is handed over',
      async run(t) {
        const port = t.createPort();
        const { number, received } = await countingPeer(t);
        const socket = await connectedSocket(t, port, number);
        for (let round = 1; round <= 3; round++) {
          const operation = socket.send(new Uint8Array(10));
          port.flush();
          port.flush();
          computeUntil(t, () => received() >= 10 * round, 'the peer has received what was sent');
          t.equal(operation.pending, true, 'pending until the packet');
          t.equal(t.takeOneSync(port).operation, operation, 'operation of the packet');
        }
        t.nothing(port);
      },
    },

    ...variants(
      {
        clause: 'FLUSH-02',
        title: 'a blocking get on the same port flushes first, with or without time to wait',
        reference: 'GetQueuedCompletionStatus never waits for I/O that has not begun',
      },
      {
        getSync: (port: Port): void => void port.getSync(0),
        getManySync: (port: Port): void => void port.getManySync(1, 0),
        'getSync waiting': (port: Port): void => void port.getSync(1),
      },
      async (t, get) => {
        const port = t.createPort();
        const { number, received } = await countingPeer(t);
        const socket = await connectedSocket(t, port, number);
        for (let round = 1; round <= 5; round++) {
          // What the get takes is a post of before: it must have begun the send all the same.
          port.post(1);
          socket.send(new Uint8Array(10));
          get(port);
          computeUntil(t, () => received() >= 10 * round, 'the peer has received what was sent before the get');
          while (port.inFlight > 0) t.some(port.getSync(2000), 'the packet of the send');
          port.getManySync(8, 0);
        }
        // And one that waits without limit gets what was started in the same job.
        const operation = socket.send(new Uint8Array(1));
        t.equal(port.getSync()?.operation, operation, 'operation of the packet of getSync()');
      },
    ),
    ...variants(
      {
        clause: 'FLUSH-02',
        title: 'so does one on another port of the thread: what was started here doesn’t wait for it',
        reference: 'a thread’s I/O goes on while it blocks, wherever that is',
      },
      {
        'getSync elsewhere': (port: Port): unknown => port.getSync(60),
        'getManySync elsewhere': (port: Port): unknown => port.getManySync(4, 60)[0] ?? null,
      },
      async (t, get) => {
        const port = t.createPort();
        const other = t.createPort();
        const { number, received } = await countingPeer(t);
        const socket = await connectedSocket(t, port, number);
        for (let round = 1; round <= 5; round++) {
          socket.send(new Uint8Array(10));
          t.equal(get(other), null, 'what a port without packets gives');
          computeUntil(t, () => received() >= 10 * round, 'the peer has received what was sent before the other port’s get');
          t.succeeded(t.takeOneSync(port), 'the send');
        }
      },
    ),
    ...variants(
      {
        clause: 'FLUSH-02',
        title: 'starts in an exit handler neither crash nor hang, and the exit status is kept',
        notShared: { 'exit event inverted': reasons.inverted },
        reference: 'the portable rule: what was not flushed when the environment ends is never begun',
      },
      {
        'exit event': `process.on('exit', () => { start(); }); process.exitCode = 5;`,
        'exit event with more in flight': `start(); start(); process.on('exit', () => { start(); start(); }); process.exit(5);`,
        'exit event with a get': `process.on('exit', () => { start(); const packet = port.getSync(3000); if (packet?.error !== null || packet.kind !== 'write') process.reallyExit(9); start(); }); process.exitCode = 5;`,
        'exit event with a consumer': `port.dispatch(() => {}); port.unref(); process.on('exit', () => { start(); port.post(1); }); process.exit(5);`,
        'exit event and close': `start(); process.on('exit', () => { start(); port.close(); file.close(); }); process.exit(5);`,
        'exit event inverted': `inverted.dispatch(() => {}); inverted.post(1); process.on('exit', () => { start(); inverted.post(2); }); setTimeout(() => process.exit(5), 20);`,
      },
      async (t, body) => {
        const path = t.tempFile('file', '');
        for (let round = 0; round < 3; round++) {
          const result = await t.child(
            `const port = createPort();
           const inverted = createPort(${JSON.stringify({ eventLoop: eventLoops(t).at(-1) })});
           const file = FileHandle.openSync(${JSON.stringify(path)}, 'r+');
           port.associate(file, 1);
           const large = new Uint8Array(1 << 20).fill(7);
           const start = () => { file.write(large, { position: 0 }); file.write(port.allocate(4096), { position: 0 }); };
           ${body}`,
            { timeoutMs: 5000 },
          );
          t.equal(result.stderr, '', 'what the child printed on its standard error');
          t.equal(result.signal, null, 'signal that ended the child');
          t.equal(result.code, 5, 'exit code of the child');
        }
      },
    ),
  ],
  ['FLUSH-01'],
);
