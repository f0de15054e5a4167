// An echo server for connections that are silent nearly always: each waits in a receive of no bytes, which needs no memory, and has a buffer
// only while it echoes.
//
// node bench/subjects/idle.mjs
// Prints `listening on HOST:PORT`; ends with exit 0 on SIGTERM and SIGINT.

import { CompletionPort, Operation, TcpListener } from 'completion-port';

const ROOM = 2048;
const nothing = new Uint8Array(0);
const port = CompletionPort.create();
const listener = TcpListener.listenSync({ port: 0, backlog: 4096 });
port.associate(listener, 0);

class Connection {
  constructor(socket) {
    this.socket = socket;
    this.buffer = null;
    this.operation = new Operation(this);
  }

  wait() {
    if (this.buffer !== null) port.release(this.buffer);
    this.buffer = null;
    this.operation.length = undefined;
    this.socket.recv(nothing, this.operation);
  }
}

port.dispatch((packet) => {
  if (packet.kind === 'accept') {
    if (packet.error !== null) throw packet.error;
    const connection = new Connection(packet.result);
    port.associate(connection.socket, 1);
    connection.wait();
    listener.accept(packet.operation);
    return;
  }
  const operation = packet.operation;
  const connection = operation.context;
  if (packet.error !== null) {
    if (connection.buffer !== null) port.release(connection.buffer);
    connection.socket.close();
  } else if (packet.kind === 'send') {
    connection.wait();
  } else if (connection.buffer === null) {
    // Something is there: data, or the end.
    connection.buffer = port.allocate(ROOM);
    connection.socket.recv(connection.buffer, operation);
  } else if (packet.bytesTransferred === 0) {
    port.release(connection.buffer);
    connection.socket.close();
  } else {
    operation.length = packet.bytesTransferred;
    connection.socket.send(connection.buffer, operation);
  }
});
listener.accept(new Operation());
console.log(`listening on 127.0.0.1:${listener.address.port}`);

const end = () => process.exit(0);
process.on('SIGTERM', end);
process.on('SIGINT', end);
