// CANCEL-04 and the races of CANCEL-09: a cancel on its way while the operation finishes. Nothing here waits for a lucky moment.
// Each round starts something, lets it finish and cancels it in an order that the seed chooses, and whatever comes out must add up: one
// packet an operation, and every byte, connection and descriptor accounted for.

import * as fs from 'node:fs';
import type { ConformanceCase, Context, Operation } from '../types.js';
import { variants } from '../variants.js';
import { noMore } from './flight.js';
import { type Ender, endings, inSomeOrder, raceAccept, raced, Tape } from './race-common.js';
import { accepted } from './tcp-common.js';

const race = 'CancelIoEx is a request: an operation that finished first completes normally, its data being the caller’s';

/** One stream: recvs that are raced, data that comes meanwhile, and the sum of both. */
function raceRecv(t: Context, ender: Ender, rounds: number): void {
  const port = t.createPort();
  const { a, b } = t.pair(port, 1, 2);
  const tape = new Tape(t);
  const views = [t.room(4096), port.allocate(4096), new Uint8Array(new SharedArrayBuffer(4096))];
  let sent = 0;
  let received = 0;
  const outcomes = [0, 0];
  for (let round = 0; round < rounds; round++) {
    if (round % 1000 === 0) t.doing(`round ${round} of ${rounds}`);
    const view = t.random.pick(views);
    const { options, end } = endings(t, ender);
    const recv = a.recv(view, { length: t.random.between(1, 4096), ...options });
    const length = t.random.between(1, 300);
    const data = tape.at(sent, length);
    let send: Operation | undefined;
    inSomeOrder(t, port, [
      () => {
        send = b.send(data);
      },
      () => end(recv, () => a.cancel()),
      () => port.flush(),
    ]);
    sent += length;
    for (const packet of t.takeSync(port, 2)) {
      if (packet.operation === send) {
        t.equal(packet.bytesTransferred, length, 'bytes of the send');
        continue;
      }
      t.ok(packet.operation === recv, 'the packet is of this round’s recv');
      const won = raced(t, packet, ender, 'a raced recv');
      outcomes[won ? 0 : 1]!++;
      if (won) {
        t.atLeast(packet.bytesTransferred, 1, 'bytes of a recv that won');
        tape.check(t, received, view.subarray(0, packet.bytesTransferred), `what round ${round} received`);
        received += packet.bytesTransferred;
      } else t.equal(packet.bytesTransferred, 0, 'bytes of a recv that lost');
    }
    // What was left behind is still there, and comes next. Every other time it is taken now: the next recv then finds nothing.
    if (sent - received > 8192 || t.random.int(2) === 0 || round === rounds - 1) {
      while (received < sent) {
        a.recv(view);
        const packet = t.takeOneSync(port);
        t.succeeded(packet, 'a recv without a race');
        tape.check(t, received, view.subarray(0, packet.bytesTransferred), 'what the races left behind');
        received += packet.bytesTransferred;
      }
    }
  }
  t.equal(received, sent, 'bytes received, of those sent');
  t.atLeast(outcomes[0] ?? 0, 1, 'races that the data won');
  t.atLeast(outcomes[1] ?? 0, 1, 'races that the end won');
  noMore(t, port, 'after all races');
}

/** One stream: sends that are raced, some larger than the connection takes; the peer's stream must be what their packets say. */
function raceSend(t: Context, ender: Ender, rounds: number): void {
  const port = t.createPort();
  const { a, b } = t.pair(port, 1, 2);
  a.sendBufferSize = 65_536;
  b.recvBufferSize = 65_536;
  const tape = new Tape(t);
  const arena = port.allocate(65_536);
  const sink = t.room(65_536);
  let sent = 0;
  let received = 0;
  let partly = 0;
  const drain = (until: number): void => {
    while (received < until) {
      b.recv(sink);
      const packet = t.takeOneSync(port);
      t.succeeded(packet, 'a recv of the peer');
      t.atLeast(packet.bytesTransferred, 1, 'bytes of a recv of the peer');
      tape.check(t, received, sink.subarray(0, packet.bytesTransferred), 'what the peer received');
      received += packet.bytesTransferred;
      t.less(received, until + 1, 'bytes that the peer received, of those said to be sent');
    }
  };
  for (let round = 0; round < rounds; round++) {
    if (round % 1000 === 0) t.doing(`round ${round} of ${rounds}`);
    const large = t.random.int(25) === 0;
    const length = large ? t.random.between(100_000, 500_000) : t.random.between(1, 3000);
    const inArena = !large && t.random.int(2) === 0;
    const data = tape.at(sent, length);
    if (inArena) arena.set(data);
    const { options, end } = endings(t, ender);
    const form = t.random.int(3);
    const send =
      form === 0
        ? a.send([data.subarray(0, 1), data.subarray(1)], options)
        : inArena
          ? a.send(arena, { length, ...options })
          : a.send(data, options);
    inSomeOrder(t, port, [() => end(send, () => a.cancel()), () => port.flush()]);
    const packet = t.takeOneSync(port);
    t.ok(packet.operation === send, 'the packet is of this round’s send');
    if (raced(t, packet, ender, 'a raced send')) t.equal(packet.bytesTransferred, length, 'bytes of a send that won');
    else {
      t.less(packet.bytesTransferred, length, 'bytes of a send that lost');
      if (packet.bytesTransferred > 0) partly++;
    }
    sent += packet.bytesTransferred;
    if (large || round % 20 === 0) drain(sent);
  }
  drain(sent);
  if (rounds >= 1000) t.atLeast(partly, 1, 'sends that were ended half done');
  // Not a byte more is on its way.
  a.shutdown();
  b.recv(sink);
  const ends = t.takeSync(port, 2);
  for (const packet of ends) {
    t.succeeded(packet, `the last ${packet.kind}`);
    t.equal(packet.bytesTransferred, 0, `bytes of the last ${packet.kind}`);
  }
  noMore(t, port, 'after all races');
}

/** Reads of a file: all of it, or ended, and then whatever bytes are said to be there are right. */
function raceRead(t: Context, ender: Ender, rounds: number): void {
  const port = t.createPort();
  const content = t.random.bytes(100_000);
  const file = t.openFile(port, 1, t.tempFile('file', content));
  const path = t.tempFile('written', new Uint8Array(100));
  const target = t.openFile(port, 2, path);
  const view = t.room(20_000);
  for (let round = 0; round < rounds; round++) {
    const position = t.random.int(80_000);
    const { options, end } = endings(t, ender);
    const read = file.read(view, { position, ...options });
    const write = target.write(new Uint8Array(1).fill(round), { position: round % 100 });
    inSomeOrder(t, port, [() => end(read, () => file.cancel()), () => port.flush()]);
    for (const packet of t.takeSync(port, 2)) {
      if (packet.operation === write) {
        t.succeeded(packet, 'a write of another file');
        continue;
      }
      t.ok(packet.operation === read, 'the packet is of this round’s read');
      if (raced(t, packet, ender, 'a raced read')) t.equal(packet.bytesTransferred, view.length, 'bytes of a read that won');
      const bytes = packet.bytesTransferred;
      t.sameBytes(view.subarray(0, bytes), content.subarray(position, position + bytes), 'what was read');
    }
  }
  noMore(t, port, 'after all races');
  const last = t.room(100);
  for (let round = Math.max(0, rounds - 100); round < rounds; round++) last[round % 100] = round;
  t.sameBytes(fs.readFileSync(path), last, 'the other file');
}

/** Connects: connected, or ended; the socket closes cleanly either way, and the listener gets no half connection of ours twice. */
function raceConnect(t: Context, ender: Ender, rounds: number): void {
  const port = t.createPort();
  const listener = t.listener(port, 1, { backlog: 4096 });
  const before = t.fdCount();
  for (let round = 0; round < rounds; round++) {
    const socket = t.api.TcpSocket.openSync();
    port.associate(socket, 2);
    const { options, end } = endings(t, ender);
    const connecting = socket.connect({ host: '127.0.0.1', port: listener.address.port }, options);
    inSomeOrder(t, port, [() => end(connecting, () => socket.cancel()), () => port.flush()]);
    const packet = t.takeOneSync(port);
    t.ok(packet.operation === connecting, 'the packet is of this round’s connect');
    if (raced(t, packet, ender, 'a raced connect')) t.ok(socket.remoteAddress !== undefined, 'a connect that won is connected');
    socket.close();
  }
  noMore(t, port, 'after all races');
  t.equal(t.fdCount(), before, 'descriptors after all races');
}

const soak = { clause: 'CANCEL-04', reference: race, soak: true, timeoutMs: 60_000 } as const;

export const cases: readonly ConformanceCase[] = [
  {
    ...soak,
    id: 'CANCEL-04/recv',
    title: '10,000 raced cancels of a recv: one packet each, and no byte of the stream lost',
    run: (t) => raceRecv(t, 'cancel', t.count(10_000, 50)),
  },
  {
    ...soak,
    id: 'CANCEL-04/send',
    title: '10,000 raced cancels of a send: one packet each, and the peer gets the bytes that were reported',
    run: (t) => raceSend(t, 'cancel', t.count(10_000, 50)),
  },
  ...variants<(t: Context, ender: Ender, rounds: number) => void>(
    { ...soak, title: 'raced cancels: one packet each; what was won is whole, what was lost is still there' },
    { accept: raceAccept, connect: raceConnect, read: raceRead },
    (t, run) => run(t, 'cancel', t.count(2000, 20)),
  ),
  ...variants<[typeof raceRecv, Ender]>(
    { clause: 'CANCEL-04', reference: race, title: 'the same by other ways of ending' },
    {
      'recv-by-signal': [raceRecv, 'signal'],
      'recv-by-handle': [raceRecv, 'handle'],
      'send-by-signal': [raceSend, 'signal'],
      'send-by-handle': [raceSend, 'handle'],
    },
    (t, [run, ender]) => run(t, ender, t.count(1000, 50)),
  ),
  ...variants<typeof raceRecv>(
    { clause: 'CANCEL-09', reference: race, title: 'timeouts that race with the operation: one packet each, nothing lost' },
    { 'race-send': raceSend, 'race-accept': raceAccept, 'race-read': raceRead, 'race-connect': raceConnect },
    (t, run) => run(t, 'timeout', t.count(500, 20)),
  ),

  {
    id: 'CANCEL-04/recv-threads',
    clause: 'CANCEL-04',
    title: 'a peer in another thread sends all the time while recvs are cancelled: its stream arrives whole',
    reference: race,
    timeoutMs: 20_000,
    run(t) {
      const port = t.createPort();
      const listener = t.listener(port, 1);
      const total = t.count(2_000_000, 100_000);
      t.worker(
        `
        const { number, total, seed } = workerData;
        const socket = net.connect(number, '127.0.0.1', () => {
          socket.setNoDelay(true);
          let at = 0, random = seed;
          const step = () => {
            while (at < total) {
              random = (Math.imul(random, 1664525) + 1013904223) >>> 0;
              const length = Math.min(total - at, 1 + (random >>> 8) % 1500);
              const chunk = Buffer.alloc(length);
              for (let i = 0; i < length; i++) chunk[i] = ((at + i) * 31 + ((at + i) >> 8)) & 255;
              at += length;
              if (!socket.write(chunk)) return void socket.once('drain', step);
            }
            socket.end();
          };
          step();
        });
        socket.resume();
        `,
        { number: listener.address.port, total, seed: t.random.int(2 ** 31) },
      );
      listener.accept();
      const socket = accepted(t, t.takeOneSync(port));
      port.associate(socket, 2);
      const view = t.room(2000);
      let at = 0;
      const end = t.now() + 15_000;
      for (;;) {
        if (t.now() > end) t.fail(`${at} of ${total} bytes after 15 s`);
        const recv = socket.recv(view, { length: t.random.between(1, 2000) });
        if (t.random.int(2) === 0) port.flush();
        if (t.random.int(3) === 0) t.spin(t.random.next() * 0.02);
        recv.cancel();
        const packet = t.takeOneSync(port);
        t.ok(packet.operation === recv, 'the packet is of this round’s recv');
        if (!raced(t, packet, 'cancel', 'a raced recv')) {
          t.equal(packet.bytesTransferred, 0, 'bytes of a recv that lost');
          continue;
        }
        const bytes = packet.bytesTransferred;
        if (bytes === 0) break;
        for (let i = 0; i < bytes; i++, at++) {
          if (view[i] !== ((at * 31 + (at >> 8)) & 255)) t.fail(`byte ${at} of the stream is ${view[i]}`);
        }
      }
      t.equal(at, total, 'bytes of the stream');
      noMore(t, port, 'after the end of the stream');
    },
  },
];
