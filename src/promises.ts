/**
 * Promises for operations: each function starts one operation on a handle and settles its promise when the operation is dequeued, by
 * whoever dequeues it. Such operations are not shown to get, iterators or dispatch. A failure rejects with the CompletionError,
 * misuse with what the start would have thrown.
 *
 * @module
 */

import type { CompletionError } from './errors.js';
import { wrongType } from './errors.js';
import { FileHandle } from './files.js';
import { isHandle } from './handle.js';
import type { View } from './memory.js';
import type { OperationKind, OperationOptions, ShutdownHow } from './operation.js';
import { SettledOperation } from './operation.js';
import { CompletionPort } from './port.js';
import { NativePromise } from './primordials.js';
import { TcpListener, TcpSocket } from './tcp.js';

/** Options of an operation that a promise stands for. */
export type PromiseOptions = Pick<OperationOptions, 'position' | 'offset' | 'length' | 'timeout' | 'signal'>;
/** Options of operations without a buffer or position. */
export type PlainOptions = Pick<OperationOptions, 'timeout' | 'signal'>;

type Outcome<T> = (bytes: number, result: unknown) => T;

class PromiseOperation<T> extends SettledOperation {
  readonly #pick: Outcome<T>;
  readonly #resolve: (value: T) => void;
  readonly #reject: (error: Error) => void;

  constructor(
    options: PromiseOptions | undefined,
    pick: Outcome<T>,
    resolve: (value: T) => void,
    reject: (error: Error) => void,
  ) {
    super();
    if (options !== undefined) {
      if (typeof options !== 'object' || options === null) throw wrongType('options', 'an object', options);
      this.position = options.position;
      this.offset = options.offset;
      this.length = options.length;
      this.timeout = options.timeout;
      this.signal = options.signal;
    }
    this.#pick = pick;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  override settle(_kind: OperationKind, bytes: number, error: CompletionError | null, result: unknown): void {
    if (error === null) this.#resolve(this.#pick(bytes, result));
    else this.#reject(error);
  }
}

const bytesMoved: Outcome<number> = (bytes) => bytes;
const nothing: Outcome<void> = () => undefined;

/** A promise of one operation. What `start` throws rejects it. */
function promised<T>(
  options: PromiseOptions | undefined,
  pick: Outcome<T>,
  start: (operation: PromiseOperation<T>) => void,
): Promise<T> {
  return new NativePromise<T>((resolve, reject) => start(new PromiseOperation(options, pick, resolve, reject)));
}

function fileArgument(file: unknown): FileHandle {
  if (!isHandle(file) || !(file instanceof FileHandle)) throw wrongType('file', 'a FileHandle', file);
  return file;
}

function portArgument(port: unknown): CompletionPort {
  if (!(port instanceof CompletionPort)) throw wrongType('port', 'a CompletionPort', port);
  return port;
}

function socketArgument(socket: unknown): TcpSocket {
  if (!isHandle(socket) || !(socket instanceof TcpSocket)) throw wrongType('socket', 'a TcpSocket', socket);
  return socket;
}

/** Reads at `position`, which is required; fulfilled with the number of bytes, less than asked for only at the end of the file. */
export function read(file: FileHandle, buffer: View, options?: PromiseOptions): Promise<number> {
  return promised(options, bytesMoved, (operation) => fileArgument(file).read(buffer, operation));
}

/** Writes all of the view at `position`, which is required but in append mode; fulfilled with the number of bytes. */
export function write(file: FileHandle, buffer: View, options?: PromiseOptions): Promise<number> {
  return promised(options, bytesMoved, (operation) => fileArgument(file).write(buffer, operation));
}

/** Reads into several views, one after the other. */
export function readv(file: FileHandle, buffers: readonly View[], options?: PromiseOptions): Promise<number> {
  return promised(options, bytesMoved, (operation) => fileArgument(file).readv(buffers, operation));
}

/** Writes several views, one after the other. */
export function writev(file: FileHandle, buffers: readonly View[], options?: PromiseOptions): Promise<number> {
  return promised(options, bytesMoved, (operation) => fileArgument(file).writev(buffers, operation));
}

/** Flushes data and metadata to the device. */
export function sync(file: FileHandle, options?: PlainOptions): Promise<void> {
  return promised(options, nothing, (operation) => fileArgument(file).sync(operation));
}

/** Flushes data to the device. */
export function datasync(file: FileHandle, options?: PlainOptions): Promise<void> {
  return promised(options, nothing, (operation) => fileArgument(file).datasync(operation));
}

/** Cuts or extends the file to `length` bytes. */
export function truncate(file: FileHandle, length: number, options?: PlainOptions): Promise<void> {
  return promised(options, nothing, (operation) => fileArgument(file).truncate(length, operation));
}

/** The file's size in bytes. */
export function size(file: FileHandle, options?: PlainOptions): Promise<number> {
  return promised(
    options,
    (_bytes, result) => result as number,
    (operation) => fileArgument(file).size(operation),
  );
}

/** Opens a file; it is associated with the port under `key` (0 unless given). */
export function open(
  port: CompletionPort,
  path: string | Uint8Array | URL,
  flags: string | number = 'r',
  options?: PlainOptions & { key?: number | undefined; mode?: number | undefined },
): Promise<FileHandle> {
  return promised(
    options,
    (_bytes, result) => result as FileHandle,
    (operation) => {
      operation.key = options?.key ?? 0;
      operation.mode = options?.mode;
      portArgument(port).open(path, flags, operation);
    },
  );
}

/** Accepts a connection; the socket is the receiver's to associate and to close. */
export function accept(listener: TcpListener, options?: PlainOptions): Promise<TcpSocket> {
  return promised(
    options,
    (_bytes, result) => result as TcpSocket,
    (operation) => {
      if (!isHandle(listener) || !(listener instanceof TcpListener)) throw wrongType('listener', 'a TcpListener', listener);
      listener.accept(operation);
    },
  );
}

/** Opens a socket, associates it with the port under `key` (0 unless given), and connects it. If that fails the socket is closed. */
export async function connect(
  port: CompletionPort,
  address: { host: string; port: number; localAddress?: string | undefined },
  options?: PlainOptions & { key?: number | undefined },
): Promise<TcpSocket> {
  if (typeof address !== 'object' || address === null) throw wrongType('address', 'an object with host and port', address);
  portArgument(port);
  const family = typeof address.host === 'string' && address.host.includes(':') ? 'IPv6' : 'IPv4';
  const socket = TcpSocket.openSync({ family, localAddress: address.localAddress });
  try {
    port.associate(socket, options?.key ?? 0);
    await promised(options, nothing, (operation) => socket.connect(address, operation));
    return socket;
  } catch (error) {
    socket.close();
    throw error;
  }
}

/** Receives what is there, at least 1 byte; fulfilled with 0 when the peer has ended its side. */
export function recv(socket: TcpSocket, buffer: View, options?: PromiseOptions): Promise<number> {
  return promised(options, bytesMoved, (operation) => socketArgument(socket).recv(buffer, operation));
}

/** Sends all bytes of a view, or of several; fulfilled with their number when the kernel has taken them. */
export function send(socket: TcpSocket, buffer: View | readonly View[], options?: PromiseOptions): Promise<number> {
  return promised(options, bytesMoved, (operation) => socketArgument(socket).send(buffer, operation));
}

/** Ends a direction of the connection, 'write' unless said otherwise, behind the sends that were started before. */
export function shutdown(socket: TcpSocket, options?: PlainOptions & { how?: ShutdownHow | undefined }): Promise<void> {
  return promised(options, nothing, (operation) => {
    operation.how = options?.how;
    socketArgument(socket).shutdown(operation);
  });
}
