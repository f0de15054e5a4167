// TCP-09: many connections and buffers of every size. Each stream is held against its own pattern, byte by byte, so that bytes of
// another connection, of another place or of another time are seen.

import { reasons } from '../support/shared.js';
import type { ConformanceCase, Context, Operation, Packet, Port, TcpSocket, Way } from '../types.js';
import { variants } from '../variants.js';
import { type BufferKind, bufferKindList, bufferOf, drive, makeBuffer } from './buffers.js';
import { receive } from './tcp-common.js';

const streaming = 'A stream socket delivers all bytes, once, in order, whatever the sizes of the buffers at both ends';

/** FNV-1a, continued from `state`: order and value of every byte count. */
function checksum(bytes: Uint8Array, state = 2_166_136_261): number {
  let value = state;
  for (let i = 0; i < bytes.length; i++) value = Math.imul(value ^ (bytes[i] as number), 16_777_619);
  return value >>> 0;
}

/** One end of an echo: what it is to do next is decided by its packets alone. */
interface End {
  readonly socket: TcpSocket;
  readonly number: number;
  readonly server: boolean;
  /** The lengths of what a client sends. */
  readonly messages: number[];
  started: number;
  /** Bytes sent, and bytes that have come back. */
  sent: number;
  received: number;
  readonly view: Uint8Array;
}

/** Log-uniform: as many tiny ones as large ones. */
function size(t: Context, most: number): number {
  return Math.max(1, Math.min(most, Math.round(2 ** (t.random.next() * Math.log2(most)))));
}

async function soak(t: Context, connections: number, messages: number, most: number, way: Way, limitMs: number): Promise<void> {
  const port = t.createPort<End>();
  const listener = t.listener(port as Port, 0);
  const ends: End[] = [];
  let open = 0;
  let finished = 0;
  let begun = 0;

  const make = (socket: TcpSocket, number: number, server: boolean): End => {
    const lengths = server ? [] : Array.from({ length: t.random.between(1, messages) }, () => size(t, most));
    // Tiny buffers for little, so that no connection takes thousands of turns.
    const least = server ? 2048 : Math.ceil(lengths.reduce((sum, length) => sum + length, 0) / 20);
    const end: End = {
      socket,
      number,
      server,
      messages: lengths,
      started: 0,
      sent: 0,
      received: 0,
      view: makeBuffer(port, t.random.pick(['shared', 'heap']), Math.max(least, size(t, 65_536))),
    };
    ends.push(end);
    return end;
  };
  const recv = (end: End): void => void end.socket.recv(end.view, { context: end });
  /** The client sends its next message, or the end. */
  const sendNext = (end: End): void => {
    const length = end.messages[end.started++];
    if (length === undefined) {
      end.socket.shutdown({ context: end });
      return;
    }
    const content = t.pattern(end.sent, length, end.number);
    end.sent += length;
    const kind: BufferKind = length > 65_536 ? 'heap' : t.random.pick(bufferKindList);
    const view = bufferOf(port, kind, content);
    end.socket.send(view, { context: end });
    // Its block goes back to the arena with the packet.
    if (kind === 'arena') port.release(view);
  };
  const connectNext = (): void => {
    if (begun === connections) return;
    const socket = t.track(t.api.TcpSocket.openSync());
    port.associate(socket, ++begun);
    socket.connect({ host: '127.0.0.1', port: listener.address.port }, { context: make(socket, begun, false) });
    listener.accept();
  };
  // In portions: more at once than the backlog holds would wait for a second try.
  for (let i = 0; i < Math.min(100, connections); i++) connectNext();

  const handle = (packet: Packet<End>): void => {
    t.succeeded(packet as Packet, packet.kind);
    if (packet.kind === 'accept') {
      if (packet.error !== null) return;
      const socket = t.track(packet.result);
      port.associate(socket, 2 ** 32);
      recv(make(socket, 0, true));
      return;
    }
    const end = t.some(packet.operation?.context, 'the context');
    switch (packet.kind) {
      case 'connect':
        open++;
        connectNext();
        // All of them are open before the first byte is sent.
        if (open < connections) return;
        for (const client of ends) {
          if (client.server) continue;
          sendNext(client);
          recv(client);
        }
        return;
      case 'send':
        // The echo's copy has gone out: now its view may be filled again.
        if (end.server) recv(end);
        else sendNext(end);
        return;
      case 'recv':
        if (end.server) {
          if (packet.bytesTransferred === 0) end.socket.close();
          else end.socket.send(end.view, { context: end, length: packet.bytesTransferred });
          return;
        }
        if (packet.bytesTransferred === 0) {
          t.equal(end.received, end.sent, `bytes that came back on connection ${end.number}`);
          t.equal(end.started, end.messages.length + 1, `sends and shutdown on connection ${end.number}`);
          end.socket.close();
          finished++;
          return;
        }
        t.sameBytes(
          end.view.subarray(0, packet.bytesTransferred),
          t.pattern(end.received, packet.bytesTransferred, end.number),
          `what came back on connection ${end.number} from byte ${end.received} on`,
        );
        end.received += packet.bytesTransferred;
        recv(end);
        return;
      default:
        t.equal(packet.kind, 'shutdown', 'the kind of any other packet');
    }
  };
  await drive(t, port, way, handle, () => finished === connections, limitMs);
  t.equal(open, connections, 'connections');
  t.equal(ends.length, 2 * connections, 'ends');
  t.equal(port.inFlight, 0, 'operations in flight');
  t.nothing(port as Port);
  const bytes = ends.reduce((sum, end) => sum + end.received, 0);
  t.ok(bytes >= connections, `${bytes} bytes came back`);
}

export const cases: readonly ConformanceCase[] = [
  ...variants<Way>(
    { clause: 'TCP-09', title: 'echoes of random sizes over 40 connections arrive intact', reference: streaming },
    { getManySync: 'getManySync', get: 'get', iterator: 'iterator', dispatch: 'dispatch' },
    (t, way) => soak(t, 40, 6, 100_000, way, 8000),
  ),

  ...variants<Way>(
    {
      clause: 'TCP-09',
      title: '1,000 connections at once, each with its own random sizes, arrive intact',
      reference: streaming,
      soak: true,
      timeoutMs: 60_000,
    },
    { '1000-connections': 'getManySync', '1000-connections-dispatch': 'dispatch' },
    (t, way) => soak(t, t.count(1000, 20), 4, 65_536, way, 55_000),
  ),

  ...variants<BufferKind>(
    {
      clause: 'TCP-09',
      title: 'buffers from 1 byte to 16 MiB, at both ends',
      reference: streaming,
      notShared: { 'sizes-heap': reasons.heap },
      soak: true,
      timeoutMs: 30_000,
    },
    { 'sizes-arena': 'arena', 'sizes-shared': 'shared', 'sizes-heap': 'heap' },
    (t, kind) => {
      const port = t.createPort({ arenaBytes: 64 * 2 ** 20 });
      const { a, b } = t.pair(port, 1, 2);
      const sizes = [
        1,
        2,
        3,
        63,
        64,
        65,
        4095,
        4096,
        4097,
        65_535,
        65_536,
        65_537,
        2 ** 20 - 1,
        2 ** 20 + 1,
        2 ** 24 - 1,
        2 ** 24,
      ];
      let at = 0;
      for (const length of t.random.shuffle(sizes)) {
        const content = t.pattern(at, length);
        const view = bufferOf(port, kind, content);
        const send: Operation = a.send(view);
        let done = 0;
        const check = (packet: Packet): void => {
          t.ok(packet.operation === send, 'the packet is of the send');
          t.succeeded(packet, 'send');
          t.equal(packet.bytesTransferred, length, 'bytes of the send');
          done++;
        };
        const chunk = length < 5000 ? t.random.between(1, 5000) : t.random.pick([length, 2 ** 16, 2 ** 20, 2 ** 24]);
        const stream = receive(t, port, b, length, { kind, chunk, other: check, limitMs: 10_000 });
        if (done === 0) check(t.takeOneSync(port));
        t.equal(done, 1, 'packets of the send');
        t.equal(checksum(stream.bytes), checksum(content), `the checksum of ${length} bytes received with buffers of ${chunk}`);
        if (kind === 'arena') port.release(view);
        at += length;
      }
    },
  ),
];
