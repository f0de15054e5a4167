// Wraps the real port, so that a mutant can break one thing about it. Without a mutation every call goes straight through,
// promises and iterators included: `wrap()` must pass the whole suite (unmutated.mjs). Mutations of a handle's or an
// operation's methods replace them on the prototypes of this process.
//
// It is a careful guest: it iterates over nothing and spreads nothing where it isn't mutated, because cases patch the
// language's own prototypes.

import * as real from '../../../dist/index.js';
import { native } from '../../../dist/native.js';

export const { FileHandle, TcpListener, TcpSocket, Operation } = real;

const key = Symbol('only wrap() makes ports');

/**
 * @param mutation - what to break, all optional:
 *   `port(base)`: a class that extends the transparent port;
 *   `deliver(packets, port)`: what comes out for the packets that the real port gave, whatever the way of getting
 */
export function wrap(mutation = {}) {
  const { deliver } = mutation;
  /** The wrapper of each real port: attaching twice gives the same one. */
  const wrappers = new WeakMap();

  class CompletionPort {
    #real;

    constructor(secret, port) {
      if (secret !== key) throw new TypeError('Illegal constructor: use CompletionPort.create()');
      this.#real = port;
      /** Packets that a mutation put out in excess of what was asked for. */
      this.ready = [];
    }

    /** The port itself, for mutants. */
    get real() {
      return this.#real;
    }

    static create(options) {
      return this.around(real.CompletionPort.create(this.options(options))); // a mutant overrides options()
    }
    static attach(token) {
      return this.around(real.CompletionPort.attach(token));
    }
    static around(port) {
      let wrapper = wrappers.get(port);
      if (wrapper === undefined) wrappers.set(port, (wrapper = new this(key, port)));
      return wrapper;
    }
    static options(options) {
      return options;
    }
    static probe() {
      return real.CompletionPort.probe();
    }

    get backend() {
      return this.real.backend;
    }
    get concurrency() {
      return this.real.concurrency;
    }
    get maxOperations() {
      return this.real.maxOperations;
    }
    get shared() {
      return this.real.shared;
    }
    get inFlight() {
      return this.real.inFlight;
    }
    get arena() {
      return this.real.arena;
    }
    get closed() {
      return this.real.closed;
    }
    get isClosed() {
      return this.real.isClosed;
    }
    get token() {
      return this.real.token;
    }
    associate(handle, number) {
      return this.real.associate(handle, number);
    }
    post(number, bytes, operation) {
      return this.real.post(number, bytes, operation);
    }
    allocate(bytes) {
      return this.real.allocate(bytes);
    }
    release(view) {
      return this.real.release(view);
    }
    open(path, flags, options) {
      return this.real.open(path, flags, options);
    }
    flush() {
      return this.real.flush();
    }
    detach() {
      return this.real.detach();
    }
    blocking(action) {
      return this.real.blocking(action);
    }
    defer(action) {
      return this.real.defer(action);
    }
    handleOf(id) {
      return this.real.handleOf(id);
    }
    stats() {
      return this.real.stats();
    }
    ref() {
      this.real.ref();
      return this;
    }
    unref() {
      this.real.unref();
      return this;
    }
    close() {
      return this.real.close();
    }
    [Symbol.dispose ?? Symbol.for('Symbol.dispose')]() {
      return this.close();
    }
    getSync(timeout) {
      return this.real.getSync(timeout);
    }
    getManySync(max, timeout) {
      return this.real.getManySync(max, timeout);
    }
    get(options) {
      return this.real.get(options);
    }
    getMany(max, options) {
      return this.real.getMany(max, options);
    }
    [Symbol.asyncIterator]() {
      return this.real[Symbol.asyncIterator]();
    }
    dispatch(handler) {
      return this.real.dispatch(handler);
    }
  }

  /** Every way of getting, through `deliver`. */
  class DeliveringPort extends CompletionPort {
    getSync(timeout) {
      return this.getManySync(1, timeout)[0] ?? null;
    }
    getManySync(max, timeout) {
      const begin = performance.now();
      let left = timeout;
      while (this.ready.length === 0) {
        const packets = this.real.getManySync(max, left);
        this.ready.push(...deliver(packets, this));
        if (packets.length === 0) break;
        if (timeout !== undefined) left = Math.max(0, timeout - (performance.now() - begin));
      }
      return this.ready.splice(0, max);
    }
    async get(options) {
      return (await this.getMany(1, options))[0] ?? null;
    }
    async getMany(max, options) {
      while (this.ready.length === 0) {
        const packets = await this.real.getMany(max, options);
        this.ready.push(...deliver(packets, this));
        if (packets.length === 0) break;
      }
      return this.ready.splice(0, max);
    }
    [Symbol.asyncIterator]() {
      const iterator = this.real[Symbol.asyncIterator]();
      const { ready } = this;
      const port = this;
      return {
        async next() {
          while (ready.length === 0) {
            const result = await iterator.next();
            if (result.done) return result;
            ready.push(...deliver([result.value], port));
          }
          return { done: false, value: ready.shift() };
        },
        return: () => iterator.return(),
        throw: (error) => iterator.throw(error),
        [Symbol.asyncIterator]() {
          return this;
        },
      };
    }
    dispatch(handler) {
      return this.real.dispatch((packet) => {
        for (const out of deliver([packet], this)) handler(out);
      });
    }
  }

  const base = deliver === undefined ? CompletionPort : DeliveringPort;
  return {
    CompletionPort: mutation.port === undefined ? base : mutation.port(base),
    FileHandle,
    TcpListener,
    TcpSocket,
    Operation,
    native,
  };
}

/** A copy of a packet with some of its fields replaced; its kind's prototype stays. */
export function change(packet, fields) {
  return Object.assign(Object.create(Object.getPrototypeOf(packet)), packet, fields);
}

/** Puts `replace(original)` in place of a method; `original` is called with `Reflect.apply`. */
export function replaceMethod(type, name, replace) {
  const original = type.prototype[name];
  type.prototype[name] = replace(original);
}
