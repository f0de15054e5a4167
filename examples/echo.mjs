// echo: a TCP echo server on the packet API, and the reference for speed: what it costs is what the package costs.
//
// Each connection has one buffer and one Operation, and at most one request in flight: a receive, then a send of what came,
// then the next receive. Nothing is allocated on that path but the packets.
//
// With --workers the same code serves in worker threads: from one shared port, where each packet goes to whichever thread is free and a
// connection is found by its number (lib/echo-shared.mjs), or from a private port in each.

import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { CompletionPort, Operation } from 'completion-port';
import { arenaFor, layOut, SharedConnections } from './lib/echo-shared.mjs';
import { createPort, listen, onEnd, printAddress, readOptions, usage } from './lib/options.mjs';
import { Pool } from './lib/pool.mjs';

const HELP = `node examples/echo.mjs [OPTIONS]
Sends back what each TCP connection sends. First line of output: \`listening on HOST:PORT\`.

  node examples/echo.mjs --port 7000 &  printf hello | nc -q1 127.0.0.1 7000

  --wait loop|block          packets come to a dispatch handler (loop), or a getManySync loop takes them (block)
  --buffers arena|heap       where the connections' buffers lie: the port's arena, or ordinary Uint8Arrays
  --buffer BYTES             size of a connection's buffer (1792)
  --arena BYTES              size of the arena (67108864); connections beyond it get ordinary buffers
  --workers N                N worker threads serve, from one shared port (its connections beyond the arena wait to be accepted);
                             0, the default: the main thread does
  --port-per-worker          … each from a private port, with a listener of its own at the same address`;

// An arena block below 4 KiB isn't aligned to pages. At one place of a page each, the buffers of a thousand connections
// would contend for the same few lines of the processor's cache; blocks of 1,792 bytes begin at sixteen places.
const options = readOptions(
  {
    wait: { type: 'string', default: 'loop', choices: ['loop', 'block'] },
    buffers: { type: 'string', default: 'arena', choices: ['arena', 'heap'] },
    buffer: { type: 'string', default: '1792', range: [1, 2 ** 24] },
    arena: { type: 'string', default: String(64 * 2 ** 20), range: [0, 2 ** 31] },
    workers: { type: 'string', default: '0', range: [0, 64] },
    'port-per-worker': { type: 'boolean', default: false },
  },
  HELP,
);
const portPerWorker = options['port-per-worker'];
const onSharedPort = options.workers > 0 && !portPerWorker;
if (portPerWorker && options.workers === 0) usage('--port-per-worker says how --workers N serve; give their number, too');
if (onSharedPort && options.buffers === 'heap') usage("--buffers heap can't be on a shared port, whose reads take shared memory");

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

const port = openPort();
/** In a worker at a shared port: this thread's objects for its connections. Elsewhere null, and `connections` has them. */
const shared = onSharedPort && !isMainThread ? new SharedConnections(port, workerData.layout) : null;
const connections = new Set();
let draining = false;

function openPort() {
  if (onSharedPort && !isMainThread) return CompletionPort.attach(workerData.layout.token);
  if (onSharedPort) return createPort(options, { shared: true, arenaBytes: arenaFor(options) });
  return createPort(options, { arenaBytes: options.buffers === 'arena' ? options.arena : 0 });
}

class Connection {
  constructor(socket, buffer) {
    this.socket = socket;
    this.buffer = buffer;
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
  serve(packet, operation.context, operation);
}

function serve(packet, connection, operation) {
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
    const connection = new Connection(packet.result, newBuffer());
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
  if (shared !== null) {
    shared.ended(connection);
    if (draining && shared.live === 0) finish();
    return;
  }
  if (connection.buffer.buffer === port.arena) port.release(connection.buffer);
  connections.delete(connection);
  if (draining && connections.size === 0) finish();
}

let overdue;

function drain() {
  draining = true;
  if (shared === null) {
    listener.close();
    overdue = setTimeout(finish, DRAIN_MS);
  }
  // A receive that waits has nothing to take; one that has taken something says so in its packet all the same. On a shared port each
  // thread cancels its own: that another has taken the packet meanwhile is no harm.
  const open = shared ?? connections;
  for (const { operation } of open) {
    if (operation.kind === 'recv') operation.cancel();
  }
  if ((shared?.live ?? connections.size) === 0) finish();
}

function finish() {
  clearTimeout(overdue);
  for (const { socket } of connections) socket.close();
  port.close();
}

/** The form without an event loop in between: the thread sleeps in the port itself. */
async function waitBlocking(onPackets) {
  let turnAt = performance.now() + TURN_MS;
  let batches = 0;
  while (!port.isClosed) {
    const packets = port.getManySync(BATCH, TURN_MS);
    onPackets(packets);
    if (++batches % BATCHES_A_LOOK !== 0 && packets.length > 0) continue;
    if (packets.length > 0 && performance.now() < turnAt) continue;
    // Signals and timers are the event loop's, and so are messages: it gets a turn.
    await new Promise(setImmediate);
    turnAt = performance.now() + TURN_MS;
  }
}

function onPackets(packets) {
  for (let index = 0; index < packets.length && !port.isClosed; index++) onPacket(packets[index]);
}

// ---- a worker at a shared port

function onSharedPacket(packet) {
  if (packet.key === LISTENER) {
    onSharedAccept(packet);
    return;
  }
  const connection = shared.of(packet);
  serve(packet, connection, connection.operation);
}

function onSharedAccept(packet) {
  if (packet.error === null) {
    const { socket, buffer, operation } = shared.accepted(packet);
    operation.length = buffer.length;
    operation.timeout = draining ? SILENCE_MS : undefined;
    port.associate(socket, CONNECTION);
    socket.recv(buffer, operation);
  } else if (packet.error.by !== 'close') {
    console.error(`accept: ${packet.error.code}`);
    shared.accept(packet.operationId);
  }
}

/** Serves until the port is closed, which another thread may do at any moment. */
async function serveShared() {
  const unlessClosed = (work) => {
    try {
      work();
    } catch (error) {
      if (!port.isClosed) throw error;
    }
  };
  if (options.wait === 'loop') {
    // The other threads may have drained, and closed the port, before this one comes to it.
    unlessClosed(() => port.dispatch((packet) => unlessClosed(() => onSharedPacket(packet))));
    return;
  }
  try {
    // What a batch starts is submitted together, when it ends.
    await waitBlocking((packets) => port.defer(() => packets.forEach(onSharedPacket)));
  } catch (error) {
    if (!port.isClosed) throw error;
  }
}

// ---- who does what

/** The main thread, where workers serve: it starts them, says where, and at the end tells them. */
async function superviseShared() {
  const layout = layOut(port, listener, options);
  const pool = new Pool(import.meta.url);
  await Promise.all(Array.from({ length: options.workers }, () => pool.add({ layout })));
  onEnd(() => {
    listener.close();
    pool.tell('drain');
    setTimeout(finish, DRAIN_MS).unref(); // the workers keep the process until then
  });
  printAddress(listener.address);
}

async function supervisePrivate() {
  port.close(); // it has shown that there can be one
  const pool = new Pool(import.meta.url);
  // The first finds the port, where any will do.
  const address = await pool.add({ port: options.port });
  await Promise.all(Array.from({ length: options.workers - 1 }, () => pool.add({ port: address.port })));
  onEnd(() => pool.tell('drain'));
  printAddress(address);
}

function listenHere() {
  if (shared !== null || (portPerWorker && isMainThread)) return null;
  const made = listen(isMainThread ? options : { ...options, ...workerData }, BACKLOG, portPerWorker);
  port.associate(made, LISTENER);
  return made;
}

/** A worker hears of the end by a message. It ends when its port is closed: the channel to the main thread doesn't hold it. */
function onMessage(end) {
  parentPort.once('message', end);
  parentPort.unref();
}

const listener = listenHere();
if (isMainThread && options.workers > 0) {
  await (onSharedPort ? superviseShared() : supervisePrivate());
} else if (shared !== null) {
  onMessage(drain);
  parentPort.postMessage('ready');
  await serveShared();
} else {
  listener.accept(new Operation());
  if (isMainThread) {
    onEnd(drain);
    printAddress(listener.address);
  } else {
    onMessage(drain);
    parentPort.postMessage(listener.address);
  }
  if (options.wait === 'block') await waitBlocking(onPackets);
  else port.dispatch(onPacket);
}
