// FILE-02 and FILE-03: the end of a file, what lies behind it, holes and appending.

import * as fs from 'node:fs';
import { reasons } from '../support/shared.js';
import type { ConformanceCase } from '../types.js';
import { variants } from '../variants.js';
import { type BufferKind, bufferKinds, filler, makeBuffer, moved, packetOf, untouched } from './buffers.js';
import { checkRead, type Form, forms, inParts } from './files-common.js';

const atTheEnd = 'ReadFile past the end: ERROR_HANDLE_EOF, zero bytes; one that crosses the end returns the bytes before it';
const extending = 'WriteFile past the end extends the file; both offset words 0xffffffff, or FILE_APPEND_DATA alone, append';

const ends: ConformanceCase[] = [
  ...variants<BufferKind>(
    {
      clause: 'FILE-02',
      title: 'a read that crosses the end returns what is there; one at or behind it 0 bytes, no error',
      reference: atTheEnd,
      notShared: { heap: reasons.heap },
    },
    bufferKinds,
    (t, kind) => {
      const port = t.createPort();
      const content = t.pattern(0, 5000);
      const file = t.openFile(port, 1, t.tempFile('file', content), 'r');
      for (const form of Object.values(forms)) {
        for (const [position, length] of [
          [4000, 1000],
          [4000, 1001],
          [4999, 2],
          [4999, 100_000],
          [0, 5001],
          [5000, 1],
          [5000, 4096],
          [5001, 1],
          [2 ** 40, 10],
        ] as const) {
          checkRead(t, port, form, file, kind, position, length, content.subarray(position, position + length));
        }
      }
    },
  ),

  {
    id: 'FILE-02/never-short',
    clause: 'FILE-02',
    title: 'a large read inside the file is whole, across a hole too',
    reference: atTheEnd,
    run(t) {
      const port = t.createPort();
      const size = 24 * 2 ** 20;
      const path = t.tempFile('large', '');
      const fd = fs.openSync(path, 'r+');
      const head = t.pattern(0, 2 ** 20, 1);
      const tail = t.pattern(0, 2 ** 20, 2);
      fs.writeSync(fd, head, 0, head.length, 0);
      fs.writeSync(fd, tail, 0, tail.length, size - tail.length);
      fs.closeSync(fd);
      const zeros = new Uint8Array(size - head.length - tail.length);
      const file = t.openFile(port, 1, path, 'r');
      for (const [kind, extra] of [
        ['shared', 0],
        ['heap', 0],
        ['shared', 999],
      ] as const) {
        const view = makeBuffer(port, kind, size + extra);
        moved(t, port, file.read(view, { position: 0 }), size, `a read of ${size + extra} bytes (${kind})`);
        t.sameBytes(view.subarray(0, head.length), head, 'its head');
        t.sameBytes(view.subarray(size - tail.length, size), tail, 'its tail');
        t.sameBytes(view.subarray(head.length, size - tail.length), zeros, 'the hole between');
        untouched(t, view.subarray(size), 'behind the end');
      }
    },
  },

  {
    id: 'FILE-02/empty',
    clause: 'FILE-02',
    title: 'an empty file reads as its end, again and again; once it has grown the new bytes are there',
    reference: atTheEnd,
    run(t) {
      const port = t.createPort();
      const path = t.tempFile('file', '');
      const file = t.openFile(port, 1, path, 'r');
      for (let i = 0; i < 3; i++) checkRead(t, port, forms.plain, file, 'heap', 0, 100, new Uint8Array(0));
      fs.appendFileSync(path, 'grown');
      checkRead(t, port, forms.plain, file, 'heap', 0, 100, Buffer.from('grown'));
      checkRead(t, port, forms.vectored, file, 'heap', 5, 100, new Uint8Array(0));
      fs.truncateSync(path, 2);
      checkRead(t, port, forms.plain, file, 'heap', 1, 100, Buffer.from('r'));
      checkRead(t, port, forms.plain, file, 'heap', 2, 100, new Uint8Array(0));
    },
  },
];

const growth: ConformanceCase[] = [
  ...variants<Form>(
    { clause: 'FILE-03', title: 'a write past the end extends the file, and the hole reads as zeros', reference: extending },
    { hole: forms.plain, 'hole-vectored': forms.vectored },
    (t, form) => {
      const port = t.createPort();
      const path = t.tempFile('file', t.pattern(0, 100));
      const file = t.openFile(port, 1, path);
      const bytes = t.pattern(0, 500, 1);
      moved(t, port, form.write(file, bytes, 300_000), 500, 'a write past the end');
      const size = packetOf(t, port, file.size(), 'size');
      t.succeeded(size, 'size');
      t.equal(size.result, 300_500, 'the size that the port gives');
      t.equal(fs.statSync(path).size, 300_500, 'the size that the file system gives');
      const expected = Buffer.alloc(300_500);
      expected.set(t.pattern(0, 100), 0);
      expected.set(bytes, 300_000);
      t.sameBytes(fs.readFileSync(path), expected, 'the file');
      checkRead(t, port, form, file, 'heap', 50, 400_000, expected.subarray(50));
      checkRead(t, port, form, file, 'shared', 100, 10_000, new Uint8Array(10_000));
    },
  ),

  ...variants<Form>(
    { clause: 'FILE-03', title: 'append mode appends, whatever position is given and without one', reference: extending },
    { append: forms.plain, 'append-vectored': forms.vectored },
    (t, form) => {
      const port = t.createPort();
      for (const flags of ['a', 'a+', fs.constants.O_RDWR | fs.constants.O_APPEND] as const) {
        const path = t.tempFile(undefined, 'begin');
        const file = t.track(t.api.FileHandle.openSync(path, flags));
        port.associate(file, 1);
        let expected = Buffer.from('begin');
        for (const [salt, position] of [undefined, 0, 2, 5, undefined, 1_000_000, 2 ** 33].entries()) {
          const bytes = t.pattern(0, 20 + salt, salt);
          moved(t, port, form.write(file, bytes, position), bytes.length, `appending at position ${position}`);
          expected = Buffer.concat([expected, bytes]);
        }
        t.sameBytes(fs.readFileSync(path), expected, `the file opened with ${flags}`);
        // What others append meanwhile stays where it is.
        fs.appendFileSync(path, 'other');
        moved(t, port, form.write(file, Buffer.from('last'), 0), 4, 'appending behind another’s bytes');
        t.sameBytes(fs.readFileSync(path), Buffer.concat([expected, Buffer.from('otherlast')]), 'the file with another’s bytes');
        if (flags !== 'a') checkRead(t, port, form, file, 'heap', 2, 4, expected.subarray(2, 6));
      }
    },
  ),

  {
    id: 'FILE-03/append-in-flight',
    clause: 'FILE-03',
    title: 'many appends in flight, by two handles: each record is whole, none is lost or lies over another',
    reference: extending,
    run(t) {
      const port = t.createPort();
      const path = t.tempFile('log', '');
      const files = [t.openFile(port, 1, path, 'a'), t.openFile(port, 2, path, 'a+')];
      const length = 700;
      for (let record = 0; record < 200; record++) {
        const file = t.random.pick(files);
        const bytes = t.pattern(0, length, record);
        bytes[0] = record;
        if (record % 2 === 0) file.write(bytes);
        else file.writev(inParts(bytes), { position: t.random.int(1000) });
      }
      for (const packet of t.takeSync(port, 200)) {
        t.succeeded(packet, 'an append');
        t.equal(packet.bytesTransferred, length, 'bytes');
      }
      const found = fs.readFileSync(path);
      t.equal(found.length, 200 * length, 'size of the file');
      const seen = new Set<number>();
      for (let at = 0; at < found.length; at += length) {
        const record = t.some(found[at], 'a record’s number');
        const expected = t.pattern(0, length, record);
        expected[0] = record;
        t.sameBytes(found.subarray(at, at + length), expected, `the record at ${at}, number ${record}`);
        seen.add(record);
      }
      t.equal(seen.size, 200, 'different records');
    },
  },

  {
    id: 'FILE-03/truncate',
    clause: 'FILE-03',
    title: 'truncate cuts the file off, or extends it by a hole of zeros; size follows',
    reference: 'SetEndOfFile (FileEndOfFileInfo) cuts or extends; GetFileSizeEx gives the size',
    run(t) {
      const port = t.createPort();
      const path = t.tempFile('file', t.pattern(0, 1000));
      const file = t.openFile(port, 1, path);
      for (const length of [400, 400, 5 * 2 ** 30, 900, 0]) {
        moved(t, port, file.truncate(length), 0, `truncate to ${length}`);
        t.equal(fs.statSync(path).size, length, 'the size that the file system gives');
        const packet = packetOf(t, port, file.size(), 'size');
        t.equal(packet.result, length, 'the size that the port gives');
        t.equal(packet.bytesTransferred, 0, 'bytes of a size');
        const expected = Buffer.alloc(Math.min(length, 2000));
        expected.set(t.pattern(0, Math.min(length, 400)));
        const view = t.room(2000).fill(filler);
        moved(t, port, file.read(view, { position: 0 }), expected.length, 'a read after the truncate');
        t.sameBytes(view.subarray(0, expected.length), expected, 'the file’s head');
      }
    },
  },
];

export const cases: readonly ConformanceCase[] = [...ends, ...growth];
