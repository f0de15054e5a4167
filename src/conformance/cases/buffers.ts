// What the cases of files and of TCP share: buffers over each kind of memory, the numbers that Node gives an error's name, a
// drive of a port by any way of getting, and children that answer in JSON. Not a family: it exports no cases.

import { getSystemErrorMap } from 'node:util';
import type { ChildOptions, Context, Operation, Packet, Port, Way } from '../types.js';

/** The memory that a view may lie over: the port's arena, a SharedArrayBuffer of the script's, or anything else (copied). */
export type BufferKind = 'arena' | 'shared' | 'heap';

export const bufferKinds: Readonly<Record<BufferKind, BufferKind>> = { arena: 'arena', shared: 'shared', heap: 'heap' };
export const bufferKindList: readonly BufferKind[] = ['arena', 'shared', 'heap'];

/** The arena hands out `bytes`, and has at most a page beyond that, for the alignment of what it hands out. */
export function arenaOf<C>(t: Context, port: Port<C>, bytes: number, what: string): void {
  const { byteLength } = port.arena;
  t.ok(byteLength >= bytes && byteLength <= bytes + 4096, `${what}: ${bytes} and at most a page more, not ${byteLength}`);
  const all = port.allocate(bytes);
  t.ok(all.buffer === port.arena, `${what}: a block of all of it lies in it`);
  port.release(all);
}

/** What untouched bytes hold. */
export const filler = 0xa5;

/** A view of `length` bytes that doesn't begin where its buffer begins (but the arena's own blocks). */
function viewOf<C>(port: Port<C>, kind: BufferKind, length: number): Uint8Array {
  if (kind === 'arena') return port.allocate(length);
  return kind === 'shared'
    ? new Uint8Array(new SharedArrayBuffer(length + 7), 3, length)
    : new Uint8Array(new ArrayBuffer(length + 7), 5, length);
}

/**
 * Such a view to read into, all `filler`. A shared port (`--shared`) reads into no heap: there it is a SharedArrayBuffer's where the kind
 * doesn't matter; cases that are about the heap say `notShared`.
 */
export function makeBuffer<C>(port: Port<C>, kind: BufferKind, length: number): Uint8Array {
  return viewOf(port, kind === 'heap' && port.shared ? 'shared' : kind, length).fill(filler);
}

/** Such a view with the given bytes in it. */
export function bufferOf<C>(port: Port<C>, kind: BufferKind, bytes: Uint8Array): Uint8Array {
  const view = viewOf(port, kind, bytes.length);
  view.set(bytes);
  return view;
}

/** Every byte of the view is still the filler. */
export function untouched(t: Context, view: Uint8Array, what: string): void {
  const at = view.findIndex((byte) => byte !== filler);
  if (at >= 0) t.fail(`${what}: byte ${at} was changed to ${view[at]}`);
}

/** The one packet that comes next is this operation's. */
export function packetOf<C>(t: Context, port: Port<C>, operation: Operation<C>, what: string): Packet<C> {
  const packet = t.takeOneSync(port);
  t.ok(packet.operation === operation, `${what}: the packet is of the operation that was started (kind ${packet.kind})`);
  t.equal(operation.pending, false, `${what}: pending once the packet is there`);
  return packet;
}

/** Starts nothing: takes the packet of `operation`, which must say success with so many bytes. */
export function moved<C>(t: Context, port: Port<C>, operation: Operation<C>, bytes: number, what: string): void {
  const packet = packetOf(t, port, operation, what);
  t.succeeded(packet as Packet, what);
  t.equal(packet.bytesTransferred, bytes, `${what}: bytesTransferred`);
}

/** Node's number of an error's name: negative. */
export function errnoOf(t: Context, code: string): number {
  // What Node.js itself calls the code on this OS; on Windows that is no errno.
  const found = [...getSystemErrorMap()].find(([, [name]]) => name === code);
  return t.some(found, `a number for ${code}`)[0];
}

/**
 * Gets packets by `way` and hands each to `onPacket` until `done` holds. The ways that block serve only peers of this port or of
 * another thread: the event loop stands still meanwhile.
 */
export async function drive<C>(
  t: Context,
  port: Port<C>,
  way: Way,
  onPacket: (packet: Packet<C>) => void,
  done: () => boolean,
  limitMs = 8000,
): Promise<void> {
  const end = t.now() + limitMs;
  const left = (): number => {
    const ms = end - t.now();
    if (ms <= 0) t.fail(`not done within ${limitMs} ms with ${way}; ${port.inFlight} operations in flight`);
    return ms;
  };
  if (done()) return;
  switch (way) {
    case 'dispatch': {
      const consumer = port.dispatch(onPacket);
      try {
        await t.eventually(done, `a stream driven by dispatch (${port.inFlight} operations in flight)`, limitMs);
      } finally {
        consumer.stop();
      }
      return;
    }
    case 'iterator':
      for await (const packet of port) {
        onPacket(packet);
        if (done()) return;
        left();
      }
      t.fail('the iterator ended');
      return;
    case 'get':
    case 'getSync':
      while (!done()) {
        const packet = way === 'get' ? await port.get({ timeout: left() }) : port.getSync(left());
        if (packet !== null) onPacket(packet);
      }
      return;
    default:
      while (!done()) {
        const packets = way === 'getMany' ? await port.getMany(64, { timeout: left() }) : port.getManySync(64, left());
        for (const packet of packets) onPacket(packet);
      }
  }
}

/** A loaded machine takes its time over starting programs, and over thousands of rounds: limits of a child with such, and of its case. */
export const childMs = 20_000;
export const childCaseMs = 25_000;

/**
 * Runs a child whose last line of standard output is JSON, and returns that. `{ "unable": reason }` makes the case unable; any
 * other end than exit code 0 fails it with what the child printed.
 */
export async function childAnswer<T>(t: Context, code: string, options: ChildOptions = {}): Promise<T> {
  const { code: status, signal, stdout, stderr } = await t.child(code, options);
  if (status !== 0) {
    t.fail(
      `the child ended with ${signal ?? `exit code ${status}`}; it printed ${JSON.stringify((stdout + stderr).slice(-1500))}`,
    );
  }
  const last = stdout.trim().split('\n').at(-1) ?? '';
  let answer: T & { unable?: unknown };
  try {
    answer = JSON.parse(last) as T & { unable?: unknown };
  } catch {
    return t.fail(`the child’s last line is no JSON: ${JSON.stringify(last.slice(0, 300))}; stderr: ${stderr.slice(-500)}`);
  }
  if (typeof answer.unable === 'string') t.unable(answer.unable);
  return answer;
}
