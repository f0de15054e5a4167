// echo: a TCP echo server on the packet API, and the reference for speed: what it costs is what the package costs.
//
// Each connection has one buffer and one Operation, and at most one request in flight: a receive, then a send of what came,
// then the next receive. Nothing is allocated on that path but the packets.

import { Operation } from 'completion-port';
import { createPort, listen, onEnd, printAddress, readOptions } from './lib/options.mjs';

const HELP = `node examples/echo.mjs [OPTIONS]
Sends back what each TCP connection sends. First line of output: \`listening on HOST:PORT\`.

  node examples/echo.mjs --port 7000 &  printf hello | nc -q1 127.0.0.1 7000

  --wait loop|block          packets come to a dispatch handler (loop), or a getManySync loop takes them (block)
  --buffers arena|heap       where the connections' buffers lie: the port's arena, or ordinary Uint8Arrays
  --buffer BYTES             size of a connection's buffer (1792)
  --arena BYTES              size of the arena (67108864); connections beyond it get ordinary buffers`;

// An arena block below 4 KiB isn't aligned to pages. At one place of a page each, the buffers of a thousand connections
// would contend for the same few lines of the processor's cache; blocks of 1,792 bytes begin at sixteen places.
const options = readOptions(
  {
    wait: { type: 'string', default: 'loop', choices: ['loop', 'block'] },
    buffers: { type: 'string', default: 'arena', choices: ['arena', 'heap'] },
    buffer: { type: 'string', default: '1792', range: [1, 2 ** 24] },
    arena: { type: 'string', default: String(64 * 2 ** 20), range: [0, 2 ** 31] },
  },
  HELP,
);

/** Keys tell packets apart without a look at the operation. */
const LISTENER = 0;
const CONNECTION = 1;

const BACKLOG = 4096;
/** At the end: a connection that is silent for this long is done, and after the second time nothing is waited for any more (ms). */
const SILENCE_MS = 50;
const DRAIN_MS = 1000;
/** How often the blocking loop lets the event loop have a turn, for signals and timers (ms), and how often it looks at the clock. */
const TURN_MS = 50;
const BATCHES_A_LOOK = 16;
const BATCH = 512;

const port = createPort(options, { arenaBytes: options.buffers === 'arena' ? options.arena : 0 });
const connections = new Set();
let draining = false;

class Connection {
  constructor(socket) {
    this.socket = socket;
    this.buffer = newBuffer();
    this.operation = new Operation(this);
    this.operation.length = this.buffer.length;
  }
}

function newBuffer() {
  if (options.buffers === 'arena') {
    try {
      return port.allocate(options.buffer);
    } catch (error) {
      if (error.code !== 'ENOBUFS') throw error;
      // The arena is full: an ordinary buffer works as well, its bytes are copied once more.
    }
  }
  return new Uint8Array(options.buffer);
}

function onPacket(packet) {
  if (packet.key === LISTENER) {
    onAccept(packet);
    return;
  }
  const operation = packet.operation;
  const connection = operation.context;
  const bytes = packet.bytesTransferred;
  if (packet.error !== null || draining) {
    onRarePacket(packet, connection, operation);
  } else if (packet.kind === 'send') {
    operation.length = connection.buffer.length;
    connection.socket.recv(connection.buffer, operation);
  } else if (bytes > 0) {
    operation.length = bytes; // a send completes with all its bytes, or with an error
    connection.socket.send(connection.buffer, operation);
  } else {
    end(connection); // the peer has finished
  }
}

function onAccept(packet) {
  if (packet.error === null) {
    const connection = new Connection(packet.result);
    connections.add(connection);
    port.associate(connection.socket, CONNECTION);
    connection.socket.recv(connection.buffer, connection.operation);
  } else if (draining) {
    return;
  } else {
    // Out of descriptors, say: the connections that there are go on, and the next accept waits by itself before it fails again.
    console.error(`accept: ${packet.error.code}`);
  }
  if (!draining) listener.accept(packet.operation);
}

/** Errors, and everything while the server ends: what has been received is sent back before the connection is closed. */
function onRarePacket(packet, connection, operation) {
  if (packet.error === null && packet.kind === 'recv' && packet.bytesTransferred > 0) {
    operation.length = packet.bytesTransferred;
    operation.timeout = undefined;
    connection.socket.send(connection.buffer, operation);
  } else if (packet.error === null && packet.kind === 'send') {
    operation.length = connection.buffer.length;
    operation.timeout = SILENCE_MS;
    connection.socket.recv(connection.buffer, operation);
  } else {
    end(connection);
  }
}

function end(connection) {
  connection.socket.close();
  if (connection.buffer.buffer === port.arena) port.release(connection.buffer);
  connections.delete(connection);
  if (draining && connections.size === 0) finish();
}

let overdue;

function drain() {
  draining = true;
  listener.close();
  // A receive that waits has nothing to take; one that has taken something says so in its packet all the same.
  for (const { operation } of connections) {
    if (operation.kind === 'recv') operation.cancel();
  }
  overdue = setTimeout(finish, DRAIN_MS);
  if (connections.size === 0) finish();
}

function finish() {
  clearTimeout(overdue);
  for (const { socket } of connections) socket.close();
  port.close();
}

/** The form without an event loop in between: the thread sleeps in the port itself. */
async function waitBlocking() {
  let turnAt = performance.now() + TURN_MS;
  let batches = 0;
  while (!port.isClosed) {
    const packets = port.getManySync(BATCH, TURN_MS);
    for (let index = 0; index < packets.length && !port.isClosed; index++) onPacket(packets[index]);
    if (++batches % BATCHES_A_LOOK !== 0 && packets.length > 0) continue;
    if (packets.length > 0 && performance.now() < turnAt) continue;
    // Signals and timers are the event loop's: it gets a turn.
    await new Promise(setImmediate);
    turnAt = performance.now() + TURN_MS;
  }
}

const listener = listen(options, BACKLOG);
port.associate(listener, LISTENER);
listener.accept(new Operation());
onEnd(drain);
printAddress(listener.address);
if (options.wait === 'block') await waitBlocking();
else port.dispatch(onPacket);
