// OP-01, -02, -03, -06: the life of an operation object, from its start to its packet and its next start. Limits are in
// operations-limits.ts.

import type { ConformanceCase, Context, FileHandle, Operation, Packet, Port } from '../types.js';
import { forEachWay, variants } from '../variants.js';
import { childAnswer, childCaseMs, childMs } from './buffers.js';
import { flights, noMore, settled } from './flight.js';
import { connect } from './tcp-common.js';

const queued = 'Without FILE_SKIP_COMPLETION_PORT_ON_SUCCESS a request that completes at once queues its packet like any other';
const reuse = 'An OVERLAPPED may be used again once its packet is dequeued, and not before';

/** Operations that can complete at once, for OP-01; each with the bytes that it moves. */
const immediate: Readonly<Record<string, (t: Context, port: Port) => { start(): Operation; bytes: number }>> = {
  recv(t, port) {
    const { a, b } = t.pair(port, 1, 2);
    b.send(new Uint8Array(5));
    t.takeOneSync(port);
    return { start: () => a.recv(t.room(9)), bytes: 5 };
  },
  send: (t, port) => {
    const { a } = t.pair(port, 1, 2);
    return { start: () => a.send(new Uint8Array(6)), bytes: 6 };
  },
  shutdown: (t, port) => {
    const { a } = t.pair(port, 1, 2);
    return { start: () => a.shutdown(), bytes: 0 };
  },
  accept(t, port) {
    const listener = t.listener(port, 1);
    connect(t, port, listener, 2);
    t.takeOneSync(port);
    return { start: () => listener.accept(), bytes: 0 };
  },
  read: (t, port) => {
    const file = t.openFile(port, 1, t.tempFile('file', 'abcdef'));
    return { start: () => file.read(t.room(4), { position: 0 }), bytes: 4 };
  },
  'read-nothing': (t, port) => {
    const file = t.openFile(port, 1, t.tempFile('file', 'abcdef'));
    return { start: () => file.read(t.room(0), { position: 0 }), bytes: 0 };
  },
  write: (t, port) => {
    const file = t.openFile(port, 1, t.tempFile('file', 'abcdef'));
    return { start: () => file.write(new Uint8Array(3), { position: 0 }), bytes: 3 };
  },
  size: (t, port) => {
    const file = t.openFile(port, 1, t.tempFile('file', 'abcdef'));
    return { start: () => file.size(), bytes: 0 };
  },
};

/** Starts that can’t succeed: OP-06. */
const refused: Readonly<Record<string, { start(t: Context, port: Port): Operation; code: string | readonly string[] }>> = {
  'read-write-only': {
    start: (t, port) => t.openFile(port, 9, t.tempFile('file', 'abc'), 'w').read(t.room(1), { position: 0 }),
    code: 'EBADF',
  },
  'write-read-only': {
    start: (t, port) => t.openFile(port, 9, t.tempFile('file', 'abc'), 'r').write(new Uint8Array(1), { position: 0 }),
    code: 'EBADF',
  },
  'recv-unconnected': {
    start: (t, port) => loose(t, port).recv(t.room(1)),
    code: 'ENOTCONN',
  },
  'send-unconnected': {
    start: (t, port) => loose(t, port).send(new Uint8Array(1)),
    code: ['ENOTCONN', 'EPIPE'],
  },
  'shutdown-unconnected': {
    start: (t, port) => loose(t, port).shutdown(),
    code: 'ENOTCONN',
  },
  'connect-connected': {
    start(t, port) {
      const listener = t.listener();
      const { socket } = connect(t, port, listener, 9);
      t.succeeded(t.takeOneSync(port), 'the first connect');
      return socket.connect({ host: '127.0.0.1', port: listener.address.port });
    },
    code: 'EISCONN',
  },
  'open-missing': {
    start: (t, port) => port.open(`${t.tempDir()}/no/such/file`, 'r', { key: 9 }),
    code: 'ENOENT',
  },
};

function loose(t: Context, port: Port) {
  const socket = t.track(t.api.TcpSocket.openSync());
  port.associate(socket, 9);
  return socket;
}

export const cases: readonly ConformanceCase[] = [
  ...variants(
    {
      clause: 'OP-01',
      title: 'an operation that completes at once still queues its packet, and is pending until then',
      reference: queued,
    },
    immediate,
    async (t, make) => {
      const port = t.createPort();
      const { start, bytes } = make(t, port);
      let during = 0;
      const consumer = port.dispatch(() => during++);
      const operation = start();
      t.equal(operation.pending, true, 'pending after the start');
      port.flush();
      t.equal(during, 0, 'packets delivered inside start and flush');
      consumer.stop();
      t.equal(operation.pending, true, 'pending after the flush');
      t.equal(port.inFlight, 1, 'inFlight after the flush');
      await t.turn();
      const packet = t.takeOneSync(port);
      t.ok(packet.operation === operation, 'the packet is of the operation');
      t.succeeded(packet, 'it');
      t.equal(packet.bytesTransferred, bytes, 'bytes');
      if (packet.kind === 'accept') packet.result?.close();
      t.equal(port.inFlight, 0, 'inFlight after the packet');
      noMore(t, port, 'after it');
    },
  ),

  {
    id: 'OP-02/everywhere',
    clause: 'OP-02',
    title: 'one operation object serves any handle, port and kind, one after the other',
    reference: reuse,
    run(t) {
      const ports = [t.createPort(), t.createPort()] as const;
      const operation = new t.api.Operation({ mine: true }, { id: 5 });
      t.equal(operation.kind, null, 'kind before the first start');
      const { context } = operation;
      for (let round = 0; round < 3; round++) {
        for (const port of ports) {
          const { a, b } = t.pair(port, 1, 2);
          const listener = t.listener(port, 3);
          const file = t.openFile(port, 4, t.tempFile('file', 'abcdef'));
          b.send(new Uint8Array(3));
          t.takeOneSync(port);
          const socket = loose(t, port);
          const starts: [string, () => Operation][] = [
            ['recv', () => a.recv(t.room(3), operation)],
            ['send', () => a.send(new Uint8Array(3), operation)],
            ['sendv', () => a.send([new Uint8Array(3)], operation)],
            ['size', () => file.size(operation)],
            ['read', () => file.read(t.room(3), Object.assign(operation, { position: 0 }))],
            ['writev', () => file.writev([new Uint8Array(3)], operation)],
            ['sync', () => file.sync(operation)],
            ['connect', () => socket.connect({ host: '127.0.0.1', port: listener.address.port }, operation)],
            ['accept', () => listener.accept(operation)],
            ['open', () => port.open(t.tempFile('file'), 'r', Object.assign(operation, { key: 9 }))],
            ['shutdown', () => a.shutdown(operation)],
          ];
          for (const [kind, start] of starts) {
            t.ok(start() === operation, `the start of a ${kind} returns the operation that it was given`);
            t.equal(operation.kind, kind, 'kind');
            t.equal(operation.pending, true, 'pending');
            const packet = t.takeOneSync(port);
            t.ok(packet.operation === operation, `the packet of a ${kind} is of the operation`);
            t.equal(packet.kind, kind, 'kind of the packet');
            t.equal(packet.operationId, 5, 'operationId');
            t.succeeded(packet, kind);
            t.equal(operation.pending, false, 'pending');
            t.ok(operation.context === context && operation.id === 5, 'context and id are as they were');
            if (packet.kind === 'accept' || packet.kind === 'open') packet.result?.close();
          }
          noMore(t, port, 'after all kinds');
        }
      }
    },
  },

  ...variants<'id' | 'position' | 'offset' | 'length' | 'timeout' | 'signal'>(
    {
      clause: 'OP-02',
      title: 'an option whose getter starts the same operation, or closes the handle, lets only one of both happen',
      reference: reuse,
    },
    {
      'getter-of-id': 'id',
      'getter-of-position': 'position',
      'getter-of-offset': 'offset',
      'getter-of-length': 'length',
      'getter-of-timeout': 'timeout',
      'getter-of-signal': 'signal',
    },
    (t, option) => {
      const port = t.createPort();
      const path = t.tempFile('file', 'abcdef');
      const listener = t.listener(port, 1);
      const file = t.openFile(port, 2, path);
      const starts: ((operation: Operation) => unknown)[] = [
        (operation) => file.read(new Uint8Array(3), operation),
        (operation) => file.writev([new Uint8Array(3)], operation),
        (operation) => file.size(operation),
        (operation) => port.open(path, 'r', operation as Operation & { key: number }),
      ];
      /** An operation with a getter that acts when it is first read. */
      const trapped = (act: (operation: Operation) => void): { operation: Operation; wasRead: () => boolean } => {
        const operation = new t.api.Operation();
        operation.position = 0;
        operation.key = 9;
        const value = operation[option];
        let read = false;
        Object.defineProperty(operation, option, {
          configurable: true,
          get() {
            if (!read) {
              read = true;
              act(operation);
            }
            return value;
          },
        });
        return { operation, wasRead: () => read };
      };
      for (const start of starts) {
        const { operation, wasRead } = trapped((inner) => listener.accept(inner));
        let outer: unknown = null;
        try {
          start(operation);
        } catch (error) {
          outer = error;
        }
        if (wasRead()) {
          t.equal((outer as { code?: string } | null)?.code, 'ERR_OPERATION_PENDING', 'what the outer start throws');
          t.equal(operation.cancel(), true, 'cancel of the operation that the getter started');
        }
        t.equal(port.inFlight, 1, 'inFlight');
        const packet = t.takeOneSync(port);
        t.ok(packet.operation === operation, 'the one packet');
        t.equal(operation.pending, false, 'pending after it');
        if (packet.kind === 'open') (packet.result as FileHandle).close();
        t.nothing(port);
      }
      for (const start of starts.slice(0, 3)) {
        const { operation, wasRead } = trapped(() => file.close());
        if (file.closed) break;
        let outer: unknown = null;
        try {
          start(operation);
        } catch (error) {
          outer = error;
        }
        if (!wasRead()) continue;
        t.equal(
          (outer as { code?: string } | null)?.code,
          'ERR_HANDLE_CLOSED',
          'what a start throws whose getter closed the handle',
        );
        t.equal(port.inFlight, 0, 'inFlight');
        t.equal(operation.pending, false, 'pending');
      }
    },
  ),

  ...variants(
    {
      clause: 'OP-02',
      title: 'starting a pending operation throws ERR_OPERATION_PENDING and disturbs nothing',
      reference: reuse,
    },
    flights,
    (t, start) => {
      const port = t.createPort();
      const other = t.createPort();
      const operation = new t.api.Operation('context', { id: 77 });
      const flight = start(t, port, { operation });
      const { a, b } = t.pair(other, 1, 2);
      const file = t.openFile(other, 3, t.tempFile('file', 'abc'));
      const listener = t.listener(other, 4);
      for (const flushed of [false, true]) {
        if (flushed) settled(t, port, flight);
        const shape = { code: 'ERR_OPERATION_PENDING', name: 'Error' };
        t.throws(() => a.recv(t.room(1), operation), shape, 'a recv');
        t.throws(() => a.send(new Uint8Array(1), operation), shape, 'a send');
        t.throws(() => a.send([new Uint8Array(1)], operation), shape, 'a vectored send');
        t.throws(() => listener.accept(operation), shape, 'an accept');
        t.throws(() => file.read(t.room(1), Object.assign(operation, { position: 0 })), shape, 'a read');
        t.throws(() => file.size(operation), shape, 'a size');
        t.throws(() => other.open('/', 'r', Object.assign(operation, { key: 1 })), shape, 'an open');
        t.throws(() => a.shutdown(operation), shape, 'a shutdown');
        t.equal(other.inFlight, 0, 'inFlight of the other port');
        t.equal(operation.kind, flight.kind, 'kind');
      }
      t.equal(operation.pending, true, 'pending');
      // Nothing happened on the other port, and the pending one ends as it would have.
      b.recv(t.room(1));
      t.nothing(other);
      operation.cancel();
      const packet = t.takeOneSync(port);
      t.ok(packet.operation === operation, 'the packet is of the operation');
      t.failed(packet, { code: 'ECANCELED', by: 'cancel' }, 'it');
      t.equal(packet.operationId, 77, 'operationId');
      t.equal(packet.key, flight.key, 'key');
      noMore(t, port, 'after it');
    },
  ),

  ...forEachWay(
    { clause: 'OP-02', title: 'an operation may be started again inside the batch that delivered it', reference: reuse },
    async (t, way) => {
      const port = t.createPort();
      const file = t.openFile(port, 1, t.tempFile('file', 'abcdef'));
      const started = new Map<unknown, number>();
      const rounds = t.count(30, 3);
      for (let i = 0; i < 10; i++) started.set(file.size({ id: i }), 1);
      let delivered = 0;
      const again = (packet: Packet): void => {
        t.succeeded(packet, 'a size');
        t.equal(packet.result, 6, 'its result');
        t.equal(packet.operation?.pending, false, 'pending inside the batch');
        delivered++;
        const count = t.some(started.get(packet.operation), 'the operation is known');
        started.set(packet.operation, count + 1);
        if (count < rounds) {
          file.size(packet.operation);
          t.equal(packet.operation?.pending, true, 'pending after the next start');
        }
      };
      const all = 10 * rounds;
      if (way === 'dispatch') {
        const consumer = port.dispatch(again);
        await t.eventually(() => delivered === all, 'all packets by dispatch');
        consumer.stop();
      } else while (delivered < all) for (const packet of await t.take(port, 1, { way })) again(packet);
      t.equal(port.inFlight, 0, 'inFlight');
      noMore(t, port, 'after all');
    },
  ),

  {
    id: 'OP-03',
    clause: 'OP-03',
    title: 'packet.operation is the object that the start returned, its context untouched',
    reference: 'GetQueuedCompletionStatus gives back the very OVERLAPPED pointer of the request',
    async run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const file = t.openFile(port, 3, t.tempFile('file', 'abc'));
      const touched: string[] = [];
      const watched = new Proxy(
        {},
        {
          get: (_, name) => touched.push(`get ${String(name)}`),
          set: (_, name) => touched.push(`set ${String(name)}`) > 0,
          has: (_, name) => touched.push(`has ${String(name)}`) > 0,
        },
      );
      for (const context of [
        watched,
        undefined,
        null,
        0,
        'text',
        Symbol('s'),
        () => t.fail('a context was called'),
        Object.freeze({}),
      ]) {
        const made = new t.api.Operation<unknown>(context);
        const starts: (() => Operation)[] = [
          () => a.recv(t.room(1), made),
          () => a.recv(t.room(1), { context }),
          () => file.size({ context, id: 2 ** 53 - 1 }),
          () => file.read(t.room(1), { context, position: 0 }),
        ];
        for (const start of starts) {
          const operation = start();
          t.ok(operation instanceof t.api.Operation, 'a start returns an Operation');
          t.ok(Object.is(operation.context, context), 'context after the start');
          if (operation.kind === 'recv') b.send(new Uint8Array(1));
          for (const packet of t.takeSync(port, operation.kind === 'recv' ? 2 : 1)) {
            if (packet.kind === 'send') continue;
            t.ok(packet.operation === operation, 'the packet’s operation is the object that the start returned');
            t.ok(Object.is(packet.operation?.context, context), 'context in the packet');
            t.equal(packet.operationId, operation.id, 'operationId');
          }
        }
      }
      t.deepEqual(touched, [], 'what was done to a context');
    },
  },

  ...variants<{ lack: string; wrap?: readonly string[]; codes: readonly string[]; refill: string }>(
    {
      clause: 'OP-06',
      title: 'what a start lacks is said by its packet, and what comes later doesn’t suffer from it',
      reference: 'A request that fails at once queues no packet on Windows; here it does, so that failures come one way only',
      needs: ['linux', 'proc'],
      timeoutMs: childCaseMs,
    },
    {
      'no-descriptors': {
        lack: `for (;;) try { fds.push(openSync('/dev/null')); } catch (error) { if (error.code === 'EMFILE') break; throw error; }`,
        codes: ['EMFILE'],
        refill: 'for (const fd of fds) closeSync(fd);',
      },
      'no-threads': {
        // Less room than the stack of a thread takes, of the size that this program was started with; plenty for the runtime,
        // whose compiler and heap go on: with 4 MiB they ended the program once.
        lack: `const size = Number(readFileSync('/proc/self/statm', 'utf8').split(' ')[0]) * 4096 + 256 * 2 ** 20;
          const limited = spawnSync('prlimit', ['--pid', String(process.pid), '--as=' + size + ':']);
          if (limited.status !== 0) answer({ unable: 'prlimit can’t be run: ' + (limited.error ?? limited.stderr) });`,
        // pthread_create(3): the soft limit when the program starts is what a new thread's stack takes, in KiB here.
        wrap: ['sh', '-c', 'ulimit -S -s 1048576 2>/dev/null; exec "$@"', 'sh'],
        codes: ['ENOMEM'],
        refill: '',
      },
    },
    async (t, { lack, wrap, codes, refill }) => {
      const answer = await childAnswer<{ before: (string | null)[]; after: (string | null)[]; size: number }>(
        t,
        `
        import { spawnSync } from 'node:child_process';
        import { closeSync, openSync, readFileSync, statSync } from 'node:fs';
        const answer = (said) => { console.log(JSON.stringify(said)); process.exit(0); };
        const path = process.argv[2];
        const port = createPort();
        const file = FileHandle.openSync(path, 'r+');
        port.associate(file, 1);
        const truncate = (size) => {
          file.truncate(size);
          const packet = port.getSync(3000);
          return packet === null ? 'no packet' : packet.error === null ? null : packet.error.code;
        };
        const fds = [];
        ${lack}
        const before = [truncate(20), truncate(30)];
        if (${refill === ''} && before[0] === null) answer({ unable: 'a thread was to be had' });
        ${refill}
        const after = [truncate(40), truncate(50)];
        answer({ before, after, size: statSync(path).size });
        `,
        // Truncating takes the way of systems that have no asynchronous form of it.
        {
          args: [t.tempFile('file', 'x'.repeat(1000))],
          ...(wrap === undefined ? {} : { wrap }),
          env: { COMPLETION_PORT_DISABLE: 'ftruncate' },
          timeoutMs: childMs,
        },
      );
      const { before, after, size } = answer;
      for (const code of refill === '' ? [...before, ...after] : before)
        t.ok(code === null || codes.includes(code), `the end of a truncate that lacks something, which is ${code}`);
      if (refill !== '') t.deepEqual(after, [null, null], 'the ends of those that lack nothing');
      const last = [...before, ...after].lastIndexOf(null);
      t.equal(size, last < 0 ? 1000 : 20 + 10 * last, 'the file’s size, by the last that said success');
    },
  ),

  ...variants(
    {
      clause: 'OP-06',
      title: 'a failure to start is a packet like any other failure, and exactly one',
      reference: 'A request that fails at once queues no packet on Windows; here it does, so that failures come one way only',
    },
    refused,
    (t, { start, code }) => {
      const port = t.createPort();
      const operation = start(t, port);
      t.equal(operation.pending, true, 'pending after a start that can’t succeed');
      t.equal(port.inFlight, 1, 'inFlight');
      port.post(1);
      const packets = t.takeSync(port, 2);
      const packet = t.some(
        packets.find((entry) => entry.operation === operation),
        'the packet of the operation',
      );
      const error = t.failed(packet, { code, name: 'CompletionError' }, 'it');
      t.equal(error.by, undefined, 'by of an error that isn’t ours');
      t.equal(packet.key, 9, 'key');
      t.equal(packet.bytesTransferred, 0, 'bytes');
      t.equal(packet.kind, operation.kind, 'kind');
      t.equal(operation.pending, false, 'pending after the packet');
      noMore(t, port, 'after it');
    },
  ),
];
