// How the suite's cases get packets: exactly so many, by any of the ways, within a limit, and with a failure that lists what came.

import { createAssertions, showPackets } from './check.js';
import type { Context, Packet, Port, TakeOptions } from './types.js';

export interface Taking {
  takeSync<C>(port: Port<C>, n: number, timeoutMs?: number, max?: number, single?: boolean): Packet<C>[];
  take: Context['take'];
  takeOneSync: Context['takeOneSync'];
}

/** @param doing - told what is waited for, before it is: a get may block for ever */
export function createTaking(doing: (what: string) => void): Taking {
  const fail: (message: string) => never = createAssertions().fail;

  const takeSync = <C>(port: Port<C>, n: number, timeoutMs = 5000, max = 512, single = false): Packet<C>[] => {
    doing(`getting ${n} packets with ${single ? 'getSync' : 'getManySync'}`);
    const end = performance.now() + timeoutMs;
    const packets: Packet<C>[] = [];
    while (packets.length < n) {
      const left = Math.max(0, end - performance.now());
      if (single) {
        const packet = port.getSync(left);
        if (packet !== null) packets.push(packet);
      } else {
        packets.push(...port.getManySync(Math.min(max, n - packets.length), left));
      }
      if (packets.length < n && performance.now() >= end) {
        fail(`expected ${n} packets within ${timeoutMs} ms, got ${packets.length}: ${showPackets(packets as Packet[])}`);
      }
    }
    if (packets.length > n) fail(`asked for at most ${n} packets, got ${packets.length}: ${showPackets(packets as Packet[])}`);
    return packets;
  };

  const take = async <C>(port: Port<C>, n: number, options: TakeOptions = {}): Promise<Packet<C>[]> => {
    const { way = 'getManySync', timeoutMs = 5000, max = 512 } = options;
    if (way === 'getManySync' || way === 'getSync') return takeSync(port, n, timeoutMs, max, way === 'getSync');
    doing(`getting ${n} packets with ${way}`);
    const packets: Packet<C>[] = [];
    const end = performance.now() + timeoutMs;
    const left = (): number => Math.max(0, end - performance.now());
    const missed = (): never =>
      fail(
        `expected ${n} packets within ${timeoutMs} ms with ${way}, got ${packets.length}: ${showPackets(packets as Packet[])}`,
      );
    if (n === 0) return packets;
    if (way === 'dispatch') {
      await new Promise<void>((resolve, reject) => {
        const consumer = port.dispatch((packet) => {
          packets.push(packet);
          if (packets.length === n) {
            consumer.stop();
            clearTimeout(timer);
            resolve();
          }
        });
        const timer = setTimeout(() => {
          consumer.stop();
          try {
            missed();
          } catch (error) {
            reject(error);
          }
        }, timeoutMs);
      });
    } else if (way === 'iterator') {
      const iterator = port[Symbol.asyncIterator]();
      try {
        while (packets.length < n) {
          const result = await Promise.race([iterator.next(), nothingAfter(left())]);
          if (result === null || result.done === true) return missed();
          packets.push(result.value);
        }
      } finally {
        await iterator.return?.();
      }
    } else {
      while (packets.length < n) {
        if (way === 'get') {
          const packet = await port.get({ timeout: left() });
          if (packet !== null) packets.push(packet);
        } else {
          packets.push(...(await port.getMany(Math.min(max, n - packets.length), { timeout: left() })));
        }
        if (packets.length < n && performance.now() >= end) missed();
      }
    }
    if (packets.length > n)
      fail(`asked ${way} for at most ${n} packets, got ${packets.length}: ${showPackets(packets as Packet[])}`);
    return packets;
  };

  const takeOneSync = <C>(port: Port<C>, timeoutMs?: number): Packet<C> => takeSync(port, 1, timeoutMs, 1, true)[0] as Packet<C>;

  return { take, takeSync, takeOneSync };
}

function nothingAfter(ms: number): Promise<null> {
  return new Promise((resolve) => setTimeout(() => resolve(null), ms).unref());
}
