// net_echo: an echo server on node:net, or on what has its shape, written as someone would who knows node:net and wants it fast:
// each chunk goes straight back, no pipe, no encoding; a full socket pauses the reading.
//
// node bench/peers/net_echo.mjs [node:net|completion-port/net]
// Prints `listening on HOST:PORT`; ends with exit 0 on SIGTERM and SIGINT.

const { createServer } = await import(process.argv[2] ?? 'node:net');

function onData(chunk) {
  if (!this.write(chunk)) {
    this.pause();
    this.once('drain', this.resume);
  }
}

const server = createServer((socket) => {
  socket.on('data', onData);
  socket.on('error', () => socket.destroy()); // a reset by the peer ends this connection and nothing else
});
server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
  const { address, port } = server.address();
  console.log(`listening on ${address}:${port}`);
});

const end = () => process.exit(0);
process.on('SIGTERM', end);
process.on('SIGINT', end);
