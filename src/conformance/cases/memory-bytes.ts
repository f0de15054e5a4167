// BUF-03, -04, -05: the bytes that an operation moves, none of them or many, through any kind of view, and those that it must leave alone.

import * as fs from 'node:fs';
import { reasons } from '../support/shared.js';
import type { ConformanceCase } from '../types.js';
import { variants } from '../variants.js';
import { type BufferKind, bufferKinds, filler, makeBuffer, moved, untouched } from './buffers.js';

const owned =
  'The buffer is the system’s from the start of the request until its packet; nothing but the request’s bytes is touched';

const arrayTypes = [
  Int8Array,
  Uint8ClampedArray,
  Int16Array,
  Uint16Array,
  Int32Array,
  Uint32Array,
  Float32Array,
  Float64Array,
  BigInt64Array,
  BigUint64Array,
] as const;

export const cases: readonly ConformanceCase[] = [
  ...variants<BufferKind>(
    {
      clause: 'BUF-03',
      title:
        'a zero-length read, write, recv and send each complete with 0 bytes; a recv when something is there, and takes none',
      reference: 'WSARecv with no buffer completes when data is there: the way to hold many idle connections',
      notShared: { heap: reasons.heap },
    },
    bufferKinds,
    (t, kind) => {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const path = t.tempFile('file', 'abc');
      const file = t.openFile(port, 3, path);
      const empty = (): Uint8Array => makeBuffer(port, kind, 4).subarray(2, 2);
      for (const position of [0, 2, 3, 1000]) {
        moved(t, port, file.read(empty(), { position }), 0, `a read of nothing at ${position}`);
        moved(t, port, file.readv([empty(), empty()], { position }), 0, `a vectored read of nothing at ${position}`);
        moved(t, port, file.write(empty(), { position }), 0, `a write of nothing at ${position}`);
        moved(t, port, file.writev([empty()], { position }), 0, `a vectored write of nothing at ${position}`);
      }
      moved(t, port, file.readv([], { position: 0 }), 0, 'a vectored read into no buffers');
      t.equal(fs.readFileSync(path, 'utf8'), 'abc', 'the file');
      moved(t, port, a.send(empty()), 0, 'a send of nothing');
      moved(t, port, a.send([empty(), empty()]), 0, 'a vectored send of nothing');
      moved(t, port, a.send([]), 0, 'a vectored send of no buffers');
      moved(t, port, a.send(new Uint8Array(5), { length: 0 }), 0, 'a send of length 0');
      const waiting = b.recv(empty());
      t.nothing(port, 10);
      t.equal(waiting.pending, true, 'a recv of nothing waits, whatever was sent in no bytes');
      const sent = a.send(new Uint8Array([1, 2, 3]));
      for (const packet of t.takeSync(port, 2)) {
        t.ok(packet.operation === waiting || packet.operation === sent, 'the packet is of one of both');
        t.succeeded(packet, packet.kind);
        t.equal(packet.bytesTransferred, packet.operation === waiting ? 0 : 3, `bytes of the ${packet.kind}`);
      }
      moved(t, port, b.recv(empty()), 0, 'a recv of nothing where data is there');
      moved(t, port, b.recv(t.room(9), { length: 0 }), 0, 'a recv of length 0 where data is there');
      const view = makeBuffer(port, kind, 8);
      moved(t, port, b.recv(view), 3, 'a recv after the ones that took nothing');
      t.deepEqual([...view.subarray(0, 4)], [1, 2, 3, filler], 'what it got');
      const last = b.recv(empty());
      t.nothing(port, 5);
      a.shutdown();
      const ends = t.takeSync(port, 2);
      t.ok(
        ends.some((packet) => packet.operation === last && packet.error === null && packet.bytesTransferred === 0),
        'a recv of nothing at the end',
      );
      moved(t, port, b.recv(view), 0, 'a recv at the end');
    },
  ),

  {
    id: 'BUF-04/disjoint',
    clause: 'BUF-04',
    title: 'operations may share one buffer’s disjoint parts, all in flight at once',
    reference: owned,
    run(t) {
      const port = t.createPort();
      const content = t.random.bytes(4096);
      const file = t.openFile(port, 1, t.tempFile('file', content));
      const path = t.tempFile('target', '');
      const target = t.openFile(port, 2, path);
      for (const kind of Object.values(bufferKinds)) {
        const whole = makeBuffer(port, kind, 4096 + 64);
        for (const part of t.random.shuffle(Array.from({ length: 64 }, (_, index) => index))) {
          if (part % 2 === 0) file.read(whole, { position: part * 64, offset: part * 64, length: 64 });
          else file.read(whole.subarray(part * 64, part * 64 + 64), { position: part * 64 });
        }
        for (const packet of t.takeSync(port, 64)) t.equal(packet.bytesTransferred, 64, 'bytes of a part');
        t.sameBytes(whole.subarray(0, 4096), content, `the parts of one buffer in ${kind} memory`);
        untouched(t, whole.subarray(4096), 'behind the parts');
        for (let part = 0; part < 64; part++) target.write(whole, { position: part * 64, offset: part * 64, length: 64 });
        t.takeSync(port, 64);
        t.sameBytes(fs.readFileSync(path), content, 'what was written out of the parts');
        fs.truncateSync(path);
      }
    },
  },

  {
    id: 'BUF-04/views',
    clause: 'BUF-04',
    title:
      'Buffer, every TypedArray and DataView work, over plain and shared memory, with the view’s own place and the offset in bytes',
    reference: owned,
    run(t) {
      const port = t.createPort();
      const content = t.random.bytes(256);
      const file = t.openFile(port, 1, t.tempFile('file', content));
      const path = t.tempFile('target', '');
      const target = t.openFile(port, 2, path);
      const { a, b } = t.pair(port, 3, 4);
      // Both; a shared port reads into the one of them only.
      for (const make of [(n: number) => t.room(n).buffer, (n: number) => new SharedArrayBuffer(n)]) {
        const views: ((buffer: ArrayBufferLike) => ArrayBufferView)[] = [
          ...arrayTypes.map(
            (Type) => (buffer: ArrayBufferLike) => new Type(buffer as ArrayBuffer, 16, 64 / Type.BYTES_PER_ELEMENT),
          ),
          (buffer) => new DataView(buffer as ArrayBuffer, 16, 64),
          (buffer) => Buffer.from(buffer as ArrayBuffer, 16, 64),
          (buffer) => new (class Own extends Uint8Array {})(buffer as ArrayBuffer, 16, 64),
        ];
        for (const [index, makeView] of views.entries()) {
          const buffer = make(96);
          const bytes = new Uint8Array(buffer).fill(filler);
          const view = makeView(buffer);
          const what = `${view.constructor.name} ${index} over ${buffer.constructor.name}`;
          const check = (from: number, expected: Uint8Array): void => {
            untouched(t, bytes.subarray(0, from), `${what}, before`);
            t.sameBytes(bytes.subarray(from, from + expected.length), expected, what);
            untouched(t, bytes.subarray(from + expected.length), `${what}, behind`);
          };
          moved(t, port, file.read(view, { position: 0 }), 64, `a read into ${what}`);
          check(16, content.subarray(0, 64));
          bytes.fill(filler);
          moved(t, port, file.read(view, { position: 5, offset: 3, length: 17 }), 17, `a read into a part of ${what}`);
          check(19, content.subarray(5, 22));
          bytes.fill(filler);
          moved(t, port, file.readv([view, t.room(4)], { position: 7 }), 68, `a vectored read into ${what}`);
          check(16, content.subarray(7, 71));
          moved(t, port, target.write(view, { position: 0, offset: 10 }), 54, `a write out of ${what}`);
          t.sameBytes(fs.readFileSync(path), bytes.subarray(26, 80), `a write out of ${what}`);
          fs.truncateSync(path);
          moved(t, port, a.send(view, { offset: 1, length: 2 }), 2, `a send out of ${what}`);
          bytes.fill(filler);
          moved(t, port, b.recv(view, { offset: 4 }), 2, `a recv into ${what}`);
          check(20, content.subarray(8, 10));
        }
      }
    },
  },

  ...variants<BufferKind>(
    {
      clause: 'BUF-05',
      title: 'bytes beyond bytesTransferred, and around the buffer, are untouched; after the packet nothing is written',
      reference: owned,
      notShared: { heap: reasons.heap },
    },
    bufferKinds,
    (t, kind) => {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const content = t.random.bytes(1000);
      const file = t.openFile(port, 3, t.tempFile('file', content));
      for (let round = 0; round < 60; round++) {
        const length = t.random.between(1, 400);
        const before = t.random.int(40);
        const whole = makeBuffer(port, kind, before + length + 40);
        const view = whole.subarray(before, before + length);
        const sent = t.random.bytes(t.random.between(1, 300));
        const vectored = t.random.int(2) === 0;
        let bytes: number;
        let expected: Uint8Array;
        if (round % 2 === 0) {
          b.send(sent);
          t.takeOneSync(port);
          bytes = Math.min(sent.length, length);
          expected = sent.subarray(0, bytes);
          moved(t, port, a.recv(view), bytes, 'a recv');
        } else {
          const position = t.random.int(1100);
          bytes = Math.max(0, Math.min(length, content.length - position));
          expected = content.subarray(position, position + bytes);
          const operation = vectored
            ? file.readv([view.subarray(0, 1), view.subarray(1)], { position })
            : file.read(view, { position });
          moved(t, port, operation, bytes, 'a read');
        }
        untouched(t, whole.subarray(0, before), 'before the buffer');
        t.sameBytes(view.subarray(0, bytes), expected, 'what was read');
        untouched(t, whole.subarray(before + bytes), 'behind what was read');
        // Poisoned, and watched while the handle goes on working.
        whole.fill(0x5a);
        while (round % 2 === 0 && bytes < sent.length) {
          a.recv(t.room(400));
          bytes += t.takeOneSync(port).bytesTransferred;
        }
        b.send(sent);
        a.recv(t.room(400));
        let rest = sent.length;
        for (const packet of t.takeSync(port, 2)) if (packet.kind === 'recv') rest -= packet.bytesTransferred;
        t.equal(rest, 0, 'bytes that the next recv left');
        t.equal(
          whole.findIndex((byte) => byte !== 0x5a),
          -1,
          'the first byte written after the packet',
        );
        if (kind === 'arena') port.release(whole);
      }
    },
  ),
];
