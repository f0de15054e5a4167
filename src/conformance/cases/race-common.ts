// What the cases of cancel races share: the ways of ending an operation, acts in an order that the seed chooses, an endless stream of
// known bytes. Not a family: it exports no cases.

import type { Context, Operation, Packet, Port } from '../types.js';
import { noMore } from './flight.js';
import { accepted } from './tcp-common.js';

/** How an operation is ended in a race. */
export type Ender = 'cancel' | 'signal' | 'timeout' | 'handle';
const by = { cancel: 'cancel', handle: 'cancel', signal: 'signal', timeout: 'timeout' } as const;

/** An endless stream of known bytes: any part of it can be made, or checked, without making the rest. */
export class Tape {
  readonly #length: number;
  readonly #bytes: Uint8Array<ArrayBuffer>;

  constructor(t: Context) {
    this.#length = 65_521; // a prime: a shift by any block or buffer size shows
    const once = t.random.bytes(this.#length);
    this.#bytes = new Uint8Array(this.#length * 9);
    for (let i = 0; i < 9; i++) this.#bytes.set(once, i * this.#length);
  }

  /** At most half a MiB. */
  at(offset: number, length: number): Uint8Array<ArrayBuffer> {
    const from = offset % this.#length;
    return this.#bytes.subarray(from, from + length);
  }

  check(t: Context, offset: number, bytes: Uint8Array, what: string): void {
    if (Buffer.compare(this.at(offset, bytes.length), bytes) !== 0) t.sameBytes(bytes, this.at(offset, bytes.length), what);
  }
}

/** The end of a raced operation: a success, or a failure that says it was ended, by whom. */
export function raced(t: Context, packet: Packet, ender: Ender, what: string): boolean {
  if (packet.error === null) return true;
  t.failed(packet, { code: ender === 'timeout' ? 'ETIMEDOUT' : 'ECANCELED', by: by[ender] }, what);
  return false;
}

/** Options of a start that `ender` is to end, and the act that ends it (a timeout comes by itself). */
export function endings(
  t: Context,
  ender: Ender,
): { options: { signal?: AbortSignal; timeout?: number }; end(operation: Operation, cancelAll: () => void): void } {
  const controller = ender === 'signal' ? new AbortController() : null;
  return {
    options: controller !== null ? { signal: controller.signal } : ender === 'timeout' ? { timeout: t.random.next() * 0.4 } : {},
    end(operation, cancelAll) {
      if (ender === 'cancel') operation.cancel();
      else if (ender === 'handle') cancelAll();
      else controller?.abort();
    },
  };
}

/** Does the acts in an order that the seed chooses, with flushes and short waits between some of them. */
export function inSomeOrder(t: Context, port: Port, acts: readonly (() => void)[]): void {
  for (const act of t.random.shuffle(acts)) {
    const between = t.random.int(8);
    if (between < 3) port.flush();
    else if (between === 3) t.spin(t.random.next() * 0.03);
    act();
  }
}

/** Connections that come while accepts are cancelled: each is taken by one accept, and none is lost. */
export function raceAccept(t: Context, ender: Ender, rounds: number): void {
  const port = t.createPort();
  const listener = t.listener(port, 1);
  const before = t.fdCount();
  const waiting = new Set<number>();
  for (let round = 0; round < rounds; round++) {
    const { options, end } = endings(t, ender);
    const accept = listener.accept(options);
    const client = t.api.TcpSocket.openSync();
    port.associate(client, 2);
    let connecting: Operation | undefined;
    inSomeOrder(t, port, [
      () => {
        connecting = client.connect({ host: '127.0.0.1', port: listener.address.port });
      },
      () => end(accept, () => listener.cancel()),
      () => port.flush(),
    ]);
    let taken: number | undefined;
    for (const packet of t.takeSync(port, 2)) {
      if (packet.operation === connecting) {
        t.succeeded(packet, 'a connect');
        waiting.add(t.some(client.localAddress, 'the client’s address').port);
      } else {
        t.ok(packet.operation === accept && packet.kind === 'accept', 'the packet is of this round’s accept');
        if (!raced(t, packet, ender, 'a raced accept') || packet.kind !== 'accept') continue;
        const socket = t.some(packet.result, 'the result of an accept that won');
        taken = t.some(socket.remoteAddress, 'its peer’s address').port;
        socket.close();
      }
    }
    if (taken !== undefined) t.ok(waiting.delete(taken), 'the accepted connection is one that waited');
    while (waiting.size > (round === rounds - 1 ? 0 : 3)) {
      listener.accept();
      const socket = accepted(t, t.takeOneSync(port));
      t.ok(waiting.delete(t.some(socket.remoteAddress, 'its peer’s address').port), 'the accepted connection is one that waited');
      socket.close();
    }
    client.close();
  }
  noMore(t, port, 'after all races');
  t.equal(t.fdCount(), before, 'descriptors after all races');
}
