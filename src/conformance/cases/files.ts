// FILE-01: positions. What the port says is always held against what the file system says (node:fs), and every read's buffer
// against the bytes around the read.

import * as fs from 'node:fs';
import { reasons } from '../support/shared.js';
import type { ConformanceCase, Operation, Port } from '../types.js';
import { forEachWay, variants } from '../variants.js';
import { type BufferKind, bufferKinds, bufferOf, makeBuffer, moved, untouched } from './buffers.js';
import { checkRead, type Form, forms } from './files-common.js';

const positioned =
  'ReadFile and WriteFile take the position from the OVERLAPPED (Offset, OffsetHigh); the handle has none of its own';

export const cases: readonly ConformanceCase[] = [
  ...variants<BufferKind>(
    {
      clause: 'FILE-01',
      title: 'random reads and writes at explicit positions agree with a model',
      reference: positioned,
      notShared: { heap: reasons.heap },
    },
    bufferKinds,
    (t, kind) => {
      const port = t.createPort();
      const path = t.tempFile('file', t.pattern(0, 50_000));
      const file = t.openFile(port, 7, path);
      let model = Buffer.from(t.pattern(0, 50_000));
      for (let round = 1; round <= 60; round++) {
        const form = t.random.pick(Object.values(forms));
        const position = t.random.int(model.length);
        const length = t.random.between(1, 6000);
        if (t.random.int(2) === 0) {
          checkRead(t, port, form, file, kind, position, length, model.subarray(position, position + length));
          continue;
        }
        const bytes = t.pattern(position, length, round);
        const view = bufferOf(port, kind, bytes);
        moved(t, port, form.write(file, view, position), length, `writing ${length} bytes at ${position}`);
        t.sameBytes(view, bytes, 'the buffer of a write');
        if (kind === 'arena') port.release(view);
        if (position + length > model.length) model = Buffer.concat([model, Buffer.alloc(position + length - model.length)]);
        model.set(bytes, position);
      }
      t.sameBytes(fs.readFileSync(path), model, 'the file, read by node:fs');
    },
  ),

  ...variants<Form>(
    { clause: 'FILE-01', title: 'positions beyond 2 GiB, 4 GiB and 1 TiB are those positions', reference: positioned },
    { 'beyond-4GiB': forms.plain, 'beyond-4GiB-vectored': forms.vectored },
    (t, form) => {
      const port = t.createPort();
      const path = t.tempFile('sparse', '');
      const file = t.openFile(port, 1, path);
      const places = [2 ** 31 - 5, 2 ** 32 - 5, 2 ** 32 + 4096, 5 * 2 ** 30 + 1, 2 ** 33 + 77, 2 ** 40 + 12_345];
      for (const [salt, position] of t.random.shuffle([...places.entries()])) {
        moved(t, port, form.write(file, t.pattern(position, 10, salt), position), 10, `writing at ${position}`);
      }
      t.equal(fs.statSync(path).size, 2 ** 40 + 12_355, 'size of the file');
      const fd = fs.openSync(path, 'r');
      try {
        for (const [salt, position] of places.entries()) {
          const expected = t.pattern(position, 10, salt);
          const found = Buffer.alloc(10);
          fs.readSync(fd, found, 0, 10, position);
          t.sameBytes(found, expected, `the file at ${position}, read by node:fs`);
          checkRead(t, port, form, file, 'heap', position, 10, expected);
          // Where a position lost its upper half the bytes would lie here.
          if (position > 2 ** 32) checkRead(t, port, form, file, 'heap', position % 2 ** 32, 10, new Uint8Array(10));
        }
      } finally {
        fs.closeSync(fd);
      }
    },
  ),

  {
    id: 'FILE-01/not-shared',
    clause: 'FILE-01',
    title: 'an operation’s position is its own: others in flight on the handle neither use nor move it',
    reference: positioned,
    run(t) {
      const port = t.createPort();
      const content = t.pattern(0, 64 * 1024);
      const file = t.openFile(port, 1, t.tempFile('file', content));
      for (let round = 0; round < 20; round++) {
        // The same position twice, others between, and writes behind all that is read.
        const twice = t.random.int(60_000);
        const starts = t.random.shuffle([twice, twice, 0, t.random.int(60_000), t.random.int(60_000)]);
        const reads = starts.map((position) => ({ position, view: t.room(200), op: undefined as Operation | undefined }));
        for (const read of reads) {
          read.op = file.read(read.view, { position: read.position });
          file.write(t.pattern(round, 100, 9), { position: 64 * 1024 + t.random.int(10_000) });
        }
        for (const packet of t.takeSync(port, 2 * reads.length)) {
          t.succeeded(packet, packet.kind);
          const read = reads.find(({ op }) => op === packet.operation);
          t.equal(packet.bytesTransferred, read === undefined ? 100 : 200, `bytes of a ${packet.kind}`);
        }
        for (const { position, view } of reads)
          t.sameBytes(view, content.subarray(position, position + 200), `200 bytes at ${position}`);
      }
    },
  },

  {
    id: 'FILE-01/required',
    clause: 'FILE-01',
    title: 'without a position nothing is started, but in append mode, where a write needs none',
    reference: positioned,
    run(t) {
      const port = t.createPort();
      const path = t.tempFile('file', 'abc');
      const file = t.openFile(port, 1, path);
      const view = t.room(2);
      const shape = { name: 'TypeError', code: ['ERR_INVALID_ARG_TYPE', 'ERR_INVALID_ARG_VALUE'] };
      t.throws(() => file.read(view), shape, 'read without a position');
      t.throws(() => file.write(view), shape, 'write without a position');
      t.throws(() => file.readv([view]), shape, 'readv without a position');
      t.throws(() => file.writev([view], {}), shape, 'writev without a position');
      for (const position of [-1, 0.5, Number.NaN, 2 ** 53]) {
        t.throws(
          () => file.read(view, { position }),
          { name: 'RangeError', code: 'ERR_OUT_OF_RANGE' },
          `a position of ${position}`,
        );
      }
      t.equal(port.inFlight, 0, 'operations in flight');
      t.nothing(port);
      t.equal(fs.readFileSync(path, 'latin1'), 'abc', 'the file');
    },
  },

  {
    id: 'FILE-01/reused-operation',
    clause: 'FILE-01',
    title: 'an operation started again reads where its position says now, and keeps nothing of the last start',
    reference: positioned,
    run(t) {
      const port = t.createPort();
      const content = t.pattern(0, 100_000);
      const file = t.openFile(port, 1, t.tempFile('file', content));
      const op = new t.api.Operation();
      for (let round = 0; round < 50; round++) {
        const view = makeBuffer(port, 'heap', 300);
        op.position = t.random.int(90_000);
        op.offset = t.random.int(100);
        op.length = t.random.between(1, 200);
        const { position, offset, length } = op;
        t.ok(file.read(view, op) === op, 'the start returns the operation it was given');
        // Options are read at the start: these come too late.
        Object.assign(op, { position: 0, offset: 0, length: 300 });
        moved(t, port, op, length, 'a read');
        t.sameBytes(
          view.subarray(offset, offset + length),
          content.subarray(position, position + length),
          `bytes at ${position}`,
        );
        untouched(t, view.subarray(0, offset), 'before the offset');
        untouched(t, view.subarray(offset + length), 'behind the length');
      }
    },
  },

  ...forEachWay(
    {
      clause: 'FILE-01',
      title: 'each read in flight gives the bytes of its position, however it is dequeued',
      reference: positioned,
    },
    async (t, way) => {
      const port = t.createPort<{ position: number; view: Uint8Array }>();
      const content = t.pattern(0, 200_000);
      const file = t.openFile(port as Port, 3, t.tempFile('file', content));
      const started = new Set<unknown>();
      for (let i = 0; i < 40; i++) {
        const context = { position: t.random.int(199_000), view: t.room(1000) };
        started.add(file.read(context.view, { position: context.position, context, id: i }));
      }
      for (const packet of await t.take(port, 40, { way })) {
        const { position, view } = t.some(packet.operation, 'packet.operation').context;
        t.succeeded(packet as never, 'a read');
        t.ok(started.delete(packet.operation), 'each operation has one packet');
        t.equal(packet.key, 3, 'key');
        t.equal(packet.bytesTransferred, 1000, 'bytes');
        t.sameBytes(view, content.subarray(position, position + 1000), `bytes at ${position}`);
      }
    },
  ),
];
