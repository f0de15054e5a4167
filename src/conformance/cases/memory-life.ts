// BUF-01, -06, -07: what can happen to a buffer while its operation is under way. The script drops it, collects garbage, transfers it,
// shrinks it, or its thread is ended; the kernel must neither lose the memory nor write where it no longer is.

import * as fs from 'node:fs';
import type * as net from 'node:net';
import { reasons } from '../support/shared.js';
import type { ConformanceCase, Context, Operation, Packet, Port } from '../types.js';
import { variants } from '../variants.js';
import { bufferOf, childAnswer, filler, makeBuffer, untouched } from './buffers.js';
import { narrow, receive } from './tcp-common.js';
import { testBuild } from './test-build.js';

const owned = 'The buffer is the system’s from the start of the request until its packet';
const nodeOnly = 'no transfer of ArrayBuffers here';

/** What a script can do to a plain buffer in flight. */
const fates: Readonly<Record<string, { make(length: number): Uint8Array; end(view: Uint8Array): unknown }>> = {
  cloned: {
    make: (length) => new Uint8Array(length),
    end: (view) => structuredClone(view.buffer, { transfer: [view.buffer as ArrayBuffer] }),
  },
  posted: {
    make: (length) => new Uint8Array(length),
    end(view) {
      const { port1, port2 } = new MessageChannel();
      port1.postMessage(view.buffer, [view.buffer as ArrayBuffer]);
      port1.close();
      port2.close();
    },
  },
  shrunk: {
    make: (length) => new Uint8Array(resizable(length), 0, length),
    end: (view) => (view.buffer as unknown as Resizable).resize(view.length - 1),
  },
  'shrunk-to-nothing': {
    make: (length) => new Uint8Array(resizable(length)),
    end: (view) => (view.buffer as unknown as Resizable).resize(0),
  },
};

interface Resizable {
  resize(length: number): void;
}
function resizable(length: number): ArrayBuffer {
  const Buffer = ArrayBuffer as unknown as new (length: number, options: { maxByteLength: number }) => ArrayBuffer;
  return new Buffer(length, { maxByteLength: length * 2 });
}

/** Operations that read into a buffer which something is done to before they are delivered. */
const readers: Readonly<
  Record<string, (t: Context, port: Port, view: Uint8Array) => { operation: Operation; go(): void; others: number }>
> = {
  recv(t, port, view) {
    const { a, b } = t.pair(port, 1, 2);
    return { operation: a.recv(view), go: () => void b.send(new Uint8Array(view.length || 8).fill(1)), others: 1 };
  },
  read(t, port, view) {
    const file = t.openFile(port, 1, t.tempFile('file', new Uint8Array(5000).fill(1)));
    return { operation: file.read(view, { position: 0 }), go: () => {}, others: 0 };
  },
  readv(t, port, view) {
    const file = t.openFile(port, 1, t.tempFile('file', new Uint8Array(5000).fill(1)));
    return { operation: file.readv([t.room(10), view], { position: 0 }), go: () => {}, others: 0 };
  },
};

function outcome(t: Context, port: Port, operation: Operation, others: number): Packet {
  const packets = t.takeSync(port, 1 + others);
  for (const packet of packets) if (packet.operation !== operation) t.succeeded(packet, `a ${packet.kind} beside it`);
  return t.some(
    packets.find((packet) => packet.operation === operation),
    'the packet of the operation',
  );
}

export const cases: readonly ConformanceCase[] = [
  {
    id: 'BUF-01',
    clause: 'BUF-01',
    title:
      'nothing of a pending operation is collected: its buffer, context, handle and promise of a packet, with every reference dropped',
    reference: owned,
    timeoutMs: 20_000,
    async run(t) {
      const answer = await childAnswer<{ wrong: string[]; received: number }>(
        t,
        `
        const wrong = [];
        const port = createPort();
        const listener = TcpListener.listenSync({ port: 0 });
        port.associate(listener, 0);
        const senders = [];
        const finalized = [];
        const registry = new FinalizationRegistry((what) => finalized.push(what));
        function pair(key) {
          const a = TcpSocket.openSync();
          port.associate(a, key);
          a.connect({ host: '127.0.0.1', port: listener.address.port });
          listener.accept();
          let b;
          for (let got = 0; got < 2; ) for (const packet of port.getManySync(2, 2000)) { got++; if (packet.kind === 'accept') b = packet.result; }
          port.associate(b, 1000 + key);
          return [a, b];
        }
        // Each starts a recv and keeps nothing of it: the other end only.
        for (let key = 1; key <= 60; key++) (() => {
          const [a, b] = pair(key);
          const view = [() => room(200), () => port.allocate(200), () => new Uint8Array(new SharedArrayBuffer(200)),
            () => new DataView(room(200).buffer)][key % 4]();
          registry.register(a, 'handle ' + key);
          const context = { view, key };
          registry.register(context, 'context ' + key);
          if (key % 4 !== 1) registry.register(view, 'view ' + key);
          a.recv(view, { context, id: key });
          senders.push(b);
        })();
        port.flush();
        const garbage = [];
        for (let i = 0; i < 30; i++) {
          globalThis.gc();
          for (let j = 0; j < 50; j++) garbage.push(new Uint8Array(1000).fill(0xee), new SharedArrayBuffer(1000));
          garbage.length = 0;
          await new Promise(resolve => setImmediate(resolve));
        }
        if (finalized.length > 0) wrong.push('collected while pending: ' + finalized.slice(0, 5));
        senders.forEach((socket, index) => socket.send(new Uint8Array(200).fill(index + 1)));
        let received = 0;
        for (let got = 0; got < 120; ) {
          globalThis.gc();
          const packets = port.getManySync(16, 3000);
          if (packets.length === 0) { wrong.push('packets are missing'); break; }
          for (const packet of packets) {
            got++;
            if (packet.kind !== 'recv') continue;
            const { view, key } = packet.operation.context;
            const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
            if (packet.error !== null || key !== packet.key || key !== packet.operationId) wrong.push('packet of ' + key);
            if (!bytes.subarray(0, packet.bytesTransferred).every((byte) => byte === key)) wrong.push('bytes of ' + key);
            received += packet.bytesTransferred;
          }
        }
        console.log(JSON.stringify({ wrong: wrong.slice(0, 5), received }));
        process.exit(0);
        `,
        { gc: true, timeoutMs: 15_000 },
      );
      t.deepEqual(answer.wrong, [], 'what went wrong');
      t.equal(answer.received, 60 * 200, 'bytes received');
    },
  },

  {
    id: 'BUF-01/arena-edges',
    clause: 'BUF-01',
    title:
      'views over the arena’s first bytes, its last and all of it work like blocks, with every reference dropped, and hold back what they touch',
    reference: owned,
    run(t) {
      const port = t.createPort({ arenaBytes: 131_072 });
      const { a, b } = t.pair(port, 1, 2);
      const size = port.arena.byteLength;
      // Where its memory begins in the middle of a page, the part before the first whole one belongs to no block.
      const ranges: readonly (readonly [number, number])[] = [
        [0, 16],
        [1, 4095],
        [0, 8192],
        [4090, 70_000],
        [size - 16, 16],
        [size - 9000, 9000],
        [0, size],
      ];
      // What copies go through is kept for the next one.
      b.send(t.pattern(0, 16));
      a.recv(t.room(16));
      t.takeSync(port, 2);
      const before = port.stats().arenaUsed;
      for (let round = 0; round < 5; round++) {
        for (const [offset, length] of ranges) {
          const block = port.allocate(4096);
          const at = block.byteOffset;
          a.recv(new Uint8Array(port.arena, offset, length));
          if (round % 2 === 0) t.nothing(port, 1);
          port.release(block);
          t.gc();
          const next = port.allocate(4096);
          const touched = at < offset + length && offset < at + 4096;
          if (touched)
            t.ok(next.byteOffset !== at, `a block that a receive into ${offset} to ${offset + length} touches isn’t given out`);
          b.send(t.pattern(0, 16, round + offset));
          const received = t.takeSync(port, 2).find((packet) => packet.kind === 'recv');
          t.equal(received?.bytesTransferred, 16, `bytes of a receive into ${offset} to ${offset + length}`);
          t.deepEqual([...new Uint8Array(port.arena, offset, 16)], [...t.pattern(0, 16, round + offset)], 'what it received');
          port.release(next);
        }
      }
      t.equal(port.stats().arenaUsed, before, 'bytes of the arena in use after all');
    },
  },

  {
    id: 'BUF-01/send',
    clause: 'BUF-01',
    title: 'a send’s bytes stay what they were until it is done, with every reference dropped and garbage collected all the time',
    reference: owned,
    run(t) {
      const port = t.createPort();
      for (const kind of ['heap', 'shared', 'arena'] as const) {
        const { a, b } = t.pair(port, 1, 2);
        narrow(a, b);
        const total = 2 ** 20;
        const expected = t.pattern(0, total, 5);
        const start = (): Operation => a.send(bufferOf(port, kind, expected));
        const send = start();
        let done = 0;
        const stream = receive(t, port, b, total, {
          chunk: 40_000,
          other(packet) {
            t.ok(packet.operation === send, 'the other packet is the send’s');
            t.equal(packet.bytesTransferred, total, 'bytes of the send');
            done++;
          },
        });
        t.gc();
        t.sameBytes(stream.bytes, expected, `what was sent out of ${kind} memory`);
        if (done === 0) t.equal(t.takeOneSync(port).bytesTransferred, total, 'bytes of the send');
        a.close();
        b.close();
      }
    },
  },

  ...Object.entries(readers).flatMap(([name, start]) =>
    variants(
      {
        clause: 'BUF-06',
        title: `a ${name}’s buffer taken away before its packet: ERR_BUFFER_DETACHED, and nothing else happens`,
        notShared: reasons.heap,
        reference: owned,
      },
      Object.fromEntries(Object.entries(fates).map(([fate, value]) => [`${name}-${fate}`, value])),
      (t, { make, end }) => {
        for (const [length, when] of [
          [100, 'unflushed'],
          [100, 'flushed'],
          [3000, 'flushed'],
          [3000, 'finished'],
        ] as const) {
          const port = t.createPort();
          const neighbour = makeBuffer(port, 'heap', 64);
          const view = make(length);
          if (view.length !== length) t.unable(nodeOnly);
          const { operation, go, others } = start(t, port, view);
          if (when === 'flushed') port.flush();
          go();
          if (when === 'finished') {
            port.flush();
            t.sleepSync(10);
            port.post(1);
          }
          end(view);
          const packet = outcome(t, port, operation, others + (when === 'finished' ? 1 : 0));
          t.failed(packet, { code: 'ERR_BUFFER_DETACHED', name: 'CompletionError' }, `a ${packet.kind} whose buffer is gone`);
          t.equal(packet.bytesTransferred, 0, 'bytes');
          t.ok(packet.operation === operation && !operation.pending, 'the packet is of the operation, which is over');
          untouched(t, neighbour, 'other memory');
          // What is left of the view was not written to either.
          const rest = view.buffer.byteLength > 0 ? new Uint8Array(view.buffer) : new Uint8Array(0);
          t.equal(
            rest.findIndex((byte) => byte !== 0),
            -1,
            'the first byte written in what is left',
          );
        }
      },
    ),
  ),

  ...variants(
    {
      clause: 'BUF-06',
      title: 'a write’s buffer taken away before its packet: the write goes through, with the bytes of its start',
      reference: owned,
    },
    Object.fromEntries(Object.entries(fates).map(([fate, value]) => [`send-${fate}`, value])),
    (t, { make, end }) => {
      const port = t.createPort();
      const path = t.tempFile('file', '');
      const file = t.openFile(port, 1, path);
      const { a, b } = t.pair(port, 1, 2);
      for (const length of [100, 3000, 200_000]) {
        const expected = t.pattern(0, length, length);
        for (const start of [
          (view: Uint8Array) => a.send(view),
          (view: Uint8Array) => a.send([view.subarray(0, 10), view.subarray(10)]),
          (view: Uint8Array) => file.write(view, { position: 0 }),
          (view: Uint8Array) => file.writev([view.subarray(0, 10), view.subarray(10)], { position: 0 }),
        ]) {
          const view = make(length);
          view.set(expected);
          const operation = start(view);
          if (t.random.int(2) === 0) port.flush();
          end(view);
          const isSend = operation.kind === 'send' || operation.kind === 'sendv';
          let packet: Packet | undefined;
          let got: Uint8Array;
          if (isSend) {
            got = receive(t, port, b, length, { other: (other) => (packet = other) }).bytes;
            packet ??= t.takeOneSync(port);
          } else {
            packet = t.takeOneSync(port);
            const back = t.room(length);
            file.read(back, { position: 0 });
            t.succeeded(t.takeOneSync(port), 'a read of what was written');
            got = back;
          }
          t.ok(packet.operation === operation, 'the packet is of the operation');
          t.succeeded(packet, `a ${packet.kind} whose buffer is gone`);
          t.equal(packet.bytesTransferred, length, 'bytes');
          t.sameBytes(got, expected, `what was written by a ${operation.kind}`);
        }
      }
    },
  ),

  {
    id: 'BUF-06/grown',
    clause: 'BUF-06',
    notShared: reasons.heap,
    title: 'a buffer that grows, or shrinks to no less than what the operation uses, is as good as before',
    reference: owned,
    run(t) {
      const port = t.createPort();
      const file = t.openFile(port, 1, t.tempFile('file', 'abcdefgh'));
      for (const length of [100, 16, 24]) {
        const buffer = resizable(32);
        const view = new Uint8Array(buffer, 8, 8);
        const bytes = new Uint8Array(buffer);
        file.read(view, { position: 0 });
        (buffer as unknown as Resizable).resize(Math.min(length, 64));
        const packet = t.takeOneSync(port);
        t.succeeded(packet, `a read into a buffer that has ${buffer.byteLength} bytes now`);
        t.equal(Buffer.from(bytes.slice(0, 16)).toString(), '\0\0\0\0\0\0\0\0abcdefgh', 'the buffer');
      }
      const growable = new (SharedArrayBuffer as unknown as new (length: number, options: object) => SharedArrayBuffer)(16, {
        maxByteLength: 70_000,
      });
      for (const length of [16, 60, 70_000]) {
        (growable as unknown as { grow(length: number): void }).grow(length);
        const view = new Uint8Array(growable, length - 8, 8).fill(filler);
        file.read(view, { position: 0 });
        t.succeeded(t.takeOneSync(port), `a read into a shared buffer that has grown to ${length}`);
        t.equal(Buffer.from(view.slice()).toString(), 'abcdefgh', `the buffer of ${length} bytes`);
      }
    },
  },

  ...variants<boolean>(
    {
      clause: 'BUF-06',
      title:
        'a shared buffer that another thread grows while a vector is started moves its old bytes or its new ones, nothing else',
      reference: owned,
    },
    { 'growing-copied': true, 'growing-in-place': false },
    async (t, copied) => {
      const [old, grown, around] = [32, 4096, 64];
      const Shared = SharedArrayBuffer as unknown as new (length: number, options: object) => SharedArrayBuffer;
      const buffers = Array.from({ length: t.count(1500, 100) }, () => new Shared(old, { maxByteLength: grown }));
      const turns = new Int32Array(new SharedArrayBuffer(8));
      const worker = t.worker(
        `const { buffers, turns } = workerData;
         parentPort.postMessage('ready');
         for (let i = 0; i < buffers.length; i++) {
           for (let at; (at = Atomics.load(turns, 0)) <= i; ) Atomics.wait(turns, 0, at);
           for (let spin = (i * 7919) % 3000; spin > 0; spin--) Atomics.load(turns, 1);
           buffers[i].grow(${grown});
           Atomics.store(turns, 1, i + 1);
         }`,
        { buffers, turns },
      );
      await t.within(5000, new Promise((resolve) => worker.once('message', resolve)), 'the worker');
      const port = t.createPort();
      const path = t.tempFile('file', '');
      const file = t.openFile(port, 1, path, 'r+');
      const plain = new Uint8Array(old).fill(1);
      const neighbours = [7, 8, 9, 10].map((byte) => new Uint8Array(around).fill(byte));
      const begin = copied ? old : 0;
      for (const [index, buffer] of buffers.entries()) {
        const view = new Uint8Array(buffer);
        Atomics.store(turns, 0, index + 1);
        Atomics.notify(turns, 0);
        for (let last = false; !last; ) {
          last = Atomics.load(turns, 1) > index;
          for (const [place, bytes] of neighbours.entries()) file.write(bytes, { position: 10_000 + place * around });
          const operation = file.writev(copied ? [plain, view] : [view], { position: 0 });
          for (const packet of t.takeSync(port, neighbours.length + 1)) {
            t.succeeded(packet, packet.kind);
            const { bytesTransferred: bytes } = packet;
            if (packet.operation !== operation) t.equal(bytes, around, 'bytes of a neighbour');
            else t.ok(bytes === begin + old || bytes === begin + grown, `${bytes} bytes of the vector: all of one length`);
          }
          const written = fs.readFileSync(path).subarray(10_000);
          for (const [place, bytes] of neighbours.entries())
            t.sameBytes(written.subarray(place * around, (place + 1) * around), bytes, 'what another operation wrote');
        }
      }
    },
  ),

  ...variants<boolean>(
    {
      clause: 'BUF-07',
      title: 'a worker terminated during operations into its own memory: nothing is written afterwards, and nothing crashes',
      reference: 'A thread’s end cancels its I/O and waits for it; its memory goes after',
      timeoutMs: 25_000,
    },
    { release: false, 'test-build': true },
    async (t, inTestBuild) => {
      // This process sends; the child's worker receives, into memory that ends with it, and into memory that the child watches.
      const peers: net.Socket[] = [];
      const { port } = await t.peerServer((socket) => void peers.push(socket));
      const code = `
        import { isMainThread, Worker, parentPort, workerData } from 'node:worker_threads';
        if (isMainThread) {
          const wrong = [];
          for (let round = 0; round < ${t.count(12, 3)}; round++) {
            const shared = new SharedArrayBuffer(4096);
            const bytes = new Uint8Array(shared).fill(0xa5);
            const worker = new Worker(new URL(import.meta.url), { workerData: { shared, blocking: round % 3 === 0, exit: round % 3 === 1 } });
            const ended = new Promise(resolve => worker.once('exit', resolve));
            const said = await new Promise((resolve, reject) => { worker.once('message', resolve); worker.once('error', reject); });
            if (said !== 'started') wrong.push('the worker said ' + said);
            if (round % 3 !== 1) await worker.terminate();
            await ended;
            const before = bytes.slice();
            // Anything that still wrote into the worker's memory would do it now.
            console.log('go');
            globalThis.gc();
            const garbage = Array.from({ length: 200 }, () => new Uint8Array(4096).fill(0x11));
            await new Promise(resolve => setTimeout(resolve, 30));
            if (garbage.some(view => view.some(byte => byte !== 0x11))) wrong.push('memory of the main thread was written to');
            if (Buffer.compare(bytes, before) !== 0) wrong.push('shared memory was written to after the worker’s end');
          }
          console.log(JSON.stringify({ wrong }));
        } else {
          const port = createPort();
          const views = [new Uint8Array(workerData.shared), room(4096), port.allocate(4096),
            new Uint8Array(new SharedArrayBuffer(4096)), room(2 ** 20)];
          const sockets = views.map(() => {
            const socket = TcpSocket.openSync();
            port.associate(socket, 1);
            socket.connect({ host: '127.0.0.1', port: ${port} });
            return socket;
          });
          for (let got = 0; got < sockets.length; ) for (const packet of port.getManySync(8, 3000)) {
            got++;
            if (packet.error !== null) throw packet.error;
          }
          sockets.forEach((socket, index) => socket.recv(views[index]));
          const file = FileHandle.openSync(process.argv[1], 'r');
          port.associate(file, 2);
          for (let i = 0; i < 20; i++) file.read(room(1000), { position: 0 });
          port.flush();
          parentPort.postMessage('started');
          if (workerData.exit) setTimeout(() => process.exit(0), 1);
          else if (workerData.blocking) for (;;) port.getManySync(64, 1000);
          else port.dispatch(() => {});
          globalThis.kept = sockets;
        }
      `;
      const writing = setInterval(() => {
        for (const peer of peers.splice(0, Math.max(0, peers.length - 10))) peer.destroy();
        for (const peer of peers) peer.write(Buffer.alloc(2000, 0x77));
      }, 5);
      t.cleanup(() => clearInterval(writing));
      const options = { gc: true, timeoutMs: 20_000 };
      const answer = inTestBuild
        ? await testBuild<{ wrong: string[] }>(t, code, {}, options)
        : await childAnswer<{ wrong: string[] }>(t, code, options);
      t.deepEqual(answer.wrong, [], 'what went wrong');
    },
  ),
];
