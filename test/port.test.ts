// What the JavaScript half of a port does by itself: batches that are fetched ahead, consumers of several kinds at once, internal
// operations beside user packets. The rules that every port must keep are the conformance suite's.

import { execFileSync } from 'node:child_process';
import { getEventListeners } from 'node:events';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CompletionPort, FileHandle, Operation, TcpListener } from 'completion-port';
import { accept, read, size } from 'completion-port/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

let folder: string;
let port: CompletionPort;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'completion-port-'));
  port = CompletionPort.create();
});

afterEach(async () => {
  port.close();
  await port.closed;
  rmSync(folder, { recursive: true });
});

function openFile(content: string): FileHandle {
  const path = join(folder, 'file');
  writeFileSync(path, content);
  const file = FileHandle.openSync(path, 'r+');
  port.associate(file, 1);
  return file;
}

function listen(): TcpListener {
  const listener = TcpListener.listenSync({ port: 0 });
  port.associate(listener, 2);
  return listener;
}

test('blocking() lets what was started, or cancelled, begin before', async () => {
  const path = join(folder, 'written');
  writeFileSync(path, '');
  const other = CompletionPort.create();
  const file = FileHandle.openSync(path, 'r+');
  other.associate(file, 1);
  for (const through of [port, other]) {
    writeFileSync(path, '');
    file.write(Buffer.from('abc'), { position: 0 });
    const seen = through.blocking(() => {
      const until = performance.now() + 2000;
      while (statSync(path).size < 3 && performance.now() < until);
      return statSync(path).size;
    });
    expect(seen).toBe(3);
    expect(other.getSync(2000)?.bytesTransferred).toBe(3);
  }
  // What defer() gathers waits for its end.
  writeFileSync(path, '');
  other.defer(() => {
    file.write(Buffer.from('abcd'), { position: 0 });
    port.getSync(20);
    expect(statSync(path).size).toBe(0);
  });
  expect(other.getSync(2000)?.bytesTransferred).toBe(4);
  file.close();
  other.close();
  await other.closed;
});

const immediate = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('packets that were fetched ahead', () => {
  test('stay the head of the queue for every kind of get', async () => {
    for (let key = 0; key < 300; key++) port.post(key);
    const keys: number[] = [];
    keys.push(port.getSync(0)?.key ?? -1);
    keys.push((await port.get())?.key ?? -1);
    for (const packet of port.getManySync(3)) keys.push(packet.key);
    for (const packet of await port.getMany(4)) keys.push(packet.key);
    port.post(300);
    for await (const packet of port) {
      keys.push(packet.key);
      if (keys.length === 20) break;
    }
    for (const packet of port.getManySync(1000)) keys.push(packet.key);
    expect(keys).toEqual(Array.from({ length: 301 }, (_, key) => key));
    expect(port.stats().queued).toBe(0);
  });

  test('wait for their get while promises are settled past them', async () => {
    const file = openFile('0123456789');
    const one = Buffer.alloc(1);
    for (let id = 0; id < 200; id++) file.read(one, { position: 0, id });
    await Promise.all(Array.from({ length: 20 }, () => size(file)));
    expect(port.getSync(0)?.operationId).toBeGreaterThanOrEqual(0);
    await Promise.all(Array.from({ length: 20 }, () => size(file)));
    const seen = new Set<number>();
    for (let packet = port.getSync(0); packet !== null; packet = port.getSync(0)) seen.add(packet.operationId);
    expect(seen.size).toBe(199);
    expect(port.inFlight).toBe(0);
    file.close();
  });

  test('are what getSync takes in a handler, and the handler goes on behind them', async () => {
    const keys: number[] = [];
    const done = new Promise<void>((resolve) => {
      const consumer = port.dispatch((packet) => {
        keys.push(packet.key);
        if (packet.key % 10 === 0) keys.push(port.getSync(0)?.key ?? -1);
        if (keys.length === 400) {
          consumer.stop();
          resolve();
        }
      });
    });
    for (let key = 0; key < 400; key++) port.post(key);
    await done;
    expect(keys).toEqual(Array.from({ length: 400 }, (_, key) => key));
  });

  test('are left queued by stop() in the middle of a batch', async () => {
    const keys: number[] = [];
    const consumer = port.dispatch((packet) => {
      keys.push(packet.key);
      if (packet.key === 9) consumer.stop();
    });
    for (let key = 0; key < 50; key++) port.post(key);
    await immediate();
    await immediate();
    expect(keys.length).toBe(10);
    expect(port.stats().queued).toBe(40);
    expect(port.getSync(0)?.key).toBe(10);
  });
});

describe('consumers beside each other', () => {
  test('waiting gets come before the dispatch, in their order', async () => {
    const dispatched: number[] = [];
    port.dispatch((packet) => dispatched.push(packet.key));
    const gets = [port.get(), port.get(), port.getMany(2)];
    for (let key = 0; key < 6; key++) port.post(key);
    const [first, second, pair] = await Promise.all(gets);
    expect([first, second, pair]).toMatchObject([{ key: 0 }, { key: 1 }, [{ key: 2 }, { key: 3 }]]);
    await immediate();
    expect(dispatched).toEqual([4, 5]);
  });

  test('an iterator over endless posts lets timers fire', async () => {
    let fired = false;
    setTimeout(() => {
      fired = true;
    }, 1);
    port.post(0);
    let count = 0;
    for await (const packet of port) {
      port.post(packet.key);
      if (fired || ++count > 10_000_000) break;
    }
    expect(fired).toBe(true);
  });

  test('return() of an iterator ends the waits that next() has begun, and they take no packet', async () => {
    const iterator = port[Symbol.asyncIterator]();
    const waiting = iterator.next();
    await iterator.return?.();
    expect(await waiting).toEqual({ done: true, value: undefined });
    port.post(7);
    expect((await port.get())?.key).toBe(7);
  });
});

describe('internal operations', () => {
  test('are settled by a blocking get, which does not return them', async () => {
    const file = openFile('abc');
    const buffer = Buffer.alloc(3);
    const promise = read(file, buffer, { position: 0 });
    expect(port.getSync(20)).toBe(null);
    expect(await promise).toBe(3);
    file.close();
  });

  test('with a signal that is aborted already reject, and nothing is done', async () => {
    const listener = listen();
    const reason = new Error('no');
    await expect(accept(listener, { signal: AbortSignal.abort(reason) })).rejects.toMatchObject({
      code: 'ECANCELED',
      by: 'signal',
      cause: reason,
    });
    expect(port.inFlight).toBe(0);
    listener.close();
  });

  test('reject when the port closes', async () => {
    const listener = listen();
    const promise = accept(listener);
    port.close();
    await expect(promise).rejects.toMatchObject({ code: 'ECANCELED', by: 'close' });
    listener.close();
  });
});

test('methods and getters of an operation and of a consumer are for these alone', () => {
  const port = CompletionPort.create();
  const consumer = port.dispatch(() => {});
  for (const [kind, names] of [
    [Operation.prototype, ['pending', 'kind', 'cancel']],
    [Object.getPrototypeOf(consumer) as object, ['active', 'stop']],
  ] as const) {
    for (const name of names) {
      const { get, value } = Object.getOwnPropertyDescriptor(kind, name) ?? {};
      for (const receiver of [undefined, null, 1, 'x', {}, kind, port, new Proxy(new Operation(), {})]) {
        expect(() => Reflect.apply(get ?? value, receiver, []), `${name} of ${typeof receiver}`).toThrow(
          expect.objectContaining({ name: 'TypeError', code: 'ERR_INVALID_THIS' }),
        );
      }
    }
  }
  consumer.stop();
  port.close();
});

test('an operation of a closed port is free again when the port has let go', async () => {
  const listener = listen();
  const operation = new Operation();
  listener.accept(operation);
  port.close();
  expect(operation.pending).toBe(false);
  await port.closed;
  listener.close();
  const other = CompletionPort.create();
  const second = TcpListener.listenSync({ port: 0 });
  other.associate(second, 3);
  second.accept(operation);
  expect(operation.pending).toBe(true);
  second.close();
  expect(other.getSync(1000)).toMatchObject({ operation, error: { code: 'ECANCELED', by: 'close' } });
  other.close();
});

test('one listener an AbortSignal, however many operations, and none afterwards', () => {
  const listener = listen();
  const { signal, abort } = (() => {
    const controller = new AbortController();
    return { signal: controller.signal, abort: (reason: unknown) => controller.abort(reason) };
  })();
  for (let i = 0; i < 50; i++) listener.accept({ signal, context: i });
  expect(getEventListeners(signal, 'abort').length).toBe(1);
  abort('enough');
  const packets = port.getManySync(50, 1000);
  expect(packets.length).toBe(50);
  for (const packet of packets) expect(packet.error).toMatchObject({ code: 'ECANCELED', by: 'signal', cause: 'enough' });
  expect(getEventListeners(signal, 'abort').length).toBe(0);
  listener.close();
});

test('a post without memory for its packet leaves nothing behind: neither its own operation, nor a start whose signal is aborted', () => {
  const program = `
    import { CompletionPort, Operation, TcpSocket } from 'completion-port';
    const port = CompletionPort.create({ maxOperations: 1 });
    const socket = TcpSocket.openSync();
    port.associate(socket, 1);
    const codes = [];
    const attempt = (start) => {
      try {
        start();
        codes.push('started');
      } catch (error) {
        codes.push(error.code);
      }
    };
    const operation = new Operation();
    operation.signal = AbortSignal.abort();
    const bytes = new Uint8Array(8);
    for (let i = 0; i < 3; i++) {
      attempt(() => port.post(1, 0, operation));
      attempt(() => socket.shutdown({ signal: operation.signal }));
      attempt(() => socket.recv(bytes, operation));
      attempt(() => port.open('/', 'r', { key: 1, signal: operation.signal }));
    }
    const { inFlight, posts, operationsStarted } = port.stats();
    console.log(JSON.stringify({ codes: [...new Set(codes)], pending: operation.pending, inFlight, posts, operationsStarted }));
    port.close();
  `;
  const env = { ...process.env, COMPLETION_PORT_BUILD: 'test', COMPLETION_PORT_MUTANT: 'no-room-for-posts' };
  const output = execFileSync(process.execPath, ['--input-type=module', '--eval', program], { env, encoding: 'utf8' });
  expect(JSON.parse(output)).toEqual({ codes: ['ENOMEM'], pending: false, inFlight: 0, posts: 0, operationsStarted: 0 });
});
