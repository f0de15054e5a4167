// What the cases of several families get with: one call of each way as a list of packets, one packet awaited by an asynchronous
// way, and an account of packets that must come once each.

import type { Context, Operation, Packet, Port, Way } from '../types.js';

/** One call of each way that gives packets by itself, as a list of packets. */
export type Getter = (port: Port, timeout: number | undefined, max?: number) => Promise<Packet[]>;

const listOf = (packet: Packet | null): Packet[] => (packet === null ? [] : [packet]);

export const getters: Record<'getSync' | 'getManySync' | 'get' | 'getMany', Getter> = {
  getSync: async (port, timeout) => listOf(port.getSync(timeout)),
  getManySync: async (port, timeout, max = 8) => port.getManySync(max, timeout),
  get: async (port, timeout) => listOf(await port.get(timeout === undefined ? undefined : { timeout })),
  getMany: async (port, timeout, max = 8) => port.getMany(max, timeout === undefined ? undefined : { timeout }),
};
export const asyncGetters = { get: getters.get, getMany: getters.getMany };

/** Starts waiting for one packet by an asynchronous way; `stop` ends the waiting and loses nothing. */
export function waitFor(port: Port, way: Way): { packet: Promise<Packet>; stop: () => void } {
  if (way === 'dispatch') {
    let stop = (): void => {};
    const packet = new Promise<Packet>((resolve) => {
      const consumer = port.dispatch((one) => {
        consumer.stop();
        resolve(one);
      });
      stop = () => consumer.stop();
    });
    return { packet, stop };
  }
  if (way === 'iterator') {
    const iterator = port[Symbol.asyncIterator]();
    const packet = iterator.next().then(async (result) => {
      await iterator.return?.();
      if (result.done === true) throw new Error('the iterator is done');
      return result.value;
    });
    return { packet, stop: () => void iterator.return?.() };
  }
  const abort = new AbortController();
  const options = { signal: abort.signal };
  const packet =
    way === 'getMany' ? port.getMany(1, options).then(([one]) => one as Packet) : port.get(options).then((one) => one as Packet);
  return { packet, stop: () => abort.abort() };
}

/** Every packet must be one of `wanted`, each once; what is missing at the end is the caller's to check. */
export class Ledger {
  readonly #t: Context;
  /** Keys that were posted and have not come back. */
  readonly missing = new Set<number>();
  constructor(t: Context) {
    this.#t = t;
  }
  post(port: Port, key: number): void {
    this.missing.add(key);
    port.post(key);
  }
  take(packet: Packet, from: string): void {
    if (!this.missing.delete(packet.key))
      this.#t.fail(`${from} gave the packet with key ${packet.key} a second time, or it was never posted`);
  }
}

/**
 * What was started last, and is over as soon as the kernel has it, has finished: then so many packets are there. A private port's flush
 * comes back when the kernel has it; a shared port's own thread submits, a moment later.
 */
export function finished(t: Context, port: Port, packets: number): void {
  port.flush();
  const end = t.now() + 2000;
  while (port.shared && port.stats().queued < packets)
    if (t.now() > end) t.fail(`${port.stats().queued} packets of ${packets} are queued after 2 s`);
}

/** A server in a thread of its own that answers each byte with one byte, so many milliseconds later. */
export async function quietPeer(t: Context, delayMs: number): Promise<number> {
  const worker = t.worker(
    `net.createServer((socket) => { socket.setNoDelay(); socket.on('error', () => {});
       socket.on('data', () => setTimeout(() => socket.write('x'), workerData)); })
     .listen(0, '127.0.0.1', function () { parentPort.postMessage(this.address().port); });`,
    delayMs,
  );
  return t.within(5000, new Promise<number>((resolve) => worker.once('message', resolve)), 'a server in a worker');
}

/** A posted packet is what the poster put in it, and nothing else. */
export function checkPost(
  t: Context,
  packet: Packet,
  key: number,
  bytes: number,
  operation: Operation | undefined,
  id: number,
): void {
  t.equal(packet.kind, 'post', 'kind');
  t.equal(packet.key, key, 'key');
  t.equal(packet.bytesTransferred, bytes, 'bytesTransferred');
  t.equal(packet.operation, operation, 'operation');
  t.equal(packet.operationId, id, 'operationId');
  t.equal(packet.handleId, 0, 'handleId');
  t.equal(packet.result, undefined, 'result');
  t.equal(packet.error, null, 'error');
}
