// bun_echo: an echo server on Bun's own sockets. A full socket takes a part of a chunk; the rest waits for `drain`.
//
// bun bench/peers/bun_echo.mjs
// Prints `listening on HOST:PORT`; ends on SIGTERM.

/* global Bun */
const server = Bun.listen({
  hostname: '127.0.0.1',
  port: 0,
  socket: {
    open(socket) {
      socket.data = [];
    },
    data(socket, chunk) {
      if (socket.data.length > 0) {
        socket.data.push(Buffer.from(chunk)); // the chunk's memory is Bun's after this call
        return;
      }
      const sent = Math.max(0, socket.write(chunk));
      if (sent < chunk.length) socket.data.push(Buffer.from(chunk.subarray(sent)));
    },
    drain(socket) {
      while (socket.data.length > 0) {
        const [first] = socket.data;
        const sent = Math.max(0, socket.write(first));
        if (sent < first.length) {
          socket.data[0] = first.subarray(sent);
          return;
        }
        socket.data.shift();
      }
    },
    error() {},
  },
});
console.log(`listening on 127.0.0.1:${server.port}`);
