// ERR-03's table: every public call, arguments that are good, and what is wrong in the place of each. Not a family: it exports no cases.

import type { Context, FileHandle, Port, TcpListener, TcpSocket } from '../types.js';

/** One value and the codes that may refuse it. */
type Bad = readonly [value: unknown, ...codes: string[]];

const TYPE = 'ERR_INVALID_ARG_TYPE';
const VALUE = 'ERR_INVALID_ARG_VALUE';
export const RANGE = 'ERR_OUT_OF_RANGE';

const typed = (...values: unknown[]): Bad[] => values.map((value) => [value, TYPE]);
const ranged = (...values: unknown[]): Bad[] => values.map((value) => [value, RANGE]);
const valued = (...values: unknown[]): Bad[] => values.map((value) => [value, VALUE]);

const noNumber = typed('1', null, {}, [], true, 1n, Symbol('s'), () => 1, new Date(0), { valueOf: () => 1 });
/** For parameters that can’t be left out. */
const required = typed(undefined);
const noInteger = ranged(-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53);
const safeInteger = [...noNumber, ...noInteger];
const milliseconds = [...noNumber, ...ranged(-1, -0.001, Number.NaN, Number.NEGATIVE_INFINITY)];
const noObject = typed(null, 5, 'text', true, 1n, Symbol('s'));
const noBoolean = typed(1, 0, 'yes', null, {}, []);
const noSignal = typed(5, 'text', null, {}, new EventTarget(), new AbortController(), true);
const noView = typed(undefined, null, 5, 'text', {}, true, new ArrayBuffer(4), new SharedArrayBuffer(4), () => 1);
const noLiteral = [
  ...typed(5, null, {}, [], true),
  ...valued('localhost', '', '256.0.0.1', '1.2.3', '127.0.0.1 ', '::g', 'a\0b', '[::1]'),
];
const portNumber = [...noNumber, ...ranged(-1, 65_536, 0.5, Number.NaN, Number.POSITIVE_INFINITY)];

function detached(): Uint8Array {
  const view = new Uint8Array(8);
  structuredClone(view.buffer, { transfer: [view.buffer] });
  return view;
}

/** A call, its good arguments, and what is wrong in their place. A path such as '1.timeout' is a property of an options object. */
interface Call {
  readonly call: (...args: never[]) => unknown;
  readonly good: () => unknown[];
  readonly bad: Readonly<Record<string, readonly Bad[]>>;
  /** It answers with a promise, which may be what rejects. */
  readonly async?: boolean;
}

export interface Things {
  readonly port: Port;
  readonly file: FileHandle;
  readonly listener: TcpListener;
  readonly socket: TcpSocket;
  readonly path: string;
}

/** The options that every start takes, as bad values of argument `at`. */
function startOptions(at: number): Record<string, readonly Bad[]> {
  return {
    [`${at}`]: noObject,
    [`${at}.timeout`]: milliseconds,
    [`${at}.signal`]: noSignal,
    [`${at}.id`]: safeInteger,
  };
}

const oneView = (at: number): Record<string, readonly Bad[]> => ({
  ...startOptions(at + 1),
  [`${at}`]: noView,
  [`${at + 1}.offset`]: [...noNumber, ...noInteger, ...ranged(5)],
  [`${at + 1}.length`]: [...noNumber, ...noInteger, ...ranged(5)],
});

const manyViews: readonly Bad[] = [
  ...typed(
    undefined,
    null,
    5,
    'text',
    {},
    new Uint8Array(4),
    new Set(),
    [5],
    [null],
    [undefined],
    [new ArrayBuffer(4)],
    [[new Uint8Array(1)]],
  ),
  ...ranged(Array.from({ length: 1025 }, () => new Uint8Array(1))),
];

export const families: Readonly<Record<string, (t: Context, things: Things) => Readonly<Record<string, Call>>>> = {
  create: (t) => ({
    create: {
      call: (options: object) => t.createPort(options),
      good: () => [{}],
      bad: {
        '0.concurrency': [...noNumber, ...ranged(-1, 0.5, Number.NaN, 2 ** 31, Number.POSITIVE_INFINITY)],
        '0.maxOperations': [...noNumber, ...ranged(0, -1, 1.5, 1_048_577, Number.NaN)],
        '0.arenaBytes': [...noNumber, ...ranged(-1, 0.5, 2 ** 31 + 1, Number.NaN)],
        '0.ringEntries': [...noNumber, ...ranged(7, 4097, 8.5, Number.NaN)],
        '0.poolThreads': [...noNumber, ...ranged(0, 1025, 1.5, Number.NaN)],
        '0.eventLoop': [5, null, 'other', '', {}].map((value): Bad => [value, TYPE, VALUE]),
        '0.shared': noBoolean,
        '0.backend': [...typed(5, {}, true, null), ...valued('other', '', 'IO_URING')],
      },
    },
    'create of no options': {
      call: (options: object) => t.api.CompletionPort.create(options).close(),
      good: () => [{}],
      bad: { 0: noObject },
    },
    Operation: {
      call: (context: unknown, options: object) => new t.api.Operation(context, options),
      good: () => [undefined, {}],
      bad: { 1: noObject, '1.id': safeInteger },
    },
  }),

  port: (t, { port, path, socket }) => ({
    associate: {
      call: port.associate.bind(port),
      good: () => [t.track(t.api.TcpSocket.openSync()), 1],
      bad: {
        0: typed(undefined, null, 5, {}, 'text', port, Object.create(t.api.FileHandle.prototype), socket.id, t.api.TcpSocket),
        1: [...required, ...safeInteger],
      },
    },
    post: {
      call: port.post.bind(port),
      good: () => [1, 0, null],
      bad: {
        0: [...required, ...safeInteger],
        1: [...noNumber, ...ranged(-1, 0.5, Number.NaN, 2 ** 32, Number.POSITIVE_INFINITY)],
        2: typed(5, 'text', true, Symbol('s'), () => 1),
        '2.id': safeInteger,
      },
    },
    getSync: { call: port.getSync.bind(port), good: () => [0], bad: { 0: milliseconds } },
    getManySync: {
      call: port.getManySync.bind(port),
      good: () => [1, 0],
      bad: { 0: [...required, ...noNumber, ...ranged(0, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY)], 1: milliseconds },
    },
    get: {
      call: port.get.bind(port),
      good: () => [{ timeout: 0 }],
      bad: { 0: noObject, '0.timeout': milliseconds, '0.signal': noSignal },
      async: true,
    },
    getMany: {
      call: port.getMany.bind(port),
      good: () => [1, { timeout: 0 }],
      bad: {
        0: [...required, ...noNumber, ...ranged(0, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY)],
        1: noObject,
        '1.timeout': milliseconds,
        '1.signal': noSignal,
      },
      async: true,
    },
    dispatch: {
      call: (handler: () => void) => port.dispatch(handler).stop(),
      good: () => [() => {}],
      bad: { 0: typed(undefined, null, 5, {}, 'text', []) },
    },
    allocate: {
      call: (bytes: number) => port.release(port.allocate(bytes)),
      good: () => [64],
      bad: { 0: [...required, ...noNumber, ...ranged(0, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53)] },
    },
    release: {
      call: port.release.bind(port),
      good: () => [port.allocate(64)],
      bad: { 0: [...noView, ...valued(new Uint8Array(4))] },
    },
    open: {
      call: port.open.bind(port),
      good: () => [path, 'r', { key: 1 }],
      bad: {
        ...startOptions(2),
        0: [
          ...typed(undefined, null, 5, {}, [], true),
          ...valued('a\0b', Buffer.from('a\0b')),
          [detached(), 'ERR_BUFFER_DETACHED'],
        ],
        1: [...typed(null, {}, true, []), ...valued('other', '', 'R'), ...ranged(-1, 0.5, 2 ** 31, Number.NaN)],
        '2.key': [...required, ...safeInteger],
        '2.mode': [...noNumber, ...ranged(-1, 0.5, 0o10000, Number.NaN)],
      },
    },
  }),

  files: (t, { file, path }) => ({
    openSync: {
      call: (...args: Parameters<typeof t.api.FileHandle.openSync>) => t.api.FileHandle.openSync(...args).close(),
      good: () => [path, 'r', 0o600],
      bad: {
        0: [
          ...typed(undefined, null, 5, {}, [], true),
          ...valued('a\0b', Buffer.from('a\0b')),
          [detached(), 'ERR_BUFFER_DETACHED'],
        ],
        1: [...typed(null, {}, true, []), ...valued('other', '', 'R'), ...ranged(-1, 0.5, 2 ** 31, Number.NaN)],
        2: [...noNumber, ...ranged(-1, 0.5, 0o10000, Number.NaN)],
      },
    },
    read: {
      call: file.read.bind(file),
      good: () => [t.room(4), { position: 0 }],
      bad: { ...oneView(0), '1.position': [[undefined, TYPE, VALUE], ...safeInteger] },
    },
    write: {
      call: file.write.bind(file),
      good: () => [new Uint8Array(4), { position: 0 }],
      bad: { ...oneView(0), '1.position': [[undefined, TYPE, VALUE], ...safeInteger] },
    },
    readv: {
      call: file.readv.bind(file),
      good: () => [[t.room(4)], { position: 0 }],
      bad: { ...startOptions(1), 0: manyViews, '1.position': [[undefined, TYPE, VALUE], ...safeInteger] },
    },
    writev: {
      call: file.writev.bind(file),
      good: () => [[new Uint8Array(4)], { position: 0 }],
      bad: { ...startOptions(1), 0: manyViews, '1.position': [[undefined, TYPE, VALUE], ...safeInteger] },
    },
    sync: { call: file.sync.bind(file), good: () => [{}], bad: startOptions(0) },
    datasync: { call: file.datasync.bind(file), good: () => [{}], bad: startOptions(0) },
    size: { call: file.size.bind(file), good: () => [{}], bad: startOptions(0) },
    truncate: {
      call: file.truncate.bind(file),
      good: () => [4, {}],
      bad: { ...startOptions(1), 0: [...required, ...safeInteger] },
    },
  }),

  listeners: (t, { listener }) => ({
    listenSync: {
      call: (options: Parameters<typeof t.api.TcpListener.listenSync>[0]) => t.api.TcpListener.listenSync(options).close(),
      good: () => [{ port: 0 }],
      bad: {
        0: [...required, ...noObject],
        '0.port': [...required, ...portNumber],
        '0.host': noLiteral,
        '0.backlog': [...noNumber, ...ranged(-1, 0.5, Number.NaN, 2 ** 31)],
        '0.reusePort': noBoolean,
        '0.ipv6Only': noBoolean,
      },
    },
    accept: { call: listener.accept.bind(listener), good: () => [{ timeout: 0 }], bad: startOptions(0) },
  }),

  sockets: (t, { socket }) => {
    const fresh = (): TcpSocket => t.track(t.api.TcpSocket.openSync());
    return {
      openSync: {
        call: (options: Parameters<typeof t.api.TcpSocket.openSync>[0]) => t.api.TcpSocket.openSync(options).close(),
        good: () => [{ family: 'IPv4', localAddress: '127.0.0.1', localPort: 0 }],
        bad: {
          0: noObject,
          '0.family': [4, null, 'ipv4', '', {}].map((value): Bad => [value, TYPE, VALUE]),
          '0.localAddress': [...noLiteral, ['::1', VALUE]],
          '0.localPort': portNumber,
        },
      },
      connect: {
        call: socket.connect.bind(socket),
        good: () => [{ host: '127.0.0.1', port: 9 }, {}],
        bad: {
          ...startOptions(1),
          0: [...required, ...noObject],
          '0.host': [...required, ...noLiteral, ['::1', VALUE]],
          '0.port': [...required, ...portNumber],
        },
      },
      recv: { call: socket.recv.bind(socket), good: () => [t.room(4), { timeout: 0 }], bad: oneView(0) },
      send: { call: socket.send.bind(socket), good: () => [new Uint8Array(4), {}], bad: oneView(0) },
      sendv: {
        call: socket.send.bind(socket),
        good: () => [[new Uint8Array(4)], {}],
        bad: { ...startOptions(1), 0: manyViews.filter(([value]) => !ArrayBuffer.isView(value)) },
      },
      shutdown: {
        call: socket.shutdown.bind(socket),
        good: () => [{}],
        bad: { ...startOptions(0), '0.how': ['other', '', 5, true, {}].map((value): Bad => [value, TYPE, VALUE]) },
      },
      close: { call: (options: object) => fresh().close(options), good: () => [{}], bad: { 0: noObject, '0.reset': noBoolean } },
      setNoDelay: { call: socket.setNoDelay.bind(socket), good: () => [true], bad: { 0: noBoolean } },
      setKeepAlive: { call: socket.setKeepAlive.bind(socket), good: () => [true, 1000], bad: { 0: noBoolean, 1: milliseconds } },
      recvBufferSize: {
        call: (bytes: number) => {
          fresh().recvBufferSize = bytes;
        },
        good: () => [10_000],
        bad: { 0: [...required, ...noNumber, ...ranged(0, -1, 0.5, Number.NaN, 2 ** 31)] },
      },
      sendBufferSize: {
        call: (bytes: number) => {
          fresh().sendBufferSize = bytes;
        },
        good: () => [10_000],
        bad: { 0: [...required, ...noNumber, ...ranged(0, -1, 0.5, Number.NaN, 2 ** 31)] },
      },
    };
  },
};
