// Starts a receive on a connection that stays silent, cancels it and takes its packet, in batches of 64 on as many connections.
//
// node bench/subjects/cancels.mjs dispatch|block

import { CompletionPort, Operation, TcpListener, TcpSocket } from 'completion-port';
import { obeyCommands } from './commands.mjs';

const BATCH = 64;
const ROOM = 64;
const port = CompletionPort.create();
const listener = TcpListener.listenSync({ port: 0 });
port.associate(listener, 0);

const operations = [];
const peers = []; // held, or they would be collected and closed
for (let index = 0; index < BATCH; index++) {
  const socket = TcpSocket.openSync();
  port.associate(socket, 1);
  listener.accept();
  socket.connect({ host: '127.0.0.1', port: listener.address.port });
  for (const packet of [port.getSync(), port.getSync()]) {
    if (packet.error !== null) throw packet.error;
    if (packet.kind === 'accept') peers.push(packet.result);
  }
  operations.push(new Operation({ socket, buffer: port.allocate(ROOM) }));
}

function check(packet) {
  if (packet.error?.code !== 'ECANCELED' || packet.kind !== 'recv')
    throw new Error(`not a cancelled receive: ${packet.error?.code}`);
}

function startAndCancel() {
  for (const operation of operations) operation.context.socket.recv(operation.context.buffer, operation);
  port.flush(); // in the kernel, or the cancel would be answered without it
  for (const operation of operations) operation.cancel();
}

const runs = {
  block(seconds) {
    const end = performance.now() + seconds * 1000;
    let done = 0;
    while (performance.now() < end) {
      startAndCancel();
      for (let left = BATCH; left > 0; ) {
        for (const packet of port.getManySync(BATCH)) {
          check(packet);
          left--;
        }
      }
      done += BATCH;
    }
    return { operations: done };
  },

  dispatch(seconds) {
    return new Promise((resolve) => {
      const end = performance.now() + seconds * 1000;
      let done = 0;
      const consumer = port.dispatch((packet) => {
        check(packet);
        if (++done % BATCH !== 0) return;
        if (performance.now() < end) {
          startAndCancel();
        } else {
          consumer.stop();
          resolve({ operations: done });
        }
      });
      startAndCancel();
    });
  },
};

const run = runs[process.argv[2]];
process.on('SIGTERM', () => process.exit(0));
console.log('ready');
obeyCommands((_word, seconds) => run(seconds));
