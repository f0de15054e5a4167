// An echo server that closes all its connections at once when told `close`, and answers when the last of them is gone.
//
// node bench/subjects/closing.mjs port|node-net

import { createServer } from 'node:net';
import { CompletionPort, Operation, TcpListener } from 'completion-port';
import { obeyCommands } from './commands.mjs';

const ROOM = 64;

function throughPort() {
  const port = CompletionPort.create({ arenaBytes: 8 * 2 ** 20 });
  const listener = TcpListener.listenSync({ port: 0, backlog: 4096 });
  port.associate(listener, 0);
  const accepting = new Operation();
  const connections = new Set();
  const closing = { left: 0, resolve: null };

  const end = (connection) => {
    connections.delete(connection);
    port.release(connection.buffer);
    if (closing.resolve !== null && --closing.left === 0) {
      closing.resolve();
      closing.resolve = null;
    }
  };
  port.dispatch((packet) => {
    if (packet.kind === 'accept') {
      if (packet.error !== null) throw packet.error;
      const connection = { socket: packet.result, buffer: port.allocate(ROOM), operation: null };
      connection.operation = new Operation(connection);
      connections.add(connection);
      port.associate(connection.socket, 1);
      connection.socket.recv(connection.buffer, connection.operation);
      listener.accept(accepting);
    } else {
      const operation = packet.operation;
      const connection = operation.context;
      if (packet.error !== null || packet.bytesTransferred === 0) {
        connection.socket.close();
        end(connection);
      } else if (packet.kind === 'recv') {
        operation.length = packet.bytesTransferred;
        connection.socket.send(connection.buffer, operation);
      } else {
        operation.length = undefined;
        connection.socket.recv(connection.buffer, operation);
      }
    }
  });
  listener.accept(accepting);
  console.log(`listening on 127.0.0.1:${listener.address.port}`);

  return () =>
    new Promise((resolve) => {
      const count = connections.size;
      closing.left = count;
      closing.resolve = () => resolve({ operations: count });
      for (const connection of connections) connection.socket.close();
    });
}

function throughNodeNet() {
  const connections = new Set();
  const closing = { left: 0, resolve: null };
  const server = createServer((socket) => {
    connections.add(socket);
    socket.on('data', (chunk) => socket.write(chunk));
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      connections.delete(socket);
      if (closing.resolve !== null && --closing.left === 0) {
        closing.resolve();
        closing.resolve = null;
      }
    });
  });
  server.listen({ port: 0, host: '127.0.0.1', backlog: 4096 }, () => {
    console.log(`listening on 127.0.0.1:${server.address().port}`);
  });

  return () =>
    new Promise((resolve) => {
      const count = connections.size;
      closing.left = count;
      closing.resolve = () => resolve({ operations: count });
      for (const socket of connections) socket.destroy();
    });
}

const close = process.argv[2] === 'port' ? throughPort() : throughNodeNet();
process.on('SIGTERM', () => process.exit(0));
obeyCommands(() => close());
