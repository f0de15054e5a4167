// The load of the TCP workloads on the package's own port, with the commands of bench/peers/echo_client.c: CONNECTIONS connections with one
// message in flight each, every byte that comes back compared. It takes that program's place where there is no compiler, and is the client
// of `http`, where a message is a request and every answer has to be what the first was.
//
// node bench/subjects/tcp_client.mjs --port N [--connections N] [--bytes N] [--http] [--spin]

import { parseArgs } from 'node:util';
import { CompletionPort, Operation, TcpSocket } from 'completion-port';
import { obeyCommands, percentiles } from './commands.mjs';

const { values: options } = parseArgs({
  options: {
    port: { type: 'string' },
    connections: { type: 'string', default: '1' },
    bytes: { type: 'string', default: '64' },
    http: { type: 'boolean', default: false },
    spin: { type: 'boolean', default: false },
  },
});
const COUNT = Number(options.connections);
const BYTES = Number(options.bytes);
const PORTION = 128; // connections opened at once: a storm beyond the accept queue leaves some that the server never saw
const SAMPLES_MAX = 1 << 18;
const BATCH = 512;
/** Each source address has some 28,000 ports; spread out, many rounds do not run out of them. */
const SOURCE_PORTION = 4096;

const request = Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
const port = CompletionPort.create({ arenaBytes: Math.max(16 * 2 ** 20, 2 * COUNT * Math.max(BYTES, 1024) * 2) });

let expectedAnswer = null; // http: of the first answer
let completed = 0;
let waiting = 0;
let sending = false;
let deadline = 0;
let open = 0;
let lost = 0;
const latencies = [];

class Connection {
  constructor(index) {
    this.index = index;
    const localAddress = process.platform === 'linux' ? `127.0.0.${2 + Math.floor(index / SOURCE_PORTION)}` : undefined;
    this.socket = TcpSocket.openSync({ localAddress });
    port.associate(this.socket, index);
    this.message = port.allocate(options.http ? request.length : BYTES);
    if (options.http) this.message.set(request);
    else for (let at = 0; at < BYTES; at++) this.message[at] = (index * 7 + at * 13) & 0xff;
    this.answer = port.allocate(options.http ? 2048 : BYTES);
    this.returned = 0;
    this.sequence = 0;
    this.sentAt = 0;
    this.isOpen = false;
    this.isWaiting = false;
    this.sender = new Operation(this);
    this.receiver = new Operation(this);
  }

  start() {
    if (!options.http) {
      // The first bytes differ from those of every other message of this connection.
      const stamp = Math.imul(++this.sequence, 0x9e3779b1);
      for (let at = 0; at < Math.min(4, BYTES); at++) this.message[at] = (stamp >>> (8 * at)) & 0xff;
    }
    this.returned = 0;
    this.isWaiting = true;
    this.sentAt = performance.now();
    waiting++;
    this.socket.send(this.message, this.sender);
  }

  receive() {
    this.receiver.offset = this.returned;
    this.socket.recv(this.answer, this.receiver);
  }
}

let connections = [];

/** Whether all of the answer is there; a wrong one ends the program. */
function isComplete(connection) {
  const { answer, message, returned } = connection;
  if (!options.http) {
    if (returned < BYTES) return false;
    if (Buffer.compare(answer, message) !== 0) throw new Error(`connection ${connection.index}: not what was sent`);
    return true;
  }
  const text = Buffer.from(answer.subarray(0, returned));
  if (expectedAnswer !== null) {
    if (returned < expectedAnswer.length) return false;
    if (!text.equals(expectedAnswer)) throw new Error(`another answer than the first: ${text}`);
    return true;
  }
  const head = text.indexOf('\r\n\r\n');
  const length = /content-length: (\d+)/i.exec(text.toString('latin1'))?.[1];
  if (head < 0 || returned < head + 4 + Number(length)) return false;
  if (!text.toString('latin1').startsWith('HTTP/1.1 200 ')) throw new Error(`not an answer with 200: ${text}`);
  expectedAnswer = text;
  return true;
}

function lose(connection) {
  if (!connection.isOpen) return;
  connection.isOpen = false;
  connection.socket.close();
  open--;
  if (connection.isWaiting) {
    connection.isWaiting = false;
    waiting--;
    lost++;
  }
}

function onPacket(packet) {
  const connection = connections[packet.key];
  if (packet.kind === 'connect') {
    if (packet.error !== null) throw packet.error;
    connection.isOpen = true;
    open++;
    connection.start();
    connection.receive();
  } else if (packet.error !== null) {
    lose(connection);
  } else if (packet.kind === 'recv') {
    if (packet.bytesTransferred === 0) return lose(connection);
    connection.returned += packet.bytesTransferred;
    if (isComplete(connection)) {
      connection.isWaiting = false;
      waiting--;
      completed++;
      const now = performance.now();
      if (latencies.length < SAMPLES_MAX) latencies.push((now - connection.sentAt) * 1000);
      connection.returned = 0;
      connection.receive();
      if (sending && now < deadline) {
        // Its send has completed, since all of it came back, but its packet may be among the next.
        if (connection.sender.pending) connection.startsLater = true;
        else connection.start();
      }
    } else {
      connection.receive();
    }
  } else if (connection.startsLater === true) {
    connection.startsLater = false;
    connection.start();
  }
}

function turnsUntil(done) {
  while (!done()) {
    for (const packet of port.getManySync(BATCH, options.spin ? 0 : undefined)) onPacket(packet);
  }
}

const commands = {
  connect() {
    for (const { message, answer } of connections) {
      port.release(message);
      port.release(answer);
    }
    connections = [];
    open = 0;
    lost = 0;
    sending = false;
    for (let first = 0; first < COUNT; first += PORTION) {
      const end = Math.min(COUNT, first + PORTION);
      for (let index = first; index < end; index++) {
        const connection = new Connection(index);
        connections.push(connection);
        connection.socket.connect({ host: '127.0.0.1', port: Number(options.port) });
      }
      turnsUntil(() => open === end && waiting === 0);
    }
    return { open };
  },
  run(seconds) {
    latencies.length = 0;
    completed = 0;
    lost = 0;
    const before = process.cpuUsage();
    const start = performance.now();
    deadline = start + seconds * 1000;
    sending = true;
    // A last run's send may not have been told yet.
    turnsUntil(() => connections.every(({ sender }) => !sender.pending));
    for (const connection of connections) if (connection.isOpen) connection.start();
    turnsUntil(() => waiting === 0);
    sending = false;
    const elapsed = (performance.now() - start) / 1000;
    const { user, system } = process.cpuUsage(before);
    return {
      messages: completed,
      seconds: elapsed,
      errors: lost,
      clientCpuSeconds: (user + system) / 1e6,
      latencyUs: percentiles(latencies),
    };
  },
  /** The end of what is sent; the server then closes. */
  close() {
    for (const { socket, isOpen } of connections) if (isOpen) socket.shutdown();
    turnsUntil(() => open === 0);
    return { open };
  },
  /** Waits until the server has closed every connection. */
  closed() {
    turnsUntil(() => open === 0);
    return { open };
  },
};

process.on('SIGTERM', () => process.exit(0));
obeyCommands((word, number) => commands[word](number));
