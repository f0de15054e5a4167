// Operations that stay pending until somebody ends them, one for each kind that can: what the cases of closing, cancelling and
// reusing have in common. Each knows what has to be true once it was ended: data that a send says it took is on its way, and none
// that it doesn't say; a cancelled accept has taken no connection; a cancelled recv no byte. Not a family: it exports no cases.

import type { Context, Handle, Operation, Packet, Port, TcpListener } from '../types.js';
import { filler, makeBuffer, untouched } from './buffers.js';
import { accepted, connect, connected, narrow, receive } from './tcp-common.js';

export interface FlightOptions {
  readonly key?: number;
  readonly signal?: AbortSignal;
  readonly timeout?: number;
  /** Start this operation; a new one unless given. */
  readonly operation?: Operation;
  /** Gets the time of the start itself: the making of a connection before it takes its own. */
  readonly clock?: { startedAt: number };
}

export interface Flight {
  readonly handle: Handle;
  readonly operation: Operation;
  readonly key: number;
  readonly kind: Operation['kind'];
  /** It may have moved bytes before its end; all others report 0. */
  readonly partly?: boolean;
  /**
   * To be called with the packet of its end by a cancel (a signal, a timeout): checks what was moved, and that the handle still works
   * where it should. Other operations that were started beside it are ended.
   */
  after(packet: Packet): void;
  /** Lets the operation finish by itself, successfully. Absent where that can't be brought about. */
  finish?(): void;
}

export type StartFlight = (t: Context, port: Port, options?: FlightOptions) => Flight;

const optionsOf = (options: FlightOptions): Operation | { signal?: AbortSignal; timeout?: number } => {
  const { operation, signal, timeout, clock } = options;
  if (clock !== undefined) clock.startedAt = performance.now();
  if (operation === undefined) {
    return { ...(signal === undefined ? {} : { signal }), ...(timeout === undefined ? {} : { timeout }) };
  }
  operation.signal = signal;
  operation.timeout = timeout;
  return operation;
};

/** A cancelled recv has taken nothing: what arrives next is received whole by the next one. */
function recvFlight(buffer: 'heap' | 'arena' | 'shared' | 'empty'): StartFlight {
  return (t, port, options = {}) => {
    const { key = 41 } = options;
    const { a, b } = t.pair(port, key, 42);
    const view = buffer === 'empty' ? t.room(0) : makeBuffer(port, buffer, 64);
    const operation = a.recv(view, optionsOf(options));
    return {
      handle: a,
      operation,
      key,
      kind: 'recv',
      after() {
        untouched(t, view, 'the buffer of a cancelled recv');
        const sent = t.pattern(0, 100, 7);
        b.send(sent);
        t.succeeded(t.takeOneSync(port), 'a send to the socket of the cancelled recv');
        t.sameBytes(receive(t, port, a, 100).bytes, sent, 'what the next recv got');
        untouched(t, view, 'the buffer of a cancelled recv, after data came');
      },
      finish: () => void b.send(new Uint8Array(8)),
    };
  };
}

/** Another recv is before it: it hasn't begun. The other one stays pending, and gets the data. */
const queuedRecv: StartFlight = (t, port, options = {}) => {
  const { key = 41 } = options;
  const { a, b } = t.pair(port, key, 42);
  const view = t.room(16).fill(filler);
  const first = a.recv(view);
  const operation = a.recv(t.room(16), optionsOf(options));
  return {
    handle: a,
    operation,
    key,
    kind: 'recv',
    after() {
      t.equal(first.pending, true, 'pending of the recv before the cancelled one');
      b.send(new Uint8Array([1, 2, 3]));
      const packets = t.takeSync(port, 2);
      const packet = packets.find((entry) => entry.operation === first);
      t.equal(packet?.bytesTransferred, 3, 'bytes of the recv before the cancelled one');
      t.sameBytes(view.subarray(0, 4), new Uint8Array([1, 2, 3, filler]), 'its buffer');
    },
  };
};

/**
 * More than the connection takes, to a peer that reads nothing: it stays half done. What its packet says it took, and not a byte
 * more or less, must arrive.
 */
function sendFlight(form: 'send' | 'sendv' | 'arena'): StartFlight {
  return (t, port, options = {}) => {
    const { key = 41 } = options;
    const { a, b } = t.pair(port, key, 42);
    narrow(a, b);
    const total = 4 * 2 ** 20;
    const data = t.pattern(0, total, 9);
    let view: Uint8Array = data;
    if (form === 'arena') {
      view = port.allocate(total);
      view.set(data);
    }
    const views = [data.subarray(0, 1), data.subarray(1, 70_000), data.subarray(70_000)];
    const operation = a.send(form === 'sendv' ? views : view, optionsOf(options));
    return {
      handle: a,
      operation,
      key,
      kind: form === 'sendv' ? 'sendv' : 'send',
      partly: true,
      after(packet) {
        const taken = packet.bytesTransferred;
        t.less(taken, total, 'bytes of a send that was cancelled half done');
        a.shutdown();
        t.succeeded(t.takeOneSync(port), 'a shutdown behind the cancelled send');
        const stream = receive(t, port, b, total);
        t.ok(stream.ended && stream.error === null, 'the stream behind a cancelled send ends cleanly');
        t.equal(stream.bytes.length, taken, 'bytes that arrived, of those that the packet says were taken');
        t.sameBytes(stream.bytes, data.subarray(0, taken), 'what arrived');
      },
    };
  };
}

/** A send, or the end of the stream, behind a send that is stuck: nothing of it may happen. */
function behindSend(kind: 'send' | 'shutdown'): StartFlight {
  return (t, port, options = {}) => {
    const { key = 41 } = options;
    const { a, b } = t.pair(port, key, 42);
    narrow(a, b);
    const total = 4 * 2 ** 20;
    const data = t.pattern(0, total, 3);
    const first = a.send(data);
    const given = optionsOf(options);
    const operation = kind === 'send' ? a.send(new Uint8Array(5000).fill(1), given) : a.shutdown(given);
    return {
      handle: a,
      operation,
      key,
      kind,
      after() {
        t.equal(first.pending, true, 'pending of the send before the cancelled operation');
        let sent = false;
        const stream = receive(t, port, b, total, {
          other(packet) {
            t.ok(packet.operation === first, 'the packet is of the first send');
            t.equal(packet.bytesTransferred, total, 'bytes of the first send');
            sent = true;
          },
        });
        t.sameBytes(stream.bytes, data, 'what arrived of the first send');
        if (!sent) t.equal(t.takeOneSync(port).operation, first, 'the operation of the first send’s packet');
        // Only what is sent now follows: the cancelled operation left no byte and no end behind.
        a.send(new Uint8Array([9]));
        t.succeeded(t.takeOneSync(port), 'a send after the cancelled operation');
        t.deepEqual([...receive(t, port, b, 1).bytes], [9], 'what follows in the stream');
      },
    };
  };
}

/** A cancelled accept has taken no connection. */
const acceptFlight: StartFlight = (t, port, options = {}) => {
  const { key = 41 } = options;
  const listener = t.listener(port, key);
  const operation = listener.accept(optionsOf(options));
  return {
    handle: listener,
    operation,
    key,
    kind: 'accept',
    after() {
      const client = connected(t, port, listener, 42);
      listener.accept();
      const server = accepted(t, t.takeOneSync(port));
      t.equal(server.remoteAddress?.port, client.localAddress?.port, 'the connection that the next accept took');
    },
    finish: () => void connect(t, port, listener, 42),
  };
};

/** A listener that takes no more connections: its backlog is full, and it stays so. */
export function fullListener(t: Context, port: Port): TcpListener {
  const listener = t.listener(undefined, 0, { backlog: 1 });
  for (let i = 0; i < 20; i++) {
    const attempt = connect(t, port, listener, 0);
    const packet = port.getSync(120);
    if (packet === null) {
      attempt.socket.close();
      t.takeSync(port, 1);
      return listener;
    }
    t.succeeded(packet, 'a connect into the backlog');
  }
  return t.unable('this kernel took 20 connections into a backlog of 1');
}

const connectFlight: StartFlight = (t, port, options = {}) => {
  const { key = 41 } = options;
  const listener = fullListener(t, port);
  const socket = t.track(t.api.TcpSocket.openSync());
  port.associate(socket, key);
  const operation = socket.connect({ host: '127.0.0.1', port: listener.address.port }, optionsOf(options));
  return { handle: socket, operation, key, kind: 'connect', after: () => socket.close() };
};

/** Every kind that stays pending by itself. File operations end by themselves: their cases race. */
export const flights: Readonly<Record<string, StartFlight>> = {
  recv: recvFlight('heap'),
  'recv-arena': recvFlight('arena'),
  'recv-shared': recvFlight('shared'),
  'recv-empty': recvFlight('empty'),
  'recv-queued': queuedRecv,
  send: sendFlight('send'),
  'send-arena': sendFlight('arena'),
  'send-queued': behindSend('send'),
  sendv: sendFlight('sendv'),
  shutdown: behindSend('shutdown'),
  accept: acceptFlight,
  connect: connectFlight,
};

/** One of each family, for cases where the variants of memory and place in line don't matter. */
export const mainFlights: Readonly<Record<string, StartFlight>> = {
  recv: recvFlight('heap'),
  send: sendFlight('send'),
  accept: acceptFlight,
  connect: connectFlight,
};

/** The packet of an operation that was started and ended: its own, once, and everything in it as it was started. */
export function endOf(t: Context, port: Port, flight: Flight): Packet {
  const packet = t.takeOneSync(port);
  const { operation } = flight;
  t.ok(packet.operation === operation, `the packet (${packet.kind}, key ${packet.key}) is of the operation that was ended`);
  t.equal(packet.key, flight.key, 'key');
  t.equal(packet.kind, flight.kind, 'kind');
  t.equal(packet.handleId, flight.handle.id, 'handleId');
  t.equal(packet.result, undefined, 'result of a failure');
  t.equal(operation.pending, false, 'pending once the packet is there');
  if (flight.partly !== true) t.equal(packet.bytesTransferred, 0, 'bytes of an operation that moved nothing');
  return packet;
}

/** Nothing else comes: not at once, and not behind a post and another moment of waiting. */
export function noMore(t: Context, port: Port, what: string): void {
  port.post(987_654);
  const packet = t.takeOneSync(port);
  t.ok(
    packet.kind === 'post' && packet.key === 987_654,
    `${what}: expected nothing but a post, got ${packet.kind} of key ${packet.key}`,
  );
  t.nothing(port, 3);
}

/** The operation is under way, and stays so: the kernel has it, and nothing comes. */
export function settled(t: Context, port: Port, flight: Flight): void {
  t.nothing(port, 5);
  t.equal(flight.operation.pending, true, 'pending while nothing has ended it');
}
