/**
 * What completion-port/net has beyond node:net: the choice of the port, what it takes of the port's arena, and what it does when the
 * port, the arena or the descriptors run out.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import nodeNet, { type AddressInfo } from 'node:net';
import tls from 'node:tls';
import { CompletionPort } from 'completion-port';
import net, { type Server, type Socket } from 'completion-port/net';
import { afterEach, describe, expect, test } from 'vitest';
import { pattern, sleep } from './net-support.js';

const ends: (() => void)[] = [];
afterEach(() => {
  for (const end of ends.splice(0).reverse()) {
    end();
  }
});

function makePort(options: Parameters<typeof CompletionPort.create>[0] = {}): CompletionPort {
  const port = CompletionPort.create(options);
  ends.push(() => port.close());
  return port;
}

async function listen(server: Server): Promise<number> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  ends.push(() => {
    server.close();
    for (const socket of sockets) {
      socket.destroy();
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server.address()!.port;
}

function connect(options: { port: number; completionPort?: CompletionPort }): Socket {
  const socket = net.connect({ host: '127.0.0.1', ...options });
  ends.push(() => socket.destroy());
  return socket;
}

/** Writes, and waits for as many bytes back. */
async function echo(socket: Socket, data: Buffer): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  const back = new Promise<Buffer>((resolve) => {
    const take = (chunk: Buffer) => {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes >= data.length) {
        socket.off('data', take);
        resolve(Buffer.concat(chunks));
      }
    };
    socket.on('data', take);
  });
  socket.write(data);
  return back;
}

/** Runs a program that imports completion-port/net as `net`; resolves with its output when it ends by itself. */
async function runScript(source: string, descriptors = 1_000): Promise<{ code: number | null; output: string }> {
  const node = ['--input-type=module', '-e', `import net from 'completion-port/net';\n${source}`];
  const child = spawn('/bin/sh', ['-c', `ulimit -n ${descriptors}; exec "$0" "$@"`, process.execPath, ...node], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const collect = (data: Buffer) => {
    output += data.toString();
  };
  child.stdout.on('data', collect);
  child.stderr.on('data', collect);
  const killer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  const [code] = (await once(child, 'close')) as [number | null];
  clearTimeout(killer);
  return { code, output };
}

describe('the port', () => {
  test('server and sockets use the port of the option completionPort', async () => {
    const mine = makePort();
    const port = await listen(net.createServer({ completionPort: mine }, (socket) => socket.pipe(socket)));
    const before = mine.stats().operationsStarted;
    expect(before).toBeGreaterThan(0);
    const client = connect({ port, completionPort: mine });
    expect((await echo(client, Buffer.from('x'))).toString()).toBe('x');
    expect(mine.stats().operationsStarted).toBeGreaterThan(before + 3);
  });

  test('its packets are not shown to the port’s own dispatch and get', async () => {
    const mine = makePort();
    const seen: unknown[] = [];
    mine.dispatch((packet) => seen.push(packet.kind));
    const port = await listen(net.createServer({ completionPort: mine }, (socket) => socket.pipe(socket)));
    await echo(connect({ port, completionPort: mine }), Buffer.from('x'));
    mine.post(7);
    await sleep(20);
    expect(seen).toEqual(['post']);
  });

  test('a get whose time is over isn’t kept by streams that move on without end', async () => {
    const mine = makePort();
    let moves = 0;
    let moving = true;
    const pass = (socket: Socket) => (data: Buffer) => {
      moves++;
      if (moving && moves < 500_000) {
        socket.write(data);
      }
    };
    const server = net.createServer({ completionPort: mine }, (socket) => socket.on('data', pass(socket)));
    const client = connect({ port: await listen(server), completionPort: mine });
    client.on('data', pass(client));
    client.write('ball');
    while (moves < 10) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    // Between two sockets of one port every packet starts the next.
    const movedDuring = async (get: () => unknown): Promise<number> => {
      const before = moves;
      await get();
      return moves - before;
    };
    for (let i = 0; i < 20; i++) {
      expect(await movedDuring(() => mine.getSync(0))).toBeLessThan(1000);
      expect(await movedDuring(() => mine.getManySync(8, 0))).toBeLessThan(1000);
      expect(await movedDuring(() => mine.get({ timeout: 0 }))).toBeLessThan(10_000);
    }
    for (const timeout of [1, 5]) {
      const begin = performance.now();
      expect(mine.getSync(timeout)).toBe(null);
      expect(performance.now() - begin).toBeLessThan(500);
    }
    // What is there for the user is found in time, behind them.
    for (let i = 0; i < 20; i++) {
      mine.post(1);
      mine.post(2);
      mine.post(3);
      expect(mine.getSync(0)?.key).toBe(1);
      expect(await movedDuring(() => expect(mine.getManySync(8, 0).map((packet) => packet.key)).toEqual([2, 3]))).toBeLessThan(
        1000,
      );
    }
    expect(moves).toBeLessThan(500_000);
    moving = false;
  });

  test('a write’s callback has the async context of the write where that ends in its call', async () => {
    const mine = makePort();
    const port = await listen(net.createServer({ completionPort: mine }, (socket) => socket.resume()));
    const client = connect({ port, completionPort: mine });
    await once(client, 'connect');
    const storage = new AsyncLocalStorage<string>();
    const seen = await new Promise((resolve) => {
      storage.run('writer', () => client.write(Buffer.alloc(4096), () => resolve(storage.getStore())));
    });
    expect(seen).toBe('writer');
  });

  test('a port that is closed ends its sockets and its server, each with an error', async () => {
    const mine = CompletionPort.create();
    const server = net.createServer({ completionPort: mine });
    const port = await listen(server);
    const accepted = once(server, 'connection') as Promise<[Socket]>;
    const client = connect({ port, completionPort: mine });
    const [peer] = await accepted;
    const errors = [client, peer, server].map(
      (emitter) => new Promise<NodeJS.ErrnoException>((resolve) => emitter.once('error', resolve)),
    );
    const closes = [client, peer, server].map((emitter) => new Promise((resolve) => emitter.once('close', resolve)));
    mine.close();
    for (const error of await Promise.all(errors)) {
      expect(error.code).toBe('ECANCELED');
    }
    await Promise.all(closes);
    expect(server.listening).toBe(false);
  });

  test('out of operations: the connection’s error, and the server goes on', async () => {
    const mine = makePort({ maxOperations: 10 });
    const server = net.createServer({ completionPort: mine }, (socket) => {
      socket.on('error', () => undefined);
      socket.pipe(socket);
    });
    const failures: string[] = [];
    server.on('error', (error: NodeJS.ErrnoException) => failures.push(error.code ?? ''));
    const port = await listen(server);
    const clients = Array.from({ length: 6 }, () => {
      const client = nodeNet.connect(port, '127.0.0.1');
      client.on('error', () => undefined);
      ends.push(() => client.destroy());
      return client;
    });
    await sleep(300);
    for (const client of clients) {
      client.destroy();
    }
    await sleep(300);
    const last = nodeNet.connect(port, '127.0.0.1');
    ends.push(() => last.destroy());
    last.write('still there');
    expect(String((await once(last, 'data'))[0])).toBe('still there');
    expect(new Set(failures)).toEqual(new Set(failures.length > 0 ? ['EAGAIN'] : []));
  });

  test('misuse is said: foreign options throw', () => {
    expect(() => new net.Socket({ fd: 3 } as object)).toThrow(expect.objectContaining({ code: 'ERR_NOT_SUPPORTED' }));
    expect(() => new net.Socket({ onread: { buffer: Buffer.alloc(1), callback: () => true } } as object)).toThrow(
      expect.objectContaining({ code: 'ERR_NOT_SUPPORTED' }),
    );
    expect(() => net.connect({ path: '/x' } as unknown as { port: number })).toThrow(
      expect.objectContaining({ code: 'ERR_NOT_SUPPORTED' }),
    );
    expect(() => net.createServer().listen({ path: '/x' } as object)).toThrow(
      expect.objectContaining({ code: 'ERR_NOT_SUPPORTED' }),
    );
  });
});

test('a socket fits where node:net’s is asked for, for TypeScript too', () => {
  const socket: nodeNet.Socket = new net.Socket();
  ends.push(() => socket.destroy());
  expect(new tls.TLSSocket(new net.Socket()).encrypted).toBe(true);
});

// Of a private port bytes are also moved at once, past the arena; of a shared one each transfer is an operation.
const kinds: [name: string, options: NonNullable<Parameters<typeof makePort>[0]>][] = [
  ['a private port', {}],
  ['a shared port', { shared: true }],
];
if (process.platform === 'linux') kinds.push(['a private port on epoll', { backend: 'epoll' }]);

describe.each(kinds)('the arena of %s', (_name, kind) => {
  test('connections that have fallen silent hold none of it, and wake up at the next byte', { timeout: 15_000 }, async () => {
    const mine = makePort(kind);
    const port = await listen(net.createServer({ completionPort: mine }, (socket) => socket.pipe(socket)));
    const clients = Array.from({ length: 150 }, () => connect({ port, completionPort: mine }));
    await Promise.all(clients.map((client) => echo(client, Buffer.from('hello'))));
    const busy = mine.stats().arenaUsed;
    // 300 sockets with a block of 8 KiB each.
    expect(busy).toBeGreaterThanOrEqual(300 * 8192);
    await sleep(2_500);
    const idle = mine.stats().arenaUsed;
    expect(idle).toBeLessThan(busy / 2);
    for (const client of clients) {
      expect((await echo(client, Buffer.from('again'))).toString()).toBe('again');
    }
  });

  test('a full arena only makes it slower: everything still arrives', async () => {
    const mine = makePort({ ...kind, arenaBytes: 256 * 1024 });
    const views = [];
    for (;;) {
      try {
        views.push(mine.allocate(4096));
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOBUFS' });
        break;
      }
    }
    const port = await listen(net.createServer({ completionPort: mine }, (socket) => socket.pipe(socket)));
    const data = pattern(2 * 2 ** 20);
    const client = connect({ port, completionPort: mine });
    expect((await echo(client, data)).equals(data)).toBe(true);
    for (const view of views) {
      mine.release(view);
    }
    expect((await echo(client, data)).equals(data)).toBe(true);
  });

  test('peers that read nothing take at most their share of it', async () => {
    const mine = makePort({ ...kind, arenaBytes: 2 ** 20 });
    const server = net.createServer({ completionPort: mine });
    const port = await listen(server);
    for (let i = 0; i < 30; i++) {
      const accepted = once(server, 'connection') as Promise<[Socket]>;
      const client = nodeNet.connect({ port, host: '127.0.0.1' });
      client.on('error', () => undefined).pause();
      ends.push(() => client.destroy());
      const [peer] = await accepted;
      peer.on('error', () => undefined).write(Buffer.alloc(16 * 2 ** 20));
    }
    await sleep(200);
    expect(mine.stats().arenaUsed).toBeLessThan(2 ** 20);
    const accepted = once(server, 'connection') as Promise<[Socket]>;
    const client = nodeNet.connect(port, '127.0.0.1');
    ends.push(() => client.destroy());
    const [peer] = await accepted;
    peer.pipe(peer);
    client.write('served all the same');
    expect(String((await once(client, 'data'))[0])).toBe('served all the same');
  });

  test('small writes for which it has no block take no more memory than their bytes', async () => {
    const mine = makePort({ ...kind, arenaBytes: 64 * 1024 });
    const server = net.createServer({ completionPort: mine });
    const port = await listen(server);
    const peers: Socket[] = [];
    server.on('connection', (socket: Socket) => peers.push(socket));
    const clients = Array.from({ length: 60 }, () => nodeNet.connect({ port, host: '127.0.0.1' }));
    for (const client of clients) ends.push(() => client.destroy());
    const received = clients.map(() => '');
    for (const [i, client] of clients.entries()) client.on('data', (data) => (received[i] += String(data)));
    while (peers.length < clients.length) await sleep(5);
    const texts: string[] = [];
    const grown: number[] = [];
    // The first round makes what is made once.
    for (const of of ['string', 'buffer', 'string', 'buffer']) {
      const text = String(texts.length).repeat(100);
      texts.push(text);
      const before = process.memoryUsage().arrayBuffers;
      for (const peer of peers) peer.write(of === 'string' ? text : Buffer.from(text));
      grown.push(process.memoryUsage().arrayBuffers - before);
      const expected = texts.join('');
      while (!received.every((each) => each === expected)) await sleep(5);
    }
    // With a block of 8 KiB for each: 480 KiB.
    expect(Math.max(...grown.slice(2)), `of ${grown}`).toBeLessThan(120 * 1024);
  });

  test('chunks that a reader keeps stay what they were, of whatever size, while others come', async () => {
    const mine = makePort(kind);
    const kept = new Map<Socket, Buffer[]>();
    const server = net.createServer({ completionPort: mine }, (socket) => {
      const chunks: Buffer[] = [];
      kept.set(socket, chunks);
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    });
    const port = await listen(server);
    const ended: Promise<unknown>[] = [];
    server.on('connection', (socket: Socket) => ended.push(once(socket, 'end')));
    const data = pattern(3 * 2 ** 20);
    const clients = Array.from({ length: 4 }, () => connect({ port, completionPort: mine }));
    await Promise.all(clients.map((client) => once(client, 'connect')));
    for (const [at, client] of clients.entries()) {
      client.write(data.subarray(0, 2 ** 20));
      client.cork();
      for (let offset = 2 ** 20; offset < data.length; offset += 1000 << at) {
        client.write(data.subarray(offset, offset + (1000 << at)));
      }
      client.uncork();
      client.end();
    }
    await Promise.all(ended);
    expect(kept.size).toBe(4);
    for (const chunks of kept.values()) {
      expect(Buffer.concat(chunks).equals(data)).toBe(true);
    }
  });

  test('a buffer that is detached while half of it is sent fails its write, and the arena has its block back', async () => {
    const mine = makePort(kind);
    const server = net.createServer({ completionPort: mine });
    const port = await listen(server);
    const accepted = once(server, 'connection') as Promise<[Socket]>;
    const client = connect({ port, completionPort: mine });
    const [[peer]] = await Promise.all([accepted, once(client, 'connect')]);
    peer.pause();
    const buffer = Buffer.alloc(32 * 2 ** 20, 1);
    const failed = once(client, 'error');
    const done = new Promise<Error | null | undefined>((resolve) => client.write(buffer, resolve));
    // A part is sent or in its block by now, and all of it can't be: the peer reads nothing.
    structuredClone(buffer.buffer, { transfer: [buffer.buffer] });
    peer.on('error', () => undefined).resume();
    expect((await failed)[0]).toMatchObject({ code: 'ERR_BUFFER_DETACHED' });
    expect(await done).toMatchObject({ code: 'ERR_BUFFER_DETACHED' });
    expect(client.bytesWritten).toBeGreaterThan(0);
    await once(peer, 'close');
  });

  test('a buffer is the writer’s again when its write is done', async () => {
    const mine = makePort(kind);
    const port = await listen(net.createServer({ completionPort: mine }, (socket) => socket.pipe(socket)));
    const client = connect({ port, completionPort: mine });
    const back: Buffer[] = [];
    client.on('data', (chunk: Buffer) => back.push(chunk));
    const bytes = 300_000;
    for (const value of [1, 2, 3]) {
      const buffer = Buffer.alloc(bytes, value);
      await new Promise((resolve) => client.write(buffer, resolve));
      buffer.fill(9);
      structuredClone(buffer.buffer, { transfer: [buffer.buffer] });
    }
    client.end();
    await once(client, 'end');
    const all = Buffer.concat(back);
    expect(all.length).toBe(3 * bytes);
    for (const [at, value] of [1, 2, 3].entries()) {
      expect(all.subarray(at * bytes, (at + 1) * bytes).equals(Buffer.alloc(bytes, value))).toBe(true);
    }
    expect(client.bytesWritten).toBe(3 * bytes);
    expect(client.bytesRead).toBe(3 * bytes);
  });
});

describe('the process', () => {
  test('a listening server keeps it alive, an unref’d one doesn’t', async () => {
    const { code, output } = await runScript(`
      const server = net.createServer().listen(0, '127.0.0.1', () => {
        setTimeout(() => { console.log('alive'); server.unref(); }, 100);
      });`);
    expect([code, output]).toEqual([0, 'alive\n']);
  });

  test('an unref’d connection doesn’t keep it alive, a ref’d one does until it is closed', async () => {
    const { code, output } = await runScript(`
      const server = net.createServer((socket) => { socket.unref(); socket.resume(); }).listen(0, '127.0.0.1', () => {
        server.unref();
        const client = net.connect(server.address().port, '127.0.0.1', () => {
          client.resume();
          client.unref();
          client.ref();
          setTimeout(() => { console.log('alive'); client.unref(); }, 100);
        });
      });`);
    expect([code, output]).toEqual([0, 'alive\n']);
  });

  test('an idle keep-alive agent doesn’t keep it alive', async () => {
    const { code, output } = await runScript(`
      import http from 'node:http';
      const web = http.createServer((request, response) => response.end('x'));
      const server = net.createServer((socket) => { socket.unref(); web.emit('connection', socket); });
      server.unref();
      server.listen(0, '127.0.0.1', () => {
        const agent = new http.Agent({ keepAlive: true });
        agent.createConnection = net.connect;
        http.get({ port: server.address().port, host: '127.0.0.1', agent }, (response) => {
          response.resume().on('end', () => console.log('done'));
        });
      });`);
    expect([code, output]).toEqual([0, 'done\n']);
  });

  test('out of descriptors: an error for those who listen, connections wait, service resumes', async () => {
    const { code, output } = await runScript(
      `
      import { openSync, closeSync } from 'node:fs';
      import { spawn } from 'node:child_process';
      const server = net.createServer((socket) => socket.end('served'));
      const errors = [];
      server.on('error', (error) => errors.push(error.code));
      server.listen(0, '127.0.0.1', () => {
        const fill = [];
        const client = spawn(process.execPath, ['-e', \`
          process.stdin.once('data', () => require('net').connect(\${server.address().port}, '127.0.0.1').on('data', (data) => console.log(String(data))));
          console.log('ready');\`], { stdio: ['pipe', 'pipe', 'inherit'] });
        client.stdout.once('data', () => {
          try { for (;;) fill.push(openSync('/dev/null')); } catch (error) { if (error.code !== 'EMFILE') throw error; }
          client.stdin.write('go');
          setTimeout(() => {
            console.log([...new Set(errors)].join(), errors.length > 0 && errors.length < 10);
            fill.splice(0).forEach((fd) => closeSync(fd));
          }, 500);
          client.stdout.on('data', (data) => { console.log(String(data).trim()); client.stdin.destroy(); server.close(); client.kill(); });
        });
      });`,
      256,
    );
    expect([code, output]).toEqual([0, 'EMFILE true\nserved\n']);
  });

  test('process.exit() with connections in full flight keeps its status', async () => {
    const { code, output } = await runScript(`
      const server = net.createServer((socket) => socket.pipe(socket)).listen(0, '127.0.0.1', () => {
        const client = net.connect(server.address().port, '127.0.0.1');
        const chunk = Buffer.alloc(100_000);
        client.on('data', () => client.write(chunk));
        client.write(chunk);
        setTimeout(() => process.exit(7), 100);
      });`);
    expect([code, output]).toEqual([7, '']);
  });
});

test('the address of a server is the one that node:net clients reach', async () => {
  const server = net.createServer((socket) => socket.end('hi'));
  const port = await listen(server);
  expect((server.address() as AddressInfo).family).toBe('IPv4');
  const client = nodeNet.connect(port, '127.0.0.1');
  ends.push(() => client.destroy());
  expect(String((await once(client, 'data'))[0])).toBe('hi');
});
