// What the threads of `echo.mjs --workers N` have in common: one shared port, its listener, and room in the arena for each connection.
//
// There is one accept operation for each place that a connection can have, and its id is the place. So whoever takes the accept's packet
// has a place for the connection, whoever closes the connection starts the place's next accept, and no list of free places is needed.
// Nor is a lock: a connection has one operation pending, and what a handler wrote before it started the next one is there for whoever
// takes that one's packet. Only two numbers belong to all threads at once.

import { Operation } from 'completion-port';

/** More would make the start slow; the backlog holds the rest. */
const CONNECTIONS_MAX = 4096;
const COUNTERS_BYTES = 64;
/** Which of the counters: connections now. */
const LIVE = 0;

const placesFor = ({ arena, buffer }) => Math.min(CONNECTIONS_MAX, Math.max(1, Math.floor(arena / buffer)));

/** How large an arena has to be. */
export const arenaFor = (options) => COUNTERS_BYTES + placesFor(options) * options.buffer;

/** The main thread's part: makes room, and starts an accept for each place. What it returns goes to the workers. */
export function layOut(port, listener, options) {
  const counters = port.allocate(arenaFor(options)).byteOffset;
  port.defer(() => {
    for (let place = 0; place < placesFor(options); place++) listener.accept({ id: place });
  });
  return {
    token: port.token,
    listener: listener.id,
    counters,
    buffers: counters + COUNTERS_BYTES,
    bufferBytes: options.buffer,
  };
}

/** One thread's objects for the connections; made when it meets a place for the first time, then kept. */
export class SharedConnections {
  #port;
  #listener;
  #layout;
  #counters;
  #byPlace = [];

  constructor(port, layout) {
    this.#port = port;
    this.#layout = layout;
    this.#listener = port.handleOf(layout.listener);
    this.#counters = new Int32Array(port.arena, layout.counters, COUNTERS_BYTES / Int32Array.BYTES_PER_ELEMENT);
  }

  /** The connection that a packet is of, whoever has accepted it. */
  of(packet) {
    const connection = this.#at(packet.operationId);
    if (connection.handleId !== packet.handleId) {
      connection.socket = this.#port.handleOf(packet.handleId);
      connection.handleId = packet.handleId;
    }
    return connection;
  }

  /** A new connection. */
  accepted(packet) {
    const connection = this.#at(packet.operationId);
    connection.socket = packet.result;
    connection.handleId = packet.result.id;
    Atomics.add(this.#counters, LIVE, 1);
    return connection;
  }

  /** It is closed: its place is the next one's. */
  ended(connection) {
    Atomics.sub(this.#counters, LIVE, 1);
    this.accept(connection.operation.id);
  }

  /** Another accept for a place. */
  accept(place) {
    try {
      this.#listener.accept({ id: place });
    } catch (error) {
      if (error.code !== 'ERR_HANDLE_CLOSED') throw error; // by the main thread, at the end
    }
  }

  get live() {
    return Atomics.load(this.#counters, LIVE);
  }

  [Symbol.iterator]() {
    return this.#byPlace.filter(Boolean)[Symbol.iterator]();
  }

  #at(place) {
    const { buffers, bufferBytes } = this.#layout;
    this.#byPlace[place] ??= new SharedConnection(
      new Uint8Array(this.#port.arena, buffers + place * bufferBytes, bufferBytes),
      place,
    );
    return this.#byPlace[place];
  }
}

class SharedConnection {
  socket = null;
  handleId = 0;

  constructor(buffer, place) {
    this.buffer = buffer;
    this.operation = new Operation(this, { id: place });
  }
}
