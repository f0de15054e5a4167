// serve: an HTTP/1.1 file server whose sockets and files complete through one port. A connection is a small state machine
// with one Operation: receive a head, open the file, read a piece, send it, read the next. While it waits for a request it
// holds no buffer at all: a receive of zero bytes says when there is something to take.

import { constants, realpathSync, statSync } from 'node:fs';
import { Operation } from 'completion-port';
import { blankLines, endOfHead, formatHead, parseHead, RequestError } from './lib/http.mjs';
import { createPort, listen, onEnd, printAddress, readOptions, usage } from './lib/options.mjs';
import { errorPage, folderPage, portPage } from './lib/pages.mjs';
import { answerForFile, encodeSegments, lookUp, parseTarget, statusOf } from './lib/site.mjs';

const HELP = `node examples/serve.mjs [DIR] [OPTIONS]
Serves the files of DIR (default: the current folder). /-/port shows the port's figures, /-/port.json gives them as data.
First line of output: \`listening on HOST:PORT\`.

  node examples/serve.mjs docs --port 8080 &  curl -r 0-99 http://127.0.0.1:8080/guide.md
`;

/** Keys tell packets apart. */
const LISTENER = 0;
const CONNECTION = 1;
const FILE = 2;

const BACKLOG = 4096;
const ARENA_BYTES = 64 * 2 ** 20;
/** The longest head of a request, and the piece that a file is read and sent in. */
const HEAD_BYTES = 16 * 1024;
const PIECE_BYTES = 64 * 1024;
/** How long a client may take (ms): between requests, for a whole head, for taking one piece; after our end, for its own. */
const IDLE_MS = 30_000;
const HEAD_MS = 10_000;
const SEND_MS = 30_000;
const LINGER_MS = 1000;
/** What is still taken, and thrown away, from a client that was told no. */
const LINGER_BYTES = 1 << 20;
/** How long answers under way may take at the end (ms). */
const DRAIN_MS = 5000;
// The path has been resolved already: a link that appears in between isn't followed.
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW;

const options = readOptions({}, HELP, ['DIR']);
const root = folderToServe(options.positionals[0] ?? '.');
const port = createPort(options, { arenaBytes: ARENA_BYTES });
const connections = new Set();
let draining = false;

function folderToServe(given) {
  try {
    const path = realpathSync(given);
    if (!statSync(path).isDirectory()) usage(`${given} is not a folder`);
    return path;
  } catch (error) {
    usage(`${given}: ${error.message}`);
  }
}

/** A block of the arena, which the kernel uses in place; an ordinary buffer where the arena is full. */
function takeBlock(bytes) {
  try {
    const block = port.allocate(bytes);
    return Buffer.from(block.buffer, block.byteOffset, block.byteLength);
  } catch (error) {
    if (error.code !== 'ENOBUFS') throw error;
    return Buffer.allocUnsafeSlow(bytes);
  }
}

function giveBack(block) {
  if (block !== null && block.buffer === port.arena) port.release(block);
}

class Connection {
  operation = new Operation(this);
  /** 'idle': no request yet; 'head': a part of one; 'answer': being answered; 'linger': told no, its rest thrown away. */
  state = 'idle';
  input = null; // the block that the head is received into
  filled = 0;
  searched = 0;
  headUntil = 0;
  request = null;
  output = null; // the block that goes out
  ready = 0; // how much of it is filled, before a read adds to it
  entry = null; // the file of the answer: path, stat, size
  file = null;
  position = 0;
  end = 0;
  keepAlive = true;
  lingered = 0;

  constructor(socket) {
    this.socket = socket;
    socket.setNoDelay(true);
  }

  /** Between two requests: a part of the next may be here already (pipelining). */
  next() {
    this.state = 'idle';
    this.request = null;
    if (this.filled > 0) {
      this.beginHead();
      this.lookForHead();
    } else if (draining) {
      this.close();
    } else {
      this.dropInput();
      this.operation.timeout = IDLE_MS;
      this.socket.recv(NOTHING, this.operation);
    }
  }

  beginHead() {
    this.state = 'head';
    this.searched = 0;
    this.headUntil = performance.now() + HEAD_MS;
  }

  dropInput() {
    giveBack(this.input);
    this.input = null;
  }

  onReceived({ bytesTransferred }) {
    if (this.state === 'idle') {
      // Something is there, or the end is.
      this.input = takeBlock(HEAD_BYTES);
      this.beginHead();
      this.receive();
    } else if (bytesTransferred === 0) {
      this.close();
    } else if (this.state === 'linger') {
      this.lingered += bytesTransferred;
      if (this.lingered > LINGER_BYTES) this.close();
      else this.throwAway();
    } else {
      this.filled += bytesTransferred;
      this.lookForHead();
    }
  }

  receive() {
    const { operation } = this;
    operation.offset = this.filled;
    operation.length = HEAD_BYTES - this.filled;
    operation.timeout = Math.max(1, Math.ceil(this.headUntil - performance.now()));
    this.socket.recv(this.input, operation);
    operation.offset = operation.length = undefined;
  }

  /** Answers the request that the input begins with, or receives more of it. */
  lookForHead() {
    try {
      const blank = this.searched === 0 ? blankLines(this.input.subarray(0, this.filled)) : 0;
      if (blank > 0) this.consume(blank);
      const bytes = this.input.subarray(0, this.filled);
      const end = endOfHead(bytes, this.searched);
      if (end < 0) {
        if (this.filled === HEAD_BYTES) throw new RequestError(431, `a head of more than ${HEAD_BYTES} bytes`);
        this.searched = this.filled;
        this.receive();
        return;
      }
      this.request = parseHead(bytes.latin1Slice(0, end));
      this.consume(end);
    } catch (error) {
      this.refuse(error);
      return;
    }
    this.state = 'answer';
    // A body isn't read here: the connection ends behind the answer.
    this.keepAlive = this.request.keepAlive && !this.request.hasBody && !draining;
    this.answer().catch((error) => this.refuse(error));
  }

  consume(bytes) {
    this.input.copyWithin(0, bytes, this.filled);
    this.filled -= bytes;
  }

  /** Finds what the request means. File names are Node's business; opening, reading and sending are the port's. */
  async answer() {
    const { method, target } = this.request;
    if (method !== 'GET' && method !== 'HEAD') {
      this.keepAlive = false;
      const known = ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'CONNECT'].includes(method);
      this.sendText(known ? 405 : 501, { 'Content-Type': HTML, Allow: 'GET, HEAD' }, errorPage(known ? 405 : 501));
      return;
    }
    const { segments, folder, query } = parseTarget(target);
    if (segments[0] === '-' && !folder && segments.length === 2) {
      if (segments[1] === 'port') return this.sendText(200, { 'Content-Type': HTML }, portPage());
      if (segments[1] === 'port.json') {
        const figures = { backend: port.backend.name, stats: port.stats() };
        return this.sendText(200, { 'Content-Type': 'application/json' }, `${JSON.stringify(figures)}\n`);
      }
    }
    const entry = await lookUp(root, segments);
    if (entry.stat.isDirectory()) {
      if (!folder && segments.length > 0) {
        return this.sendText(301, { Location: encodeSegments(segments, true) + query, 'Content-Type': HTML }, errorPage(301));
      }
      const index = await indexOf(segments);
      if (index === null) {
        const list = await folderPage(entry.path, segments.length === 0 ? '/' : `/${segments.join('/')}/`);
        return this.sendText(200, { 'Content-Type': HTML }, list);
      }
      return this.open(index);
    }
    if (folder || !entry.stat.isFile()) throw new RequestError(404, 'not a file');
    this.open(entry);
  }

  open(entry) {
    if (this.isClosed) return; // the server ended meanwhile
    this.entry = entry;
    this.operation.timeout = undefined;
    this.operation.key = FILE;
    port.open(entry.path, OPEN_FLAGS, this.operation);
  }

  onOpened({ result }) {
    this.file = result;
    this.file.size(this.operation);
  }

  onSized({ result }) {
    this.entry.size = result;
    const { status, fields, start, end } = answerForFile(this.request, this.entry);
    this.position = start;
    this.end = this.request.method === 'HEAD' ? start : end;
    this.beginOutput(status, fields);
    this.readPiece();
  }

  /** The next piece of the file, behind what the output holds already; nothing of it left: what is there goes out. */
  readPiece() {
    const { operation } = this;
    const length = Math.min(PIECE_BYTES - this.ready, this.end - this.position);
    if (length === 0) {
      this.send();
      return;
    }
    operation.position = this.position;
    operation.offset = this.ready;
    operation.length = length;
    this.file.read(this.output, operation);
    operation.position = operation.offset = operation.length = undefined;
  }

  onRead({ bytesTransferred }) {
    if (bytesTransferred === 0) {
      // The file has become shorter than its length that went out. Only a reset tells the client that this is not all of it.
      this.close({ reset: true });
      return;
    }
    this.position += bytesTransferred;
    this.ready += bytesTransferred;
    this.send();
  }

  beginOutput(status, fields) {
    this.output ??= takeBlock(PIECE_BYTES);
    const head = { ...fields, 'X-Content-Type-Options': 'nosniff', Connection: this.keepAlive ? 'keep-alive' : 'close' };
    this.ready = this.output.latin1Write(formatHead(status, head));
  }

  /** A whole answer that is in memory. */
  sendText(status, fields, text) {
    if (this.isClosed) return;
    const body = Buffer.from(text);
    this.position = this.end = 0;
    this.beginOutput(status, { ...fields, 'Content-Length': body.length, 'Cache-Control': 'no-store' });
    if (this.request?.method === 'HEAD') {
      this.send();
    } else if (body.length <= PIECE_BYTES - this.ready) {
      this.ready += body.copy(this.output, this.ready);
      this.send();
    } else {
      this.operation.timeout = SEND_MS;
      this.socket.send([this.output.subarray(0, this.ready), body], this.operation);
    }
  }

  send() {
    const { operation } = this;
    operation.length = this.ready;
    operation.timeout = SEND_MS;
    this.socket.send(this.output, operation);
    operation.length = operation.timeout = undefined;
  }

  onSent() {
    this.ready = 0;
    if (this.position < this.end) {
      this.readPiece();
      return;
    }
    this.dropFile();
    giveBack(this.output);
    this.output = null;
    if (this.keepAlive) {
      this.next();
    } else {
      this.operation.timeout = LINGER_MS;
      this.socket.shutdown(this.operation);
    }
  }

  dropFile() {
    this.file?.close();
    this.file = null;
    this.entry = null;
  }

  /** The end of our side has gone out. What the client still sends is taken for a while: closing on it would be a reset, and
   *  that could reach the client before our answer. */
  onShutDown() {
    if (this.input === null) this.input = takeBlock(HEAD_BYTES);
    this.state = 'linger';
    this.throwAway();
  }

  throwAway() {
    this.operation.timeout = LINGER_MS;
    this.socket.recv(this.input, this.operation);
  }

  /** An error as the answer. Misunderstood bytes can't be followed by a request: then the connection ends. */
  refuse(error) {
    if (this.isClosed) return;
    const status = statusOf(error);
    if (status === 500 || status === 503) console.error(`serve.mjs: ${error.message}`);
    const misunderstood = this.state !== 'answer';
    this.state = 'answer';
    if (misunderstood || status === 400) this.keepAlive = false;
    this.dropFile();
    const why = error instanceof RequestError ? error.message : undefined;
    this.sendText(status, { 'Content-Type': HTML }, errorPage(status, why));
  }

  onFailed({ kind, error }) {
    if (kind === 'open' || kind === 'size') {
      this.refuse(error);
    } else if (kind === 'read') {
      console.error(`serve.mjs: ${error.message}`);
      this.close({ reset: true }); // its length has gone out already, or is about to
    } else if (kind === 'recv' && error.code === 'ETIMEDOUT' && this.state === 'head') {
      this.refuse(new RequestError(408, `a head that took more than ${HEAD_MS / 1000} seconds`));
    } else {
      this.close();
    }
  }

  get isClosed() {
    return this.socket.closed;
  }

  close(how) {
    if (this.isClosed) return;
    this.socket.close(how);
    this.dropFile();
    this.dropInput();
    giveBack(this.output);
    this.output = null;
    connections.delete(this);
    if (draining && connections.size === 0) finish();
  }
}

const NOTHING = new Uint8Array(0);
const HTML = 'text/html; charset=utf-8';

/** A folder's index.html, if it has one inside the served folder. */
async function indexOf(segments) {
  try {
    const index = await lookUp(root, [...segments, 'index.html']);
    return index.stat.isFile() ? index : null;
  } catch (error) {
    if (statusOf(error) === 404) return null;
    throw error;
  }
}

function onAccept(packet) {
  if (packet.error === null) {
    const connection = new Connection(packet.result);
    connections.add(connection);
    port.associate(packet.result, CONNECTION);
    connection.next();
  } else if (!draining) {
    console.error(`serve.mjs: accept: ${packet.error.code}`);
  }
  if (!draining) listener.accept(packet.operation);
}

function onPacket(packet) {
  if (packet.key === LISTENER) {
    onAccept(packet);
    return;
  }
  const connection = packet.operation.context;
  if (connection.isClosed) {
    // Ended while this was under way; a file that was opened meanwhile is nobody's.
    if (packet.kind === 'open') packet.result?.close();
    return;
  }
  if (packet.error !== null) {
    connection.onFailed(packet);
    return;
  }
  switch (packet.kind) {
    case 'recv':
      connection.onReceived(packet);
      break;
    case 'open':
      connection.onOpened(packet);
      break;
    case 'size':
      connection.onSized(packet);
      break;
    case 'read':
      connection.onRead(packet);
      break;
    case 'send':
    case 'sendv':
      connection.onSent();
      break;
    case 'shutdown':
      connection.onShutDown();
      break;
  }
}

let overdue;

/** Answers that are under way go out whole; who waits between two requests is closed at once. */
function drain() {
  draining = true;
  listener.close();
  overdue = setTimeout(finish, DRAIN_MS);
  for (const connection of connections) {
    if (connection.state === 'idle' || connection.state === 'linger') connection.close();
    else connection.keepAlive = false;
  }
  if (connections.size === 0) finish();
}

function finish() {
  clearTimeout(overdue);
  for (const { socket } of connections) socket.close();
  port.close();
}

const listener = listen(options, BACKLOG);
port.associate(listener, LISTENER);
listener.accept(new Operation());
onEnd(drain);
port.dispatch(onPacket);
printAddress(listener.address);
