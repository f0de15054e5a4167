// rpc: a length-prefixed RPC server with a pool of threads on one shared port. A connection is accepted in one thread, read in a second
// and answered in a third, whichever is free, without a copy and without a lock:
//
// - Each connection has a record in the port's arena: its state, and its bytes. `packet.operationId` is the record's offset, as
//   CONTAINING_RECORD leads from an OVERLAPPED to the structure around it; `packet.handleId` leads to the socket.
// - One operation is pending a connection, started as the handler's last act. What a handler wrote before is there for the thread that
//   takes the packet, and nobody else is at the record.
// - There is one accept operation for each record: whoever closes a connection starts its record's next accept. No list of free records
//   is needed, and what is more than the records waits in the backlog.
//
// A frame is a length (4 bytes, of what follows), the caller's number for the request (4), a method or a status (1), and a body, all
// big-endian; at most 16 KiB follow the length. Requests may be sent without waiting; they are answered in order.

import { createHash } from 'node:crypto';
import { writeSync } from 'node:fs';
import { isMainThread, parentPort, workerData } from 'node:worker_threads';
import { CompletionPort } from 'completion-port';
import { createPort, listen, onEnd, printAddress, readOptions } from './lib/options.mjs';
import { Pool } from './lib/pool.mjs';

const HELP = `node examples/rpc.mjs [OPTIONS]
Answers length-prefixed requests (4 bytes length, 4 bytes number, 1 byte method, body) with a pool of threads on one shared port.
First line of output: \`listening on HOST:PORT\`.

  node examples/rpc.mjs --port 7000 &  printf '\\0\\0\\0\\12\\0\\0\\0\\1\\1hello' | nc -q1 127.0.0.1 7000 | xxd

  methods: 1 echo, 2 sum (of 64-bit floats), 3 hash (SHA-256), 4 threads (which accepted, read and answers: 1 byte each)

  --workers N                threads in the pool (4)
  --concurrency N            how many of them may run at once; 0, the default: one a processor
  --connections N            connections at once (1024); more wait to be accepted`;

const options = readOptions(
  {
    workers: { type: 'string', default: '4', range: [1, 64] },
    concurrency: { type: 'string', default: '0', range: [0, 1024] },
    connections: { type: 'string', default: '1024', range: [1, 16_384] },
  },
  HELP,
);

/** Keys tell packets apart. */
const LISTENER = 0;
const CONNECTION = 1;

const BACKLOG = 4096;
/** What a client may take (ms): between requests, for a whole one, for taking an answer; and all answers under way at the end. */
const IDLE_MS = 60_000;
const REQUEST_MS = 10_000;
const ANSWER_MS = 10_000;
const DRAIN_MS = 5000;

/** A frame: its length, then the head that the length counts, too, then the body. */
const PREFIX_BYTES = 4;
const HEAD_BYTES = 5;
const FRAME_MAX = 16 * 1024;

// A record, by offsets from its beginning.
const HANDLE = 0; // 8 bytes: the socket's id; 0: no connection
const BEGIN = 8; // 4: where in the input the next request begins
const FILLED = 12; // 4: where what has been received ends
const ACCEPTED_BY = 16; // 1: a thread's number
const READ_BY = 17; // 1
const OUTPUT = 64; // an answer that isn't made in place
const OUTPUT_BYTES = 64;
const INPUT = OUTPUT + OUTPUT_BYTES;
const INPUT_BYTES = PREFIX_BYTES + FRAME_MAX;
/** A multiple of 64, not of the page's size: see echo.mjs. */
const RECORD_BYTES = 64 * Math.ceil((INPUT + INPUT_BYTES) / 64);

// What all threads share beside the records: 32-bit numbers, used atomically.
const COUNTERS_BYTES = 64;
const LIVE = 0; // connections now
const DRAINING = 1;

const OK = 0;
const UNKNOWN_METHOD = 1;
const BAD_BODY = 2;

// ---- a thread of the pool

class Server {
  constructor(port, { listener, counters }, number) {
    this.port = port;
    this.number = number;
    this.listener = port.handleOf(listener);
    this.counters = new Int32Array(port.arena, counters, COUNTERS_BYTES / Int32Array.BYTES_PER_ELEMENT);
    // The whole arena, through views of each width. Records are named by their offsets.
    this.bytes = new Uint8Array(port.arena);
    this.data = new DataView(port.arena);
    this.handles = new BigInt64Array(port.arena);
    this.u32 = new Uint32Array(port.arena);
  }

  /** One packet at a time: the next may be another thread's while this one computes. */
  serve() {
    while (!this.port.isClosed) {
      try {
        this.onPacket(this.port.getSync());
      } catch (error) {
        // Any thread may close the port, or the listener, at any moment.
        if (!this.port.isClosed) throw error;
      }
    }
  }

  onPacket({ key, kind, operationId: record, handleId, bytesTransferred, result, error }) {
    if (key === LISTENER) {
      this.onAccept(record, result, error);
      return;
    }
    if (kind === 'shutdown') return; // the main thread's, at the end
    const socket = this.port.handleOf(handleId);
    if (error !== null || (kind === 'recv' && bytesTransferred === 0)) {
      this.end(record, socket);
      return;
    }
    if (kind === 'recv') {
      this.u32[(record + FILLED) >> 2] += bytesTransferred;
      this.bytes[record + READ_BY] = this.number;
    }
    this.next(record, socket);
  }

  onAccept(record, socket, error) {
    if (error !== null) {
      if (error.by === 'close') return;
      writeSync(2, `rpc.mjs: accept: ${error.code}\n`); // this thread's event loop doesn't run
      this.accept(record);
      return;
    }
    this.port.associate(socket, CONNECTION);
    this.u32[(record + BEGIN) >> 2] = 0;
    this.u32[(record + FILLED) >> 2] = 0;
    this.bytes[record + ACCEPTED_BY] = this.number;
    Atomics.add(this.counters, LIVE, 1);
    // Said before the look at DRAINING: either this thread sees the end, or the main thread sees the connection.
    Atomics.store(this.handles, (record + HANDLE) >> 3, BigInt(socket.id));
    if (Atomics.load(this.counters, DRAINING) !== 0) this.end(record, socket);
    else this.next(record, socket);
  }

  accept(record) {
    try {
      this.listener.accept({ id: record });
    } catch (error) {
      if (error.code !== 'ERR_HANDLE_CLOSED') throw error; // by the main thread, at the end
    }
  }

  end(record, socket) {
    socket.close();
    Atomics.store(this.handles, (record + HANDLE) >> 3, 0n);
    const left = Atomics.sub(this.counters, LIVE, 1) - 1;
    if (Atomics.load(this.counters, DRAINING) === 0) this.accept(record);
    else if (left === 0) this.port.close();
  }

  /** Answers the next request if it is here as a whole, or receives more. */
  next(record, socket) {
    const { u32, data } = this;
    const input = record + INPUT;
    const begin = u32[(record + BEGIN) >> 2];
    const filled = u32[(record + FILLED) >> 2];
    const there = filled - begin;
    if (there >= PREFIX_BYTES) {
      const length = data.getUint32(input + begin);
      if (length < HEAD_BYTES || length > FRAME_MAX) {
        this.end(record, socket); // nothing behind such a length can be trusted
        return;
      }
      if (there >= PREFIX_BYTES + length) {
        u32[(record + BEGIN) >> 2] = begin + PREFIX_BYTES + length;
        this.answer(record, socket, input + begin, length);
        return;
      }
    }
    if (begin > 0) {
      this.bytes.copyWithin(input, input + begin, input + filled);
      u32[(record + BEGIN) >> 2] = 0;
      u32[(record + FILLED) >> 2] = there;
    }
    const timeout = there > 0 ? REQUEST_MS : IDLE_MS;
    socket.recv(this.bytes, { id: record, offset: input + there, length: INPUT_BYTES - there, timeout });
  }

  /** `frame`: where the request's length prefix lies. */
  answer(record, socket, frame, length) {
    const { data, bytes } = this;
    const body = frame + PREFIX_BYTES + HEAD_BYTES;
    const bodyBytes = length - HEAD_BYTES;
    const method = bytes[frame + 8];
    if (method === 1) {
      // Made in place: the answer is the request with a status for its method, and goes out from where it came in.
      bytes[frame + 8] = OK;
      socket.send(bytes, { id: record, offset: frame, length: PREFIX_BYTES + length, timeout: ANSWER_MS });
      return;
    }
    const output = record + OUTPUT;
    const result = output + PREFIX_BYTES + HEAD_BYTES;
    let resultBytes = 0;
    let status = OK;
    if (method === 2 && bodyBytes % 8 === 0) {
      let sum = 0;
      for (let at = 0; at < bodyBytes; at += 8) sum += data.getFloat64(body + at);
      data.setFloat64(result, sum);
      resultBytes = 8;
    } else if (method === 3) {
      const hash = createHash('sha256');
      const digest = hash.update(bytes.subarray(body, body + bodyBytes)).digest();
      bytes.set(digest, result);
      resultBytes = digest.length;
    } else if (method === 4) {
      bytes.set([bytes[record + ACCEPTED_BY], bytes[record + READ_BY], this.number], result);
      resultBytes = 3;
    } else status = method === 2 ? BAD_BODY : UNKNOWN_METHOD;
    data.setUint32(output, HEAD_BYTES + resultBytes);
    data.setUint32(output + 4, data.getUint32(frame + 4)); // the caller's number
    bytes[output + 8] = status;
    socket.send(bytes, { id: record, offset: output, length: PREFIX_BYTES + HEAD_BYTES + resultBytes, timeout: ANSWER_MS });
  }
}

// ---- the main thread

async function supervise() {
  const { concurrency, connections } = options;
  const arenaBytes = COUNTERS_BYTES + connections * RECORD_BYTES;
  const port = createPort(options, { shared: true, concurrency, arenaBytes });
  const listener = listen(options, BACKLOG);
  port.associate(listener, LISTENER);
  const counters = port.allocate(arenaBytes).byteOffset;
  const records = counters + COUNTERS_BYTES;
  const handles = new BigInt64Array(port.arena);
  const shared = new Int32Array(port.arena, counters, COUNTERS_BYTES / Int32Array.BYTES_PER_ELEMENT);
  const offsets = Array.from({ length: connections }, (_, index) => records + index * RECORD_BYTES);
  port.defer(() => {
    for (const record of offsets) listener.accept({ id: record });
  });

  const pool = new Pool(import.meta.url);
  const layout = { listener: listener.id, counters };
  await Promise.all(
    Array.from({ length: options.workers }, (_, number) => pool.add({ token: port.token, layout, number: number + 1 })),
  );
  onEnd(() => {
    Atomics.store(shared, DRAINING, 1);
    listener.close();
    setTimeout(() => port.close(), DRAIN_MS).unref(); // the workers keep the process until then
    // What is being answered is answered: to its thread it then looks as if the client had finished.
    for (const record of offsets) {
      const id = Number(Atomics.load(handles, (record + HANDLE) >> 3));
      if (id !== 0) endReading(port, id);
    }
    if (Atomics.load(shared, LIVE) === 0) port.close();
  });
  printAddress(listener.address);
}

function endReading(port, id) {
  try {
    port.handleOf(id).shutdown({ how: 'read' });
  } catch (error) {
    // A thread of the pool has closed it, or with the last one the port.
    if (error.code !== 'ERR_HANDLE_CLOSED' && error.code !== 'ERR_PORT_CLOSED') throw error;
  }
}

if (isMainThread) await supervise();
else {
  const port = CompletionPort.attach(workerData.token);
  const server = new Server(port, workerData.layout, workerData.number);
  parentPort.postMessage('ready'); // from here on the main thread may close the listener
  server.serve();
}
