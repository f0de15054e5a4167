// GET-07: what keeps the process alive and what doesn't. Each case watches a child that has nothing else to live for: one that
// must end is waited for, one that must live is looked at for a while, and then given the reason to end.

import type { ChildProcess } from 'node:child_process';
import { reasons } from '../support/shared.js';
import type { ConformanceCase, Context } from '../types.js';
import { forEachWay, variants, waysAsync } from '../variants.js';

const base = {
  clause: 'GET-07',
  reference: 'the portable rule: a port counts as Node’s own handles and requests do',
} as const;

/** How long a process is watched that must stay alive. One that ends at once does so within a few milliseconds of `ready`. */
const watchMs = 250;

/** Code that waits on `port` in one way, prints the packet's key and stops. */
const waitCode: Record<string, string> = {
  get: 'port.get().then((packet) => { console.log(packet.key); });',
  getMany: 'port.getMany(5).then(([packet]) => { console.log(packet.key); });',
  iterator: '(async () => { for await (const packet of port) { console.log(packet.key); break; } })();',
  dispatch: 'const consumer = port.dispatch((packet) => { console.log(packet.key); consumer.stop(); });',
};

/** Printing is synchronous: the line is out before the loop has a chance to end. */
const ready = `import { writeSync } from 'node:fs'; writeSync(1, 'ready\\n');`;

/** A socket connected to the case's server, associated under key 7, and its buffer. */
const connected = (number: number): string => `
const socket = TcpSocket.openSync();
port.associate(socket, 7);
socket.connect({ host: '127.0.0.1', port: ${number} });
if (port.getSync(5000)?.error !== null) throw new Error('no connection');
`;

interface Watched {
  readonly child: ChildProcess;
  readonly output: () => string;
  readonly ended: Promise<{ code: number | null; signal: string | null }>;
}

async function start(t: Context, code: string): Promise<Watched> {
  const child = t.startChild(code);
  let output = '';
  let errors = '';
  child.stdout?.on('data', (chunk) => {
    output += chunk;
  });
  child.stderr?.on('data', (chunk) => {
    errors += chunk;
  });
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve) => {
    child.once('close', (exit, signal) => resolve({ code: exit, signal }));
  });
  const early = ended.then(({ code: exit }) => exit);
  await Promise.race([t.eventually(() => output.includes('ready\n'), 'the child is ready', 6000), early]);
  if (!output.includes('ready\n')) t.fail(`the child ended before it was ready: ${errors}`);
  return { child, output: () => output.replace('ready\n', '') + errors, ended };
}

async function stillAlive(t: Context, watched: Watched, why: string): Promise<void> {
  const outcome = await Promise.race([watched.ended, t.sleep(watchMs)]);
  if (outcome !== undefined) t.fail(`${why}, but the process ended with ${outcome.code ?? outcome.signal} (${watched.output()})`);
}

async function endsWith(t: Context, watched: Watched, output: string): Promise<void> {
  const { code, signal } = await t.within(3000, watched.ended, 'the end of the child');
  t.equal(watched.output(), output, 'what the child printed');
  t.equal(signal, null, 'signal that ended the child');
  t.equal(code, 0, 'exit code of the child');
}

async function endsAtOnce(t: Context, code: string, output = ''): Promise<void> {
  const result = await t.child(code, { timeoutMs: 5000 });
  t.equal(result.stderr, '', 'what the child printed on its standard error');
  t.equal(result.signal, null, 'signal that ended the child');
  t.equal(result.code, 0, 'exit code of the child');
  t.equal(result.stdout, output, 'what the child printed');
}

/** A server whose connection arrives as a promise. */
async function server(t: Context): Promise<{ number: number; connection: Promise<{ write(text: string): void }> }> {
  let arrived: (socket: { write(text: string): void }) => void = () => {};
  const connection = new Promise<{ write(text: string): void }>((resolve) => {
    arrived = resolve;
  });
  const { port } = await t.peerServer((socket) => arrived(socket));
  return { number: port, connection };
}

/** Children that have nothing to live for, and what they print. */
const exits: Record<string, { code: string; output?: string }> = {
  'an open port': { code: 'createPort();' },
  'an unread post': { code: 'const port = createPort(); port.post(1); port.post(2);' },
  'an unread completion': {
    code: `const port = createPort();
      const file = FileHandle.openSync(process.argv[1], 'r');
      port.associate(file, 1);
      file.read(room(4), { position: 0 });
      // Its packet stays where it is: when it has arrived the process ends.
      port.flush();`,
  },
  'open handles': {
    code: `const port = createPort();
      const listener = TcpListener.listenSync({ port: 0 });
      port.associate(listener, 1);
      globalThis.kept = [listener, TcpSocket.openSync(), FileHandle.openSync(process.argv[1], 'r')];`,
  },
  'a stopped dispatch': {
    code: 'const port = createPort(); const consumer = port.dispatch(() => {}); setTimeout(() => consumer.stop(), 20);',
  },
  'a disposed dispatch': { code: 'const port = createPort(); port.dispatch(() => {})[Symbol.dispose]();' },
  'a returned iterator': {
    code: `const port = createPort();
      const iterator = port[Symbol.asyncIterator]();
      iterator.next().then(({ done }) => console.log(done));
      setTimeout(() => iterator.return(), 20);`,
    output: 'true\n',
  },
  'an aborted get': {
    code: `const port = createPort();
      const abort = new AbortController();
      port.get({ signal: abort.signal }).catch((error) => console.log(error.name));
      setTimeout(() => abort.abort(), 20);`,
    output: 'AbortError\n',
  },
  'a get that had its packet': {
    code: `const port = createPort();
      port.get().then((packet) => console.log(packet.key));
      setTimeout(() => port.post(5), 20);`,
    output: '5\n',
  },
  'a get that gave up': { code: 'createPort().get({ timeout: 100 }).then((packet) => console.log(packet));', output: 'null\n' },
  'a cancelled operation': {
    code: `const port = createPort();
      const listener = TcpListener.listenSync({ port: 0 });
      port.associate(listener, 1);
      const operation = listener.accept();
      port.get().then((packet) => console.log(packet.error.code));
      setTimeout(() => operation.cancel(), 20);`,
    output: 'ECANCELED\n',
  },
  'a closed port': {
    code: `const port = createPort();
      const listener = TcpListener.listenSync({ port: 0 });
      port.associate(listener, 1);
      listener.accept();
      port.get().catch((error) => console.log(error.code));
      port.dispatch(() => {});
      setTimeout(() => port.close(), 20);
      port.closed.then(() => console.log('closed'));`,
    output: 'ERR_PORT_CLOSED\nclosed\n',
  },
};

export const cases: ConformanceCase[] = [
  ...forEachWay(
    { ...base, title: 'waiting for a packet keeps the process alive, although nothing is in flight' },
    async (t, way) => {
      // The signal that ends it is the default one: no handler of it keeps the loop alive, nor does anything else.
      const watched = await start(t, `const port = createPort(); ${waitCode[way]} ${ready}`);
      await stillAlive(t, watched, `${way} waits on an open port`);
      watched.child.kill('SIGTERM');
      const { signal } = await t.within(3000, watched.ended, 'the end of the child');
      t.equal(signal, 'SIGTERM', 'signal that ended the child');
      t.equal(watched.output(), '', 'what the child printed');
    },
    waysAsync,
  ),
  ...forEachWay(
    {
      ...base,
      title: 'an operation in flight and its waiter keep the process alive until the packet; then it ends by itself',
    },
    async (t, way) => {
      const { number, connection } = await server(t);
      const watched = await start(
        t,
        `const port = createPort(); ${connected(number)} ${waitCode[way]}
         socket.recv(room(4)); ${ready}`,
      );
      const peer = await t.within(3000, connection, 'the child’s connection');
      await stillAlive(t, watched, `a recv is in flight and ${way} waits`);
      peer.write('x');
      await endsWith(t, watched, '7\n');
    },
    waysAsync,
  ).map((entry) => ({ ...entry, id: `${entry.id}-in-flight` })),
  {
    ...base,
    id: 'GET-07/in-flight-alone',
    title: 'an operation in flight keeps the process alive though nobody waits; its unread packet doesn’t',
    async run(t) {
      const { number, connection } = await server(t);
      const watched = await start(t, `const port = createPort(); ${connected(number)} socket.recv(room(4)); ${ready}`);
      const peer = await t.within(3000, connection, 'the child’s connection');
      await stillAlive(t, watched, 'a recv is in flight');
      peer.write('x');
      await endsWith(t, watched, '');
    },
  },
  ...forEachWay(
    { ...base, title: 'unref lets the process end, whatever waits and is in flight' },
    async (t, way) => {
      const { number } = await server(t);
      await endsAtOnce(t, `const port = createPort(); port.unref(); ${connected(number)} ${waitCode[way]} socket.recv(room(4));`);
      await endsAtOnce(t, `const port = createPort(); ${connected(number)} ${waitCode[way]} socket.recv(room(4)); port.unref();`);
    },
    waysAsync,
  ).map((entry) => ({ ...entry, id: `${entry.id}-unref` })),
  {
    ...base,
    id: 'GET-07/ref-again',
    title: 'ref after unref keeps the process alive again; neither counts its calls',
    async run(t) {
      const calls =
        'port.unref(); port.unref(); if (port.ref() !== port || port.unref() !== port) throw new Error("not chainable"); port.ref();';
      const watched = await start(t, `const port = createPort(); ${waitCode.dispatch} ${calls} ${ready}`);
      await stillAlive(t, watched, 'the port was referenced again');
      watched.child.kill('SIGTERM');
      t.equal((await t.within(3000, watched.ended, 'the end of the child')).signal, 'SIGTERM', 'signal that ended the child');
      await endsAtOnce(
        t,
        `const port = createPort(); port.ref(); port.ref(); ${waitCode.get} setTimeout(() => port.unref(), 10);`,
      );
    },
  },
  {
    ...base,
    id: 'GET-07/unref-still-delivers',
    title: 'an unref’d port delivers all the same while something else keeps the process alive',
    async run(t) {
      await endsAtOnce(
        t,
        `const port = createPort(); port.unref(); ${waitCode.get} setTimeout(() => port.post(3), 50); setTimeout(() => {}, 200);`,
        '3\n',
      );
    },
  },
  ...variants<string>(
    {
      ...base,
      title: 'an unref’d port is served at once, one packet or a flood, though nothing else wakes the loop',
      notShared: Object.fromEntries(Object.keys(waitCode).map((way) => [`unref-served-${way}-inverted`, reasons.inverted])),
    },
    Object.fromEntries(
      Object.keys(waitCode).flatMap((way) => [
        [`unref-served-${way}`, `createPort(), '${way}'`],
        [`unref-served-${way}-inverted`, `createPort({ eventLoop: 'inverted' }), '${way}'`],
      ]),
    ),
    async (t, what) => {
      // A pipe from here keeps the child alive; no timer runs in it.
      const watched = await start(
        t,
        `import { exit, stdin } from 'node:process';
         const count = 3000;
         function serve(port, way) {
           port.unref();
           let left = count, first = true;
           const take = () => {
             if (first) { first = false; writeSync(1, 'first\\n'); }
             if (--left === 0) { writeSync(1, 'all\\n'); exit(0); }
           };
           if (way === 'dispatch') port.dispatch(take);
           else (async () => {
             if (way === 'iterator') for await (const packet of port) take();
             for (;;) {
               if (way === 'get') { await port.get(); take(); } else for (const packet of await port.getMany(8)) take();
             }
           })();
           let flood = false;
           stdin.on('data', () => {
             for (let key = flood ? count - 1 : 1; key > 0; key--) port.post(key);
             flood = true;
           });
         }
         serve(${what});
         ${ready}`,
      );
      watched.child.stdin?.write('x');
      await t.eventually(() => watched.output().includes('first\n'), 'the first packet', 3000);
      watched.child.stdin?.write('x');
      await endsWith(t, watched, 'first\nall\n');
    },
  ),
  ...variants({ ...base, title: 'nothing keeps the process alive' }, exits, (t, { code, output }) => endsAtOnce(t, code, output)),
];
