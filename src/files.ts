// FileHandle: regular files and block devices. Reads and writes have an explicit position each; there is no shared one.

import * as abi from './abi.js';
import type { Engine } from './engine.js';
import { handleMakers } from './engine.js';
import { bufferDetached, misuse, wrongType, wrongValue } from './errors.js';
import { Handle, making, stateOf } from './handle.js';
import type { View } from './memory.js';
import { native, require } from './native.js';
import type { Operation, OperationOptions } from './operation.js';
import {
  MapGet,
  MathMin,
  NativeUint8Array,
  StringIncludes,
  StringSlice,
  TypedArrayBuffer,
  TypedArrayByteLength,
  TypedArrayByteOffset,
  TypedArrayIndexOf,
  Uint8ArraySet,
} from './primordials.js';
import { startBuffer, startPlain, startVector } from './start.js';
import { errorOfResult } from './status.js';
import { integer, safeInteger } from './validate.js';

const MODE_DEFAULT = 0o666;

interface OpenFlags {
  readonly append: number;
  readonly readOnly: number;
  readonly names: ReadonlyMap<string, number>;
}

let openFlags: OpenFlags | undefined;

/** Node's names of open flags. Made when the first file is opened: programs without files don't pay for node:fs at their start. */
function flagTable(): OpenFlags {
  if (openFlags !== undefined) return openFlags;
  const { constants } = require('node:fs') as typeof import('node:fs');
  const { O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_SYNC, O_TRUNC, O_WRONLY } = constants;
  const append = O_APPEND | O_CREAT;
  const write = O_TRUNC | O_CREAT;
  const names = new Map<string, number>();
  const add = (value: number, ...all: string[]): void => {
    for (const name of all) names.set(name, value);
  };
  add(O_RDONLY, 'r');
  add(O_RDONLY | O_SYNC, 'rs', 'sr');
  add(O_RDWR, 'r+');
  add(O_RDWR | O_SYNC, 'rs+', 'sr+');
  add(write | O_WRONLY, 'w');
  add(write | O_WRONLY | O_EXCL, 'wx', 'xw');
  add(write | O_RDWR, 'w+');
  add(write | O_RDWR | O_EXCL, 'wx+', 'xw+');
  add(append | O_WRONLY, 'a');
  add(append | O_WRONLY | O_EXCL, 'ax', 'xa');
  add(append | O_WRONLY | O_SYNC, 'as', 'sa');
  add(append | O_RDWR, 'a+');
  add(append | O_RDWR | O_EXCL, 'ax+', 'xa+');
  add(append | O_RDWR | O_SYNC, 'as+', 'sa+');
  openFlags = { append: O_APPEND, readOnly: O_RDONLY, names };
  return openFlags;
}

/**
 * No system takes a path of so many characters or bytes (Linux: 4,096 bytes, Windows: 32,767 UTF-16 units), and each says ENAMETOOLONG:
 * of a longer one this much is handed over, whatever a script gives.
 */
const PATH_MAX = 65_536;

/** The path of an open, for the native side. */
export function pathArgument(path: unknown): string | Uint8Array {
  if (typeof path === 'string') {
    if (StringIncludes(path, '\0')) throw wrongValue('path', 'contains a null byte');
    return path.length > PATH_MAX ? StringSlice(path, 0, PATH_MAX) : path;
  }
  if (path instanceof URL) return pathArgument((require('node:url') as typeof import('node:url')).fileURLToPath(path));
  if (path instanceof Uint8Array) {
    let zero: number;
    try {
      zero = TypedArrayIndexOf(path, 0);
    } catch {
      throw bufferDetached('path'); // indexOf throws for this reason alone
    }
    if (zero >= 0) throw wrongValue('path', 'contains a null byte');
    const length = MathMin(TypedArrayByteLength(path), PATH_MAX);
    const copy = new NativeUint8Array(length);
    Uint8ArraySet(copy, new NativeUint8Array(TypedArrayBuffer(path), TypedArrayByteOffset(path), length));
    return copy;
  }
  throw wrongType('path', 'a string, a Buffer or a URL', path);
}

/** Open flags, of Node's names or numbers. */
export function flagsArgument(flags: unknown): number {
  if (flags === undefined) return flagTable().readOnly;
  if (typeof flags === 'number') return integer(flags, 'flags', 0, 2 ** 31 - 1);
  if (typeof flags !== 'string') throw wrongType('flags', 'a string or a number', flags);
  const value = MapGet(flagTable().names as Map<string, number>, flags);
  if (value === undefined)
    throw wrongValue('flags', `must be one of Node's open flags, such as 'r', 'r+', 'w', 'wx' or 'a', but is '${flags}'`);
  return value;
}

/** The permissions of a file that an open creates. */
export function modeArgument(mode: unknown): number {
  return mode === undefined ? MODE_DEFAULT : integer(mode, 'mode', 0, 0o7777);
}

export function appends(flags: number): boolean {
  return (flags & flagTable().append) !== 0;
}

/**
 * An open file. Made by `FileHandle.openSync`, or `port.open` as an operation; used through the port that it is associated with.
 *
 * A buffer that is in the port's arena or in a SharedArrayBuffer is used in place; any other is copied. It counts as in use until the
 * operation's packet either way.
 */
export class FileHandle extends Handle {
  static {
    handleMakers[abi.HANDLE_FILE] = (id, engine, key, append): FileHandle => {
      const file = new FileHandle(making, id, engine);
      const state = stateOf(file);
      state.engine = engine;
      state.key = key;
      state.append = append;
      return file;
    };
  }

  private constructor(token: symbol, id: number, engine: Engine | null) {
    super(token, id, engine);
  }

  /**
   * Opens a file at once, blocking. It has no port yet.
   *
   * @param path - a string, a Buffer, or a file: URL
   * @param flags - as for node:fs: a name such as 'r+', or a number
   * @param mode - permissions of a file that is created, 0 to 0o7777
   * @throws CompletionError with the system's code (ENOENT, EACCES, EEXIST, EISDIR, EMFILE …); ERR_NOT_A_FILE for a FIFO, terminal or
   *   socket; misuse
   */
  static openSync(path: string | Uint8Array | URL, flags: string | number = 'r', mode: number = MODE_DEFAULT): FileHandle {
    const checked = pathArgument(path);
    const numeric = flagsArgument(flags);
    const id = native.openFile(checked, numeric, modeArgument(mode));
    if (id >= 0) {
      const file = new FileHandle(making, id, null);
      stateOf(file).append = appends(numeric);
      return file;
    }
    if (id === abi.OPENED_NOT_A_FILE) {
      throw misuse(
        Error,
        'ERR_NOT_A_FILE',
        'a FileHandle opens regular files and block devices; this is a FIFO, a terminal, a socket or another kind of device',
      );
    }
    const detail = typeof checked === 'string' ? ` '${checked}'` : '';
    throw errorOfResult(id, abi.OP_OPEN, 'open', detail);
  }

  /**
   * Starts reading. The packet's bytesTransferred is less than asked for only at the end of the file, and 0 there.
   *
   * @param buffer - where the bytes go (`offset` and `length` of the operation choose a part)
   * @param operation - an Operation, or options; `position` is required
   * @returns the operation
   * @throws EAGAIN, ERR_HANDLE_CLOSED, ERR_NOT_ASSOCIATED, ERR_PORT_CLOSED, ERR_OPERATION_PENDING, ERR_BUFFER_DETACHED, misuse
   */
  read<C = unknown>(buffer: View, operation?: Operation<C> | OperationOptions<C>): Operation<C> {
    return startBuffer(stateOf(this), abi.OP_READ, false, true, buffer, operation);
  }

  /**
   * Starts writing. All bytes are written, or the packet has an error. In append mode the position is not needed.
   *
   * @param buffer - the bytes; copied at once unless it is in the arena or a SharedArrayBuffer
   * @param operation - an Operation, or options; `position` is required unless the file was opened for appending
   * @throws as read
   */
  write<C = unknown>(buffer: View, operation?: Operation<C> | OperationOptions<C>): Operation<C> {
    return startBuffer(stateOf(this), abi.OP_WRITE, true, true, buffer, operation);
  }

  /** Starts reading into several views, one after the other: at most 1,024, together at most 2^31-4096 bytes. Throws as read. */
  readv<C = unknown>(buffers: readonly View[], operation?: Operation<C> | OperationOptions<C>): Operation<C> {
    return startVector(stateOf(this), abi.OP_READV, abi.OP_READ, false, true, buffers, operation);
  }

  /** Starts writing several views, one after the other: at most 1,024, together at most 2^31-4096 bytes. Throws as read. */
  writev<C = unknown>(buffers: readonly View[], operation?: Operation<C> | OperationOptions<C>): Operation<C> {
    return startVector(stateOf(this), abi.OP_WRITEV, abi.OP_WRITE, true, true, buffers, operation);
  }

  /** Starts flushing data and metadata to the device: what was written and completed before is durable when the packet comes. */
  sync<C = unknown>(operation?: Operation<C> | OperationOptions<C>): Operation<C> {
    return startPlain(stateOf(this), abi.OP_SYNC, 0, operation);
  }

  /** As sync, without metadata that reading the data back doesn't need. */
  datasync<C = unknown>(operation?: Operation<C> | OperationOptions<C>): Operation<C> {
    return startPlain(stateOf(this), abi.OP_DATASYNC, 0, operation);
  }

  /**
   * Starts cutting or extending the file.
   *
   * @param length - the new size in bytes, 0 to 2^53-1; what is added reads as zeros
   */
  truncate<C = unknown>(length: number, operation?: Operation<C> | OperationOptions<C>): Operation<C> {
    return startPlain(stateOf(this), abi.OP_TRUNCATE, safeInteger(length, 'length'), operation);
  }

  /** Starts asking for the file's size; `packet.result` is the number of bytes. */
  size<C = unknown>(operation?: Operation<C> | OperationOptions<C>): Operation<C> {
    return startPlain(stateOf(this), abi.OP_SIZE, 0, operation);
  }
}
