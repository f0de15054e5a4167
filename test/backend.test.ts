// Which backend a port gets: want of descriptors is an error whatever else is there, never a reason to take another backend, and nothing is
// left behind by a port that couldn't be made. What a denied or masked io_uring makes of `auto` is the conformance suite's (PORT-05 to PORT-07).

import { spawnSync } from 'node:child_process';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { CompletionPort, TcpListener, TcpSocket } from 'completion-port';
import { accept, recv, send } from 'completion-port/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../', import.meta.url));

const script = `
import { closeSync, openSync, readdirSync } from 'node:fs';
import { CompletionPort } from ${JSON.stringify(new URL('../dist/index.js', import.meta.url).href)};
const create = async (options) => {
  try {
    const port = CompletionPort.create(options);
    const name = port.backend.name;
    port.close();
    await port.closed;
    return name;
  } catch (error) {
    return error.code;
  }
};
const kinds = [{}, { shared: true }, { backend: 'epoll' }, { backend: 'epoll', shared: true }];
for (const options of kinds) await create(options); // what a process opens once
const seen = {};
const fillers = [];
try {
  for (;;) fillers.push(openSync('/dev/null'));
} catch (error) {
  if (error.code !== 'EMFILE') throw error;
}
for (let free = 0; free <= 8; free++) {
  for (const options of kinds) (seen[JSON.stringify(options)] ??= []).push(await create(options));
  closeSync(fillers.pop());
}
// Each attempt left as many as it found: those that are free now can all be taken, and no more.
let left = 0;
const again = [];
try {
  for (;;) again.push(openSync('/dev/null'));
} catch {
  left = again.length;
}
console.log(JSON.stringify({ seen, left }));
`;

test.each<[string, string[], string]>([
  ['io_uring', [], ''],
  ['io_uring', [], 'uv_poll'], // a shared port's event loop is woken by a thread then, which needs descriptors of its own
  ['epoll', [`${root}build/test/deny_uring`, 'EPERM'], ''],
])('without descriptors a port on %s is EMFILE, with enough it is made', (auto, before, disabled) => {
  const [command, ...args] = [
    ...['prlimit', '--nofile=200:200'],
    ...before,
    ...[process.execPath, '--input-type=module', '-e', script],
  ] as [string, ...string[]];
  const env = { ...process.env, COMPLETION_PORT_DISABLE: disabled };
  const { status, stdout, stderr } = spawnSync(command, args, { env, encoding: 'utf8', timeout: 20_000 });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const { seen, left } = JSON.parse(stdout) as { seen: Record<string, string[]>; left: number };
  expect(left).toBe(9);
  for (const [options, outcomes] of Object.entries(seen)) {
    const name = options.includes('epoll') ? 'epoll' : auto;
    const enough = outcomes.indexOf(name);
    expect(enough, `${options}: ${outcomes}`).toBeGreaterThan(0);
    expect(outcomes, options).toEqual(outcomes.map((_, index) => (index < enough ? 'EMFILE' : name)));
  }
});

describe('where nothing is left to wake the event loop by', () => {
  const run = (before: string[], body: string): unknown => {
    const source = `
      import * as fs from 'node:fs';
      import { spawnSync } from 'node:child_process';
      import { CompletionPort, FileHandle } from ${JSON.stringify(new URL('../dist/index.js', import.meta.url).href)};
      const codeOf = (promise) => promise.then(() => null, (error) => error.code);
      const fillers = [];
      const fill = () => {
        try {
          for (;;) fillers.push(fs.openSync('/dev/null'));
        } catch {}
      };
      ${body}`;
    const [command = process.execPath, ...args] = [...before, process.execPath, '--input-type=module', '-e', source];
    const env = {
      ...process.env,
      COMPLETION_PORT_DISABLE: 'uv_poll',
      COMPLETION_PORT_BUILD: 'test',
      COMPLETION_PORT_TEST_STALL: '300',
    };
    const { status, signal, stdout, stderr } = spawnSync(command, args, { env, encoding: 'utf8', timeout: 20_000 });
    expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
    return JSON.parse(stdout);
  };
  const few = ['prlimit', '--nofile=200:200'];

  test.each(['io_uring', 'epoll'])('a get on %s rejects with EMFILE, and the next one tries again', (backend) => {
    const body = `
      const port = CompletionPort.create({ backend: '${backend}' });
      fill();
      const codes = [await codeOf(port.get()), await codeOf(port.getMany(3))];
      for (const fd of fillers) fs.closeSync(fd);
      setTimeout(() => port.post(7), 20);
      const { key } = await port.get();
      console.log(JSON.stringify({ codes, key }));`;
    expect(run(few, body)).toEqual({ codes: ['EMFILE', 'EMFILE'], key: 7 });
  });

  test('a dispatch hears of it as an uncaught exception', () => {
    const body = `
      const port = CompletionPort.create();
      fill();
      process.once('uncaughtException', ({ code }) => console.log(JSON.stringify(code)));
      port.dispatch(() => {});
      await new Promise((resolve) => setTimeout(resolve, 20));
      port.close();`;
    expect(run(few, body)).toBe('EMFILE');
  });

  test('what was started is begun, and blocking gets go on', () => {
    const body = `
      const port = CompletionPort.create();
      const file = FileHandle.openSync('/dev/zero');
      port.associate(file, 1);
      fill();
      const view = new Uint8Array(8);
      file.read(view, { position: 0 });
      await new Promise((resolve) => setTimeout(resolve, 20));
      console.log(JSON.stringify(port.getSync().bytesTransferred));`;
    expect(run(few, body)).toBe(8);
  });

  test('a close waits for what can’t be cancelled', () => {
    const body = `
      const port = CompletionPort.create({ backend: 'epoll' });
      const file = FileHandle.openSync('/dev/zero');
      port.associate(file, 1);
      fill();
      file.sync();
      port.flush();
      port.close();
      await port.closed;
      console.log(JSON.stringify(port.isClosed));`;
    expect(run(few, body)).toBe(true);
  });

  // RLIMIT_NPROC counts a user's threads, and isn't root's (setrlimit(2)).
  test.skipIf(process.getuid?.() !== 0)('a thread that can’t be started is EAGAIN', () => {
    const user = ['setpriv', '--reuid=61234', '--regid=61234', '--clear-groups'];
    const body = `
      const port = CompletionPort.create();
      const { status } = spawnSync('prlimit', ['--pid', String(process.pid), '--nproc=1:1']);
      const code = await codeOf(port.get());
      console.log(JSON.stringify({ status, code }));`;
    expect(run(user, body)).toEqual({ status: 0, code: 'EAGAIN' });
  });
});

test.each([
  [false, 'io_uring', ''],
  [true, 'io_uring', ''],
  [false, 'epoll', 'io_uring'],
  [true, 'epoll', 'io_uring'],
])(
  'what a script gives every object makes no port a refused one, and no refusal a port (shared: %s, on %s)',
  (shared, name, disabled) => {
    const body = `
    import { CompletionPort } from ${JSON.stringify(new URL('../dist/index.js', import.meta.url).href)};
    Object.defineProperty(Object.prototype, 'error', { get: () => ({ errno: 24, reason: 'patched' }), set() {} });
    const port = CompletionPort.create({ shared: ${shared} });
    port.post(5);
    console.log(port.backend.name, port.getSync().key);
    port.close();`;
    const env = { ...process.env, COMPLETION_PORT_DISABLE: disabled };
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', body], {
      encoding: 'utf8',
      env,
    });
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: `${name} 5\n`, stderr: '' });
  },
);

test('a port says why it has no better backend, and only then', async () => {
  for (const backend of ['auto', 'epoll'] as const) {
    const port = CompletionPort.create({ backend });
    expect(port.backend.fallbackReason).toBe(undefined);
    port.close();
    await port.closed;
  }
});

describe('a worker that attaches is told why there is no better backend, in the same words', () => {
  const source = `
    const { CompletionPort } = await import('completion-port');
    const { Worker } = await import('node:worker_threads');
    const port = CompletionPort.create({ shared: true });
    const { backend, token } = port;
    const again = CompletionPort.attach(token).backend;
    const worker = new Worker(\`
      const { parentPort, workerData } = require('node:worker_threads');
      import('completion-port').then(({ CompletionPort }) => {
        const port = CompletionPort.attach(workerData);
        parentPort.postMessage(port.backend);
        port.detach();
      });
    \`, { eval: true, execArgv: [], workerData: token });
    const attached = await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    await worker.terminate();
    port.close();
    await port.closed;
    process.stdout.write(JSON.stringify({ created: backend, again, attached }));
  `;
  const node = [process.execPath, '--input-type=module', '-e', source];

  test.each<[string, string[], Record<string, string>, RegExp | undefined]>([
    [
      'io_uring denied by seccomp',
      [`${root}build/test/deny_uring`, 'EPERM', ...node],
      {},
      /^io_uring can't be used here: .*seccomp/,
    ],
    [
      'io_uring switched off',
      node,
      { COMPLETION_PORT_DISABLE: 'io_uring' },
      /^io_uring can't be used here: .*COMPLETION_PORT_DISABLE/,
    ],
    ['nothing wrong', node, {}, undefined],
  ])('%s', (_, [command, ...args], env, reason) => {
    const options = { cwd: root, env: { ...process.env, ...env }, encoding: 'utf8', timeout: 20_000 } as const;
    const { status, stdout, stderr } = spawnSync(command as string, args, options);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const { created, again, attached } = JSON.parse(stdout) as Record<string, { name: string; fallbackReason?: string }>;
    expect(attached).toEqual(created);
    expect(again).toEqual(created);
    if (reason === undefined) expect(created).not.toHaveProperty('fallbackReason');
    else expect(created?.fallbackReason).toMatch(reason);
  });
});

describe.each(['io_uring', 'epoll'] as const)('%s', (backend) => {
  let port: CompletionPort;
  beforeEach(() => {
    port = CompletionPort.create({ backend });
  });
  afterEach(async () => {
    port.close();
    await port.closed;
  });

  async function pair(keys: readonly [number, number]): Promise<[TcpSocket, Socket]> {
    const listener = TcpListener.listenSync({ port: 0 });
    port.associate(listener, keys[0]);
    const peer = connect(listener.address.port, '127.0.0.1');
    const socket = await accept(listener);
    port.associate(socket, keys[1]);
    listener.close();
    return [socket, peer];
  }

  test('several connects of one socket at once have a packet each', () => {
    const listener = TcpListener.listenSync({ port: 0 });
    const gone = listener.address.port;
    listener.close();
    for (let count = 1; count <= 4; count++) {
      const socket = TcpSocket.openSync();
      port.associate(socket, 1);
      for (let id = 0; id < count; id++) socket.connect({ host: '127.0.0.1', port: gone }, { id });
      const packets = Array.from({ length: count }, () => port.getSync(5000));
      expect(packets.map((packet) => packet?.operationId).sort()).toEqual(Array.from({ length: count }, (_, id) => id));
      expect(packets.every((packet) => packet?.error instanceof Error)).toBe(true);
      socket.close();
    }
  });

  test('a post that comes upon what a promise waits for keeps nothing from it', async () => {
    const [socket, peer] = await pair([1, 2]);
    const received = recv(socket, new Uint8Array(16));
    await sleep(50);
    await new Promise<void>((done) => peer.write('hello', () => done()));
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    port.post(7);
    expect(await received).toBe(5);
    expect(port.getSync(0)?.key).toBe(7);
    peer.destroy();
  });

  test('a large send of a promise goes on although posts come in between', async () => {
    const [socket, peer] = await pair([1, 2]);
    let bytes = 0;
    peer.on('data', (chunk) => {
      bytes += chunk.length;
      port.post(1);
    });
    expect(await send(socket, new Uint8Array(20_000_000))).toBe(20_000_000);
    await expect.poll(() => bytes).toBe(20_000_000);
    peer.destroy();
  });

  test('a port that keeps no loop alive hears of each post, with operations pending as well', async () => {
    const listener = TcpListener.listenSync({ port: 0 });
    port.associate(listener, 1);
    listener.accept();
    port.unref();
    const keys: number[] = [];
    port.dispatch((packet) => void keys.push(packet.key));
    await sleep(20);
    port.post(2);
    port.post(3);
    await expect.poll(() => keys).toEqual([2, 3]);
    port.post(4);
    await expect.poll(() => keys).toEqual([2, 3, 4]);
  });

  test('a get that doesn’t wait finds what has been there for long, whatever else has just ended', async () => {
    const [one, onePeer] = await pair([1, 2]);
    const [two, twoPeer] = await pair([3, 4]);
    one.recv(new Uint8Array(16));
    port.flush();
    await new Promise<void>((done) => onePeer.write('hello', () => done()));
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 20);
    const sent = send(two, new Uint8Array(8));
    expect(port.getSync(0)?.kind).toBe('recv');
    expect(await sent).toBe(8);
    onePeer.destroy();
    twoPeer.destroy();
  });

  test('a thread of the file pool outlives the last thread that had loaded the package', () => {
    const worker = `(async () => {
      const { CompletionPort } = await import(${JSON.stringify(new URL('../dist/index.js', import.meta.url).href)});
      const port = CompletionPort.create({ backend: ${JSON.stringify(backend)} });
      port.open(${JSON.stringify(fileURLToPath(import.meta.url))}, 'r', { key: 1 });
      port.getSync().result.close();
      port.close();
    })()`;
    const program = `const { Worker } = require('node:worker_threads');
      new Worker(${JSON.stringify(worker)}, { eval: true }).on('exit', () => setTimeout(() => console.log('alive'), 1500));`;
    const { stdout, status, signal } = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8', timeout: 30_000 });
    expect({ stdout, status, signal }).toEqual({ stdout: 'alive\n', status: 0, signal: null });
  });
});
