// deno_echo: an echo server on Deno's own sockets, one buffer a connection.
//
// deno run -A bench/peers/deno_echo.mjs
// Prints `listening on HOST:PORT`; ends on SIGTERM.

/* global Deno */
const listener = Deno.listen({ hostname: '127.0.0.1', port: 0 });
console.log(`listening on 127.0.0.1:${listener.addr.port}`);

async function serve(connection) {
  const buffer = new Uint8Array(65_536);
  try {
    for (;;) {
      const bytes = await connection.read(buffer);
      if (bytes === null) break;
      for (let sent = 0; sent < bytes; ) sent += await connection.write(buffer.subarray(sent, bytes));
    }
    connection.close();
  } catch {
    // the peer has gone: this connection ends, and nothing else
    try {
      connection.close();
    } catch {
      // closed already
    }
  }
}

for await (const connection of listener) void serve(connection);
