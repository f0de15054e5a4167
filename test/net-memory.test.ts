/**
 * Back-pressure is memory: a peer that doesn't read, and a program that doesn't read its peer, must cost buffers of a fixed size
 * and nothing that grows with the data. Measured in a process of its own, against a plain node:net peer in this one.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import net, { type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const TOTAL_BYTES = 100 * 2 ** 20;
const CHUNK_BYTES = 64 * 1024;
const GROWTH_MAX = 5 * 2 ** 20;

interface Report {
  port?: number;
  grown?: { rss: number; external: number; arrayBuffers: number };
  stalled?: { read: number; buffered: number; unsent: number };
  read?: number;
  sent?: number;
  hash?: string;
}

function chunk(index: number): Buffer {
  return Buffer.alloc(CHUNK_BYTES, index % 251);
}

/** The checksum of what the `fill`ed chunks make up. */
function expectedHash(fill: (index: number) => Buffer): string {
  const hash = createHash('sha256');
  for (let i = 0; i < TOTAL_BYTES / CHUNK_BYTES; i++) {
    hash.update(fill(i));
  }
  return hash.digest('hex');
}

async function upload(socket: Socket): Promise<void> {
  for (let i = 0; i < TOTAL_BYTES / CHUNK_BYTES; i++) {
    if (!socket.write(chunk(i))) {
      await once(socket, 'drain');
    }
  }
  socket.end();
}

/** Runs one scenario: what the child said, and what this peer received. */
async function run(scenario: 'unread' | 'one-write' | 'upload'): Promise<{ report: Report; received: number; hash: string }> {
  const child = spawn(
    process.execPath,
    ['--expose-gc', fileURLToPath(new URL('./fixtures/net-memory-child.mjs', import.meta.url)), scenario],
    {
      stdio: ['pipe', 'pipe', 'inherit'],
    },
  );
  const exited = once(child, 'exit');
  try {
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    const say = async (): Promise<Report> => {
      const { value, done } = await lines.next();
      if (done === true) {
        throw new Error('the measured process ended early');
      }
      return JSON.parse(value) as Report;
    };
    const { port } = await say();
    const warm = net.connect(port!, '127.0.0.1');
    warm.write(Buffer.alloc(4 * 2 ** 20));
    warm.resume();
    await once(warm, 'close');

    const peer = net.connect({ port: port!, host: '127.0.0.1', allowHalfOpen: true });
    peer.pause();
    await once(peer, 'connect');
    const sending = scenario === 'upload' ? upload(peer) : undefined;
    const { grown, stalled } = await say();
    const hash = createHash('sha256');
    let received = 0;
    peer.on('data', (data: Buffer) => {
      received += data.length;
      hash.update(data);
    });
    const ended = once(peer, 'end');
    peer.resume();
    await sending;
    await ended;
    peer.end();
    const { read, sent, hash: theirs } = await say();
    expect((await exited)[0]).toBe(0);
    return { report: { grown, stalled, read, sent, hash: theirs } as Report, received, hash: hash.digest('hex') };
  } finally {
    child.kill('SIGKILL');
  }
}

function expectFlat(report: Report): void {
  expect(report.grown!.rss, `grown by ${JSON.stringify(report.grown)}`).toBeLessThan(GROWTH_MAX);
  expect(report.grown!.external).toBeLessThan(GROWTH_MAX);
}

describe('memory', { timeout: 60_000 }, () => {
  test('100 MiB written to a client that reads nothing', async () => {
    const { report, received, hash } = await run('unread');
    expect(report.stalled!.unsent).toBeGreaterThan(0);
    expectFlat(report);
    expect([received, report.sent]).toEqual([TOTAL_BYTES, TOTAL_BYTES]);
    expect(hash).toBe(expectedHash(chunk));
  });

  test('100 MiB in one write to a client that reads nothing: no copy of it is made', async () => {
    const { report, received } = await run('one-write');
    expect(report.stalled!.unsent).toBeGreaterThan(0);
    expectFlat(report);
    expect([received, report.sent]).toEqual([TOTAL_BYTES, TOTAL_BYTES]);
  });

  test('100 MiB uploaded against a paused reader', async () => {
    const { report } = await run('upload');
    expect(report.stalled!.read).toBeLessThan(2 ** 20);
    expectFlat(report);
    expect(report.read).toBe(TOTAL_BYTES);
    expect(report.hash).toBe(expectedHash(chunk));
  });
});
