// OP-04, -05, -07: how many operations, how fast, how long, and how often their slots are used again.

import type { ConformanceCase, Context, Operation, Packet, Port } from '../types.js';
import { forEachWay, variants } from '../variants.js';
import { childAnswer, childCaseMs, childMs } from './buffers.js';
import { noMore } from './flight.js';
import { testBuild } from './test-build.js';

const reuse = 'An OVERLAPPED may be used again once its packet is dequeued, and not before';

/** Many reads in flight, each of its own eight bytes, started as fast as packets come, with objects that are used again. */
function flood(t: Context, ringEntries: number, depth: number, total: number): void {
  const port = t.createPort<{ view: Uint8Array<SharedArrayBuffer>; position: number }>({ ringEntries, maxOperations: depth });
  const content = t.random.bytes(64 * 1024);
  const file = t.openFile(port as Port, 7, t.tempFile('file', content));
  let started = 0;
  const arena = port.allocate(depth * 8);
  const start = (operation: Operation<{ view: Uint8Array<SharedArrayBuffer>; position: number }>): void => {
    const { context } = operation;
    context.position = ((started * 7919) % (content.length / 8)) * 8;
    operation.position = context.position;
    operation.id = started++;
    context.view.fill(0);
    file.read(context.view, operation);
  };
  for (let i = 0; i < Math.min(depth, total); i++) {
    start(new t.api.Operation({ view: arena.subarray(i * 8, i * 8 + 8), position: 0 }));
  }
  const seen = t.room(total);
  for (let done = 0; done < total; ) {
    const packets = port.getManySync(512, 5000);
    if (packets.length === 0) t.fail(`no packet for 5 s, ${done} of ${total} are done`);
    for (const packet of packets) {
      if (packet.error !== null || packet.bytesTransferred !== 8 || packet.key !== 7) {
        t.fail(`operation ${packet.operationId}: ${packet.error?.code ?? 'no error'}, ${packet.bytesTransferred} bytes`);
      }
      if (seen[packet.operationId] !== 0) t.fail(`operation ${packet.operationId} has two packets, or is none of ours`);
      seen[packet.operationId] = 1;
      const operation = t.some(packet.operation, 'operation');
      const { view, position } = operation.context;
      for (let i = 0; i < 8; i++) {
        if (view[i] !== content[position + i])
          t.fail(`operation ${packet.operationId} has other bytes than those at ${position}`);
      }
      done++;
      if (started < total) start(operation);
    }
  }
  t.equal(port.inFlight, 0, 'inFlight after all');
  t.equal(seen.indexOf(0), -1, 'the first operation without a packet');
  noMore(t, port as Port, 'after all');
}

/**
 * The script of a child: one connection and three slots. Each round has a recv that data, a cancel or its timeout ends, while old
 * operations, which had the same slots, are cancelled again and again.
 */
function slotRounds(rounds: number): string {
  return `
  const port = createPort({ maxOperations: 3 });
  const listener = TcpListener.listenSync({ port: 0 });
  port.associate(listener, 0);
  const a = TcpSocket.openSync();
  port.associate(a, 1);
  a.connect({ host: '127.0.0.1', port: listener.address.port });
  listener.accept();
  let b;
  for (let got = 0; got < 2; ) for (const packet of port.getManySync(2, 2000)) {
    got++;
    if (packet.kind === 'accept') b = packet.result;
  }
  port.associate(b, 2);
  const wrong = [];
  const old = [];
  for (let round = 0; round < ${rounds} && wrong.length === 0; round++) {
    const say = (what) => wrong.push('round ' + round + ': ' + what);
    const end = round % 7 === 6 ? 'timeout' : round % 5 === 4 ? 'cancel' : 'data';
    const view = room(2);
    const recv = a.recv(view, { id: round, timeout: end === 'timeout' ? 1 : round % 2 === 0 ? 20_000 : undefined });
    if (round % 3 === 0) port.flush();
    for (const operation of old) if (operation.cancel()) say('an old operation was cancelled');
    const send = end === 'data' ? b.send(new Uint8Array([round, round >> 8]), { id: round }) : null;
    if (end === 'cancel') recv.cancel();
    const due = new Set(send === null ? [recv] : [recv, send]);
    while (due.size > 0) {
      const packet = port.getSync(2000);
      if (packet === null) { say('a packet is missing'); break; }
      if (!due.delete(packet.operation)) say('a packet of another operation');
      if (packet.operationId !== round) say('operationId ' + packet.operationId);
      if (packet.key !== (packet.operation === recv ? 1 : 2)) say('key ' + packet.key);
      const code = packet.operation === recv ? { data: undefined, cancel: 'ECANCELED', timeout: 'ETIMEDOUT' }[end] : undefined;
      if (packet.error?.code !== code) say('a ' + packet.kind + ' ended by ' + end + ' says ' + packet.error?.code);
    }
    if (end === 'data' && (view[0] !== (round & 255) || view[1] !== (round >> 8 & 255))) say('other bytes');
    old.push(recv);
    if (old.length > 40) old.shift();
  }
  if (port.getManySync(8, 5).length > 0) wrong.push('more packets');
  console.log(JSON.stringify({ wrong: wrong.slice(0, 5) }));
  `;
}

/**
 * The script of a child: in a process that has freed much memory a buffer of 2 GiB may come out of that, and be zeroed for seconds; in a
 * fresh one its pages cost nothing until somebody touches them.
 */
function longLengths(path: string): string {
  return `
  let huge;
  try { huge = new SharedArrayBuffer(2 ** 31 + 4096); } catch (error) {
    console.log(JSON.stringify({ unable: 'no SharedArrayBuffer of 2 GiB here: ' + error }));
    process.exit(0);
  }
  const port = createPort();
  const file = FileHandle.openSync(${JSON.stringify(path)}, 'r+');
  port.associate(file, 1);
  const listener = TcpListener.listenSync({ port: 0 });
  const a = TcpSocket.openSync();
  port.associate(a, 2);
  a.connect({ host: '127.0.0.1', port: listener.address.port });
  const wrong = [];
  if (port.getSync(3000)?.error !== null) wrong.push('no connection');
  const limit = 2 ** 31 - 4096;
  const view = new Uint8Array(huge);
  let tried = 0;
  const refuse = (what, start) => {
    tried++;
    try { start(); wrong.push(what + ' was started'); } catch (error) {
      if (error.code !== 'ERR_OUT_OF_RANGE' || error.constructor !== RangeError) wrong.push(what + ': ' + error.code);
    }
    if (port.inFlight !== 0) wrong.push(what + ' left something in flight');
  };
  for (const length of [limit + 1, 2 ** 31 - 1, 2 ** 31, 2 ** 31 + 4096]) {
    refuse('a read of ' + length, () => file.read(view, { position: 0, length }));
    refuse('a write of ' + length, () => file.write(view, { position: 0, length }));
    refuse('a recv of ' + length, () => a.recv(view, { length }));
    refuse('a send of ' + length, () => a.send(view, { length }));
    const parts = [view.subarray(0, 2 ** 30), view.subarray(0, length - 2 ** 30)];
    refuse('a vectored read of ' + length, () => file.readv(parts, { position: 0 }));
    refuse('a vectored write of ' + length, () => file.writev(parts, { position: 0 }));
    refuse('a vectored send of ' + length, () => a.send(parts));
  }
  refuse('a recv into all of it', () => a.recv(view));
  for (const start of [
    () => file.read(view, { position: 0, length: limit }),
    () => file.readv([view.subarray(0, 2 ** 30), view.subarray(2 ** 30, limit)], { position: 0 }),
  ]) {
    view.fill(0, 0, 10);
    start();
    const packet = port.getSync(5000);
    if (packet?.error !== null || packet.bytesTransferred !== 6) wrong.push('a read of the limit: ' + packet?.error?.code + ' ' + packet?.bytesTransferred);
    if (Buffer.from(view.slice(0, 7)).toString() !== 'abcdef\\0') wrong.push('what a read of the limit read');
  }
  const operation = a.recv(view, { length: limit });
  if (port.getSync(5) !== null) wrong.push('a recv of the limit ended');
  operation.cancel();
  if (port.getSync(5000)?.error?.code !== 'ECANCELED') wrong.push('a recv of the limit wasn’t cancelled');
  console.log(JSON.stringify({ wrong: wrong.slice(0, 5), tried }));
  process.exit(0);
  `;
}

export const cases: readonly ConformanceCase[] = [
  ...variants(
    {
      clause: 'OP-04',
      title: 'with maxOperations in flight one more throws EAGAIN; a delivered packet makes room for one',
      reference: 'No equivalent on Windows, where memory is the limit; the limit is the port’s own',
    },
    { limit: 16, 'limit-1': 1, 'limit-1000': 1000 },
    async (t, maxOperations) => {
      const port = t.createPort({ maxOperations });
      t.equal(port.maxOperations, maxOperations, 'maxOperations');
      const listener = t.listener(port, 1);
      const file = t.openFile(port, 2, t.tempFile('file', 'abc'));
      const accepts = Array.from({ length: maxOperations }, () => listener.accept());
      t.equal(port.inFlight, maxOperations, 'inFlight');
      for (const flushed of [false, true]) {
        if (flushed) t.nothing(port, 5);
        const more = new t.api.Operation();
        t.throws(() => listener.accept(more), { code: 'EAGAIN' }, 'one more accept');
        t.equal(more.pending, false, 'pending of the operation that was refused');
        t.throws(() => file.size(), { code: 'EAGAIN' }, 'an operation of another handle');
        t.throws(() => file.read(t.room(1), { position: 0 }), { code: 'EAGAIN' }, 'a read');
        t.throws(() => file.readv([t.room(1)], { position: 0 }), { code: 'EAGAIN' }, 'a vectored read');
        t.throws(() => port.open('/', 'r', { key: 1 }), { code: 'EAGAIN' }, 'an open');
        t.throws(() => file.size({ signal: AbortSignal.abort() }), { code: 'EAGAIN' }, 'an operation whose signal is aborted');
        t.equal(port.inFlight, maxOperations, 'inFlight');
      }
      port.post(3); // a post is no operation
      t.equal(t.takeOneSync(port).kind, 'post', 'a post beside them');
      // A cancel makes no room, its packet does.
      accepts[0]?.cancel();
      port.flush();
      t.throws(() => listener.accept(), { code: 'EAGAIN' }, 'an accept before the cancelled one’s packet is delivered');
      t.ok(t.takeOneSync(port).operation === accepts[0], 'the cancelled accept’s packet');
      listener.accept();
      t.throws(() => listener.accept(), { code: 'EAGAIN' }, 'one more again');
      t.equal(listener.cancel(), maxOperations, 'what the listener’s cancel() returned');
      t.takeSync(port, maxOperations);
      noMore(t, port, 'after all');
    },
  ),

  ...forEachWay(
    {
      clause: 'OP-04',
      title: 'who starts one operation for each packet never meets EAGAIN, with the port full all the time',
      reference: 'No equivalent on Windows, where memory is the limit; the limit is the port’s own',
    },
    async (t, way) => {
      const maxOperations = 32;
      const port = t.createPort({ maxOperations });
      const file = t.openFile(port, 1, t.tempFile('file', 'abc'));
      for (let i = 0; i < maxOperations; i++) file.size();
      let left = t.count(2000, 100);
      let ended = 0;
      const handle = (packet: Packet): void => {
        t.succeeded(packet, 'a size');
        if (left-- > 0) {
          file.size();
        } else ended++;
      };
      if (way === 'dispatch') {
        const consumer = port.dispatch(handle);
        await t.eventually(() => ended === maxOperations, 'all packets by dispatch', 8000);
        consumer.stop();
      } else if (way === 'iterator') {
        for await (const packet of port) {
          handle(packet);
          if (ended === maxOperations) break;
        }
      } else while (ended < maxOperations) for (const packet of await t.take(port, 1, { way })) handle(packet);
      t.equal(port.inFlight, 0, 'inFlight at the end');
    },
  ),

  ...variants<readonly [number, number]>(
    {
      clause: 'OP-05',
      title: '200,000 operations through a ring of any size: none lost, none twice, each with its own bytes',
      reference: 'Requests are never refused for lack of room in a queue',
      soak: true,
      timeoutMs: 60_000,
    },
    { 'ring-8': [8, 1000], 'ring-64': [64, 4000], 'ring-4096': [4096, 256] },
    (t, [ringEntries, depth]) => flood(t, ringEntries, depth, t.count(200_000, 500)),
  ),

  {
    id: 'OP-05/burst',
    clause: 'OP-05',
    title: '30,000 operations started in one job, far more than any queue holds, all come out',
    reference: 'Requests are never refused for lack of room in a queue',
    timeoutMs: 20_000,
    run(t) {
      const port = t.createPort({ ringEntries: 8, maxOperations: 65_536 });
      const file = t.openFile(port, 1, t.tempFile('file', 'abc'));
      const all = t.count(30_000, 500);
      for (let id = 0; id < all; id++) file.size({ id });
      t.equal(port.inFlight, all, 'inFlight');
      const seen = t.room(all);
      for (const packet of t.takeSync(port, all, 15_000)) {
        if (packet.result !== 3 || seen[packet.operationId] !== 0) t.fail(`operation ${packet.operationId} is wrong, or twice`);
        seen[packet.operationId] = 1;
      }
      t.equal(seen.indexOf(0), -1, 'the first operation without a packet');
      noMore(t, port, 'after all');
    },
  },

  {
    id: 'OP-07/length',
    clause: 'OP-07',
    title: 'lengths above 2^31-4096 are refused, and that length isn’t',
    reference: 'A DWORD holds the length on Windows; Linux moves 2^31-4096 bytes at most in one call (read(2))',
    async run(t) {
      const answer = await childAnswer<{ wrong: string[]; tried: number }>(t, longLengths(t.tempFile('file', 'abcdef')));
      t.deepEqual(answer.wrong, [], 'what went wrong');
      t.equal(answer.tried, 4 * 7 + 1, 'lengths that were tried');
    },
  },

  {
    id: 'OP-07/slots',
    clause: 'OP-07',
    title: 'slots used again thousands of times, ended in every way, mix no operations up',
    reference: reuse,
    timeoutMs: childCaseMs,
    async run(t) {
      const answer = await childAnswer<{ wrong: string[] }>(t, slotRounds(t.count(3000, 100)), { timeoutMs: childMs });
      t.deepEqual(answer.wrong, [], 'what went wrong');
    },
  },

  {
    id: 'OP-07/wrap',
    clause: 'OP-07',
    title: 'the same where slot generations wrap around at 16 (test build)',
    reference: reuse,
    timeoutMs: childCaseMs,
    async run(t) {
      const answer = await testBuild<{ wrong: string[] }>(t, slotRounds(t.count(3000, 100)), {}, { timeoutMs: childMs });
      t.deepEqual(answer.wrong, [], 'what went wrong');
    },
  },
];
