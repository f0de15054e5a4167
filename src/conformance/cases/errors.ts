// ERR-01 and -04: what a failed operation’s error says. Its code is the portable one, its numbers are the OS’s and Node’s, it names the
// call, and where the program itself ended the operation it says who did. Misuse is in misuse.ts.

import * as os from 'node:os';
import type { ConformanceCase, Context, Packet, Port } from '../types.js';
import { variants } from '../variants.js';
import { errnoOf } from './buffers.js';
import { flights, mainFlights } from './flight.js';
import { pendingConnect, unusedPort } from './tcp-common.js';

const status = 'The status is in the OVERLAPPED; GetLastError gives a Win32 code, which maps to the portable one';
const whose = 'ERROR_OPERATION_ABORTED doesn’t say who cancelled; our error does';

interface Cause {
  readonly code: string;
  readonly kind: Packet['kind'];
  /** What the message says that somebody can do, where somebody can. */
  readonly advice?: RegExp;
  make(t: Context, port: Port): Promise<Packet> | Packet;
}

/** The packet of the operation that was started last, whatever others come with it. */
function last(t: Context, port: Port, kind: Packet['kind']): Packet {
  for (;;) {
    const packet = t.takeOneSync(port);
    if (packet.kind === kind && packet.error !== null) return packet;
  }
}

const causes: Readonly<Record<string, Cause>> = {
  ECONNREFUSED: {
    code: 'ECONNREFUSED',
    kind: 'connect',
    advice: /server|listen/i,
    make(t, port) {
      const socket = t.track(t.api.TcpSocket.openSync());
      port.associate(socket, 1);
      socket.connect({ host: '127.0.0.1', port: unusedPort(t) });
      return last(t, port, 'connect');
    },
  },
  ECONNRESET: {
    code: 'ECONNRESET',
    kind: 'recv',
    async make(t, port) {
      const { socket, peer } = await t.peer(port);
      socket.recv(t.room(1));
      port.flush();
      peer.resetAndDestroy();
      return t.takeOne(port, { way: 'get' });
    },
  },
  EPIPE: {
    code: 'EPIPE',
    kind: 'send',
    make(t, port) {
      const { a } = t.pair(port);
      a.shutdown();
      a.send(new Uint8Array(1));
      return last(t, port, 'send');
    },
  },
  ENOTCONN: {
    code: 'ENOTCONN',
    kind: 'recv',
    advice: /connect/i,
    make(t, port) {
      const socket = t.track(t.api.TcpSocket.openSync());
      port.associate(socket, 1);
      socket.recv(t.room(1));
      return last(t, port, 'recv');
    },
  },
  EISCONN: {
    code: 'EISCONN',
    kind: 'connect',
    make(t, port) {
      const { a } = t.pair(port);
      const listener = t.listener();
      a.connect({ host: '127.0.0.1', port: listener.address.port });
      return last(t, port, 'connect');
    },
  },
  EBADF: {
    code: 'EBADF',
    kind: 'write',
    advice: /direction|opened/i,
    make(t, port) {
      t.openFile(port, 1, t.tempFile('file', 'abc'), 'r').write(new Uint8Array(1), { position: 0 });
      return last(t, port, 'write');
    },
  },
  ENOENT: {
    code: 'ENOENT',
    kind: 'open',
    make(t, port) {
      port.open(`${t.tempDir()}/nothing`, 'r', { key: 1 });
      return last(t, port, 'open');
    },
  },
  EISDIR: {
    code: 'EISDIR',
    kind: 'open',
    advice: /directory/i,
    make(t, port) {
      port.open(t.tempDir(), 'r', { key: 1 });
      return last(t, port, 'open');
    },
  },
  ENOTDIR: {
    code: 'ENOTDIR',
    kind: 'open',
    make(t, port) {
      port.open(`${t.tempFile('file', 'abc')}/more`, 'r', { key: 1 });
      return last(t, port, 'open');
    },
  },
  EEXIST: {
    code: 'EEXIST',
    kind: 'open',
    make(t, port) {
      port.open(t.tempFile('file', 'abc'), 'wx', { key: 1 });
      return last(t, port, 'open');
    },
  },
  EFBIG: {
    code: 'EFBIG',
    kind: 'write',
    make(t, port) {
      // Beyond what any file can have: 2^63 is the limit of off_t, file systems stop before.
      t.openFile(port, 1, t.tempFile('file', 'abc')).write(new Uint8Array(1), { position: Number.MAX_SAFE_INTEGER });
      return last(t, port, 'write');
    },
  },
  ECANCELED: {
    code: 'ECANCELED',
    kind: 'recv',
    make(t, port) {
      const { a } = t.pair(port);
      a.recv(t.room(1));
      a.cancel();
      return last(t, port, 'recv');
    },
  },
  ETIMEDOUT: {
    code: 'ETIMEDOUT',
    kind: 'accept',
    make(t, port) {
      t.listener(port, 1).accept({ timeout: 1 });
      return last(t, port, 'accept');
    },
  },
};

export const cases: readonly ConformanceCase[] = [
  ...Object.entries(causes).map(
    ([name, { code, kind, advice, make }]): ConformanceCase => ({
      id: `ERR-01/${name.replaceAll(' ', '-')}`,
      clause: 'ERR-01',
      title: `${code} has its portable code, its numbers, its call and a message`,
      reference: status,
      async run(t) {
        const port = t.createPort();
        const packet = await make(t, port);
        t.equal(packet.kind, kind, 'kind');
        const error = t.failed(packet, { code, name: 'CompletionError' }, `a ${kind}`);
        t.ok(error instanceof Error, 'the error is an Error');
        t.equal(error.errno, errnoOf(t, code), 'errno');
        t.ok(
          Number.isInteger(error.nativeCode) && error.nativeCode > 0,
          `nativeCode is a positive integer, and is ${error.nativeCode}`,
        );
        // A timeout of ours is ours alone: the OS only says that it was cancelled.
        if (process.platform !== 'win32' && error.by !== 'timeout')
          t.equal(error.nativeCode, -error.errno, 'nativeCode on POSIX');
        t.ok(
          typeof error.syscall === 'string' && /^[a-z]+$/.test(error.syscall),
          `syscall is a name, and is ${String(error.syscall)}`,
        );
        t.ok(error.message.includes(code), `the message names the code: ${error.message}`);
        t.atLeast(error.message.length, code.length + 8, 'length of the message');
        if (advice !== undefined) t.ok(advice.test(error.message), `the message says what to do: ${error.message}`);
        t.equal(packet.result, undefined, 'result');
        t.ok(String(error).startsWith('CompletionError'), `the error as text, which is ${String(error)}`);
      },
    }),
  ),

  {
    id: 'ERR-01/thrown',
    clause: 'ERR-01',
    title: 'calls that return no packet throw errors of the same shape',
    reference: status,
    run(t) {
      const listener = t.listener();
      const file = t.tempFile('file', 'abc');
      const calls: [string, string, () => unknown][] = [
        ['EADDRINUSE', 'listen', () => t.api.TcpListener.listenSync({ port: listener.address.port })],
        ['ENOENT', 'open', () => t.api.FileHandle.openSync(`${t.tempDir()}/nothing`)],
        ['EISDIR', 'open', () => t.api.FileHandle.openSync(t.tempDir())],
        ['EEXIST', 'open', () => t.api.FileHandle.openSync(file, 'wx')],
        ['EADDRNOTAVAIL', 'listen', () => t.api.TcpListener.listenSync({ port: 0, host: '192.0.2.1' })],
        ['EADDRNOTAVAIL', 'bind', () => t.api.TcpSocket.openSync({ localAddress: '192.0.2.1' })],
      ];
      const before = t.fdCount();
      for (const [code, syscall, call] of calls) {
        const error = t.throws(call, { code, name: 'CompletionError' }, syscall) as NonNullable<Packet['error']>;
        t.equal(error.errno, errnoOf(t, code), `errno of ${code}`);
        if (os.platform() !== 'win32') t.equal(error.nativeCode, -error.errno, `nativeCode of ${code}`);
        t.equal(error.syscall, syscall, `syscall of ${code}`);
        t.ok(error.message.includes(code), `the message names the code: ${error.message}`);
      }
      t.equal(t.fdCount(), before, 'descriptors after calls that failed');
    },
  },

  ...variants<'cancel' | 'signal' | 'timeout' | 'close' | 'handle'>(
    {
      clause: 'ERR-04',
      title: 'ECANCELED and ETIMEDOUT of ours say by whom, a signal with its reason as cause',
      reference: whose,
    },
    { cancel: 'cancel', signal: 'signal', timeout: 'timeout', close: 'close', handle: 'handle' },
    (t, ender) => {
      for (const [name, start] of Object.entries(flights)) {
        const port = t.createPort();
        const controller = new AbortController();
        const flight = start(
          t,
          port,
          ender === 'signal' ? { signal: controller.signal } : ender === 'timeout' ? { timeout: 2 } : {},
        );
        if (ender !== 'timeout') t.nothing(port);
        const reason = new RangeError('my reason');
        if (ender === 'cancel') flight.operation.cancel();
        else if (ender === 'signal') controller.abort(reason);
        else if (ender === 'close') flight.handle.close();
        else if (ender === 'handle') flight.handle.cancel();
        let packet: Packet;
        do packet = t.takeOneSync(port);
        while (packet.operation !== flight.operation);
        const code = ender === 'timeout' ? 'ETIMEDOUT' : 'ECANCELED';
        const error = t.failed(packet, { code, by: ender === 'handle' ? 'cancel' : ender }, name);
        t.equal(error.errno, errnoOf(t, code), 'errno');
        t.ok(error.message.includes(code), `the message names the code: ${error.message}`);
        if (ender === 'signal') t.ok(error.cause === reason, 'cause is the signal’s reason');
        else t.equal('cause' in error, false, 'whether the error has a cause');
      }
    },
  ),

  {
    id: 'ERR-04/first',
    clause: 'ERR-04',
    title: 'who comes first is who did it: a later signal or timeout changes nothing about the error',
    reference: whose,
    run(t) {
      for (const start of Object.values(mainFlights)) {
        const port = t.createPort();
        const controller = new AbortController();
        const flight = start(t, port, { signal: controller.signal, timeout: 60_000 });
        t.nothing(port);
        flight.operation.cancel();
        controller.abort(new Error('too late'));
        const packet = t.takeOneSync(port);
        const error = t.failed(packet, { code: 'ECANCELED', by: 'cancel' }, `a ${flight.kind}`);
        t.equal('cause' in error, false, 'whether the error has a cause');
      }
    },
  },

  {
    id: 'ERR-04/others',
    clause: 'ERR-04',
    title: 'an error of the system’s has no `by`, an ETIMEDOUT of a connection that nobody answers included',
    reference: whose,
    run(t) {
      const port = t.createPort();
      for (const cause of Object.values(causes)) {
        if (cause.code === 'ECANCELED' || cause.code === 'ETIMEDOUT') continue;
        const made = cause.make(t, t.createPort());
        if (made instanceof Promise) {
          // ECONNRESET: shown by its own case. Here its port may be closed under it.
          made.catch(() => undefined);
          continue;
        }
        t.equal(made.error?.by, undefined, `by of ${cause.code}`);
        t.equal('cause' in (made.error ?? {}), false, `whether ${cause.code} has a cause`);
      }
      const { connecting } = pendingConnect(t, port, 1);
      connecting.cancel();
      t.failed(t.takeOneSync(port), { code: 'ECANCELED', by: 'cancel' }, 'a connect');
    },
  },

  {
    id: 'ERR-04/stacks',
    clause: 'ERR-04',
    title: 'ten thousand errors at once cost no stack traces, and leave the runtime’s settings alone',
    reference: 'A status is a number on Windows; ten thousand connections that close at once must cost little more here',
    run(t) {
      const port = t.createPort();
      const listener = t.listener(port, 1);
      const all = t.count(10_000, 100);
      const deep = (depth: number): Packet[] => {
        if (depth > 0) return deep(depth - 1);
        for (let i = 0; i < all; i++) listener.accept();
        t.equal(listener.cancel(), all, 'accepts that were cancelled');
        return t.takeSync(port, all);
      };
      const limit = Error.stackTraceLimit;
      let traced = 0;
      const { prepareStackTrace } = Error;
      Error.stackTraceLimit = 50;
      Error.prepareStackTrace = (error, sites) => {
        if (sites.length > 0) traced++;
        return String(error);
      };
      let packets: Packet[];
      try {
        packets = deep(30);
        t.equal(Error.stackTraceLimit, 50, 'Error.stackTraceLimit afterwards');
        for (const { error } of packets) void error?.stack;
        t.equal(traced, 0, 'stack traces that were taken');
        void new Error('with a trace').stack;
        t.equal(traced, 1, 'stack traces of an ordinary error');
      } finally {
        Error.stackTraceLimit = limit;
        if (prepareStackTrace === undefined) Reflect.deleteProperty(Error, 'prepareStackTrace');
        else Error.prepareStackTrace = prepareStackTrace;
      }
      const seen = new Set(packets.map(({ error }) => error));
      t.equal(seen.size, all, 'different errors: each packet has its own');
      for (const { error } of packets) {
        if (error === null || error.code !== 'ECANCELED' || error.by !== 'cancel') return t.fail(`an error is ${String(error)}`);
        if (/\n\s+at /.test(error.stack ?? '')) t.fail(`an error has a stack trace: ${error.stack}`);
      }
    },
  },
];
