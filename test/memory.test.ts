// Where operations work: in place in the arena and in SharedArrayBuffers, through blocks of the port for everything else, with the
// blocks coming back.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CompletionPort, FileHandle } from 'completion-port';
import { read, readv, write, writev } from 'completion-port/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';

const KIB = 1024;
const MIB = 1024 * KIB;

let folder: string;
let path: string;
let port: CompletionPort;
let file: FileHandle;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'completion-port-'));
  path = join(folder, 'file');
  writeFileSync(path, '');
  port = CompletionPort.create({ arenaBytes: MIB });
  file = FileHandle.openSync(path, 'r+');
  port.associate(file, 1);
});

afterEach(async () => {
  file.close();
  port.close();
  await port.closed;
  rmSync(folder, { recursive: true });
});

function pattern(bytes: number, seed: number): Buffer {
  const made = Buffer.alloc(bytes);
  let state = seed;
  for (let i = 0; i < bytes; i++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    made[i] = state >>> 24;
  }
  return made;
}

test('copies of every size class arrive whole, and the arena is given back', async () => {
  const sizes = [0, 1, 63, 64, 65, 160, 161, 4096, 65_536, 65_537, 300_000, 3 * MIB, 5 * MIB];
  for (const bytes of sizes) {
    const data = pattern(bytes, bytes + 1);
    expect(await write(file, data, { position: 0 })).toBe(bytes);
    const back = Buffer.alloc(bytes);
    expect(await read(file, back, { position: 0 })).toBe(bytes);
    expect(back.equals(data)).toBe(true);
  }
  // What lies idle in blocks of the port is at allocate's disposal, too.
  const whole = port.allocate(MIB - 64 * KIB);
  port.release(whole);
});

test('small copies at any offset and length, alone and behind others in a vector, touch nothing beside them', async () => {
  const around = 8;
  const source = pattern(512, 9);
  for (let bytes = 1; bytes <= 200; bytes = bytes < 20 || (bytes > 90 && bytes < 100) ? bytes + 1 : bytes + 7) {
    for (const at of [0, 1, 2, 3]) {
      const data = source.subarray(at, at + bytes);
      expect(await write(file, data, { position: 0 })).toBe(bytes);
      const back = new Uint8Array(bytes + 2 * around).fill(0xa5);
      expect(await read(file, back, { position: 0, offset: around + at, length: bytes - 1 })).toBe(bytes - 1);
      const expected = new Uint8Array(bytes + 2 * around).fill(0xa5);
      expected.set(data.subarray(0, bytes - 1), around + at);
      expect(back).toEqual(expected);

      // The second view's bytes begin in the block at `at` and the first view's length.
      const [first, second] = [source.subarray(0, at), source.subarray(at, at + bytes)];
      expect(await writev(file, [first, second], { position: 0 })).toBe(at + bytes);
      const views = [new Uint8Array(at), new Uint8Array(bytes)];
      expect(await readv(file, views, { position: 0 })).toBe(at + bytes);
      expect(Buffer.concat(views).equals(source.subarray(0, at + bytes))).toBe(true);
    }
  }
});

test('a burst that the arena has no room for works in memory of its own, and is counted', async () => {
  writeFileSync(path, pattern(MIB, 5));
  const before = port.stats().bounceBytes;
  const buffers = Array.from({ length: 64 }, () => Buffer.alloc(64 * KIB));
  await Promise.all(buffers.map((buffer, i) => read(file, buffer, { position: (i % 16) * 64 * KIB })));
  const content = readFileSync(path);
  buffers.forEach((buffer, i) => {
    const at = (i % 16) * 64 * KIB;
    expect(buffer.equals(content.subarray(at, at + 64 * KIB))).toBe(true);
  });
  expect(port.stats().bounceBytes).toBeGreaterThan(before);
});

test('views of any kind, offsets and lengths in bytes', async () => {
  const data = pattern(64, 9);
  await write(file, data, { position: 0 });
  const words = new Uint32Array(16);
  expect(await read(file, words, { position: 0, offset: 4, length: 8 })).toBe(8);
  const bytes = Buffer.from(words.buffer);
  expect(bytes.subarray(4, 12).equals(data.subarray(0, 8))).toBe(true);
  expect(bytes.subarray(12).every((byte) => byte === 0)).toBe(true);
  const view = new DataView(new ArrayBuffer(32), 8, 16);
  expect(await read(file, view, { position: 16 })).toBe(16);
  expect(Buffer.from(view.buffer, 8, 16).equals(data.subarray(16, 32))).toBe(true);
});

test('a growable SharedArrayBuffer may grow between two operations', async () => {
  await write(file, pattern(256, 3), { position: 0 });
  type Growable = SharedArrayBuffer & { grow(bytes: number): void };
  const Shared = SharedArrayBuffer as unknown as new (bytes: number, options: { maxByteLength: number }) => Growable;
  const shared = new Shared(64, { maxByteLength: 256 });
  expect(await read(file, new Uint8Array(shared), { position: 0 })).toBe(64);
  shared.grow(256);
  const view = new Uint8Array(shared, 128);
  expect(await read(file, view, { position: 0 })).toBe(128);
  expect(Buffer.from(view).equals(readFileSync(path).subarray(0, 128))).toBe(true);
});

test('more SharedArrayBuffers than are kept registered', async () => {
  await write(file, Buffer.from('x'), { position: 0 });
  for (let i = 0; i < 100; i++) {
    const view = new Uint8Array(new SharedArrayBuffer(8));
    expect(await read(file, view, { position: 0, length: 1 })).toBe(1);
    expect(view[0]).toBe(120);
  }
});

test('a vector is scattered and gathered, in place or through one block', async () => {
  const shared = (bytes: number): Uint8Array => new Uint8Array(new SharedArrayBuffer(bytes));
  const lists = [
    [port.allocate(10), shared(5), port.allocate(64)],
    [port.allocate(10), Buffer.alloc(5), shared(64)],
    [Buffer.alloc(0), new Uint8Array(300), new DataView(new ArrayBuffer(16))],
  ];
  for (const list of lists) {
    const total = list.reduce((sum, view) => sum + view.byteLength, 0);
    const data = pattern(total, total);
    let at = 0;
    for (const view of list) {
      new Uint8Array(view.buffer, view.byteOffset, view.byteLength).set(data.subarray(at, at + view.byteLength));
      at += view.byteLength;
    }
    expect(await writev(file, list, { position: 0 })).toBe(total);
    expect(readFileSync(path).subarray(0, total).equals(data)).toBe(true);
    for (const view of list) new Uint8Array(view.buffer, view.byteOffset, view.byteLength).fill(0);
    expect(await readv(file, list, { position: 0 })).toBe(total);
    const back = Buffer.concat(list.map((view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)));
    expect(back.equals(data)).toBe(true);
  }
});

test('what is not in the list any more at delivery is written where the list said at the start', async () => {
  await write(file, Buffer.from('0123456789'), { position: 0 });
  const first = Buffer.alloc(4);
  const list = [first, Buffer.alloc(6)];
  const reading = readv(file, list, { position: 0 });
  list[0] = Buffer.alloc(4);
  expect(await reading).toBe(10);
  expect(first.toString()).toBe('0123');
});

test('a detached buffer: refused at the start, an error of the packet afterwards', async () => {
  await write(file, Buffer.from('0123456789'), { position: 0 });
  const gone = new Uint8Array(8);
  structuredClone(gone.buffer, { transfer: [gone.buffer] });
  expect(() => file.read(gone, { position: 0 })).toThrowError(expect.objectContaining({ code: 'ERR_BUFFER_DETACHED' }));
  for (const view of [new Uint8Array(8), new Uint8Array(0), new DataView(new ArrayBuffer(8))]) {
    const reading = read(file, view, { position: 0 });
    structuredClone(view.buffer, { transfer: [view.buffer] });
    await expect(reading).rejects.toMatchObject({ code: 'ERR_BUFFER_DETACHED' });
  }
});

test('only what allocate returned can be released, once', () => {
  const view = port.allocate(100);
  const refused = expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' });
  expect(() => port.release(new Uint8Array(8))).toThrowError(refused);
  expect(() => port.release(view.subarray(1))).toThrowError(refused);
  port.release(view);
  expect(() => port.release(view)).toThrowError(refused);
});
