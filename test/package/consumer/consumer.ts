// A user's module: type-checked against the installed package under two ways of resolution, and never run.

import { CompletionPort, FileHandle, type Operation, type Packet, TcpListener, type TcpSocket } from 'completion-port';
import { Server, Socket } from 'completion-port/net';
import { read } from 'completion-port/promises';

interface Connection {
  name: string;
}

const port = CompletionPort.create<Connection>({ maxOperations: 16 });
const file: FileHandle = FileHandle.openSync('/etc/hostname', 'r');
port.associate(file, 1);
const operation: Operation<Connection> = file.read(port.allocate(64), { position: 0, context: { name: 'a' } });
const packet: Packet<Connection> | null = port.getSync(1000);
if (packet?.kind === 'accept' && packet.error === null) {
  const accepted: TcpSocket = packet.result;
  accepted.close();
}
// @ts-expect-error: a key is a number
port.associate(file, 'one');
// @ts-expect-error: there is no such kind of packet
if (packet?.kind === 'reed') operation.cancel();

export const bytes: Promise<number> = read(file, new Uint8Array(8), { position: 0 });
export const listener: typeof TcpListener = TcpListener;
export const server: Server = new Server();
export const socket: Socket = new Socket();
