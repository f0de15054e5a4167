// Node's own http, a short answer to each request, over completion-port/net or over node:net.
//
// node bench/subjects/http_hello.mjs node:net|completion-port/net
// Prints `listening on HOST:PORT`; ends with exit 0 on SIGTERM and SIGINT.

import { createServer } from 'node:http';

const body = 'hello, world\n';

const web = createServer((_request, response) => {
  response.sendDate = false; // so that each answer is the same to the byte, and the client can compare
  response.setHeader('Content-Type', 'text/plain');
  response.setHeader('Content-Length', body.length);
  response.end(body);
});

web.keepAliveTimeout = 0; // a connection is silent while other subjects have their turn, for longer than the 5 s that Node allows

let server = web;
if (process.argv[2] !== 'node:net') {
  const net = await import(process.argv[2]);
  server = net.createServer({ allowHalfOpen: true }, (socket) => web.emit('connection', socket));
}
server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
  const { address, port } = server.address();
  console.log(`listening on ${address}:${port}`);
});

const end = () => process.exit(0);
process.on('SIGTERM', end);
process.on('SIGINT', end);
