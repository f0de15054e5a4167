// Starts the examples as a user does, as processes of their own, and talks to them over plain sockets.

import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

export interface Program {
  readonly port: number;
  readonly firstLine: string;
  /** What it has written to standard error so far. */
  readonly errors: () => string;
  /** Sends a signal and resolves with how the process ended. */
  end(signal?: NodeJS.Signals): Promise<{ code: number | null; signal: NodeJS.Signals | null; ms: number }>;
}

const running = new Set<ChildProcessByStdio<null, Readable, Readable>>();

/** For afterEach: nothing that a failed test left behind outlives it. */
export function endAll(): void {
  for (const child of running) child.kill('SIGKILL');
}

/** Starts examples/NAME and resolves when it listens. */
export async function start(name: string, ...args: string[]): Promise<Program> {
  const child = spawn(process.execPath, [join(root, 'examples', name), '--port', '0', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  const exited = once(child, 'close').then(([code, signal]) => {
    running.delete(child);
    return { code, signal } as { code: number | null; signal: NodeJS.Signals | null };
  });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  const lines = createInterface({ input: child.stdout });
  const firstLine = await Promise.race([
    once(lines, 'line').then(([line]) => String(line)),
    exited.then(({ code }) => {
      throw new Error(`${name} ended with ${code}: ${errors}`);
    }),
  ]);
  return {
    port: Number(/:(\d+)$/.exec(firstLine)?.[1]),
    firstLine,
    errors: () => errors,
    async end(signal = 'SIGTERM') {
      const begun = performance.now();
      child.kill(signal);
      return { ...(await exited), ms: performance.now() - begun };
    },
  };
}

/** Runs examples/NAME to its end, for what it says about wrong use. */
export async function run(name: string, ...args: string[]): Promise<{ code: number | null; output: string; errors: string }> {
  const child = spawn(process.execPath, [join(root, 'examples', name), ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  running.add(child);
  let output = '';
  let errors = '';
  child.stdout.on('data', (text) => {
    output += text;
  });
  child.stderr.on('data', (text) => {
    errors += text;
  });
  const [code] = await once(child, 'close');
  running.delete(child);
  return { code: code as number | null, output, errors };
}

export async function connected(port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
  socket.on('error', () => {}); // tests look at what came, and a reset shows there
  await once(socket, 'connect');
  if (socket.localPort !== port) return socket;
  // Nobody listens: the system has bound the socket to the very number that is free again, and TCP has connected it with itself.
  socket.resetAndDestroy();
  return connected(port);
}

/** Everything that comes until the other side ends; rejects with the socket's error if it breaks. */
export function received(socket: Socket): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('end', () => resolve(Buffer.concat(chunks)));
    socket.on('error', reject);
  });
}

/** Sends bytes as they are on a new connection, ends it, and resolves with all that came back. */
export async function exchange(port: number, bytes: string | Buffer): Promise<string> {
  const socket = await connected(port);
  const answer = received(socket);
  socket.end(bytes);
  const text = (await answer).toString('latin1');
  socket.destroy();
  return text;
}
