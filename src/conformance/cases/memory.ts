// BUF-02: which buffers are refused, which are used in place, and what is copied at the start. What comes and goes through them is in
// memory-bytes.ts, the arena in memory-arena.ts, and what happens to buffers of operations under way in memory-life.ts.

import { reasons } from '../support/shared.js';
import type { ConformanceCase, Context, Operation, Port } from '../types.js';
import { bufferKinds, bufferOf, childAnswer, childCaseMs, childMs, filler, makeBuffer } from './buffers.js';
import { noMore } from './flight.js';

const owned =
  'The buffer is the system’s from the start of the request until its packet; nothing but the request’s bytes is touched';
const refusal = 'A bad pointer fails the call (ERROR_NOACCESS); here it is refused before anything starts';

/** Every way of starting an operation with one view, on handles that would take it. */
function startsOf(t: Context, port: Port): Readonly<Record<string, (view: ArrayBufferView, options?: object) => Operation>> {
  const { a } = t.pair(port, 1, 2);
  const file = t.openFile(port, 3, t.tempFile(undefined, 'abcdef'));
  return {
    read: (view, options) => file.read(view, { position: 0, ...options }),
    write: (view, options) => file.write(view, { position: 0, ...options }),
    readv: (view) => file.readv([t.room(1), view], { position: 0 }),
    writev: (view) => file.writev([new Uint8Array(1), view], { position: 0 }),
    recv: (view, options) => a.recv(view, options),
    send: (view, options) => a.send(view, options),
    sendv: (view) => a.send([new Uint8Array(1), view]),
  };
}

/** Views whose memory is gone, or smaller than they are. */
const goneViews: Readonly<Record<string, () => ArrayBufferView>> = {
  transferred() {
    const view = new Uint8Array(16);
    structuredClone(view.buffer, { transfer: [view.buffer] });
    return view;
  },
  'transferred DataView'() {
    const view = new DataView(new ArrayBuffer(16));
    structuredClone(view.buffer, { transfer: [view.buffer] });
    return view;
  },
  'transferred, empty'() {
    const view = new Uint8Array(new ArrayBuffer(16), 4, 0);
    structuredClone(view.buffer, { transfer: [view.buffer] });
    return view;
  },
};

interface ResizableBuffer extends ArrayBuffer {
  resize(length: number): void;
}
const ResizableArrayBuffer = ArrayBuffer as unknown as new (
  length: number,
  options: { maxByteLength: number },
) => ResizableBuffer;

function addResizable(): Readonly<Record<string, () => ArrayBufferView>> {
  const shrunk = (make: (buffer: ResizableBuffer) => ArrayBufferView, length: number) => () => {
    const buffer = new ResizableArrayBuffer(64, { maxByteLength: 128 });
    const view = make(buffer);
    buffer.resize(length);
    return view;
  };
  return {
    ...goneViews,
    'shrunk below its end': shrunk((buffer) => new Uint8Array(buffer, 32, 16), 40),
    'shrunk below its beginning': shrunk((buffer) => new Uint8Array(buffer, 32, 16), 8),
    'a DataView shrunk below its end': shrunk((buffer) => new DataView(buffer, 32, 16), 40),
    'length-tracking, shrunk below its beginning': shrunk((buffer) => new Uint8Array(buffer, 32), 8),
  };
}

export const cases: readonly ConformanceCase[] = [
  {
    id: 'BUF-02/detached',
    clause: 'BUF-02',
    notShared: reasons.heap,
    title: 'buffers that are detached, or shrunk below the view, are refused before anything starts',
    reference: refusal,
    run(t) {
      const port = t.createPort();
      const starts = startsOf(t, port);
      for (const [how, make] of Object.entries(addResizable())) {
        for (const [name, start] of Object.entries(starts)) {
          t.throws(
            () => start(make()),
            { code: 'ERR_BUFFER_DETACHED', name: 'TypeError' },
            `a ${name} with a view that is ${how}`,
          );
          t.equal(port.inFlight, 0, 'inFlight');
        }
      }
      noMore(t, port, 'after the refusals');
    },
  },

  {
    id: 'BUF-02/no-memory',
    clause: 'BUF-02',
    notShared: reasons.heap,
    title: 'a buffer for whose copy there is no memory is refused with ENOMEM, and nothing of it stays behind',
    reference: 'ERROR_NOT_ENOUGH_MEMORY fails the call; a request that was not started has no packet and keeps no buffer',
    needs: ['linux', 'proc'],
    timeoutMs: childCaseMs,
    async run(t) {
      const answer = await childAnswer<{ wrong: string[]; refused: number }>(
        t,
        `
        import { spawnSync } from 'node:child_process';
        import { readFileSync } from 'node:fs';
        const path = process.argv[2];
        const wrong = [];
        const answer = (said) => { console.log(JSON.stringify(said)); process.exit(0); };
        const port = createPort({ maxOperations: 1 });
        const file = FileHandle.openSync(path, 'r+');
        port.associate(file, 1);
        const arena = port.allocate(64);
        const shared = new Uint8Array(new SharedArrayBuffer(64));
        file.read(arena, { position: 0 });
        port.getSync(1000);
        const size = Number(readFileSync('/proc/self/statm', 'utf8').split(' ')[0]) * 4096;
        let large = new Uint8Array(1.5 * 2 ** 30);
        // A GiB more: a thread of the runtime's that allocates for the first time takes 128 MiB of addresses for its malloc arena.
        const limit = size + large.length + 2 ** 30;
        const limited = spawnSync('prlimit', ['--pid', String(process.pid), '--as=' + limit]);
        if (limited.status !== 0) answer({ unable: 'prlimit can’t be run: ' + (limited.error ?? limited.stderr) });
        let refused = 0;
        for (const start of [() => file.read(large, { position: 0 }), () => file.write(large, { position: 0 }),
          () => file.readv([shared, large], { position: 0 }), () => file.writev([large, shared], { position: 0 })]) {
          try {
            start();
            answer({ unable: 'memory for a copy of 1.5 GiB was there' });
          } catch (error) {
            if (error.code === 'ENOMEM') refused++;
            else wrong.push('a refusal was ' + error);
          }
          if (port.inFlight !== 0) wrong.push('inFlight ' + port.inFlight);
          // The one slot that there is, for an operation in place, when the refused buffer is gone: it has nothing of it.
          const gone = large;
          large = new Uint8Array(structuredClone(large.buffer, { transfer: [large.buffer] }));
          if (gone.length !== 0) wrong.push('the buffer was not transferred');
          for (const view of [arena, shared]) {
            view.fill(0);
            file.read(view, { position: 0 });
            const packet = port.getSync(1000);
            if (packet?.error !== null || packet.bytesTransferred !== 6 || view[0] !== 97) wrong.push('a read in that slot: ' + packet?.error);
          }
        }
        answer({ wrong, refused });
        `,
        { args: [t.tempFile('file', 'abcdef')], timeoutMs: childMs },
      );
      t.deepEqual(answer.wrong, [], 'what went wrong');
      t.equal(answer.refused, 4, 'refusals');
    },
  },

  {
    id: 'BUF-02/range',
    clause: 'BUF-02',
    title: 'offset and length outside the view, and what is no view, are refused before anything starts',
    reference: refusal,
    run(t) {
      const port = t.createPort();
      const starts = startsOf(t, port);
      const views = [
        t.room(16),
        new Uint8Array(new SharedArrayBuffer(32), 8, 16),
        port.allocate(16),
        new DataView(t.room(16).buffer),
      ];
      const bad: { offset?: number; length?: number }[] = [
        { offset: 17 },
        { offset: -1 },
        { length: 17 },
        { length: -1 },
        { offset: 8, length: 9 },
        { offset: 16, length: 1 },
        { offset: 1.5 },
        { length: 0.5 },
        { offset: Number.NaN },
        { length: Number.NaN },
        { length: Number.POSITIVE_INFINITY },
        { offset: 2 ** 32 },
        { offset: 2 ** 53, length: 1 },
        { offset: 1, length: 2 ** 53 - 1 },
        { offset: 2 ** 32, length: -(2 ** 32) },
      ];
      for (const name of ['read', 'write', 'recv', 'send'] as const) {
        const start = t.some(starts[name], name);
        for (const view of views) {
          for (const options of bad) {
            t.throws(
              () => start(view, options),
              { code: 'ERR_OUT_OF_RANGE', name: 'RangeError' },
              `a ${name} with ${JSON.stringify(options)}`,
            );
          }
        }
        for (const options of [{ offset: '1' }, { length: null }, { offset: 1n }, { length: {} }]) {
          t.throws(
            () => start(t.room(4), options),
            { code: 'ERR_INVALID_ARG_TYPE', name: 'TypeError' },
            `a ${name} with a wrong type`,
          );
        }
      }
      for (const what of [
        new ArrayBuffer(8),
        new SharedArrayBuffer(8),
        [1, 2],
        'text',
        5,
        null,
        undefined,
        {},
        { byteLength: 4 },
      ]) {
        for (const [name, start] of Object.entries(starts)) {
          // An array of anything is a vector for a send, and refused for its elements.
          t.throws(
            () => start(what as never),
            { code: 'ERR_INVALID_ARG_TYPE', name: 'TypeError' },
            `a ${name} with ${typeof what}`,
          );
        }
      }
      t.equal(port.inFlight, 0, 'inFlight');
      noMore(t, port, 'after the refusals');
    },
  },

  {
    id: 'BUF-02/in-place',
    clause: 'BUF-02',
    notShared: 'a start on a shared port submits before it returns, so what is written behind it comes too late',
    title:
      'arena and SharedArrayBuffer views are used in place: a write takes what is there when it runs; others are copied at the start',
    reference: owned,
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      for (const kind of Object.values(bufferKinds)) {
        for (const vectored of [false, true]) {
          const view = bufferOf(port, kind, new Uint8Array([1, 2, 3, 4]));
          if (vectored) a.send([view.subarray(0, 2), view.subarray(2)]);
          else a.send(view);
          // Not flushed: the kernel hasn't seen it. What lies in place may be seen as it is then, a copy is from the start.
          view.fill(9);
          t.succeeded(t.takeOneSync(port), 'the send');
          const got = t.room(8);
          b.recv(got);
          t.equal(t.takeOneSync(port).bytesTransferred, 4, 'bytes that came');
          const expected = kind === 'heap' ? [1, 2, 3, 4] : [9, 9, 9, 9];
          t.deepEqual([...got.subarray(0, 4)], expected, `what a ${vectored ? 'vectored ' : ''}send out of ${kind} memory sent`);
        }
      }
      // A recv in place needs no delivery to be there: only getting the packet of something else.
      for (const kind of ['arena', 'shared'] as const) {
        const view = makeBuffer(port, kind, 4);
        const recv = a.recv(view);
        t.nothing(port);
        b.send(new Uint8Array([5, 6]));
        port.flush();
        t.sleepSync(5);
        port.post(1);
        t.equal(recv.pending, true, 'pending');
        t.deepEqual([...view], [5, 6, filler, filler], `${kind} memory before the packet is delivered`);
        t.takeSync(port, 3);
      }
    },
  },

  {
    id: 'BUF-02/copied',
    clause: 'BUF-02',
    title: 'options and the list of a vectored operation are read at the start and never again',
    reference:
      'The parameters of ReadFile and WSASend are taken by value; the WSABUF array too is copied before the call returns',
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const path = t.tempFile('file', 'abcdefgh');
      const file = t.openFile(port, 3, path);
      const view = t.room(8).fill(filler);
      const operation = new t.api.Operation(undefined, { id: 1 });
      Object.assign(operation, { position: 2, offset: 1, length: 3 });
      file.read(view, operation);
      Object.assign(operation, { position: 0, offset: 5, length: 1, id: 9, timeout: 0 });
      const packet = t.takeOneSync(port);
      t.succeeded(packet, 'the read');
      t.equal(packet.operationId, 1, 'operationId');
      t.equal(packet.bytesTransferred, 3, 'bytes');
      t.equal(Buffer.from(view).toString('latin1'), '\xa5cde\xa5\xa5\xa5\xa5', 'the buffer');
      const views = [new Uint8Array([1]), new Uint8Array([2]), new Uint8Array([3])];
      a.send(views);
      views.length = 0;
      views.push(new Uint8Array(100));
      t.equal(t.takeOneSync(port).bytesTransferred, 3, 'bytes of a vectored send whose list was changed');
      const parts = [t.room(1), t.room(2)];
      const kept = [...parts];
      b.recv(t.room(3));
      t.takeOneSync(port);
      file.readv(parts, { position: 0 });
      parts.reverse();
      parts.pop();
      t.equal(t.takeOneSync(port).bytesTransferred, 3, 'bytes of a vectored read whose list was changed');
      t.equal(kept.map((part) => Buffer.from(part).toString()).join(), 'a,bc', 'what it read');
    },
  },
];
