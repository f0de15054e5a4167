/**
 * node:http and node:tls, unchanged, over both implementations: a server that is handed its connections, clients that are handed
 * their sockets. What passes here passes over node:net too, so nothing is asked that only one of them does.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import tls from 'node:tls';
import { describe, expect, test } from 'vitest';
import {
  checksum,
  closed,
  connected,
  implementations,
  listen,
  type Net,
  pattern,
  receive,
  received,
  sleep,
  track,
  trackServer,
} from './net-support.js';

const key = readFileSync(new URL('./fixtures/tls-key.pem', import.meta.url));
const cert = readFileSync(new URL('./fixtures/tls-cert.pem', import.meta.url));

/** An http server whose connections come from `net`; the port it can be reached at. */
async function serve(
  net: Net,
  handler: http.RequestListener,
  options: http.ServerOptions = {},
): Promise<{ web: http.Server; port: number }> {
  const web = http.createServer(options, handler);
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => web.emit('connection', socket));
  return { web, port: await listen(server) };
}

/** An agent whose sockets come from `net`. */
function agentOver(net: Net, options: http.AgentOptions = {}): http.Agent & { opened: number } {
  const agent = Object.assign(new http.Agent(options), { opened: 0 });
  (agent as unknown as { createConnection: (options: { port: number; host: string }) => Socket }).createConnection = (where) => {
    agent.opened++;
    return track(net.connect(where));
  };
  return agent;
}

async function fetchText(
  options: http.RequestOptions,
  body?: Buffer,
): Promise<{ status: number | undefined; text: Buffer; headers: http.IncomingHttpHeaders }> {
  const request = http.request({ host: '127.0.0.1', ...options });
  request.end(body);
  const [response] = (await once(request, 'response')) as [http.IncomingMessage];
  const chunks: Buffer[] = [];
  for await (const chunk of response) {
    chunks.push(chunk as Buffer);
  }
  return { status: response.statusCode, text: Buffer.concat(chunks), headers: response.headers };
}

describe.each(implementations)('%s', (_name, net) => {
  describe('http', () => {
    test('a request and its response', async () => {
      const { port } = await serve(net, (request, response) => {
        response.setHeader('x-method', `${request.method} ${request.url}`);
        response.end('hello');
      });
      const answer = await fetchText({ port, path: '/a?b', agent: agentOver(net) });
      expect([answer.status, answer.text.toString(), answer.headers['x-method']]).toEqual([200, 'hello', 'GET /a?b']);
    });

    test('createConnection without an agent', async () => {
      const { port } = await serve(net, (_request, response) => response.end('hello'));
      const answer = await fetchText({ port, createConnection: () => track(net.connect(port, '127.0.0.1')) });
      expect(answer.text.toString()).toBe('hello');
    });

    test('keep-alive: one connection for many requests, on both sides', async () => {
      const peers = new Set<unknown>();
      const { port } = await serve(net, (request, response) => {
        peers.add(request.socket);
        response.end(`answer to ${request.url}`);
      });
      const agent = agentOver(net, { keepAlive: true, maxSockets: 1 });
      for (let i = 0; i < 50; i++) {
        const answer = await fetchText({ port, path: `/${i}`, agent });
        expect(answer.text.toString()).toBe(`answer to /${i}`);
      }
      expect([agent.opened, peers.size]).toEqual([1, 1]);
      agent.destroy();
    });

    test('an idle keep-alive connection is closed by the server’s keepAliveTimeout', async () => {
      const { web, port } = await serve(net, (_request, response) => response.end('x'));
      web.keepAliveTimeout = 60;
      const client = track(net.connect(port, '127.0.0.1'));
      client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      const began = performance.now();
      expect((await received(client)).toString()).toMatch(/^HTTP\/1\.1 200 OK/);
      expect(performance.now() - began).toBeGreaterThan(55);
    });

    test('pipelined requests are answered in order', async () => {
      const { port } = await serve(net, (request, response) => {
        setTimeout(() => response.end(`<${request.url}>`), request.url === '/1' ? 30 : 0);
      });
      const client = track(net.connect(port, '127.0.0.1'));
      client.write(
        'GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n',
      );
      const bodies = (await received(client)).toString().match(/<\/\d>/g);
      expect(bodies).toEqual(['</1>', '</2>', '</3>']);
    });

    test('a body of 8 MiB up and back, chunked', async () => {
      const { port } = await serve(net, (request, response) => request.pipe(response));
      const data = pattern(8 * 2 ** 20);
      const request = http.request({
        host: '127.0.0.1',
        port,
        method: 'POST',
        agent: agentOver(net),
        headers: { 'transfer-encoding': 'chunked' },
      });
      const responded = once(request, 'response') as Promise<[http.IncomingMessage]>;
      for (let at = 0; at < data.length; at += 2 ** 20) {
        request.write(data.subarray(at, at + 2 ** 20));
      }
      request.end();
      const [response] = await responded;
      expect(response.headers['transfer-encoding']).toBe('chunked');
      const chunks: Buffer[] = [];
      for await (const chunk of response) {
        chunks.push(chunk as Buffer);
      }
      expect(checksum(Buffer.concat(chunks))).toBe(checksum(data));
    });

    test('Expect: 100-continue', async () => {
      const { port } = await serve(net, (request, response) => request.pipe(response));
      const request = http.request({
        host: '127.0.0.1',
        port,
        method: 'PUT',
        agent: agentOver(net),
        headers: { expect: '100-continue', 'content-length': 3 },
      });
      request.flushHeaders();
      const responded = once(request, 'response') as Promise<[http.IncomingMessage]>;
      await once(request, 'continue');
      request.end('abc');
      const [response] = await responded;
      expect(String((await response.toArray())[0])).toBe('abc');
    });

    test('upgrade: the socket is the program’s, with the bytes that came behind the head', async () => {
      const { web, port } = await serve(net, (_request, response) => response.end());
      web.on('upgrade', (_request: http.IncomingMessage, socket: Duplex, head: Buffer) => {
        socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
        socket.write(head);
        socket.pipe(socket);
      });
      const request = http.request({
        host: '127.0.0.1',
        port,
        agent: agentOver(net),
        headers: { connection: 'Upgrade', upgrade: 'echo' },
      });
      request.end();
      const [response, socket, head] = (await once(request, 'upgrade')) as [http.IncomingMessage, Socket, Buffer];
      expect([response.statusCode, response.headers.upgrade]).toEqual([101, 'echo']);
      expect(head.length).toBe(0);
      socket.write('over the socket');
      expect((await receive(socket, 15)).toString()).toBe('over the socket');
      socket.end();
      socket.resume();
      await closed(socket);
    });

    test('upgrade with data right behind the request', async () => {
      const { web, port } = await serve(net, (_request, response) => response.end());
      web.on('upgrade', (_request: http.IncomingMessage, socket: Duplex, head: Buffer) => {
        socket.end(
          `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n${head.toString().toUpperCase()}`,
        );
      });
      const client = track(net.connect(port, '127.0.0.1'));
      client.write('GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nearly bytes');
      expect((await received(client)).toString()).toMatch(/\r\n\r\nEARLY BYTES$/);
    });

    test('CONNECT: a tunnel through a proxy', async () => {
      const { port: target } = await serve(net, (_request, response) => response.end('through the tunnel'));
      const { web, port } = await serve(net, (_request, response) => response.end());
      web.on('connect', (request: http.IncomingMessage, socket: Duplex) => {
        const onward = track(net.connect(Number(request.url?.split(':')[1]), '127.0.0.1'));
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        socket.pipe(onward).pipe(socket);
      });
      const request = http.request({
        host: '127.0.0.1',
        port,
        method: 'CONNECT',
        path: `127.0.0.1:${target}`,
        agent: agentOver(net),
      });
      request.end();
      const [, socket] = (await once(request, 'connect')) as [http.IncomingMessage, Socket];
      const answer = await fetchText({ port: target, createConnection: () => socket });
      expect(answer.text.toString()).toBe('through the tunnel');
    });

    test('a slow request is ended by the server’s timeout, a slow response by the client’s', async () => {
      const { web, port } = await serve(net, () => undefined);
      web.setTimeout(60);
      const client = track(net.connect(port, '127.0.0.1'));
      client.on('error', () => undefined);
      client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n');
      client.resume();
      await closed(client);

      const silent = await serve(net, () => undefined);
      const request = http.request({ host: '127.0.0.1', port: silent.port, agent: agentOver(net), timeout: 60 });
      const failed = once(request, 'close').catch((error: Error) => error);
      request.end();
      await once(request, 'timeout');
      request.destroy();
      expect(await failed).toMatchObject({ code: 'ECONNRESET' });
    });

    test('requestTimeout: a head that doesn’t come is answered with 408', async () => {
      const { web, port } = await serve(net, (_request, response) => response.end(), {
        requestTimeout: 80,
        headersTimeout: 60,
        connectionsCheckingInterval: 20,
      });
      // The checks of a server that doesn't listen itself are switched on by its listen(): that is its own socket, beside ours.
      trackServer(web).listen(0, '127.0.0.1');
      await once(web, 'listening');
      const client = track(net.connect(port, '127.0.0.1'));
      client.write('GET / HTTP/1.1\r\nHost');
      expect((await received(client)).toString()).toMatch(/^HTTP\/1\.1 408 /);
    });

    test('nonsense is answered with 400', async () => {
      const { port } = await serve(net, (_request, response) => response.end());
      const client = track(net.connect(port, '127.0.0.1'));
      client.write('nonsense\r\n\r\n');
      expect((await received(client)).toString()).toMatch(/^HTTP\/1\.1 400 /);
    });

    test('a client that goes away in the middle: aborted on the server, the next request is served', async () => {
      const seen: string[] = [];
      const { port } = await serve(net, (request, response) => {
        if (request.url === '/long') {
          request.on('close', () => seen.push('closed'));
          response.write('begin');
        } else {
          response.end('fine');
        }
      });
      const request = http.request({ host: '127.0.0.1', port, path: '/long', agent: agentOver(net) });
      request.on('error', () => undefined);
      request.end();
      await once(request, 'response');
      request.destroy();
      const answer = await fetchText({ port, path: '/', agent: agentOver(net) });
      expect(answer.text.toString()).toBe('fine');
      await sleep(30);
      expect(seen).toEqual(['closed']);
    });

    test('a response to a reader that is slow waits for drain', async () => {
      let finished = false;
      const { port } = await serve(net, (_request, response) => {
        response.on('finish', () => {
          finished = true;
        });
        response.end(Buffer.alloc(32 * 2 ** 20));
      });
      const request = http.request({ host: '127.0.0.1', port, agent: agentOver(net) });
      request.end();
      const [response] = (await once(request, 'response')) as [http.IncomingMessage];
      await sleep(150);
      expect(finished).toBe(false);
      let bytes = 0;
      for await (const chunk of response) {
        bytes += (chunk as Buffer).length;
      }
      expect(bytes).toBe(32 * 2 ** 20);
    });

    test('200 requests at once over 20 connections', async () => {
      const { port } = await serve(net, (request, response) => response.end(request.url));
      const agent = agentOver(net, { keepAlive: true, maxSockets: 20 });
      const answers = await Promise.all(Array.from({ length: 200 }, (_, i) => fetchText({ port, path: `/${i}`, agent })));
      expect(answers.map((answer) => answer.text.toString())).toEqual(answers.map((_, i) => `/${i}`));
      expect(agent.opened).toBe(20);
      agent.destroy();
    });
  });

  describe('tls', () => {
    /** A TLS server over `net`: each connection is wrapped by a TLSSocket. */
    async function serveTls(handler: (secure: tls.TLSSocket) => void): Promise<number> {
      return listen(
        // Half-open, as for http: TLS over a stream of JavaScript sees the end of the bytes before it has read them all, and a
        // socket that ended itself at that moment would cut the answer off.
        net.createServer({ allowHalfOpen: true }, (socket) => {
          const secure = new tls.TLSSocket(socket, { isServer: true, key, cert });
          secure.on('error', () => secure.destroy());
          handler(secure);
        }),
      );
    }

    async function connectTls(port: number, options: tls.ConnectionOptions = {}): Promise<tls.TLSSocket> {
      const socket = track(net.connect(port, '127.0.0.1'));
      const secure = tls.connect({ socket, ca: cert, servername: 'localhost', ...options });
      await once(secure, 'secureConnect');
      return secure;
    }

    test('a round trip, server and client over it', async () => {
      const port = await serveTls((secure) => secure.pipe(secure));
      const client = await connectTls(port);
      expect([client.authorized, client.getProtocol()]).toEqual([true, 'TLSv1.3']);
      client.write('secret');
      expect((await receive(client, 6)).toString()).toBe('secret');
      client.end();
      client.resume();
      await once(client, 'close');
    });

    test('TLS 1.2, and a socket that is connected already', async () => {
      const port = await serveTls((secure) => secure.end('hello'));
      const socket = track(net.connect(port, '127.0.0.1'));
      await once(socket, 'connect');
      const client = tls.connect({ socket, ca: cert, servername: 'localhost', maxVersion: 'TLSv1.2' });
      expect((await received(client)).toString()).toBe('hello');
      expect(client.getProtocol()).toBe('TLSv1.2');
    });

    test('4 MiB each way arrive intact', async () => {
      const port = await serveTls((secure) => secure.pipe(secure));
      const client = await connectTls(port);
      const data = pattern(4 * 2 ** 20);
      const back = received(client);
      client.end(data);
      expect(checksum(await back)).toBe(checksum(data));
    });

    test('an untrusted certificate: the client’s error, both ends closed', async () => {
      const ended: Socket[] = [];
      const port = await listen(
        net.createServer((socket) => {
          ended.push(socket);
          const secure = new tls.TLSSocket(socket, { isServer: true, key, cert });
          secure.on('error', () => secure.destroy());
        }),
      );
      const client = tls.connect({ socket: track(net.connect(port, '127.0.0.1')), servername: 'localhost' });
      expect((await once(client, 'error'))[0]).toMatchObject({ code: 'DEPTH_ZERO_SELF_SIGNED_CERT' });
      expect(client.destroyed).toBe(true);
      await closed(ended[0]!);
    });

    test('destroy() of the secure socket ends the connection', async () => {
      const accepted: tls.TLSSocket[] = [];
      const port = await serveTls((socket) => {
        accepted.push(socket);
        socket.on('end', () => socket.end());
      });
      const client = await connectTls(port);
      const secure = accepted[0]!;
      secure.resume();
      client.destroy();
      await once(secure, 'close');
      expect(secure.destroyed).toBe(true);
    });

    test('https: node:http over a TLSSocket over it', async () => {
      const web = http.createServer((request, response) => response.end(`secure ${request.url}`));
      const port = await serveTls((secure) => web.emit('connection', secure));
      const agent = new http.Agent({ keepAlive: true });
      (agent as unknown as { createConnection: () => Duplex }).createConnection = () =>
        tls.connect({ socket: track(net.connect(port, '127.0.0.1')), ca: cert, servername: 'localhost' });
      for (let i = 0; i < 5; i++) {
        expect((await fetchText({ port, path: `/${i}`, agent })).text.toString()).toBe(`secure /${i}`);
      }
      agent.destroy();
    });

    test('a plain connection that becomes a secure one (STARTTLS)', async () => {
      const { client, peer } = await connected(net);
      client.write('STARTTLS');
      await receive(peer, 8);
      const secure = new tls.TLSSocket(peer, { isServer: true, key, cert });
      secure.end('now secret');
      const over = tls.connect({ socket: client, ca: cert, servername: 'localhost' });
      expect((await received(over)).toString()).toBe('now secret');
    });
  });
});
