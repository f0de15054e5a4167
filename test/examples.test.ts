// The examples do what docs/examples.md says: echo sends back every byte in each of its forms, serve is an HTTP file server
// that gives nothing away and survives clients that mean harm, and both end as servers should.

import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { Agent, type IncomingMessage, type RequestOptions, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { connected, endAll, exchange, type Program, received, run, start } from './examples-support.js';

describe('every example', () => {
  afterEach(endAll);

  test.each(['echo.mjs', 'serve.mjs', 'rpc.mjs'])(
    '%s explains itself and answers wrong options with one line and exit code 2',
    async (name) => {
      const help = await run(name, '--help');
      expect(help.code).toBe(0);
      for (const option of ['--backend', '--host', '--port', '--event-loop']) expect(help.output).toContain(option);

      for (const args of [
        ['--prot', '1'],
        ['--port', 'x'],
        ['--port', '65536'],
        ['--event-loop', 'sideways'],
        ['a', 'b'],
        ['--port'],
      ]) {
        const wrong = await run(name, ...args);
        expect(wrong.code, args.join(' ')).toBe(2);
        expect(wrong.errors.trim().split('\n'), args.join(' ')).toHaveLength(1);
        expect(wrong.output).toBe('');
      }
      expect((await run(name, '--prot', '1')).errors).toContain('--port');
      const backend = await run(name, '--backend', 'iocp');
      expect(backend.code).toBe(2);
      expect(backend.errors).toContain('iocp');
    },
  );

  test.each(['echo.mjs', 'serve.mjs', 'rpc.mjs'])('%s says where it listens, and why it cannot', async (name) => {
    const program = await start(name);
    expect(program.firstLine).toBe(`listening on 127.0.0.1:${program.port}`);
    const second = await run(name, '--port', String(program.port));
    expect(second.code).toBe(1);
    expect(second.errors).toContain('EADDRINUSE');
    expect(await program.end('SIGINT')).toMatchObject({ code: 0, signal: null });
  });
});

describe('echo', () => {
  afterEach(endAll);

  test.each([
    { args: [] },
    { args: ['--event-loop', 'inverted'] },
    { args: ['--wait', 'block'] },
    { args: ['--wait', 'block', '--event-loop', 'inverted'] },
    { args: ['--buffers', 'heap'] },
    { args: ['--buffer', '1'] },
    { args: ['--buffer', '65536', '--arena', '65536'] }, // room for one connection only: the others get ordinary buffers
  ])('$args sends back every byte to many clients at once, and ends with exit code 0', async ({ args }) => {
    const program = await start('echo.mjs', ...args);
    const bytes = args.includes('1') ? 2000 : 300_000;
    await Promise.all(
      Array.from({ length: 20 }, async () => {
        const socket = await connected(program.port);
        const sent = randomBytes(bytes);
        const answer = received(socket);
        socket.end(sent);
        expect((await answer).equals(sent)).toBe(true);
      }),
    );
    expect(await program.end()).toMatchObject({ code: 0, signal: null });
    expect(program.errors()).toBe('');
  });

  test.each([{ args: [] }, { args: ['--wait', 'block'] }])(
    '$args: at SIGTERM what was received is sent back, idle connections are closed in order, and no new one is taken',
    async ({ args }) => {
      const program = await start('echo.mjs', ...args);
      const idle = await connected(program.port);
      idle.write('x');
      await once(idle, 'data');
      const busy = await connected(program.port);
      const sent = randomBytes(1_000_000);
      busy.write(sent);
      await once(busy, 'readable'); // the echo has begun, and nothing has been read of it
      const ends = Promise.all([received(idle), received(busy)]);
      const { code, ms } = await program.end();
      expect(code).toBe(0);
      expect(ms).toBeLessThan(5000);
      const [nothing, all] = await ends;
      expect(nothing.length).toBe(0);
      expect(all.equals(sent.subarray(0, all.length))).toBe(true);
      expect(all.length).toBe(sent.length);
      await expect(connected(program.port)).rejects.toThrow('ECONNREFUSED');
    },
  );

  test('a client that resets its connection ends nothing but that connection', async () => {
    const program = await start('echo.mjs');
    const broken = await connected(program.port);
    broken.write(randomBytes(100_000));
    await once(broken, 'readable');
    broken.resetAndDestroy();
    expect(await exchange(program.port, 'still here')).toBe('still here');
    expect(await program.end()).toMatchObject({ code: 0 });
  });
});

// ---- serve

interface Answer {
  status: number;
  headers: IncomingMessage['headers'];
  body: Buffer;
}

describe('serve', () => {
  let program: Program;
  let base: string;
  const big = randomBytes(1_000_003);

  beforeAll(async () => {
    base = mkdtempSync(join(tmpdir(), 'completion-port-serve-'));
    const site = join(base, 'site');
    mkdirSync(join(site, 'list', 'inner'), { recursive: true });
    mkdirSync(join(site, 'with-index'));
    mkdirSync(join(site, 'empty'));
    mkdirSync(join(base, 'site-beside'));
    writeFileSync(join(site, 'hello.txt'), 'hello, port\n');
    writeFileSync(join(site, 'empty.txt'), '');
    writeFileSync(join(site, 'big.bin'), big);
    writeFileSync(join(site, 'with-index', 'index.html'), '<p>index</p>');
    writeFileSync(join(site, 'ünïcödé & 100%.txt'), 'names');
    writeFileSync(join(site, 'list', `<img src=x onerror='alert("1")'>&.txt`), 'hostile');
    writeFileSync(join(site, 'list', 'a b?c#d.txt'), 'odd');
    writeFileSync(join(base, 'secret.txt'), 'secret');
    writeFileSync(join(base, 'site-beside', 'secret.txt'), 'secret');
    symlinkSync('../secret.txt', join(site, 'link-out.txt'));
    symlinkSync('..', join(site, 'link-up'));
    symlinkSync('../site-beside', join(site, 'link-beside'));
    symlinkSync('/etc/passwd', join(site, 'link-passwd'));
    symlinkSync('hello.txt', join(site, 'link-in.txt'));
    symlinkSync('loop', join(site, 'loop'));
    utimesSync(join(site, 'hello.txt'), 1_600_000_000, 1_600_000_000.5);
    program = await start('serve.mjs', site);
  });

  afterAll(async () => {
    const { code } = await program.end();
    rmSync(base, { recursive: true, force: true });
    expect(code).toBe(0);
    expect(program.errors()).toBe('');
  });

  async function ask(path: string, options: RequestOptions = {}): Promise<Answer> {
    const asked = request({ port: program.port, host: '127.0.0.1', path, agent: false, ...options });
    asked.end();
    const [response] = (await once(asked, 'response')) as [IncomingMessage];
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    return { status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) };
  }

  test('GET gives a file with its type, length, date and entity tag', async () => {
    const { status, headers, body } = await ask('/hello.txt');
    expect(status).toBe(200);
    expect(body.toString()).toBe('hello, port\n');
    expect(headers).toMatchObject({
      'content-type': 'text/plain; charset=utf-8',
      'content-length': '12',
      'accept-ranges': 'bytes',
      'last-modified': 'Sun, 13 Sep 2020 12:26:40 GMT',
      'x-content-type-options': 'nosniff',
    });
    expect(headers.etag).toMatch(/^"[^"]+"$/);
    expect(Math.abs(Date.parse(headers.date ?? '') - Date.now())).toBeLessThan(10_000);
    expect((await ask('/empty.txt')).body.length).toBe(0);
    expect((await ask(`/${encodeURIComponent('ünïcödé & 100%.txt')}`)).body.toString()).toBe('names');
    expect((await ask('/link-in.txt')).body.toString()).toBe('hello, port\n');
    expect((await ask('/hello.txt?query=1')).status).toBe(200);
  });

  test('a file of many pieces arrives whole, to several clients at once', async () => {
    const hash = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
    const answers = await Promise.all(Array.from({ length: 16 }, () => ask('/big.bin')));
    for (const { body } of answers) expect(hash(body)).toBe(hash(big));
  });

  test('HEAD gives the same fields and no body', async () => {
    const get = await ask('/big.bin');
    const head = await ask('/big.bin', { method: 'HEAD' });
    expect(head.status).toBe(200);
    expect(head.body.length).toBe(0);
    const { date: _, ...fields } = get.headers;
    expect(head.headers).toMatchObject(fields);
    expect((await ask('/none', { method: 'HEAD' })).body.length).toBe(0);
    expect((await ask('/list/', { method: 'HEAD' })).headers['content-length']).not.toBe('0');
  });

  test.each([
    ['bytes=0-4', 206, 'hello', 'bytes 0-4/12'],
    ['bytes=7-', 206, 'port\n', 'bytes 7-11/12'],
    ['bytes=-5', 206, 'port\n', 'bytes 7-11/12'],
    ['bytes=-100', 206, 'hello, port\n', 'bytes 0-11/12'],
    ['bytes=11-999', 206, '\n', 'bytes 11-11/12'],
    ['bytes=12-', 416, '', 'bytes */12'],
    ['bytes=-0', 416, '', 'bytes */12'],
    ['bytes=0-1,3-4', 200, 'hello, port\n', undefined],
    ['bytes=5-2', 200, 'hello, port\n', undefined],
    ['lines=1-2', 200, 'hello, port\n', undefined],
    ['bytes=', 200, 'hello, port\n', undefined],
    ['bytes=99999999999999999999-', 416, '', 'bytes */12'],
  ])('Range: %s gives %i', async (range, status, body, contentRange) => {
    const answer = await ask('/hello.txt', { headers: { Range: range } });
    expect(answer.status).toBe(status);
    expect(answer.body.toString()).toBe(body);
    expect(answer.headers['content-range']).toBe(contentRange);
    expect(answer.headers['content-length']).toBe(String(body.length));
  });

  test('a range in the middle of a big file, and none for HEAD or an empty file', async () => {
    const { status, body } = await ask('/big.bin', { headers: { Range: 'bytes=65000-200000' } });
    expect(status).toBe(206);
    expect(body.equals(big.subarray(65_000, 200_001))).toBe(true);
    expect((await ask('/hello.txt', { method: 'HEAD', headers: { Range: 'bytes=0-1' } })).status).toBe(200);
    expect((await ask('/empty.txt', { headers: { Range: 'bytes=0-' } })).status).toBe(416);
  });

  test('conditions: what is unchanged is not sent again, and a range of something else is the whole', async () => {
    const { headers } = await ask('/hello.txt');
    const etag = headers.etag ?? '';
    const date = headers['last-modified'] ?? '';
    const cases: [Record<string, string>, number][] = [
      [{ 'If-None-Match': etag }, 304],
      [{ 'If-None-Match': `W/${etag}` }, 304],
      [{ 'If-None-Match': `"other", ${etag}` }, 304],
      [{ 'If-None-Match': '*' }, 304],
      [{ 'If-None-Match': '"other"' }, 200],
      [{ 'If-Modified-Since': date }, 304],
      [{ 'If-Modified-Since': 'Sun, 13 Sep 2020 12:26:39 GMT' }, 200],
      [{ 'If-Modified-Since': 'yesterday' }, 200],
      [{ 'If-None-Match': '"other"', 'If-Modified-Since': date }, 200], // the tag decides
      [{ 'If-Match': etag }, 200],
      [{ 'If-Match': `W/${etag}` }, 412],
      [{ 'If-Match': '"other"' }, 412],
      [{ 'If-Unmodified-Since': date }, 200],
      [{ 'If-Unmodified-Since': 'Sun, 13 Sep 2020 12:26:39 GMT' }, 412],
      [{ Range: 'bytes=0-1', 'If-Range': etag }, 206],
      [{ Range: 'bytes=0-1', 'If-Range': date }, 206],
      [{ Range: 'bytes=0-1', 'If-Range': '"other"' }, 200],
      [{ Range: 'bytes=0-1', 'If-Range': `W/${etag}` }, 200],
      [{ Range: 'bytes=0-1', 'If-Range': 'Sun, 13 Sep 2020 12:26:41 GMT' }, 200],
    ];
    for (const [asked, status] of cases) {
      const answer = await ask('/hello.txt', { headers: asked });
      expect(answer.status, JSON.stringify(asked)).toBe(status);
      if (status === 304) {
        expect(answer.body.length).toBe(0);
        expect(answer.headers.etag).toBe(etag);
      }
    }
    writeFileSync(join(base, 'site', 'changing.txt'), 'one');
    const first = (await ask('/changing.txt')).headers.etag;
    writeFileSync(join(base, 'site', 'changing.txt'), 'two');
    expect((await ask('/changing.txt')).headers.etag).not.toBe(first);
  });

  test('a folder: its index.html, or a list with escaped names; without its slash a redirect that stays on this host', async () => {
    expect((await ask('/with-index/')).body.toString()).toBe('<p>index</p>');
    const list = (await ask('/list/')).body.toString();
    expect(list).not.toContain('<img');
    expect(list).toContain('&#60;img src=x onerror=');
    expect(list).toContain('href="./inner/"');
    for (const [, href] of list.matchAll(/<li><a href="([^"]*\.txt)"/g)) {
      expect((await ask(`/list/${href?.slice(2)}`)).status, href).toBe(200);
    }
    expect([...list.matchAll(/<li>/g)]).toHaveLength(4);
    expect((await ask('/')).body.toString()).toContain('href="./hello.txt"');
    expect(await ask('/list')).toMatchObject({ status: 301, headers: { location: '/list/' } });
    expect((await ask('//list?a=1')).headers.location).toBe('/list/?a=1');
    expect((await ask('/hello.txt/')).status).toBe(404);
    expect((await ask('/empty/')).status).toBe(200);
  });

  test.each([
    '/../secret.txt',
    '/list/../../secret.txt',
    '/%2e%2e/secret.txt',
    '/..%2fsecret.txt',
    '/list%2f..%2f..%2fsecret.txt',
    '/link-out.txt',
    '/link-up/secret.txt',
    '/link-up/',
    '/link-beside/secret.txt',
    '/link-passwd',
    '/loop',
    '/hello.txt%00',
    '/%00',
    '/\\..\\secret.txt',
    '//etc/passwd',
    'http://elsewhere/../secret.txt',
    '/nothing',
    `/${'x'.repeat(300)}`,
  ])('%s is not found', async (path) => {
    const answer = await exchange(program.port, `GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect(answer).toMatch(/^HTTP\/1\.1 404 /);
    expect(answer).not.toContain('secret\n');
    expect(answer).not.toContain('root:');
  });

  test('keep-alive: one connection answers many requests, also after a 404', async () => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const ports = new Set<number | undefined>();
    for (let count = 0; count < 50; count++) {
      const asked = request({ port: program.port, host: '127.0.0.1', path: count % 5 === 4 ? '/none' : '/hello.txt', agent });
      asked.end();
      const [response] = (await once(asked, 'response')) as [IncomingMessage];
      ports.add(response.socket.localPort);
      response.resume();
      await once(response, 'end');
    }
    agent.destroy();
    expect(ports.size).toBe(1);
  });

  test('pipelined requests are answered in order, however they are cut', async () => {
    const one = (path: string, last = false) => `GET ${path} HTTP/1.1\r\nHost: x\r\n${last ? 'Connection: close\r\n' : ''}\r\n`;
    const paths = Array.from({ length: 30 }, (_, index) =>
      index % 3 === 0 ? '/hello.txt' : index % 3 === 1 ? '/none' : '/empty.txt',
    );
    const bytes = `${paths.map((path) => one(path)).join('')}\r\n${one('/hello.txt', true)}`;
    const statuses = (text: string) => [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status);
    const expected = [...paths, '/hello.txt'].map((path) => (path === '/none' ? '404' : '200'));
    expect(statuses(await exchange(program.port, bytes))).toEqual(expected);

    const socket = await connected(program.port);
    socket.setNoDelay(true);
    const answer = received(socket);
    for (let at = 0; at < bytes.length; at += 97) {
      socket.write(bytes.slice(at, at + 97));
      if (at % 5 === 0) await delay(1);
    }
    expect(statuses((await answer).toString('latin1'))).toEqual(expected);
  });

  test('HTTP/1.0 ends the connection behind the answer, unless it is asked not to', async () => {
    expect(await exchange(program.port, 'GET /hello.txt HTTP/1.0\r\n\r\n')).toMatch(/Connection: close[\s\S]*hello, port\n$/);
    expect(await exchange(program.port, 'GET /hello.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')).toContain(
      'Connection: keep-alive',
    );
  });

  const field = (line: string) => `GET /hello.txt HTTP/1.1\r\nHost: x\r\n${line}\r\n\r\n`;
  test.each([
    ['no request line', 'garbage\r\n\r\n', 400],
    ['bytes of another protocol', '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', 400],
    ['no host', 'GET / HTTP/1.1\r\n\r\n', 400],
    ['two hosts', field('Host: y'), 400],
    ['a bare line feed', 'GET / HTTP/1.1\nHost: x\n\n', 400],
    ['a folded line', field('X: 1\r\n 2'), 400],
    ['a blank before the colon', field('X : 1'), 400],
    ['a field without a colon', field('X'), 400],
    ['a control character', field('X: \x01'), 400],
    ['two lengths', field('Content-Length: 1\r\nContent-Length: 2'), 400],
    ['no length', field('Content-Length: -1'), 400],
    ['a length and chunks', field('Content-Length: 1\r\nTransfer-Encoding: chunked'), 400],
    ['not UTF-8', 'GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n', 400],
    ['a broken escape', 'GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n', 400],
    ['no path', 'GET hello.txt HTTP/1.1\r\nHost: x\r\n\r\n', 400],
    ['an unknown version', 'GET / HTTP/2.0\r\nHost: x\r\n\r\n', 505],
    ['an unknown method', 'BREW / HTTP/1.1\r\nHost: x\r\n\r\n', 501],
    ['a method that is not served', 'DELETE /hello.txt HTTP/1.1\r\nHost: x\r\n\r\n', 405],
    ['a long target', `GET /${'x'.repeat(9000)} HTTP/1.1\r\nHost: x\r\n\r\n`, 414],
    ['a giant field', field(`X: ${'x'.repeat(100_000)}`), 431],
    ['very many fields', field('X: y\r\n'.repeat(10_000)), 431],
    ['a head without an end', `GET / HTTP/1.1\r\n${'X: y\r\n'.repeat(20_000)}`, 431],
  ])('%s is refused with its own status, and the connection ends', async (_, bytes, status) => {
    const answer = await exchange(program.port, bytes);
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `));
    expect(answer).toContain('Connection: close');
    expect(answer.match(/HTTP\/1\.1 \d{3} /g)).toHaveLength(1);
  });

  test('a request with a body is answered, and what follows the body is not taken for a request', async () => {
    const answer = await exchange(
      program.port,
      'GET /hello.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 41\r\n\r\nGET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n',
    );
    expect(answer).toMatch(/^HTTP\/1\.1 200 [\s\S]*hello, port\n$/);
    expect(answer).toContain('Connection: close');
  });

  test('valid requests before garbage are answered first', async () => {
    const answer = await exchange(program.port, `GET /hello.txt HTTP/1.1\r\nHost: x\r\n\r\n${'\0'.repeat(100)}\n`);
    expect([...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)).toEqual(['200', '400']);
  });

  test('a head that comes byte by byte is answered', async () => {
    const socket = await connected(program.port);
    socket.setNoDelay(true);
    const answer = received(socket);
    for (const character of 'GET /hello.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n') {
      socket.write(character);
      await delay(1);
    }
    expect((await answer).toString()).toMatch(/^HTTP\/1\.1 200 [\s\S]*hello, port\n$/);
  });

  test('clients that go away at any moment harm nobody, and leave no operation behind', async () => {
    const figures = async () => JSON.parse((await ask('/-/port.json')).body.toString()).stats as Record<string, number>;
    await Promise.all(
      Array.from({ length: 60 }, async (_, index) => {
        const socket = await connected(program.port);
        socket.write('GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n'.slice(0, index % 3 === 0 ? 20 : undefined));
        if (index % 2 === 0) await delay(index % 7);
        if (index % 4 === 0) socket.resetAndDestroy();
        else socket.destroy();
      }),
    );
    // One accept, and the request that asks for the figures has its own packet delivered: nothing else is left.
    for (let tries = 0; (await figures()).inFlight !== 1 && tries < 100; tries++) await delay(50);
    const { inFlight, arenaUsed } = await figures();
    expect(inFlight).toBe(1);
    expect(arenaUsed).toBeLessThan(1 << 20);
    expect((await ask('/hello.txt')).status).toBe(200);
  });

  test('a file that shrinks while it is sent breaks the connection: nobody takes it for whole', async () => {
    const path = join(base, 'site', 'shrinking.bin');
    writeFileSync(path, Buffer.alloc(64 * 2 ** 20));
    const socket = await connected(program.port);
    // The server resets the connection. libuv shows that as a plain end where the last bytes come together with the reset.
    const gone = new Promise((resolve) => socket.once('close', resolve).once('end', resolve));
    socket.write('GET /shrinking.bin HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(socket, 'readable'); // the answer has begun and fills the socket's buffers
    truncateSync(path, 1000);
    let bytes = 0;
    socket.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
    });
    await gone;
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThan(64 * 2 ** 20);
    socket.destroy();
  });

  test('/-/port shows the figures of the port that serves it', async () => {
    const page = await ask('/-/port');
    expect(page.headers['content-type']).toBe('text/html; charset=utf-8');
    expect(page.body.toString()).toContain('/-/port.json');
    const first = JSON.parse((await ask('/-/port.json')).body.toString());
    expect(first.backend).toBe('io_uring');
    for (const name of ['operationsStarted', 'packets', 'bytesRead', 'bytesWritten', 'inFlight', 'enters', 'bounceBytes']) {
      expect(first.stats[name], name).toBeTypeOf('number');
    }
    await ask('/hello.txt');
    const second = JSON.parse((await ask('/-/port.json')).body.toString());
    expect(second.stats.packets).toBeGreaterThan(first.stats.packets);
  });

  test('SIGTERM: answers under way go out whole, idle connections are closed, exit code 0', async () => {
    const own = await start('serve.mjs', join(base, 'site'), '--event-loop', 'inverted');
    const idle = await connected(own.port);
    const idleEnd = received(idle);
    const slow = await connected(own.port);
    slow.write('GET /big.bin HTTP/1.1\r\nHost: x\r\n\r\n');
    await once(slow, 'readable');
    const ended = own.end();
    await delay(100);
    const body = await received(slow);
    slow.end();
    expect((await idleEnd).length).toBe(0);
    expect(body.subarray(-big.length).equals(big)).toBe(true);
    const { code, ms } = await ended;
    expect(code).toBe(0);
    expect(ms).toBeLessThan(4000);
    await expect(connected(own.port)).rejects.toThrow('ECONNREFUSED');
  });
});
