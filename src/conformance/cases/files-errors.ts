// FILE-04, FILE-05 and FILE-08: files that can't be opened, and handles used against the direction they were opened for. Each
// refusal is asked for twice, as an operation and from openSync, and must leave no descriptor behind.

import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as net from 'node:net';
import * as path from 'node:path';
import { pathToFileURL } from 'node:url';
import type { ConformanceCase, Context, FileHandle, Operation, Port } from '../types.js';
import { variants } from '../variants.js';
import { childAnswer, childCaseMs, childMs, errnoOf, moved, packetOf } from './buffers.js';

const opening = 'CreateFile fails with ERROR_FILE_NOT_FOUND, ERROR_ACCESS_DENIED or ERROR_FILE_EXISTS, and makes no handle';

type Target = string | Buffer | URL;
interface Opened {
  readonly file: FileHandle | undefined;
  readonly error: unknown;
}
/** Opens by one of the two ways; whatever it ends with is checked for its form, not for its outcome. */
type Opener = (t: Context, port: Port, target: Target, flags: string | number, mode?: number) => Opened;

const openers: Readonly<Record<'operation' | 'Sync', Opener>> = {
  operation(t, port, target, flags, mode) {
    const key = t.random.int(1000);
    const operation = port.open(target, flags, mode === undefined ? { key } : { key, mode });
    const packet = packetOf(t, port, operation, 'open');
    if (packet.kind !== 'open') return t.fail(`the packet of an open is of kind ${packet.kind}`);
    t.equal(packet.key, key, 'the key of the packet');
    t.equal(packet.bytesTransferred, 0, 'bytes of an open');
    if (packet.error !== null) {
      t.equal(packet.result, undefined, 'the result of a failed open');
      return { file: undefined, error: packet.error };
    }
    const file = t.track(packet.result);
    t.ok(file instanceof t.api.FileHandle, 'packet.result is a FileHandle');
    t.equal(file.key, key, 'the key of the opened file: it is associated already');
    t.equal(packet.handleId, file.id, 'packet.handleId');
    return { file, error: null };
  },
  Sync(t, port, target, flags, mode) {
    let file: FileHandle;
    try {
      file = t.api.FileHandle.openSync(target, flags, mode);
    } catch (error) {
      return { file: undefined, error };
    }
    t.track(file);
    t.equal(file.key, undefined, 'the key of a file that openSync opened: it is not associated');
    port.associate(file, 5);
    return { file, error: null };
  },
};

function property(error: unknown, name: string): unknown {
  return Reflect.get(error as object, name);
}

function refused(t: Context, open: Opener, port: Port, target: Target, flags: string | number, code: string): void {
  const what = `opening ${String(target)} with ${flags}`;
  const before = t.fdCount();
  const { file, error } = open(t, port, target, flags);
  if (file !== undefined) t.fail(`${what}: expected ${code}, but it was opened`);
  t.ok(error instanceof Error, `${what}: ${String(error)} is an Error`);
  t.equal(property(error, 'code'), code, `${what}: code`);
  if (!code.startsWith('ERR_')) {
    t.equal(property(error, 'errno'), errnoOf(t, code), `${what}: errno`);
    t.equal(property(error, 'syscall'), 'open', `${what}: syscall`);
  }
  t.equal(t.fdCount(), before, `${what}: open descriptors afterwards`);
}

/**
 * A symbolic link. False where none can be made, of which Windows alone is: they need a privilege there, and Wine 8 says that it has made one, and
 * hasn't.
 */
function linked(target: string, at: string): boolean {
  try {
    fs.symlinkSync(target, at);
  } catch (error) {
    if (process.platform === 'win32' && property(error, 'code') === 'EPERM') return false;
    throw error;
  }
  return process.platform !== 'win32' || fs.lstatSync(at, { throwIfNoEntry: false }) !== undefined;
}

/** Names `case-operation` and `case-Sync`. */
function bothWays(name: string): Record<string, Opener> {
  return Object.fromEntries(Object.entries(openers).map(([how, open]) => [`${name}-${how}`, open]));
}

const refusals: ConformanceCase[] = [
  ...variants<Opener>(
    {
      clause: 'FILE-04',
      title: 'a missing file, a missing folder, a dangling link: ENOENT; a file taken for a folder: ENOTDIR',
      reference: opening,
    },
    bothWays('missing'),
    (t, open) => {
      const port = t.createPort();
      const folder = t.tempDir();
      const links = linked('nowhere', path.join(folder, 'dangling'));
      for (const flags of ['r', 'r+', fs.constants.O_RDONLY]) {
        refused(t, open, port, path.join(folder, 'missing'), flags, 'ENOENT');
        if (links) refused(t, open, port, path.join(folder, 'dangling'), flags, 'ENOENT');
      }
      for (const flags of ['r', 'w', 'a', 'wx']) refused(t, open, port, path.join(folder, 'missing', 'file'), flags, 'ENOENT');
      refused(t, open, port, path.join(t.tempFile('plain', ''), 'file'), 'r', 'ENOTDIR');
      t.deepEqual(fs.readdirSync(folder).sort(), links ? ['dangling', 'plain'] : ['plain'], 'what is in the folder');
    },
  ),

  ...variants<Opener>(
    { clause: 'FILE-04', title: 'a directory: EISDIR, whatever the flags, through a link too', reference: opening },
    bothWays('directory'),
    (t, open) => {
      const port = t.createPort();
      const folder = t.tempDir();
      const link = path.join(folder, 'link');
      fs.mkdirSync(path.join(folder, 'inner'));
      const links = linked('inner', link);
      for (const flags of ['r', 'r+', 'w', 'w+', 'a', 'a+', fs.constants.O_RDONLY]) {
        refused(t, open, port, path.join(folder, 'inner'), flags, 'EISDIR');
        if (links) refused(t, open, port, link, flags, 'EISDIR');
      }
      refused(t, open, port, '/', 'r', 'EISDIR');
    },
  ),

  ...variants<Opener>(
    { clause: 'FILE-04', title: 'an exclusive open of what exists: EEXIST, and the file is as it was', reference: opening },
    bothWays('exclusive'),
    (t, open) => {
      const port = t.createPort();
      const file = t.tempFile('existing', 'content');
      const links = linked('nowhere', path.join(t.tempDir(), 'dangling'));
      for (const flags of ['wx', 'wx+', 'ax', 'ax+']) {
        refused(t, open, port, file, flags, 'EEXIST');
        if (links) refused(t, open, port, path.join(t.tempDir(), 'dangling'), flags, 'EEXIST');
      }
      t.equal(fs.readFileSync(file, 'latin1'), 'content', 'the file');
      t.deepEqual(fs.readdirSync(t.tempDir()).sort(), links ? ['dangling', 'existing'] : ['existing'], 'what is in the folder');
    },
  ),

  ...variants<boolean>(
    {
      clause: 'FILE-04',
      title: 'without permission: EACCES',
      reference: opening,
      needs: ['root', 'setpriv'],
      timeoutMs: childCaseMs,
    },
    { 'permission-operation': true, 'permission-Sync': false },
    async (t, asOperation) => {
      // Root may do everything, so the child gives that up. The files are its own.
      const outcomes = await childAnswer<Record<string, string>>(
        t,
        `import * as fs from 'node:fs';
        const port = createPort();
        const outcome = (path, flags) => {
          let error = null;
          if (${asOperation}) {
            port.open(path, flags, { key: 1 });
            const packet = port.getSync(5000);
            error = packet.error;
            packet.result?.close();
          } else {
            try { FileHandle.openSync(path, flags).close(); } catch (thrown) { error = thrown; }
          }
          return error === null ? 'opened' : [error.code, error.errno, error.syscall].join(' ');
        };
        fs.writeFileSync('none', 'x'); fs.chmodSync('none', 0);
        fs.writeFileSync('readable', 'x'); fs.chmodSync('readable', 0o444);
        fs.writeFileSync('writable', 'x'); fs.chmodSync('writable', 0o222);
        fs.mkdirSync('folder'); fs.writeFileSync('folder/file', 'x'); fs.chmodSync('folder', 0o400);
        fs.mkdirSync('fixed'); fs.chmodSync('fixed', 0o500);
        const before = fs.readdirSync('/proc/self/fd').length;
        const outcomes = {
          none: outcome('none', 'r'), readableForReading: outcome('readable', 'r'), readableForWriting: outcome('readable', 'r+'),
          writableForReading: outcome('writable', 'r'), writableForWriting: outcome('writable', fs.constants.O_WRONLY),
          inClosedFolder: outcome('folder/file', 'r'), newInFixedFolder: outcome('fixed/new', 'w'),
          descriptors: String(fs.readdirSync('/proc/self/fd').length - before),
        };
        fs.chmodSync('folder', 0o700);
        console.log(JSON.stringify(outcomes));
        port.close();`,
        {
          wrap: ['setpriv', '--bounding-set=-dac_override,-dac_read_search,-ipc_lock', '--inh-caps=-all'],
          timeoutMs: childMs,
        },
      );
      const denied = `EACCES ${errnoOf(t, 'EACCES')} open`;
      t.deepEqual(
        outcomes,
        {
          none: denied,
          readableForReading: 'opened',
          readableForWriting: denied,
          writableForReading: denied,
          writableForWriting: 'opened',
          inClosedFolder: denied,
          newInFixedFolder: denied,
          descriptors: '0',
        },
        'what the opens ended with',
      );
    },
  ),

  ...variants<Opener>(
    {
      clause: 'FILE-04',
      title: 'what may be opened is: every form of path and flags, the mode of a new file',
      reference: opening,
    },
    bothWays('opened'),
    (t, open) => {
      const port = t.createPort();
      const folder = t.tempDir();
      const existing = t.tempFile('existing', 'content');
      // Not UTF-8, so that only the bytes themselves lead to it; and a name that a URL must escape. Names are UTF-16 on Windows, where such bytes
      // are none.
      const windows = process.platform === 'win32';
      const odd = Buffer.concat([Buffer.from(`${folder}/`), Buffer.from([0x61, 0xff, 0xfe])]);
      if (windows) refused(t, open, port, odd, 'r', 'ENOENT');
      else fs.writeFileSync(odd, 'content');
      fs.writeFileSync(path.join(folder, 'a b%ü'), 'content');
      const readAll = (target: Target, flags: string | number): string => {
        const { file, error } = open(t, port, target, flags);
        if (file === undefined) return t.fail(`${String(target)} with ${flags}: ${String(error)}`);
        const view = Buffer.from(t.room(100).buffer);
        const packet = packetOf(t, port, file.read(view, { position: 0 }), 'a read of what was opened');
        t.succeeded(packet, 'a read of what was opened');
        t.equal(packet.key, file.key, 'its key');
        file.close();
        return view.toString('latin1', 0, packet.bytesTransferred);
      };
      t.equal(readAll(existing, 'r'), 'content', 'by a string');
      t.equal(readAll(existing, 'r+'), 'content', 'with r+');
      t.equal(readAll(existing, 'a+'), 'content', 'with a+');
      t.equal(readAll(existing, fs.constants.O_RDWR), 'content', 'with O_RDWR');
      t.equal(readAll(Buffer.from(existing), 'r'), 'content', 'by a Buffer');
      if (!windows) t.equal(readAll(odd, 'r'), 'content', 'by a Buffer that is no text');
      t.equal(readAll(pathToFileURL(path.join(folder, 'a b%ü')), 'r'), 'content', 'by a URL');
      t.equal(readAll(path.join(folder, 'new'), 'wx+'), '', 'exclusive, of a new one');
      t.equal(readAll(existing, 'w+'), '', 'with w+, which empties it');
      t.equal(fs.statSync(existing).size, 0, 'its size');
      const mask = process.umask();
      if (windows) {
        const made = path.join(folder, 'read-only');
        open(t, port, made, 'w', 0o444).file?.close();
        t.equal(fs.statSync(made).mode & 0o7777, 0o444, 'the mode of a file that nobody may write');
        fs.chmodSync(made, 0o666); // or it could not be removed
      }
      for (const mode of [0o600, 0o640, 0o755, undefined]) {
        const made = path.join(folder, `mode-${mode}`);
        open(t, port, made, 'w', mode).file?.close();
        // Windows knows whether a file may be written, and nothing else of it (_wopen).
        const expected = windows ? 0o666 : (mode ?? 0o666) & ~mask;
        t.equal(fs.statSync(made).mode & 0o7777, expected, `the mode of a file made with ${mode?.toString(8)}`);
      }
    },
  ),
];

type Start = (file: FileHandle, view: Uint8Array) => Operation;

const directions: ConformanceCase[] = [
  ...variants<{ flags: string; wrong: Start; right: Start }>(
    {
      clause: 'FILE-05',
      title: 'an operation against the handle’s direction: a packet with EBADF, and the other direction works on',
      reference: 'ReadFile without FILE_READ_DATA, WriteFile without FILE_WRITE_DATA: ERROR_ACCESS_DENIED, mapped to EBADF',
    },
    {
      read: { flags: 'w', wrong: (f, v) => f.read(v, { position: 0 }), right: (f, v) => f.write(v, { position: 0 }) },
      readv: { flags: 'a', wrong: (f, v) => f.readv([v, v], { position: 0 }), right: (f, v) => f.write(v) },
      write: { flags: 'r', wrong: (f, v) => f.write(v, { position: 0 }), right: (f, v) => f.read(v, { position: 0 }) },
      writev: { flags: 'r', wrong: (f, v) => f.writev([v, v], { position: 0 }), right: (f, v) => f.readv([v], { position: 0 }) },
    },
    (t, { flags, wrong, right }, kind) => {
      const port = t.createPort();
      const file = t.tempFile('file', 'abcdef');
      const handle = t.openFile(port, 77, file, flags);
      const size = fs.statSync(file).size;
      const view = Buffer.from(t.room(3).buffer);
      view.write('xyz');
      for (let round = 0; round < 3; round++) {
        const packet = packetOf(t, port, wrong(handle, view), kind);
        t.equal(packet.kind, kind, 'kind');
        t.equal(packet.key, 77, 'key');
        t.equal(packet.bytesTransferred, 0, 'bytes');
        const error = t.failed(packet, { code: 'EBADF' }, kind);
        t.equal(error.errno, errnoOf(t, 'EBADF'), 'errno');
        t.equal(error.by, undefined, 'error.by');
      }
      t.equal(view.toString(), 'xyz', 'the buffer');
      t.equal(fs.statSync(file).size, size, 'the file’s size');
      moved(t, port, right(handle, view), 3, 'the direction it was opened for');
      const expected: Readonly<Record<string, string>> = { r: 'abc', w: 'xyz', a: 'abcdefxyz' };
      t.equal(flags === 'r' ? view.toString() : fs.readFileSync(file, 'latin1'), expected[flags], 'the bytes moved');
    },
  ),
];

const notAFile = 'A completion port’s file handles are of files: GetFileType gives FILE_TYPE_DISK';
const quick = 2000;

/** The refusal itself must not wait: a FIFO's open blocks until its other end is opened. */
function notFile(t: Context, open: Opener, port: Port, target: string, flags: readonly string[]): void {
  for (const flag of flags) {
    const begin = t.now();
    refused(t, open, port, target, flag, 'ERR_NOT_A_FILE');
    t.less(t.now() - begin, quick, `milliseconds that the refusal of ${target} took`);
  }
}

/** Paths that no system takes, of the lengths that a script may think of. */
const tooLong: readonly ConformanceCase[] = variants<Opener>(
  {
    clause: 'ERR-03',
    title: 'a path of any length is an error of the open, nothing else; so is one of a class of its own',
    reference: 'ERROR_FILENAME_EXCED_RANGE (206); a path beyond 32,767 characters is never copied',
    timeoutMs: childCaseMs,
  },
  { 'long-path-operation': openers.operation, 'long-path-Sync': openers.Sync },
  (t, open) => {
    const port = t.createPort({ maxOperations: 1 });
    const { error } = open(t, port, path.join(t.tempDir(), 'x'.repeat(300)), 'r');
    t.equal((error as { code?: string } | null)?.code, 'ENAMETOOLONG', 'the error of a name of 300 characters');
    // Windows takes 32,767 characters, others 4,096 or fewer.
    for (const length of [process.platform === 'win32' ? 40_000 : 5000, 70_000, 2 ** 20, 2 ** 27]) {
      for (const target of ['x'.repeat(length), `/${'x/'.repeat(Math.floor(length / 2) - 1)}`]) {
        const { error } = open(t, port, target, 'r');
        t.equal((error as { code?: string } | null)?.code, 'ENAMETOOLONG', `the error of a path of ${length} characters`);
      }
      const bytes = Buffer.alloc(length, 'x');
      const { error } = open(t, port, bytes, 'r');
      t.equal((error as { code?: string } | null)?.code, 'ENAMETOOLONG', `the error of a path of ${length} bytes`);
    }
    // Its bytes are the path, whatever its class says of copies of it.
    class Path extends Uint8Array {
      static get [Symbol.species](): Uint8ArrayConstructor {
        return Uint8ClampedArray as unknown as Uint8ArrayConstructor;
      }
    }
    const file = t.tempFile('file', 'abc');
    for (let i = 0; i < 3; i++) {
      const opened = open(t, port, Path.from(Buffer.from(file)) as Buffer, 'r');
      t.equal(opened.error, null, 'the error of a path of a class of its own');
      opened.file?.close();
    }
  },
);

const addresses: ConformanceCase = {
  id: 'ERR-03/long-address',
  clause: 'ERR-03',
  title: 'an address of any length is misuse, nothing else',
  reference: 'inet_pton says no; WSAEINVAL (10022)',
  run(t) {
    const port = t.createPort();
    const socket = t.track(t.api.TcpSocket.openSync());
    port.associate(socket, 1);
    const host = '1'.repeat(2 ** 29 - 24);
    const shape = { code: 'ERR_INVALID_ARG_VALUE', name: 'TypeError' };
    t.throws(() => socket.connect({ host, port: 1 }), shape, 'a connect');
    t.throws(() => t.api.TcpListener.listenSync({ host, port: 0 }), shape, 'listening');
    t.throws(() => t.api.TcpSocket.openSync({ localAddress: host }), shape, 'a socket');
  },
};

const foreign: ConformanceCase[] = [
  ...variants<Opener>(
    { clause: 'FILE-08', title: 'a FIFO is refused, at once', reference: notAFile },
    bothWays('fifo'),
    (t, open) => {
      const port = t.createPort();
      const fifo = path.join(t.tempDir(), 'fifo');
      const made = spawnSync('mkfifo', [fifo]);
      if (made.status !== 0) t.unable(`mkfifo can’t be run: ${made.error?.message ?? made.stderr.toString()}`);
      notFile(t, open, port, fifo, ['r', 'r+', 'w', 'a', 'w+']);
      // With its other end open, the open would not wait.
      const end = fs.openSync(fifo, fs.constants.O_RDWR | fs.constants.O_NONBLOCK);
      t.cleanup(() => fs.closeSync(end));
      notFile(t, open, port, fifo, ['r', 'r+', 'w', 'a']);
      t.ok(fs.lstatSync(fifo).isFIFO(), 'it is still a FIFO');
    },
  ),

  ...variants<Opener>(
    { clause: 'FILE-08', title: 'a terminal is refused', reference: notAFile, needs: ['linux'] },
    bothWays('tty'),
    (t, open) => {
      const port = t.createPort();
      if (!fs.existsSync('/dev/ptmx')) t.unable('no /dev/ptmx here, the terminal that every process may open');
      notFile(t, open, port, '/dev/ptmx', ['r', 'r+', 'w']);
    },
  ),

  ...variants<Opener>(
    {
      clause: 'FILE-08',
      title: 'a device that a read may wait for (the kernel’s log) is refused, those that answer at once are served',
      reference: notAFile,
      needs: ['linux'],
    },
    bothWays('device'),
    (t, open) => {
      const port = t.createPort();
      for (const [name, bytes] of [
        ['/dev/zero', 8],
        ['/dev/null', 0],
        ['/dev/urandom', 8],
      ] as const) {
        const { file, error } = open(t, port, name, 'r');
        t.equal(error, null, `the error of opening ${name}`);
        if (file?.key === undefined) port.associate(t.some(file, name), 1);
        moved(t, port, t.some(file, name).read(t.room(8), { position: 0 }), bytes, `a read of ${name}`);
      }
      // Where this machine has one that this process may open.
      let log: number;
      try {
        log = fs.openSync('/dev/kmsg', fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
      } catch {
        return;
      }
      fs.closeSync(log);
      notFile(t, open, port, '/dev/kmsg', ['r']);
    },
  ),

  ...variants<Opener>(
    { clause: 'FILE-08', title: 'a socket, on Windows a pipe, is refused', reference: notAFile },
    bothWays('socket'),
    async (t, open) => {
      const port = t.createPort();
      const windows = process.platform === 'win32';
      const name = windows
        ? `\\\\.\\pipe\\completion-port-${process.pid}-${t.random.int(2 ** 31)}`
        : path.join(t.tempDir(), 'socket');
      const server = net.createServer((socket) => socket.on('error', () => {}).resume());
      await new Promise<void>((resolve, reject) => server.once('error', reject).listen(name, resolve));
      t.cleanup(() => new Promise<void>((resolve) => server.close(() => resolve())));
      // "For devices other than files" a pipe is opened by OPEN_EXISTING only (CreateFileW).
      notFile(t, open, port, name, windows ? ['r', 'r+'] : ['r', 'r+', 'w', 'a']);
    },
  ),
];

export const cases: readonly ConformanceCase[] = [...refusals, ...directions, ...foreign, ...tooLong, addresses];
