/**
 * One specification, two implementations: everything here is run over node:net and over completion-port/net, so what a program
 * can rely on with the one it can rely on with the other. Titles are rules; where node:net leaves something open, nothing is asked.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { pipeline } from 'node:stream/promises';
import { describe, expect, test } from 'vitest';
import {
  checksum,
  closed,
  connected,
  implementations,
  listen,
  pattern,
  receive,
  received,
  recordEvents,
  sleep,
  track,
  trackServer,
  turn,
  unusedPort,
} from './net-support.js';

describe.each(implementations)('%s', (_name, net) => {
  describe('transfer', () => {
    test('what is written arrives, in both directions', async () => {
      const { client, peer } = await connected(net);
      client.write('ping');
      expect((await receive(peer, 4)).toString()).toBe('ping');
      peer.write(Buffer.from('pong'));
      expect((await receive(client, 4)).toString()).toBe('pong');
    });

    test('strings of every encoding arrive as their bytes', async () => {
      const { client, peer } = await connected(net);
      client.cork();
      client.write('grüße ', 'utf8');
      client.write('ÿ', 'latin1');
      client.write('0aff', 'hex');
      client.write('aGk=', 'base64');
      client.write('h', 'utf16le');
      client.write('');
      client.uncork();
      client.end('€'.repeat(30_000));
      const expected = Buffer.concat([
        Buffer.from('grüße '),
        Buffer.from([255, 10, 255]),
        Buffer.from('hi'),
        Buffer.from([104, 0]),
        Buffer.from('€'.repeat(30_000)),
      ]);
      expect((await received(peer)).equals(expected)).toBe(true);
    });

    test('an encoding spelled in any way loses nothing', async () => {
      const text = '漢'.repeat(2048);
      const spellings = ['utf8', 'UTF8', 'utf-8', 'UTF-8', 'Utf-8', 'UTF16LE', 'Ucs-2', 'UCS2'] as BufferEncoding[];
      const { client, peer } = await connected(net);
      const expected: Buffer[] = [];
      for (const spelling of spellings) {
        expected.push(Buffer.from(text, spelling));
        client.write(text, spelling);
      }
      client.cork();
      for (const spelling of spellings) {
        expected.push(Buffer.from(text, spelling));
        client.write(text, spelling);
      }
      client.end();
      const all = await received(peer);
      expect(all.length).toBe(Buffer.concat(expected).length);
      expect(all.equals(Buffer.concat(expected))).toBe(true);
    });

    test('setEncoding gives strings, characters never cut apart', async () => {
      const { client, peer } = await connected(net);
      peer.setEncoding('utf8');
      const euro = Buffer.from('€€');
      client.setNoDelay();
      client.write(euro.subarray(0, 2));
      await sleep(20);
      client.end(euro.subarray(2));
      let text = '';
      for await (const part of peer) {
        expect(typeof part).toBe('string');
        text += part;
      }
      expect(text).toBe('€€');
    });

    test('16 MiB each way at once arrive intact', async () => {
      const { client, peer } = await connected(net, { allowHalfOpen: true }, { allowHalfOpen: true });
      const data = pattern(16 * 2 ** 20);
      const back = pattern(16 * 2 ** 20 - 12_345);
      client.end(data);
      peer.end(back);
      const [there, here] = await Promise.all([received(peer), received(client)]);
      expect(checksum(there)).toBe(checksum(data));
      expect(checksum(here)).toBe(checksum(back));
    });

    test('many small writes arrive in order', async () => {
      const { client, peer } = await connected(net);
      let expected = '';
      for (let i = 0; i < 5_000; i++) {
        const line = `line ${i}\n`;
        expected += line;
        if (i % 2 === 0) {
          client.write(line);
        } else {
          client.write(Buffer.from(line));
        }
      }
      client.end();
      expect((await received(peer)).toString()).toBe(expected);
    });

    test('pipe: an echo through pipe() and pipeline()', async () => {
      const server = net.createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket));
      const port = await listen(server);
      const client = track(net.connect({ port, host: '127.0.0.1', allowHalfOpen: true }));
      const data = pattern(1_000_000);
      const back = received(client);
      await pipeline([data.subarray(0, 400_000), data.subarray(400_000)], client, { end: true });
      expect(checksum(await back)).toBe(checksum(data));
    });

    test('a hundred connections at once each get their own bytes back', async () => {
      const server = net.createServer((socket) => socket.pipe(socket));
      const port = await listen(server);
      const answers = await Promise.all(
        Array.from({ length: 100 }, async (_, i) => {
          const client = track(net.connect(port, '127.0.0.1'));
          client.write(`client ${i}`.padEnd(5_000 + i, '.'));
          const text = (await receive(client, 5_000 + i)).toString();
          client.end();
          return text;
        }),
      );
      answers.forEach((text, i) => {
        expect(text).toBe(`client ${i}`.padEnd(5_000 + i, '.'));
      });
    });

    test('a chunk is the reader’s own: later data does not change it', async () => {
      const { client, peer } = await connected(net);
      client.write('first');
      const first = await receive(peer, 5);
      for (let i = 0; i < 20; i++) {
        client.write('other');
        await receive(peer, 5);
      }
      expect(first.toString()).toBe('first');
    });

    test('for await ends with the connection, break destroys it', async () => {
      const { client, peer } = await connected(net);
      client.write('one');
      for await (const chunk of peer) {
        expect(String(chunk)).toBe('one');
        break;
      }
      expect(peer.destroyed).toBe(true);
      await once(client.resume(), 'close');
    });

    test('bytesRead and bytesWritten count, also after the end', async () => {
      const { client, peer } = await connected(net);
      client.write('grüße');
      expect(client.bytesWritten).toBe(7);
      client.end(Buffer.alloc(1_000));
      expect(client.bytesWritten).toBe(1_007);
      await received(peer);
      expect(peer.bytesRead).toBe(1_007);
      await Promise.all([closed(client.resume()), closed(peer)]);
      expect([client.bytesWritten, peer.bytesRead, peer.bytesWritten]).toEqual([1_007, 1_007, 0]);
    });
  });

  describe('back-pressure', () => {
    test('write() returns false against a reader that does not read; drain comes when it does', async () => {
      const { client, peer } = await connected(net);
      const chunk = Buffer.alloc(64 * 1024, 7);
      let written = 0;
      while (client.write(chunk) || written < 32 * 2 ** 20) {
        written += chunk.length;
        if (client.writableNeedDrain) {
          const drained = await Promise.race([once(client, 'drain').then(() => true), sleep(200).then(() => false)]);
          if (!drained) {
            break;
          }
        }
      }
      expect(written).toBeLessThan(32 * 2 ** 20);
      expect(client.writableNeedDrain).toBe(true);
      const drained = once(client, 'drain');
      peer.resume();
      await drained;
      expect(client.writableLength).toBe(0);
    });

    test('a paused socket takes in no more than its buffer, and everything comes after resume()', async () => {
      const { client, peer } = await connected(net);
      const data = pattern(8 * 2 ** 20);
      peer.pause();
      client.end(data);
      await sleep(150);
      expect(peer.readableLength).toBeLessThan(512 * 1024);
      expect(checksum(await received(peer))).toBe(checksum(data));
    });

    test('no data event between pause() and resume()', async () => {
      const { client, peer } = await connected(net);
      let events = 0;
      peer.on('data', () => {
        events++;
        peer.pause();
      });
      client.write('a');
      await sleep(30);
      client.write('b');
      await sleep(50);
      expect(events).toBe(1);
      peer.resume();
      await sleep(30);
      expect(events).toBe(2);
    });

    test('readable and read(n) take the bytes asked for', async () => {
      const { client, peer } = await connected(net);
      client.write('abcdefgh');
      await once(peer, 'readable');
      expect(String(peer.read(3))).toBe('abc');
      expect(String(peer.read(5))).toBe('defgh');
      expect(peer.read(1)).toBe(null);
    });

    test('a write’s callback comes when the bytes have left, callbacks in order', async () => {
      const { client, peer } = await connected(net);
      peer.resume();
      const order: number[] = [];
      client.write('a', () => order.push(1));
      client.write('b', () => order.push(2));
      await new Promise<void>((resolve) => client.end('c', resolve));
      expect(order).toEqual([1, 2]);
    });
  });

  describe('half-close', () => {
    test('allowHalfOpen true: the server answers after the client’s end', async () => {
      const { client, peer } = await connected(net, { allowHalfOpen: true });
      client.end('question');
      expect((await received(peer)).toString()).toBe('question');
      expect(peer.writable).toBe(true);
      peer.end('answer');
      expect((await received(client)).toString()).toBe('answer');
    });

    test('allowHalfOpen true: the client reads on after its own end', async () => {
      const { client, peer } = await connected(net, {}, { allowHalfOpen: true });
      peer.write('before');
      client.end();
      await received(peer);
      expect((await received(client)).toString()).toBe('before');
    });

    test('allowHalfOpen false: the peer’s end ends this side too', async () => {
      const { client, peer } = await connected(net);
      const order = recordEvents(peer, 'end', 'finish', 'close');
      client.resume().end();
      peer.resume();
      await Promise.all([once(peer, 'close'), once(client, 'close')]);
      expect(order).toEqual(['end', 'finish', 'close']);
    });

    test('readyState follows the two sides', async () => {
      const server = net.createServer({ allowHalfOpen: true });
      const port = await listen(server);
      const client = track(net.connect({ port, host: '127.0.0.1', allowHalfOpen: true }));
      expect(client.readyState).toBe('opening');
      const [[peer]] = (await Promise.all([once(server, 'connection'), once(client, 'connect')])) as [[Socket], unknown];
      expect(client.readyState).toBe('open');
      client.end();
      expect(client.readyState).toBe('readOnly');
      peer.resume();
      await once(peer, 'end');
      expect(peer.readyState).toBe('writeOnly');
      peer.end();
      client.resume();
      await once(client, 'close');
      expect(client.readyState).toBe('closed');
    });

    test('a write after the peer’s end says who ended it', async () => {
      const { client, peer } = await connected(net);
      const failed = once(peer, 'error');
      const wrote = new Promise((resolve) => {
        peer.once('end', () => {
          peer.end();
          peer.write('late', resolve);
        });
      });
      peer.resume();
      client.resume().end();
      const [error] = (await failed) as [NodeJS.ErrnoException];
      expect(error.code).toBe('EPIPE');
      expect(error.message).toBe('This socket has been ended by the other party');
      expect(await wrote).toBe(error);
    });
  });

  describe('destroy', () => {
    test('destroy() while reading: close without error, the peer sees an end', async () => {
      const { client, peer } = await connected(net);
      const order = recordEvents(client, 'end', 'error', 'close');
      client.resume();
      peer.resume();
      await turn();
      client.destroy();
      expect(client.destroyed).toBe(true);
      const [hadError] = await once(client, 'close');
      expect(hadError).toBe(false);
      expect(order).toEqual(['close']);
      await closed(peer);
    });

    test('destroy() while writing: the pending callbacks are called before close', async () => {
      const { client } = await connected(net);
      const order: string[] = [];
      client.on('close', () => order.push('close'));
      const codes: (string | undefined)[] = [];
      const note = (name: string) => (error?: Error | null) => {
        order.push(name);
        codes.push((error as NodeJS.ErrnoException | undefined)?.code);
      };
      client.write(Buffer.alloc(32 * 2 ** 20), note('first'));
      client.write('more', note('second'));
      await sleep(50);
      client.destroy();
      expect(await closed(client)).toBe(false);
      await turn();
      expect(order).toEqual(['first', 'second', 'close']);
      // Up to Node 20 node:net tells the write in flight that it went well; all later ones, and here, are told the truth.
      expect(['ECANCELED', undefined]).toContain(codes[0]);
      expect(['ECANCELED', 'ERR_STREAM_DESTROYED']).toContain(codes[1]);
    });

    test('destroy(error): error, then close with hadError', async () => {
      const { client } = await connected(net);
      const order = recordEvents(client, 'error', 'close');
      client.destroy(new Error('mine'));
      expect(await closed(client)).toBe(true);
      expect(order).toEqual(['error', 'close']);
    });

    test('destroy() in a data listener: no further event but close', async () => {
      const { client, peer } = await connected(net);
      const order = recordEvents(peer, 'end', 'close');
      let events = 0;
      peer.on('data', () => {
        events++;
        peer.destroy();
      });
      client.on('error', () => undefined);
      client.end(Buffer.alloc(4 * 2 ** 20));
      await once(peer, 'close');
      expect(events).toBe(1);
      expect(order).toEqual(['close']);
    });

    test('destroy() while connecting: close, no connect', async () => {
      const port = await listen(net.createServer());
      const client = track(net.connect(port, '127.0.0.1'));
      const order = recordEvents(client, 'connect', 'ready', 'error', 'close');
      client.destroy();
      expect(client.connecting).toBe(false);
      await once(client, 'close');
      await sleep(30);
      expect(order).toEqual(['close']);
    });

    test('destroySoon() sends what was written first', async () => {
      const { client, peer } = await connected(net);
      const data = pattern(2 * 2 ** 20);
      client.write(data);
      client.destroySoon();
      expect(checksum(await received(peer))).toBe(checksum(data));
      expect(client.destroyed).toBe(true);
    });

    test('resetAndDestroy(): the peer gets ECONNRESET', async () => {
      const { client, peer } = await connected(net);
      peer.resume();
      const failed = once(peer, 'error');
      client.resetAndDestroy();
      const [error] = (await failed) as [NodeJS.ErrnoException];
      expect(error).toMatchObject({ code: 'ECONNRESET', syscall: 'read', message: 'read ECONNRESET' });
      expect(error.errno).toBeLessThan(0);
      expect(await closed(peer)).toBe(true);
    });

    test('resetAndDestroy() while connecting waits for the connection; on a closed socket it is an error', async () => {
      const server = net.createServer((socket) => socket.on('error', () => undefined).resume());
      const port = await listen(server);
      const client = track(net.connect(port, '127.0.0.1'));
      const order = recordEvents(client, 'connect', 'close');
      client.resetAndDestroy();
      await once(client, 'close');
      expect(order).toEqual(['connect', 'close']);
      const fresh = track(new net.Socket());
      const failed = once(fresh, 'error');
      fresh.resetAndDestroy();
      expect((await failed)[0]).toMatchObject({ code: 'ERR_SOCKET_CLOSED' });
    });

    test('a write to a peer that has gone fails with EPIPE or ECONNRESET, and closes the socket', async () => {
      const { client, peer } = await connected(net, {}, { allowHalfOpen: true });
      // Unread bytes make the peer's close a reset; a paused client only finds out by writing.
      const failed = new Promise<NodeJS.ErrnoException>((resolve) => client.on('error', resolve));
      const wait = closed(client);
      client.pause();
      peer.resetAndDestroy();
      await closed(peer);
      client.write('into nothing');
      expect(['EPIPE', 'ECONNRESET']).toContain((await failed).code);
      expect(await wait).toBe(true);
      expect(client.destroyed).toBe(true);
    });

    test('an AbortSignal destroys the socket with AbortError', async () => {
      const port = await listen(net.createServer());
      const controller = new AbortController();
      const client = track(net.connect({ port, host: '127.0.0.1', signal: controller.signal }));
      await once(client, 'connect');
      const failed = once(client, 'error');
      controller.abort();
      expect((await failed)[0]).toMatchObject({ name: 'AbortError' });
    });

    test('one that is aborted already does so too, with its reason, before anything else happens', async () => {
      const socket = new net.Socket({ signal: AbortSignal.abort('enough') });
      const order = recordEvents(socket, 'error', 'connect', 'close');
      const failed = once(socket, 'error');
      const close = new Promise((resolve) => socket.once('close', resolve));
      expect((await failed)[0]).toMatchObject({ name: 'AbortError', code: 'ABORT_ERR', cause: 'enough' });
      await close;
      expect(order).toEqual(['error', 'close']);
    });

    test('an AbortSignal that is aborted already fails a connect with AbortError', async () => {
      const port = await listen(net.createServer());
      const client = track(net.connect({ port, host: '127.0.0.1', signal: AbortSignal.abort() }));
      expect((await once(client, 'error').catch((error: Error) => [error]))[0]).toMatchObject({ name: 'AbortError' });
    });

    test('a destroyed socket can connect again', async () => {
      const server = net.createServer((socket) => socket.end('hello'));
      const port = await listen(server);
      const client = track(net.connect(port, '127.0.0.1'));
      expect((await received(client)).toString()).toBe('hello');
      await closed(client);
      client.connect(port, '127.0.0.1');
      expect((await receive(client, 5)).toString()).toBe('hello');
    });
  });

  describe('events', () => {
    test('connect, ready, data, end, finish, close: in this order, each once', async () => {
      const server = net.createServer((socket) => socket.end('x'));
      const port = await listen(server);
      const client = track(net.connect(port, '127.0.0.1'));
      const order = recordEvents(client, 'lookup', 'connect', 'ready', 'data', 'end', 'finish', 'close');
      await once(client, 'close');
      expect(order).toEqual(['connect', 'ready', 'data', 'end', 'finish', 'close']);
    });

    test('end() waits for the connection; so do writes, in order', async () => {
      const server = net.createServer();
      const port = await listen(server);
      const accepted = once(server, 'connection') as Promise<[Socket]>;
      const client = track(net.connect(port, '127.0.0.1'));
      expect([client.connecting, client.pending]).toEqual([true, true]);
      client.write('a');
      client.write('b');
      client.end('c');
      expect(client.bytesWritten).toBe(3);
      const [peer] = await accepted;
      expect((await received(peer)).toString()).toBe('abc');
      expect([client.connecting]).toEqual([false]);
    });

    test('close comes in a later turn than destroy()', async () => {
      const { client } = await connected(net);
      let seen = false;
      client.on('close', () => {
        seen = true;
      });
      client.destroy();
      await Promise.resolve();
      expect(seen).toBe(false);
      await sleep(20);
      expect(seen).toBe(true);
    });

    test('listeners run in the async context of the connect()', async () => {
      const storage = new AsyncLocalStorage<string>();
      const server = net.createServer((socket) => socket.end('x'));
      const port = await listen(server);
      const seen: (string | undefined)[] = [];
      const note = () => seen.push(storage.getStore());
      await storage.run('mine', async () => {
        const client = track(net.connect(port, '127.0.0.1'));
        for (const event of ['connect', 'data', 'end', 'close']) {
          client.on(event, note);
        }
      });
      await storage.run('other', async () => {
        const other = track(net.connect(port, '127.0.0.1'));
        await once(other.resume(), 'close');
      });
      await sleep(20);
      expect(seen).toEqual(['mine', 'mine', 'mine', 'mine']);
    });
  });

  describe('errors', () => {
    test('a refused connection: ECONNREFUSED with the end point', async () => {
      const port = await unusedPort(net);
      const client = track(net.connect(port, '127.0.0.1'));
      const order = recordEvents(client, 'error', 'close');
      const [error] = (await once(client, 'error')) as [NodeJS.ErrnoException];
      expect(error).toMatchObject({ code: 'ECONNREFUSED', syscall: 'connect', address: '127.0.0.1', port });
      expect(error.message).toBe(`connect ECONNREFUSED 127.0.0.1:${port}`);
      expect(error.errno).toBeLessThan(0);
      expect(await closed(client)).toBe(true);
      expect(order).toEqual(['error', 'close']);
    });

    test('data written before a connection that fails: the callback gets an error', async () => {
      const server = net.createServer();
      const port = await listen(server);
      await new Promise((resolve) => server.close(resolve));
      const client = track(net.connect(port, '127.0.0.1'));
      client.on('error', () => undefined);
      const error = await new Promise<NodeJS.ErrnoException | null | undefined>((resolve) => client.write('x', resolve));
      expect(error).toMatchObject({ code: 'ERR_SOCKET_CLOSED_BEFORE_CONNECTION' });
    });

    test('a name that does not exist: the lookup’s error', async () => {
      const client = track(
        net.connect({
          port: 1,
          host: 'no-such-name.invalid',
          lookup: (host, _options, callback) => {
            const error: NodeJS.ErrnoException = new Error(`getaddrinfo ENOTFOUND ${host}`);
            error.code = 'ENOTFOUND';
            process.nextTick(() => (callback as (error: Error) => void)(error));
          },
        }),
      );
      expect((await once(client, 'error'))[0]).toMatchObject({ code: 'ENOTFOUND' });
    });

    test('bad arguments are thrown', () => {
      expect(() => net.connect({ port: 70_000 })).toThrow(
        expect.objectContaining({ code: 'ERR_SOCKET_BAD_PORT', name: 'RangeError' }),
      );
      expect(() => net.connect({ port: {} as unknown as number })).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }),
      );
      expect(() => net.connect({ port: 1, localAddress: 'nonsense' })).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_IP_ADDRESS' }),
      );
      expect(() => net.connect({} as { port: number })).toThrow(expect.objectContaining({ code: 'ERR_MISSING_ARGS' }));
      expect(() => net.createServer().listen({ port: -1 })).toThrow(expect.objectContaining({ code: 'ERR_SOCKET_BAD_PORT' }));
      expect(() => net.createServer('x' as unknown as object)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }));
      const socket = track(new net.Socket());
      expect(() => socket.setTimeout('1' as unknown as number)).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }),
      );
      expect(() => socket.setTimeout(-1)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
      expect(() => socket.setTimeout(1, 'x' as unknown as () => void)).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }),
      );
      expect(() => socket.write(1 as unknown as string)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }));
    });

    test('a data listener that throws is an uncaught exception, and the connection lives on', async () => {
      const { client, peer } = await connected(net);
      const uncaught = process.listeners('uncaughtException');
      process.removeAllListeners('uncaughtException');
      const caught = once(process, 'uncaughtException');
      try {
        peer.once('data', () => {
          throw new Error('listener');
        });
        client.write('x');
        expect((await caught)[0]).toMatchObject({ message: 'listener' });
      } finally {
        for (const listener of uncaught) {
          process.on('uncaughtException', listener);
        }
      }
      client.write('y');
      expect((await receive(peer, 1)).toString()).toBe('y');
    });
  });

  describe('setTimeout', () => {
    test('timeout is emitted once after silence, and the connection stays', async () => {
      const { client, peer } = await connected(net);
      let count = 0;
      const began = performance.now();
      client.setTimeout(60, () => count++);
      await once(client, 'timeout');
      expect(performance.now() - began).toBeGreaterThan(55);
      expect(client.timeout).toBe(60);
      expect(client.destroyed).toBe(false);
      await sleep(150);
      expect(count).toBe(1);
      client.write('x');
      expect((await receive(peer, 1)).toString()).toBe('x');
    });

    test('activity in either direction puts it off', async () => {
      const { client, peer } = await connected(net);
      let timeouts = 0;
      client.resume();
      client.setTimeout(500);
      client.on('timeout', () => timeouts++);
      for (let i = 0; i < 14; i++) {
        await sleep(60);
        if (i % 2 === 0) {
          peer.write('x');
        } else {
          client.write('y');
        }
      }
      expect(timeouts).toBe(0);
      await once(client, 'timeout');
    });

    test('0 switches it off, a shorter one replaces a longer one, and it comes again after activity', async () => {
      const { client } = await connected(net);
      let timeouts = 0;
      client.on('timeout', () => timeouts++);
      client.setTimeout(30);
      client.setTimeout(0);
      await sleep(80);
      expect(timeouts).toBe(0);
      client.setTimeout(60_000);
      client.setTimeout(30);
      await once(client, 'timeout');
      client.write('x');
      await once(client, 'timeout');
      expect(timeouts).toBe(2);
    });

    test('no timeout after destroy()', async () => {
      const { client } = await connected(net);
      let timeouts = 0;
      client.setTimeout(30, () => timeouts++);
      client.destroy();
      await sleep(80);
      expect(timeouts).toBe(0);
    });

    test('connect({ timeout }) sets it', async () => {
      const port = await listen(net.createServer());
      const client = track(net.connect({ port, host: '127.0.0.1', timeout: 40 }));
      await once(client, 'timeout');
      expect(client.timeout).toBe(40);
    });
  });

  describe('addresses and options', () => {
    test('both ends know both addresses', async () => {
      const { server, client, peer } = await connected(net);
      const where = server.address() as AddressInfo;
      expect(where).toMatchObject({ address: '127.0.0.1', family: 'IPv4' });
      expect([client.remoteAddress, client.remotePort, client.remoteFamily]).toEqual(['127.0.0.1', where.port, 'IPv4']);
      expect([peer.localAddress, peer.localPort, peer.localFamily]).toEqual(['127.0.0.1', where.port, 'IPv4']);
      expect([peer.remotePort, peer.remoteAddress]).toEqual([client.localPort, client.localAddress]);
      expect(client.address()).toEqual({ address: '127.0.0.1', family: 'IPv4', port: client.localPort });
      client.destroy();
      expect(client.localPort).toBe(undefined);
      expect(client.address()).toEqual({});
      expect(client.remotePort).toBe(where.port);
    });

    test('an unconnected socket has none', () => {
      const socket = track(new net.Socket());
      expect([socket.address(), socket.remoteAddress, socket.localPort, socket.pending, socket.connecting]).toEqual([
        {},
        undefined,
        undefined,
        true,
        false,
      ]);
      expect([socket.bytesRead, socket.bytesWritten]).toEqual([0, 0]);
    });

    test('localAddress and localPort are used', async () => {
      const port = await listen(net.createServer());
      // A port that was just free may be taken by another program on the machine; then the next one is asked for.
      for (let attempt = 1; ; attempt++) {
        const free = net.createServer();
        const localPort = await listen(free);
        await new Promise((resolve) => free.close(resolve));
        const client = track(net.connect({ port, host: '127.0.0.1', localAddress: '127.0.0.1', localPort }));
        try {
          await once(client, 'connect');
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code === 'EADDRINUSE' && attempt < 10) continue;
          throw error;
        }
        expect(client.localPort).toBe(localPort);
        expect(client.localAddress).toBe('127.0.0.1');
        break;
      }
    });

    test('localhost works, by whatever family it has', async () => {
      const server = net.createServer((socket) => socket.end('hi'));
      const port = await listen(server, { host: 'localhost' });
      const client = track(net.connect(port, 'localhost'));
      const lookup = once(client, 'lookup');
      expect((await received(client)).toString()).toBe('hi');
      expect((await lookup).at(-1)).toBe('localhost');
    });

    test('a server without a host takes IPv4 clients', async () => {
      const server = net.createServer((socket) => socket.end('hi'));
      trackServer(server).listen(0);
      await once(server, 'listening');
      const client = track(net.connect((server.address() as AddressInfo).port, '127.0.0.1'));
      expect((await received(client)).toString()).toBe('hi');
    });

    test('of several addresses the first that answers is taken', async () => {
      const server = net.createServer((socket) => socket.end('hi'));
      const port = await listen(server);
      const client = track(
        net.connect({
          port,
          host: 'several.test',
          autoSelectFamily: true,
          lookup: (_host, _options, callback) => {
            process.nextTick(() =>
              (callback as (error: null, addresses: { address: string; family: number }[]) => void)(null, [
                { address: '127.0.0.2', family: 4 },
                { address: '::1', family: 6 },
                { address: '127.0.0.1', family: 4 },
              ]),
            );
          },
        }),
      );
      expect((await received(client)).toString()).toBe('hi');
      expect(client.autoSelectFamilyAttemptedAddresses).toEqual([`127.0.0.2:${port}`, `::1:${port}`, `127.0.0.1:${port}`]);
    });

    test('if no address answers, the errors come together', async () => {
      const port = await unusedPort(net);
      const client = track(
        net.connect({
          port,
          host: 'several.test',
          autoSelectFamily: true,
          lookup: (_host, _options, callback) => {
            process.nextTick(() =>
              (callback as (error: null, addresses: { address: string; family: number }[]) => void)(null, [
                { address: '127.0.0.1', family: 4 },
                { address: '127.0.0.2', family: 4 },
              ]),
            );
          },
        }),
      );
      const [error] = (await once(client, 'error')) as [AggregateError & { code: string }];
      expect(error.code).toBe('ECONNREFUSED');
      expect(error.errors.map((each: NodeJS.ErrnoException) => each.message)).toEqual([
        `connect ECONNREFUSED 127.0.0.1:${port}`,
        `connect ECONNREFUSED 127.0.0.2:${port}`,
      ]);
    });

    test('setNoDelay, setKeepAlive, ref, unref, setTimeout return the socket, before and after the connection', async () => {
      const port = await listen(net.createServer());
      const client = track(new net.Socket());
      const chain = () =>
        client.setNoDelay().setNoDelay(false).setKeepAlive(true, 5_000).setKeepAlive(false).unref().ref().setTimeout(0);
      expect(chain()).toBe(client);
      client.connect(port, '127.0.0.1');
      await once(client, 'connect');
      expect(chain()).toBe(client);
    });
  });

  describe('server', () => {
    test('listening, address(), close(): null again, and the callback', async () => {
      const server = trackServer(net.createServer());
      expect([server.listening, server.address()]).toEqual([false, null]);
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
      expect(server.listening).toBe(true);
      expect((server.address() as AddressInfo).port).toBeGreaterThan(0);
      const order = recordEvents(server, 'close');
      expect(await new Promise((resolve) => server.close(resolve))).toBe(undefined);
      expect([server.listening, server.address(), order]).toEqual([false, null, ['close']]);
    });

    test('close() waits for the connections', async () => {
      const { server, client, peer } = await connected(net);
      let called = false;
      server.close(() => {
        called = true;
      });
      await sleep(30);
      expect([called, server.listening]).toEqual([false, false]);
      peer.resume();
      client.resume().end();
      await once(server, 'close');
      expect(called).toBe(true);
    });

    test('close() of a server that does not listen: ERR_SERVER_NOT_RUNNING', async () => {
      const error = await new Promise((resolve) => net.createServer().close(resolve));
      expect(error).toMatchObject({ code: 'ERR_SERVER_NOT_RUNNING' });
    });

    test('after close() the port can be listened on again', async () => {
      const { server, client, peer } = await connected(net);
      const { port } = server.address() as AddressInfo;
      client.destroy();
      peer.destroy();
      await new Promise((resolve) => server.close(resolve));
      expect(await listen(net.createServer(), { port })).toBe(port);
    });

    test('a port in use: EADDRINUSE, with the words', async () => {
      const port = await listen(net.createServer());
      const second = trackServer(net.createServer());
      second.listen(port, '127.0.0.1');
      const [error] = (await once(second, 'error')) as [NodeJS.ErrnoException];
      expect(error).toMatchObject({ code: 'EADDRINUSE', syscall: 'listen', address: '127.0.0.1', port });
      expect(error.message).toBe(`listen EADDRINUSE: address already in use 127.0.0.1:${port}`);
      expect(second.listening).toBe(false);
    });

    test('listen() twice: ERR_SERVER_ALREADY_LISTEN', async () => {
      const server = net.createServer();
      await listen(server);
      expect(() => server.listen(0)).toThrow(expect.objectContaining({ code: 'ERR_SERVER_ALREADY_LISTEN' }));
    });

    test('getConnections counts; maxConnections drops the others', async () => {
      const { server, peer } = await connected(net);
      const count = () => new Promise((resolve) => server.getConnections((_error, value) => resolve(value)));
      expect(await count()).toBe(1);
      server.maxConnections = 1;
      const dropped = once(server, 'drop');
      const second = track(net.connect((server.address() as AddressInfo).port, '127.0.0.1'));
      second.on('error', () => undefined);
      await once(second, 'connect');
      const { localPort } = second;
      expect((await dropped)[0]).toMatchObject({ localAddress: '127.0.0.1', remotePort: localPort, remoteFamily: 'IPv4' });
      await once(second.resume(), 'close');
      expect(await count()).toBe(1);
      peer.destroy();
      expect(await count()).toBe(0);
    });

    test('pauseOnConnect: nothing is read before resume()', async () => {
      const { client, peer } = await connected(net, { pauseOnConnect: true });
      client.write('x');
      await sleep(40);
      expect([peer.bytesRead, peer.isPaused()]).toEqual([0, true]);
      expect((await receive(peer, 1)).toString()).toBe('x');
    });

    test('allowHalfOpen of the server reaches its sockets, socket.server is the server', async () => {
      const { server, peer } = await connected(net, { allowHalfOpen: true, noDelay: true, keepAlive: true });
      expect(peer.allowHalfOpen).toBe(true);
      expect((peer as Socket & { server: unknown }).server).toBe(server);
    });

    test('an AbortSignal closes the server', async () => {
      const controller = new AbortController();
      const server = net.createServer();
      await listen(server, { signal: controller.signal });
      controller.abort();
      await once(server, 'close');
      expect(server.listening).toBe(false);
    });

    test('Symbol.asyncDispose closes it', async () => {
      const server = net.createServer();
      await listen(server);
      await server[Symbol.asyncDispose]();
      expect(server.listening).toBe(false);
      await server[Symbol.asyncDispose]();
    });

    test('a server reset in the backlog or closed at once takes the next connection', async () => {
      const server = net.createServer((socket) => socket.on('error', () => undefined).end('ok'));
      const port = await listen(server);
      for (let i = 0; i < 20; i++) {
        const client = track(net.connect(port, '127.0.0.1'));
        client.on('error', () => undefined);
        client.once('connect', () => client.resetAndDestroy());
        await once(client, 'close');
      }
      const client = track(net.connect(port, '127.0.0.1'));
      expect((await received(client)).toString()).toBe('ok');
    });
  });
});
