// CANCEL-06 and -09: AbortSignals and timeouts of operations. They do what a cancel does, and the error says who it was.

import { getEventListeners } from 'node:events';
import * as fs from 'node:fs';
import type { ConformanceCase, Context, Operation, Packet, Port, TcpSocket } from '../types.js';
import { forEachWay, variants } from '../variants.js';
import { endOf, flights, fullListener, noMore, settled } from './flight.js';
import { accepted, connected } from './tcp-common.js';

const bySignal = 'No equivalent; an AbortSignal that fires does what CancelIoEx does';

/** Starts that would do something to be seen, with the proof that nothing was done. */
interface Deed {
  start(options: { signal: AbortSignal }): Operation;
  undone(): void;
}
const deeds: Readonly<Record<string, (t: Context, port: Port) => Deed>> = {
  recv(t, port) {
    const { a, b } = t.pair(port, 1, 2);
    b.send(new Uint8Array([5]));
    t.takeOneSync(port);
    const view = t.room(1);
    return {
      start: (options) => a.recv(view, options),
      undone() {
        t.equal(view[0], 0, 'the buffer');
        a.recv(view);
        t.takeOneSync(port);
        t.equal(view[0], 5, 'what the next recv gets');
      },
    };
  },
  send(t, port) {
    const { a, b } = t.pair(port, 1, 2);
    return {
      start: (options) => a.send(new Uint8Array([5]), options),
      undone() {
        a.send(new Uint8Array([6]));
        t.takeOneSync(port);
        const view = t.room(4);
        b.recv(view);
        t.equal(t.takeOneSync(port).bytesTransferred, 1, 'bytes that came');
        t.equal(view[0], 6, 'what came');
      },
    };
  },
  shutdown(t, port) {
    const { a } = t.pair(port, 1, 2);
    return {
      start: (options) => a.shutdown(options),
      undone() {
        a.send(new Uint8Array(1));
        t.succeeded(t.takeOneSync(port), 'a send after a shutdown that was not done');
      },
    };
  },
  accept(t, port) {
    const listener = t.listener(port, 1);
    const client = connected(t, port, listener, 2);
    return {
      start: (options) => listener.accept(options),
      undone() {
        listener.accept();
        const socket = accepted(t, t.takeOneSync(port));
        t.equal(socket.remoteAddress?.port, client.localAddress?.port, 'the connection that waited');
      },
    };
  },
  connect(t, port) {
    const listener = t.listener(port, 1);
    const socket = t.track(t.api.TcpSocket.openSync());
    port.associate(socket, 2);
    return {
      start: (options) => socket.connect({ host: '127.0.0.1', port: listener.address.port }, options),
      undone() {
        listener.accept();
        t.nothing(port, 20);
        t.equal(socket.remoteAddress, undefined, 'remoteAddress');
      },
    };
  },
  write(t, port) {
    const path = t.tempFile('file', 'abc');
    const file = t.openFile(port, 1, path);
    return {
      start: (options) => file.write(new Uint8Array([65]), { position: 0, ...options }),
      undone: () => t.equal(fs.readFileSync(path, 'utf8'), 'abc', 'the file'),
    };
  },
  truncate(t, port) {
    const path = t.tempFile('file', 'abc');
    const file = t.openFile(port, 1, path);
    return {
      start: (options) => file.truncate(0, options),
      undone: () => t.equal(fs.readFileSync(path, 'utf8'), 'abc', 'the file'),
    };
  },
  open(t, port) {
    const path = t.tempFile('new-file');
    return {
      start: (options) => port.open(path, 'wx', { key: 1, ...options }),
      undone: () => t.equal(fs.existsSync(path), false, 'whether the file was created'),
    };
  },
};

/** The error that the signal's own end must look like, reason included. */
function endedBySignal(t: Context, packet: Packet, reason: unknown): void {
  const error = t.failed(packet, { code: 'ECANCELED', by: 'signal' }, `a ${packet.kind} whose signal fired`);
  t.ok(Object.is(error.cause, reason), 'cause is the signal’s reason, the same object');
}

export const cases: readonly ConformanceCase[] = [
  ...variants<(signal: AbortSignal) => { signal: AbortSignal; turn(): void }>(
    {
      clause: 'CANCEL-06',
      title: 'a signal that throws when it is asked for its reason, or at all, takes no packet with it',
      reference: bySignal,
    },
    {
      'reason-that-throws': (signal) => ({
        signal,
        turn() {
          Object.defineProperty(signal, 'reason', {
            get() {
              throw new Error('a getter');
            },
          });
        },
      }),
      'proxy-that-throws': (signal) => {
        let turned = false;
        const get = (target: AbortSignal, name: string | symbol): unknown => {
          if (turned) throw new Error('a trap');
          return Reflect.get(target, name);
        };
        return {
          signal: new Proxy(signal, { get }),
          turn() {
            turned = true;
          },
        };
      },
    },
    async (t, make) => {
      const port = t.createPort();
      const listener = t.listener(port, 1);
      for (const early of [true, false]) {
        const controller = new AbortController();
        const { signal, turn } = make(controller.signal);
        const plain = new AbortController();
        if (early) {
          controller.abort();
          turn();
        }
        const other = listener.accept({ signal: plain.signal });
        let operation: Operation;
        try {
          operation = listener.accept({ signal });
        } catch (error) {
          t.equal((error as { code?: string }).code, 'ERR_INVALID_ARG_TYPE', 'a signal may be refused, as none');
          plain.abort();
          endedBySignal(t, t.takeOneSync(port), plain.signal.reason);
          continue;
        }
        if (!early) {
          t.nothing(port);
          turn();
          controller.abort();
        }
        t.ok(t.takeOneSync(port).operation === operation, 'the packet of the operation whose signal fired');
        t.equal(operation.pending, false, 'pending of it');
        plain.abort();
        t.ok(t.takeOneSync(port).operation === other, 'the packet of another that was pending beside it');
      }
      // A get that waits.
      const controller = new AbortController();
      const { signal, turn } = make(controller.signal);
      const waiting = port.get({ signal });
      turn();
      controller.abort();
      port.post(3);
      const answer = await t.within(1000, Promise.allSettled([waiting]), 'the get whose signal fired');
      const packet = answer[0].status === 'fulfilled' ? answer[0].value : port.getSync(0);
      t.equal(packet?.key, 3, 'key of a post, which that get took or left');
    },
  ),
  ...variants(
    { clause: 'CANCEL-06', title: 'a signal that is aborted at the start: packet ECANCELED, nothing done', reference: bySignal },
    deeds,
    (t, make) => {
      const port = t.createPort();
      const deed = make(t, port);
      const reason = new Error('why not');
      port.post(1);
      const operation = deed.start({ signal: AbortSignal.abort(reason) });
      t.equal(operation.pending, true, 'pending before the packet');
      t.equal(port.inFlight, 1, 'inFlight before the packet');
      port.post(2);
      t.equal(t.takeOneSync(port).key, 1, 'key of the post before it');
      const packet = t.takeOneSync(port);
      t.ok(packet.operation === operation, 'the packet is of the operation');
      endedBySignal(t, packet, reason);
      t.equal(packet.bytesTransferred, 0, 'bytes');
      t.equal(packet.result, undefined, 'result');
      t.equal(operation.pending, false, 'pending after the packet');
      t.equal(port.inFlight, 0, 'inFlight after the packet');
      t.equal(t.takeOneSync(port).key, 2, 'key of the post after it');
      noMore(t, port, 'after them');
      deed.undone();
    },
  ),

  ...variants(
    { clause: 'CANCEL-06', title: 'a signal that is aborted later cancels the operation', reference: bySignal },
    Object.fromEntries(Object.entries(flights).map(([name, start]) => [`later-${name}`, start])),
    (t, start) => {
      const port = t.createPort();
      const controller = new AbortController();
      const flight = start(t, port, { signal: controller.signal });
      settled(t, port, flight);
      const reason = { some: 'reason' };
      controller.abort(reason);
      const packet = endOf(t, port, flight);
      endedBySignal(t, packet, reason);
      noMore(t, port, 'after it');
      flight.after(packet);
    },
  ),

  {
    id: 'CANCEL-06/many',
    clause: 'CANCEL-06',
    title: 'one signal for hundreds of operations: one listener, one packet each, and no listener left; others stay',
    reference: bySignal,
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const listener = t.listener(port, 3);
      const { signal, controller } = ((made) => ({ signal: made.signal, controller: made }))(new AbortController());
      const listeners = (): number => getEventListeners(signal, 'abort').length;
      const stays = b.recv(t.room(1));
      const ended = new Set<Operation>();
      const all = t.count(300, 20);
      for (let i = 0; i < all; i++) {
        ended.add(i % 2 === 0 ? a.recv(t.room(1), { signal }) : listener.accept({ signal }));
        t.less(listeners(), 2, 'listeners on the signal');
      }
      t.nothing(port);
      controller.abort();
      for (const packet of t.takeSync(port, all)) {
        t.ok(packet.operation !== undefined && ended.delete(packet.operation), 'each operation has one packet');
        endedBySignal(t, packet, signal.reason);
      }
      t.equal(listeners(), 0, 'listeners on the signal after its operations');
      t.equal(stays.pending, true, 'pending of an operation without the signal');
      // A signal that never fires keeps no listener either, and one that fires after the end does nothing.
      const later = new AbortController();
      const operation = b.send(new Uint8Array(1), { signal: later.signal });
      t.ok(t.takeOneSync(port).operation === operation, 'the packet of a send with a signal');
      t.equal(getEventListeners(later.signal, 'abort').length, 0, 'listeners after an operation that succeeded');
      later.abort();
      noMore(t, port, 'after the late signal');
    },
  },

  ...variants(
    {
      clause: 'CANCEL-09',
      title: 'an operation’s own timeout: packet ETIMEDOUT, by its timeout, not early, bytes as those of a cancel',
      reference: 'No equivalent; a timer that calls CancelIoEx, with a status of its own',
    },
    flights,
    (t, start) => {
      const port = t.createPort();
      const clock = { startedAt: 0 };
      const flight = start(t, port, { timeout: 25, clock });
      const packet = endOf(t, port, flight);
      t.atLeast(t.now() - clock.startedAt, 25, 'milliseconds until the timeout’s packet');
      t.failed(packet, { code: 'ETIMEDOUT', by: 'timeout' }, 'the packet');
      t.equal(flight.operation.cancel(), false, 'cancel() after the packet');
      noMore(t, port, 'after it');
      flight.after(packet);
    },
  ),

  ...forEachWay(
    {
      clause: 'CANCEL-09',
      title: 'timeouts of many operations: none early, and with no way of getting by slices or polls late',
      reference: 'No equivalent; see CANCEL-09',
    },
    async (t, way) => {
      const port = t.createPort();
      const sockets = Array.from({ length: 10 }, () => t.pair(port, 1, 2).a);
      // A busy machine may be late itself; what comes by a slice or a poll would be late in each attempt.
      for (let attempt = 1; ; attempt++) {
        const started = new Map<unknown, { at: number; timeout: number }>();
        const all = t.random.shuffle(Array.from({ length: 20 }, (_, index) => 10 + index * 5));
        for (const [index, timeout] of all.entries()) {
          const socket = sockets[index % sockets.length] as TcpSocket;
          const at = t.now();
          started.set(socket.recv(t.room(1), { timeout }), { at, timeout });
        }
        const late: number[] = [];
        for (let i = 0; i < all.length; i++) {
          const packet = await t.takeOne(port, { way });
          const now = t.now();
          const { at, timeout } = t.some(started.get(packet.operation), 'what is known of the packet’s operation');
          started.delete(packet.operation);
          t.failed(packet, { code: 'ETIMEDOUT', by: 'timeout' }, 'a packet');
          t.atLeast(now - at, timeout, 'milliseconds until a timeout’s packet');
          late.push(now - at - timeout);
        }
        const median = t.some(late.sort((x, y) => x - y)[late.length / 2], 'the median');
        if (median < 10) break;
        if (attempt === 10)
          t.fail(`half of the timeouts were more than ${median.toFixed(1)} ms late, in each of ${attempt} attempts`);
      }
    },
  ),

  {
    id: 'CANCEL-09/lost-race',
    clause: 'CANCEL-09',
    title: 'what finishes before its timeout says its own result, and nothing comes at the timeout',
    reference: 'No equivalent; see CANCEL-09',
    async run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      for (const timeout of [8, 2 ** 31, 2 ** 32 + 1, Number.MAX_SAFE_INTEGER, Number.POSITIVE_INFINITY]) {
        const operation = a.recv(t.room(4), { timeout });
        t.nothing(port);
        b.send(new Uint8Array(3));
        const packets = t.takeSync(port, 2);
        const packet = t.some(
          packets.find((entry) => entry.operation === operation),
          'the recv’s packet',
        );
        t.succeeded(packet, `a recv with a timeout of ${timeout}`);
        t.equal(packet.bytesTransferred, 3, 'its bytes');
      }
      t.nothing(port, 15);
      // The same operation's old timeout must not end its next use.
      const operation = new t.api.Operation();
      operation.timeout = 20;
      b.send(new Uint8Array(1));
      a.recv(t.room(1), operation);
      t.takeSync(port, 2);
      operation.timeout = undefined;
      a.recv(t.room(1), operation);
      t.nothing(port, 40);
      t.equal(operation.pending, true, 'pending of the operation’s next use');
    },
  },

  {
    id: 'CANCEL-09/zero',
    clause: 'CANCEL-09',
    title: 'a timeout of 0 ends what can’t complete at once, and only that',
    reference: 'No equivalent; see CANCEL-09',
    run(t) {
      const port = t.createPort();
      const { a } = t.pair(port, 1, 2);
      const listener = fullListener(t, port);
      const socket = t.track(t.api.TcpSocket.openSync());
      port.associate(socket, 3);
      const operations = [
        a.recv(t.room(4), { timeout: 0 }),
        socket.connect({ host: '127.0.0.1', port: listener.address.port }, { timeout: 0.5 }),
      ];
      for (const packet of t.takeSync(port, 2)) {
        t.ok(operations.includes(packet.operation as Operation), 'the packet is of one of the two');
        t.failed(packet, { code: 'ETIMEDOUT', by: 'timeout' }, `a ${packet.kind}`);
      }
      noMore(t, port, 'after them');
    },
  },
];
