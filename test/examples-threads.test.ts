// The examples with several threads: echo from one shared port and from a port in each worker, rpc with a pool on one shared port.
// Every byte comes back, whichever thread handles it; the end is as orderly as that of one thread; hostile clients harm nobody.

import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { connected, endAll, type Program, received, run, start } from './examples-support.js';

describe('echo --workers', () => {
  afterEach(endAll);

  const forms = [
    ['--workers', '2'],
    ['--workers', '2', '--wait', 'block'],
    ['--workers', '2', '--port-per-worker'],
    ['--workers', '2', '--port-per-worker', '--wait', 'block'],
  ];

  test.each([
    ...forms.map((args) => ({ args })),
    { args: ['--workers', '2', '--port-per-worker', '--event-loop', 'inverted'] },
    { args: ['--workers', '2', '--port-per-worker', '--buffers', 'heap'] },
    { args: ['--workers', '2', '--buffer', '65536', '--arena', '65536'] }, // room for one connection: the others wait for it
    { args: ['--workers', '5', '--wait', 'block', '--buffer', '1000'] },
  ])('$args sends back every byte to many clients at once, and ends with exit code 0', async ({ args }) => {
    const program = await start('echo.mjs', ...args);
    // More connections in turn than places of the arena would be needed if none came back.
    for (let round = 0; round < 3; round++) {
      await Promise.all(
        Array.from({ length: 20 }, async () => {
          const socket = await connected(program.port);
          const sent = randomBytes(200_000);
          const answer = received(socket);
          socket.end(sent);
          expect((await answer).equals(sent)).toBe(true);
        }),
      );
    }
    expect(await program.end()).toMatchObject({ code: 0, signal: null });
    expect(program.errors()).toBe('');
  });

  test.each(forms.map((args) => ({ args })))(
    '$args: at SIGTERM what was received is sent back, idle connections are closed in order, and no new one is taken',
    async ({ args }) => {
      const program = await start('echo.mjs', ...args);
      const idle = await Promise.all(Array.from({ length: 8 }, () => connected(program.port)));
      for (const socket of idle) {
        socket.write('x');
        await once(socket, 'data');
      }
      const busy = await connected(program.port);
      const sent = randomBytes(1_000_000);
      busy.write(sent);
      await once(busy, 'readable'); // the echo has begun, and nothing has been read of it
      const ends = Promise.all([received(busy), ...idle.map(received)]);
      const { code, ms } = await program.end();
      expect(program.errors()).toBe('');
      expect(code).toBe(0);
      expect(ms).toBeLessThan(5000);
      const [all, ...nothing] = await ends;
      expect(all.equals(sent)).toBe(true);
      for (const bytes of nothing) expect(bytes.length).toBe(0);
      await expect(connected(program.port)).rejects.toThrow('ECONNREFUSED');
    },
  );

  test.each(forms.map((args) => ({ args })))('$args ends on SIGINT when nobody has ever come', async ({ args }) => {
    const program = await start('echo.mjs', ...args);
    expect(await program.end('SIGINT')).toMatchObject({ code: 0, signal: null });
  });

  test('clients that reset their connections leave the others, and their places, as they were', async () => {
    // 65,536 bytes are room for 8 connections of 8 KiB.
    const program = await start('echo.mjs', '--workers', '2', '--buffer', '8192', '--arena', '65536');
    for (let round = 0; round < 5; round++) {
      const broken = await Promise.all(Array.from({ length: 8 }, () => connected(program.port)));
      for (const socket of broken) socket.write(randomBytes(100_000));
      await Promise.all(broken.map((socket) => once(socket, 'readable')));
      for (const socket of broken) socket.resetAndDestroy();
    }
    const socket = await connected(program.port);
    const answer = received(socket);
    socket.end('still here');
    expect((await answer).toString()).toBe('still here');
    expect(await program.end()).toMatchObject({ code: 0 });
  });

  test.each([
    [['--workers', '2', '--event-loop', 'inverted'], 'inverted'],
    [['--workers', '2', '--buffers', 'heap'], '--buffers'],
    [['--port-per-worker'], '--workers'],
    [['--workers', '-1'], '--workers'],
    [['--workers', '2', '--port-per-worker', '--backend', 'iocp'], 'iocp'],
    [['--workers', '2', '--backend', 'iocp'], 'iocp'],
  ])('%j is answered with one line and exit code 2', async (args, word) => {
    const wrong = await run('echo.mjs', ...args);
    expect(wrong.code).toBe(2);
    expect(wrong.errors.trim().split('\n')).toHaveLength(1);
    expect(wrong.errors).toContain(word);
    expect(wrong.output).toBe('');
  });

  test.each(forms.map((args) => ({ args })))('$args says why it cannot listen, with exit code 1', async ({ args }) => {
    const first = await start('echo.mjs');
    const second = await run('echo.mjs', ...args, '--port', String(first.port));
    expect(second.code).toBe(1);
    expect(second.errors.trim().split('\n')).toHaveLength(1);
    expect(second.errors).toContain('EADDRINUSE');
  });
});

// ---- rpc

const ECHO = 1;
const SUM = 2;
const HASH = 3;
const THREADS = 4;
const FRAME_MAX = 16 * 1024;

function frame(number: number, method: number, body: Uint8Array = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUInt32BE(5 + body.length);
  head.writeUInt32BE(number, 4);
  head[8] = method;
  return Buffer.concat([head, body]);
}

interface Answer {
  status: number;
  body: Buffer;
}

/** A client of examples/rpc.mjs: any number of requests at once, each with its promise. */
class Client {
  readonly socket: Socket;
  #next = 1;
  #rest = Buffer.alloc(0);
  readonly #waiting = new Map<number, { resolve: (answer: Answer) => void; reject: (error: Error) => void }>();

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => this.#onData(chunk));
    const lost = () => {
      for (const { reject } of this.#waiting.values()) reject(new Error('the connection is closed'));
      this.#waiting.clear();
    };
    socket.on('end', lost).on('close', lost);
  }

  static async connect(port: number): Promise<Client> {
    return new Client(await connected(port));
  }

  call(method: number, body?: Uint8Array): Promise<Answer> {
    const number = this.#next++;
    const answered = new Promise<Answer>((resolve, reject) => this.#waiting.set(number, { resolve, reject }));
    this.socket.write(frame(number, method, body));
    return answered;
  }

  #onData(chunk: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    while (this.#rest.length >= 4 && this.#rest.length >= 4 + this.#rest.readUInt32BE()) {
      const end = 4 + this.#rest.readUInt32BE();
      const number = this.#rest.readUInt32BE(4);
      const waiting = this.#waiting.get(number);
      if (waiting === undefined) throw new Error(`an answer to ${number}, which was not asked or is answered already`);
      this.#waiting.delete(number);
      waiting.resolve({ status: this.#rest[8] as number, body: Buffer.from(this.#rest.subarray(9, end)) });
      this.#rest = this.#rest.subarray(end);
    }
  }
}

function floats(...numbers: number[]): Buffer {
  const bytes = Buffer.alloc(numbers.length * 8);
  for (const [index, number] of numbers.entries()) bytes.writeDoubleBE(number, index * 8);
  return bytes;
}

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();

test.each([
  [['--event-loop', 'inverted'], 'inverted'],
  [['--workers', '0'], '--workers'],
  [['--connections', '0'], '--connections'],
])('rpc %j is answered with one line and exit code 2', async (args, word) => {
  const wrong = await run('rpc.mjs', ...args);
  expect(wrong.code).toBe(2);
  expect(wrong.errors.trim().split('\n')).toHaveLength(1);
  expect(wrong.errors).toContain(word);
});

describe('rpc', () => {
  let program: Program;
  beforeEach(async () => {
    program = await start('rpc.mjs', '--workers', '4');
  });
  afterEach(endAll);

  test('each method answers', async () => {
    const client = await Client.connect(program.port);
    const body = randomBytes(1000);
    expect(await client.call(ECHO, body)).toEqual({ status: 0, body });
    expect(await client.call(ECHO)).toEqual({ status: 0, body: Buffer.alloc(0) });
    expect((await client.call(ECHO, randomBytes(FRAME_MAX - 5))).body).toHaveLength(FRAME_MAX - 5);
    expect(await client.call(SUM, floats(1, 2.5, -10))).toEqual({ status: 0, body: floats(-6.5) });
    expect(await client.call(SUM)).toEqual({ status: 0, body: floats(0) });
    expect(await client.call(HASH, body)).toEqual({ status: 0, body: sha256(body) });
    const { body: threads } = await client.call(THREADS);
    expect(threads).toHaveLength(3);
    for (const number of threads) expect([1, 2, 3, 4]).toContain(number);
    expect(await client.call(99)).toEqual({ status: 1, body: Buffer.alloc(0) });
    expect(await client.call(SUM, Buffer.alloc(7))).toEqual({ status: 2, body: Buffer.alloc(0) });
    client.socket.end();
    await once(client.socket, 'end');
    expect(await program.end()).toMatchObject({ code: 0 });
    expect(program.errors()).toBe('');
  });

  test('100 clients at once, each with many requests under way: every answer is the right one, and in order', async () => {
    await Promise.all(
      Array.from({ length: 100 }, async () => {
        const client = await Client.connect(program.port);
        const order: number[] = [];
        await Promise.all(
          Array.from({ length: 60 }, async (_, index) => {
            const body = randomBytes(index % 10 === 0 ? 5000 : index * 8);
            if (index % 3 === 0) expect((await client.call(ECHO, body)).body.equals(body)).toBe(true);
            else if (index % 3 === 1) expect((await client.call(HASH, body)).body.equals(sha256(body))).toBe(true);
            else expect((await client.call(SUM, floats(...Array(index).fill(index)))).body.readDoubleBE()).toBe(index * index);
            order.push(index);
          }),
        );
        expect(order).toEqual([...order].sort((a, b) => a - b));
        client.socket.destroy();
      }),
    );
    expect(await program.end()).toMatchObject({ code: 0 });
    expect(program.errors()).toBe('');
  });

  test('a connection is accepted in one thread, read in a second, and answered in a third', async () => {
    // Whether it is depends on who is free: as many tries as it takes, all of them at once, and all four threads may run. With a place for each
    // processor two would do most of the work, as they should.
    program = await start('rpc.mjs', '--workers', '4', '--concurrency', '4');
    let seen = false;
    const until = performance.now() + 20_000;
    while (!seen && performance.now() < until) {
      const clients = await Promise.all(Array.from({ length: 20 }, () => Client.connect(program.port)));
      await Promise.all(
        clients.map(async (client) => {
          const calls = Array.from({ length: 50 }, (_, index) =>
            index % 5 === 4 ? client.call(THREADS) : client.call(HASH, randomBytes(2000)),
          );
          for (const { body } of await Promise.all(calls)) seen ||= body.length === 3 && new Set(body).size === 3;
          client.socket.destroy();
        }),
      );
    }
    expect(seen).toBe(true);
  });

  test('requests that come byte by byte, or many in one piece, are answered', async () => {
    const socket = await connected(program.port);
    socket.setNoDelay(true);
    const answer = received(socket);
    const requests = [frame(1, ECHO, Buffer.from('one')), frame(2, ECHO), frame(3, ECHO, Buffer.from('three'))];
    for (const byte of Buffer.concat(requests)) {
      await new Promise<void>((resolve) => socket.write(Buffer.of(byte), () => resolve()));
    }
    const many = Array.from({ length: 500 }, (_, index) => frame(index + 4, ECHO, randomBytes(index)));
    socket.end(Buffer.concat(many));
    const expected = Buffer.concat([...requests, ...many].map((request) => Buffer.from(request)));
    // An echo's answer is its request with status 0 in place of the method.
    for (let at = 0; at < expected.length; at += 4 + expected.readUInt32BE(at)) expected[at + 8] = 0;
    expect((await answer).equals(expected)).toBe(true);
  });

  test.each([
    ['0', Buffer.from([0, 0, 0, 0])],
    ['less than a head', Buffer.from([0, 0, 0, 4, 1, 2, 3, 4])],
    ['one byte too much', Buffer.from([0, 0, 0x40, 1, 0, 0, 0, 1, 1])],
    ['the largest', Buffer.alloc(100, 0xff)],
    ['another protocol', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')],
  ])('a length of %s ends the connection, behind the answers before it, and no other', async (_, hostile) => {
    const other = await Client.connect(program.port);
    await other.call(ECHO);
    const client = await Client.connect(program.port);
    const before = client.call(ECHO, Buffer.from('before'));
    expect((await before).body.toString()).toBe('before');
    const gone = new Promise((resolve) => client.socket.once('end', resolve).once('close', resolve));
    client.socket.write(hostile);
    await gone;
    expect((await other.call(ECHO, Buffer.from('x'))).body.toString()).toBe('x');
  });

  test('clients that go away at any moment give their places back', async () => {
    const own = await start('rpc.mjs', '--workers', '2', '--connections', '4');
    for (let round = 0; round < 10; round++) {
      await Promise.all(
        Array.from({ length: 8 }, async (_, index) => {
          const socket = await connected(own.port);
          const request = frame(1, ECHO, randomBytes(10_000));
          socket.write(request.subarray(0, index % 2 === 0 ? 5000 : request.length), () => {
            if (index % 4 === 0) socket.resetAndDestroy();
            else socket.destroy();
          });
          await once(socket, 'close');
        }),
      );
    }
    const clients = await Promise.all(Array.from({ length: 4 }, () => Client.connect(own.port)));
    for (const client of clients) expect((await client.call(ECHO, Buffer.from('here'))).body.toString()).toBe('here');
    expect(await own.end()).toMatchObject({ code: 0 });
    expect(own.errors()).toBe('');
  });

  test('at SIGTERM answers under way go out whole, idle connections are closed, and the exit code is 0', async () => {
    const idle = await Promise.all(Array.from({ length: 10 }, () => Client.connect(program.port)));
    await Promise.all(idle.map((client) => client.call(ECHO)));
    const half = await connected(program.port);
    // A whole request and the half of one in one piece: with the first one's answer the second has been read.
    half.write(Buffer.concat([frame(1, ECHO), frame(2, ECHO, randomBytes(100)).subarray(0, 50)]));
    await once(half, 'readable');
    const ends = [...idle.map(({ socket }) => socket), half].map((socket) => once(socket.resume(), 'end'));
    const { code, ms } = await program.end();
    expect({ code, errors: program.errors() }).toEqual({ code: 0, errors: '' });
    expect(ms).toBeLessThan(4000); // less than its patience with clients that are slow
    await Promise.all(ends);
    await expect(connected(program.port)).rejects.toThrow('ECONNREFUSED');
  });

  test('a client that takes no answers holds the end up for a moment, not for ever', async () => {
    const socket = await connected(program.port);
    socket.pause();
    const request = frame(1, ECHO, randomBytes(16_000));
    // Until neither side's buffers take any more.
    while (socket.write(request));
    await once(socket, 'drain').catch(() => {});
    while (socket.writableLength < 1 << 20) socket.write(request);
    const { code, ms } = await program.end();
    expect(code).toBe(0);
    expect(ms).toBeLessThan(10_000);
    socket.destroy();
  });
});
