/**
 * One completion port for Node.js on every OS, with the semantics of Windows I/O completion ports.
 *
 * @module
 */

export type { CancelledBy } from './errors.js';
export { CompletionError } from './errors.js';
export { FileHandle } from './files.js';
export { Handle } from './handle.js';
export type { View } from './memory.js';
export type { BackendName, BackendReport } from './native.js';
export type { OperationKind, OperationOptions, ShutdownHow } from './operation.js';
export { Operation } from './operation.js';
export type { Packet, PacketBase, PacketKind, PlainKind } from './packet.js';
export type { Backend, CreateOptions, GetOptions, PortToken, Stats } from './port.js';
export { CompletionPort, Consumer } from './port.js';
export type { ListenOptions, SocketAddress, TcpSocketOptions } from './tcp.js';
export { TcpListener, TcpSocket } from './tcp.js';
