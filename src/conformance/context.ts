// Builds what a case is given (types.ts, `Context`) and takes it apart afterwards. Whatever a case made through its context is
// closed, killed or removed when it ends, in reverse order; then the process must be as it was: every port's `closed`
// fulfilled and no descriptor more than before. A case that leaves something behind fails.

import type { ChildProcess } from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as path from 'node:path';
import { Worker } from 'node:worker_threads';
import { createAssertions, Failure, showError, showPackets, Unable } from './check.js';
import {
  collectGarbage,
  fdCount,
  fdLinks,
  missing,
  residentBytes,
  runChild,
  runtimeInfo,
  startChild,
  threadCount,
} from './process.js';
import { createRandom, hash, pattern } from './random.js';
import type { Api, ConformanceCase, Context, CreateOptions, Packet, Port, TakeOptions } from './types.js';

export interface ContextSettings {
  readonly api: Api;
  /** The names that are under test, as offered: a missing one is undefined here. */
  readonly offered: Readonly<Record<string, unknown>>;
  readonly adapter: string | null;
  readonly backend: string;
  readonly seed: number;
  readonly scale: number;
  /** A folder of this run, in which each case gets its own. */
  readonly folder: string;
  /** Keeps what the case does now where the watchdog finds it. */
  doing(what: string): void;
}

export interface ContextOwner {
  readonly context: Context;
  /** An uncaught exception or unhandled rejection of the process. */
  uncaught(error: unknown): void;
  /** Rejects as soon as something outside the case's own flow fails it. */
  readonly broken: Promise<never>;
  /** Undoes everything; returns what was left behind, in words. */
  finish(): Promise<string[]>;
}

/** How long closed ports and descriptors may take to go, after a case. */
const settleMs = 2000;

export function createContext(testCase: ConformanceCase, settings: ContextSettings): ContextOwner {
  const { api, backend, scale } = settings;
  const check = createAssertions();
  const fail: (message: string) => never = check.fail;
  const undo: { what: string; action: () => void | Promise<void> }[] = [];
  const before = process.platform === 'win32' ? null : fdLinks();
  let folder: string | null = null;
  let files = 0;
  let collected: unknown[] | null = null;
  let breakCase: (error: unknown) => void = () => {};
  const broken = new Promise<never>((_, reject) => {
    breakCase = reject;
  });
  broken.catch(() => {
    // Whoever runs the case races it with this promise; a failure after that race isn't a second one.
  });

  const cleanup = (what: string, action: () => void | Promise<void>): void => {
    undo.push({ what, action });
  };

  const within = async <T>(ms: number, promise: Promise<T>, what: string): Promise<T> => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Failure(`${what}: nothing after ${ms} ms`)), ms);
    });
    try {
      return await Promise.race([promise, late]);
    } finally {
      clearTimeout(timer);
    }
  };

  const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
  const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

  const eventually = async (condition: () => boolean, what: string, ms = 2000): Promise<void> => {
    const end = performance.now() + ms;
    for (let round = 0; !condition(); round++) {
      if (performance.now() > end) fail(`${what}: not so after ${ms} ms`);
      await (round < 50 ? turn() : sleep(1));
    }
  };

  const createPort = <C>(options?: CreateOptions): Port<C> => {
    const port = api.CompletionPort.create<C>({ backend: backend as NonNullable<CreateOptions['backend']>, ...options });
    cleanup('a port', async () => {
      port.close();
      await within(settleMs, port.closed, 'port.closed after the case');
    });
    return port;
  };

  const track = <H extends { close(): void }>(handle: H): H => {
    cleanup('a handle', () => handle.close());
    return handle;
  };

  const tempDir = (): string => {
    if (folder === null) {
      const made = fs.mkdtempSync(path.join(settings.folder, 'case-'));
      folder = made;
      cleanup('the temporary folder', () => fs.rmSync(made, { recursive: true, force: true }));
    }
    return folder;
  };

  // ---- Getting

  const takeSync = <C>(port: Port<C>, n: number, timeoutMs = 5000, max = 512, single = false): Packet<C>[] => {
    settings.doing(`getting ${n} packets with ${single ? 'getSync' : 'getManySync'}`);
    const end = performance.now() + timeoutMs;
    const packets: Packet<C>[] = [];
    while (packets.length < n) {
      const left = Math.max(0, end - performance.now());
      if (single) {
        const packet = port.getSync(left);
        if (packet !== null) packets.push(packet);
      } else {
        packets.push(...port.getManySync(Math.min(max, n - packets.length), left));
      }
      if (packets.length < n && performance.now() >= end) {
        fail(`expected ${n} packets within ${timeoutMs} ms, got ${packets.length}: ${showPackets(packets as Packet[])}`);
      }
    }
    if (packets.length > n) fail(`asked for at most ${n} packets, got ${packets.length}: ${showPackets(packets as Packet[])}`);
    return packets;
  };

  const take = async <C>(port: Port<C>, n: number, options: TakeOptions = {}): Promise<Packet<C>[]> => {
    const { way = 'getManySync', timeoutMs = 5000, max = 512 } = options;
    if (way === 'getManySync' || way === 'getSync') return takeSync(port, n, timeoutMs, max, way === 'getSync');
    settings.doing(`getting ${n} packets with ${way}`);
    const packets: Packet<C>[] = [];
    const end = performance.now() + timeoutMs;
    const left = (): number => Math.max(0, end - performance.now());
    const missed = (): never =>
      fail(
        `expected ${n} packets within ${timeoutMs} ms with ${way}, got ${packets.length}: ${showPackets(packets as Packet[])}`,
      );
    if (n === 0) return packets;
    if (way === 'dispatch') {
      await new Promise<void>((resolve, reject) => {
        const consumer = port.dispatch((packet) => {
          packets.push(packet);
          if (packets.length === n) {
            consumer.stop();
            clearTimeout(timer);
            resolve();
          }
        });
        const timer = setTimeout(() => {
          consumer.stop();
          try {
            missed();
          } catch (error) {
            reject(error);
          }
        }, timeoutMs);
      });
    } else if (way === 'iterator') {
      const iterator = port[Symbol.asyncIterator]();
      try {
        while (packets.length < n) {
          const result = await Promise.race([iterator.next(), sleepUnref(left())]);
          if (result === null || result.done === true) return missed();
          packets.push(result.value);
        }
      } finally {
        await iterator.return?.();
      }
    } else {
      while (packets.length < n) {
        if (way === 'get') {
          const packet = await port.get({ timeout: left() });
          if (packet !== null) packets.push(packet);
        } else {
          packets.push(...(await port.getMany(Math.min(max, n - packets.length), { timeout: left() })));
        }
        if (packets.length < n && performance.now() >= end) missed();
      }
    }
    if (packets.length > n)
      fail(`asked ${way} for at most ${n} packets, got ${packets.length}: ${showPackets(packets as Packet[])}`);
    return packets;
  };

  const takeOneSync = <C>(port: Port<C>, timeoutMs?: number): Packet<C> => takeSync(port, 1, timeoutMs, 1, true)[0] as Packet<C>;

  // ---- TCP

  const listener: Context['listener'] = (port, key = 0, options = {}) => {
    const made = track(api.TcpListener.listenSync({ port: 0, host: '127.0.0.1', ...options }));
    port?.associate(made, key);
    return made;
  };

  const pair: Context['pair'] = (port, keyA = 1, keyB = 2, options = {}) => {
    const family = options.family ?? 'IPv4';
    const host = family === 'IPv4' ? '127.0.0.1' : '::1';
    const server = api.TcpListener.listenSync({ port: 0, host });
    try {
      port.associate(server, 0);
      const a = track(api.TcpSocket.openSync({ family }));
      port.associate(a, keyA);
      const connecting = a.connect({ host, port: server.address.port });
      const accepting = server.accept();
      let b: typeof a | null = null;
      for (const packet of takeSync(port, 2)) {
        if (packet.error !== null) fail(`pair(): ${packet.kind} failed: ${showError(packet.error)}`);
        if (packet.operation === accepting && packet.kind === 'accept') b = track(packet.result);
        else if (packet.operation !== connecting) fail(`pair() needs a quiet port, but met ${showPackets([packet])}`);
      }
      const accepted = check.some(b, 'the accepted socket');
      port.associate(accepted, keyB);
      return { a, b: accepted };
    } finally {
      server.close();
    }
  };

  const peerServer: Context['peerServer'] = async (onConnection, options = {}) => {
    const sockets = new Set<net.Socket>();
    const server = net.createServer({ pauseOnConnect: true, ...options }, (socket) => {
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      // Resets are what many cases are about; whoever wants to see them adds a listener of their own.
      socket.on('error', () => {});
      onConnection(socket);
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(0, '127.0.0.1', resolve);
    });
    cleanup('a node:net server', async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    });
    const address = server.address();
    if (address === null || typeof address === 'string') return fail('a node:net server has no address');
    return { server, port: address.port };
  };

  const peerClient: Context['peerClient'] = async (port, options = {}) => {
    const socket = net.connect({ host: '127.0.0.1', port, ...options });
    socket.pause();
    cleanup('a node:net client', () => void socket.destroy());
    const connected = new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    await within(5000, connected, `a node:net connection to port ${port}`);
    socket.on('error', () => {});
    return socket;
  };

  const peer: Context['peer'] = async (port, key = 1, options = {}) => {
    let arrived: (socket: net.Socket) => void = () => {};
    const arrival = new Promise<net.Socket>((resolve) => {
      arrived = resolve;
    });
    const { port: number } = await peerServer((socket) => arrived(socket), options);
    const socket = track(api.TcpSocket.openSync());
    port.associate(socket, key);
    const connecting = socket.connect({ host: '127.0.0.1', port: number });
    const packet = check.some(await port.get({ timeout: 5000 }), 'the packet of a connect to node:net');
    if (packet.operation !== connecting) fail(`peer() needs a quiet port, but met ${showPackets([packet as Packet])}`);
    if (packet.error !== null) fail(`peer(): connect failed: ${showError(packet.error)}`);
    return { socket, peer: await within(5000, arrival, 'the connection’s other end') };
  };

  const readPeer: Context['readPeer'] = async (socket, n, limitMs = 5000) => {
    const chunks: Buffer[] = [];
    let length = 0;
    const end = performance.now() + limitMs;
    while (length < n) {
      const chunk: Buffer | null = socket.read(Math.min(n - length, socket.readableLength) || undefined);
      if (chunk !== null) {
        if (length + chunk.length > n) {
          socket.unshift(chunk.subarray(n - length));
          chunks.push(chunk.subarray(0, n - length));
        } else {
          chunks.push(chunk);
        }
        length += Math.min(chunk.length, n - length);
        continue;
      }
      if (socket.readableEnded || socket.destroyed) break;
      const left = end - performance.now();
      if (left <= 0) fail(`read ${length} of ${n} bytes from a peer within ${limitMs} ms`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(next, left);
        const events = ['readable', 'end', 'close'] as const;
        function next(): void {
          clearTimeout(timer);
          for (const event of events) socket.off(event, next);
          resolve();
        }
        for (const event of events) socket.on(event, next);
      });
    }
    return Buffer.concat(chunks);
  };

  const worker: Context['worker'] = (code, workerData) => {
    const prelude = `const { workerData, parentPort } = require('node:worker_threads'); const net = require('node:net'); const fs = require('node:fs');\n`;
    const thread = new Worker(prelude + code, { eval: true, workerData });
    thread.on('error', (error) => breakCase(new Failure(`a worker of the case failed: ${showError(error)}`)));
    cleanup('a worker', async () => void (await thread.terminate()));
    return thread;
  };

  // ---- Processes

  const childSettings = () => ({ adapter: settings.adapter, backend, folder: tempDir() });
  const killAfter = (child: ChildProcess): void => {
    cleanup('a child process', async () => {
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
      const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
      child.kill('SIGKILL');
      await within(settleMs, gone, 'a child process ends');
    });
  };

  const context: Context = {
    ...check,
    api,
    backend,
    runtime: runtimeInfo(),
    seed: settings.seed,
    scale,
    random: createRandom(hash(testCase.id, settings.seed)),

    doing: settings.doing,
    count: (n, least = 1) => Math.max(least, Math.round(n * scale)),
    cleanup: (action) => cleanup('the case’s own clean-up', action),

    now: () => performance.now(),
    sleep,
    sleepSync(ms) {
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
    },
    spin(ms) {
      const end = performance.now() + ms;
      while (performance.now() < end);
    },
    turn,
    within,
    eventually,

    createPort,
    track,
    take,
    async takeOne(port, options) {
      const [packet] = await take(port, 1, options);
      return check.some(packet, 'a packet');
    },
    takeSync: (port, n, timeoutMs) => takeSync(port, n, timeoutMs),
    takeOneSync,
    nothing(port, ms = 0) {
      const packets = port.getManySync(512, ms);
      if (packets.length > 0) fail(`expected no packet within ${ms} ms, got ${showPackets(packets)}`);
    },

    tempDir,
    tempFile(name, content) {
      const file = path.join(tempDir(), name ?? `file-${files++}`);
      if (content !== undefined) fs.writeFileSync(file, content);
      return file;
    },
    openFile(port, key, file, flags = 'r+') {
      const handle = track(api.FileHandle.openSync(file, flags));
      port.associate(handle, key);
      return handle;
    },
    pattern,

    listener,
    pair,
    peer,
    peerServer,
    peerClient,
    readPeer,
    worker,

    fdCount,
    threadCount,
    residentBytes,
    gc: collectGarbage,
    child(code, options = {}) {
      settings.doing(`waiting for a child process (${testCase.id})`);
      return runChild(code, options, childSettings(), killAfter);
    },
    startChild(code, options = {}) {
      const child = startChild(code, options, childSettings(), 'pipe');
      killAfter(child);
      return child;
    },
    expectUncaught() {
      collected ??= [];
      return collected;
    },
    warnings() {
      const list: Error[] = [];
      const listen = (warning: Error): void => void list.push(warning);
      process.on('warning', listen);
      cleanup('a listener for warnings', () => void process.off('warning', listen));
      return list;
    },
    async native() {
      if (settings.adapter === null) {
        const url = new URL('../native.js', import.meta.url).href;
        const module = (await import(url)) as { native: Readonly<Record<string, unknown>> };
        return module.native;
      }
      const { native } = settings.offered;
      if (typeof native !== 'object' || native === null)
        throw new Unable('the adapter doesn’t offer the native module (`native`)');
      return native as Readonly<Record<string, unknown>>;
    },
  };

  return {
    context,
    broken,
    uncaught(error) {
      if (collected !== null) collected.push(error);
      else
        breakCase(
          new Failure(`uncaught while the case ran: ${showError(error)}${error instanceof Error ? `\n${error.stack}` : ''}`),
        );
    },
    async finish() {
      const problems: string[] = [];
      for (const { what, action } of undo.reverse()) {
        try {
          await action();
        } catch (error) {
          problems.push(`${what} could not be put away: ${showError(error)}`);
        }
      }
      if (before !== null) {
        const more = (): [string, string][] => [...fdLinks()].filter(([fd, link]) => before.get(fd) !== link);
        const end = performance.now() + settleMs;
        // A socket's last reference may go with a worker thread or with the kernel's own deferred work, a moment later.
        while (fdCount() > before.size && performance.now() < end) await sleep(2);
        if (fdCount() > before.size) {
          problems.push(
            `descriptors left open: ${more()
              .map(([fd, link]) => `${fd} (${link})`)
              .join(', ')}`,
          );
        }
      }
      return problems;
    },
  };

  function sleepUnref(ms: number): Promise<null> {
    return new Promise((resolve) => setTimeout(() => resolve(null), ms).unref());
  }
}

/** The reason why this machine can't run the case, null where it can. */
export function lacking(testCase: ConformanceCase): string | null {
  for (const need of testCase.needs ?? []) {
    const reason = missing(need);
    if (reason !== null) return reason;
  }
  return null;
}
