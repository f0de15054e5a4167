// What the heap grows by an operation in steady state. Connections within the process echo 64 bytes each way with one
// Operation each, over and over; run with --expose-gc and a young generation too large to fill, so that the heap's growth is
// what was allocated. Prints one line of JSON.
//
// node --expose-gc --min-semi-space-size=512 --max-semi-space-size=512 bench/subjects/allocation.mjs CONNECTIONS

import { PerformanceObserver, performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';
import { CompletionPort, Operation, TcpListener, TcpSocket } from 'completion-port';

const PAIRS = Number(process.argv[2]);
const BYTES = 64;
const WARM_UP = 400_000;
const COUNTED = 1_000_000;
const KEPT = 200_000;

const collections = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) collections.push(entry.startTime);
}).observe({ entryTypes: ['gc'] });

// An inverted loop has one call of the kernel a batch; a plain one lengthens its batches until their size says nothing about
// the connections.
const port = CompletionPort.create({ eventLoop: 'inverted' });
const listener = TcpListener.listenSync({ port: 0 });
port.associate(listener, 0);

const sockets = [];
for (let pair = 0; pair < PAIRS; pair++) {
  const client = TcpSocket.openSync();
  port.associate(client, 1);
  sockets.push(client);
  listener.accept();
  client.connect({ host: '127.0.0.1', port: listener.address.port });
  for (const packet of [port.getSync(), port.getSync()]) {
    if (packet.error !== null) throw packet.error;
    if (packet.kind !== 'accept') continue;
    port.associate(packet.result, 2);
    sockets.push(packet.result);
  }
}
for (const socket of sockets) {
  const operation = new Operation({ socket, buffer: port.allocate(BYTES) });
  if (socket.key === 1) socket.send(operation.context.buffer, operation);
  else socket.recv(operation.context.buffer, operation);
}

// Milestones by count; the connections never rest, so nothing but operations lies between two of them.
const phases = [];
let count = 0;
let next = WARM_UP;
const kept = new Array(KEPT).fill(null);
let keeping = KEPT;

const measure = () => ({
  heap: process.memoryUsage().heapUsed,
  enters: port.stats().enters,
  at: performance.now(),
});

function milestone() {
  phases.push(measure());
  if (phases.length === 1) {
    globalThis.gc();
    phases[0] = measure();
    next = count + COUNTED;
  } else if (phases.length === 2) {
    globalThis.gc();
    phases.push(measure());
    keeping = 0;
    next = count + KEPT;
  } else {
    globalThis.gc();
    phases.push(measure());
    void report();
  }
}

port.dispatch((packet) => {
  if (packet.error !== null) throw packet.error;
  if (keeping < KEPT) kept[keeping++] = packet;
  if (++count === next) milestone();
  const operation = packet.operation;
  const { socket, buffer } = operation.context;
  if (packet.kind === 'recv') socket.send(buffer, operation);
  else socket.recv(buffer, operation);
});

async function report() {
  const [start, end, keepingStart, , keepingEnd] = phases;
  await delay(50); // the observer is told of collections later
  const between = collections.filter((at) => at > start.at && at < end.at);
  if (between.length > 0) throw new Error(`${between.length} collections came in between: the young generation is too small`);
  const result = {
    bytesPerOperation: (end.heap - start.heap) / COUNTED,
    // The packet's own size: packets that are kept alive over a collection, with all that only they refer to.
    packetBytes: (keepingEnd.heap - keepingStart.heap) / KEPT,
    entersPerOperation: (end.enters - start.enters) / COUNTED,
  };
  console.log(JSON.stringify(result));
  listener.close();
  process.exit(0);
}
