// TCP-06 and TCP-08: sending to a peer that is gone, and shutdown in its turn.

import type { ConformanceCase, Context, Operation, Packet, Port, TcpSocket, Way } from '../types.js';
import { variants } from '../variants.js';
import { bufferKindList, childAnswer, childCaseMs, childMs, drive, makeBuffer, moved, packetOf, untouched } from './buffers.js';
import { apart, narrow, receive } from './tcp-common.js';

const gone = 'WSASend to a peer that is gone: WSAECONNRESET or WSAECONNABORTED; there are no signals';
const shutting = 'shutdown(SD_SEND) sends the end after all queued data; shutdown(SD_RECEIVE) ends receiving only';
const lost = ['EPIPE', 'ECONNRESET'] as const;

type Send = (socket: TcpSocket) => Operation;
const sends: Readonly<Record<'send' | 'sendv' | 'shared' | 'sendvShared', Send>> = {
  send: (socket) => socket.send(Buffer.from('hello')),
  sendv: (socket) => socket.send([Buffer.from('hel'), Buffer.from('lo')]),
  shared: (socket) => socket.send(new Uint8Array(new SharedArrayBuffer(5))),
  sendvShared: (socket) => socket.send([new Uint8Array(new SharedArrayBuffer(2)), new Uint8Array(new SharedArrayBuffer(3))]),
};

/**
 * How long sends may go on to succeed after the peer closed, in milliseconds, and how often. A segment that is lost is sent again after a
 * retransmission timeout only: 200 ms at first (TCP_RTO_MIN in Linux's net/tcp.h), which doubles. Until then nothing tells the
 * sender, however often it sends; so the number holds for the best of a few connections.
 */
const lossMs = 4000;
const lossSends = 50;
const connections = 3;

/** Sends until it fails, which must then be for ever; returns how many packets said success first. */
function sendUntilLost(t: Context, port: Port, socket: TcpSocket, send: Send, kind: string): number {
  const begin = t.now();
  let successes = 0;
  for (;;) {
    const packet = packetOf(t, port, send(socket), kind);
    t.equal(packet.kind, kind, 'kind');
    if (packet.error === null) {
      t.equal(packet.bytesTransferred, 5, 'bytes of a send that succeeded');
      successes++;
      t.less(t.now() - begin, lossMs, 'milliseconds for which sends succeeded after the peer closed');
      // Its answer to what was sent has to come back: nothing tells when, but that sends fail from then on.
      t.sleepSync(1);
      continue;
    }
    t.failed(packet, { code: lost }, kind);
    t.equal(packet.bytesTransferred, 0, 'bytes of a failed send');
    t.equal(packet.error.by, undefined, 'by');
    break;
  }
  for (let i = 0; i < 3; i++) t.failed(packetOf(t, port, send(socket), kind), { code: lost }, `${kind} after the first failure`);
  return successes;
}

const losses: ConformanceCase[] = [
  ...variants<{ kind: 'send' | 'sendv'; send: Send; close: (peer: TcpSocket) => void; most?: number }>(
    {
      clause: 'TCP-06',
      title: 'sends after the peer closed: the first may succeed, then EPIPE or ECONNRESET, for good',
      reference: gone,
    },
    {
      send: { kind: 'send', send: sends.send, close: (peer) => peer.close() },
      sendv: { kind: 'sendv', send: sends.sendv, close: (peer) => peer.close() },
      'send-shared': { kind: 'send', send: sends.shared, close: (peer) => peer.close() },
      'sendv-shared': { kind: 'sendv', send: sends.sendvShared, close: (peer) => peer.close() },
      'send-reset': { kind: 'send', send: sends.send, close: (peer) => peer.close({ reset: true }), most: 1 },
      'sendv-reset': { kind: 'sendv', send: sends.sendv, close: (peer) => peer.close({ reset: true }), most: 1 },
    },
    (t, { kind, send, close, most = lossSends }) => {
      const port = t.createPort();
      const successes = Array.from({ length: connections }, () => {
        const { socket, peer } = apart(t, port);
        close(peer);
        return sendUntilLost(t, port, socket, send, kind);
      });
      // A reset is told without a send, so each connection has to keep to it.
      const counted = most === lossSends ? Math.min(...successes) : Math.max(...successes);
      t.ok(counted <= most, `sends that succeeded after the peer closed: ${successes.join(', ')}`);
      port.post(5);
      t.equal(t.takeOneSync(port).key, 5, 'the key of a post afterwards');
    },
  ),

  ...variants<(peer: TcpSocket) => void>(
    {
      clause: 'TCP-06',
      title: 'a send that waits when the peer goes fails, and so do those behind it, in order',
      reference: gone,
    },
    { 'pending-close': (peer) => peer.close(), 'pending-reset': (peer) => peer.close({ reset: true }) },
    (t, close) => {
      const port = t.createPort();
      const { socket, peer } = apart(t, port);
      narrow(socket, peer);
      const started = Array.from({ length: 4 }, () => socket.send(new Uint8Array(2 * 2 ** 20)));
      t.nothing(port, 5);
      // Bytes that it hasn't read are thrown away with its close: a reset either way.
      close(peer);
      for (const [i, packet] of t.takeSync(port, 4).entries()) {
        t.ok(packet.operation === started[i], `packet ${i} is of send ${i}`);
        t.failed(packet, { code: lost }, `send ${i}`);
        t.less(packet.bytesTransferred, 2 * 2 ** 20, `bytes of send ${i}`);
        if (i > 0) t.equal(packet.bytesTransferred, 0, `bytes of send ${i}`);
      }
    },
  ),

  {
    id: 'TCP-06/no-signal',
    clause: 'TCP-06',
    title: 'a send to a peer that is gone raises no SIGPIPE, in any form and on any thread',
    reference: gone,
    needs: ['linux', 'proc'],
    timeoutMs: childCaseMs,
    async run(t) {
      // Node ignores SIGPIPE from its start on; taking a listener off again gives the signal its default action, which kills.
      const answer = await childAnswer<{ ignored: boolean; codes: string[] }>(
        t,
        `import * as fs from 'node:fs';
        const none = () => {};
        process.on('SIGPIPE', none);
        process.off('SIGPIPE', none);
        const mask = BigInt('0x' + /SigIgn:\\s*(\\w+)/.exec(fs.readFileSync('/proc/self/status', 'latin1'))[1]);
        const ignored = (mask >> 12n & 1n) === 1n;
        const port = createPort();
        const take = () => { const packet = port.getSync(5000); if (packet === null) throw new Error('no packet'); return packet; };
        const codes = [];
        for (const [name, send] of Object.entries({
          heap: (socket) => socket.send(Buffer.from('hello')),
          vectored: (socket) => socket.send([Buffer.from('hel'), Buffer.from('lo')]),
          arena: (socket) => socket.send(port.allocate(100000)),
          large: (socket) => socket.send(Buffer.alloc(3000000)),
          vectoredShared: (socket) => socket.send([new Uint8Array(new SharedArrayBuffer(10)), new Uint8Array(new SharedArrayBuffer(10))]),
        })) {
          const listener = TcpListener.listenSync({ port: 0 });
          port.associate(listener, 1);
          const socket = TcpSocket.openSync();
          port.associate(socket, 2);
          listener.accept();
          socket.connect({ host: '127.0.0.1', port: listener.address.port });
          const packets = [take(), take()];
          packets.find((packet) => packet.kind === 'accept').result.close({ reset: true });
          let code = null;
          for (let i = 0; i < 200 && (code === null || i < 5); i++) {
            send(socket);
            code = take().error?.code ?? code;
          }
          codes.push(name + ' ' + code);
          socket.close();
          listener.close();
        }
        console.log(JSON.stringify({ ignored, codes }));
        port.close();`,
        { timeoutMs: childMs },
      );
      t.equal(answer.ignored, false, 'whether SIGPIPE is ignored in the child');
      t.equal(answer.codes.length, 5, 'forms of sends');
      for (const code of answer.codes) t.ok(/ (EPIPE|ECONNRESET)$/.test(code), `the failure: ${code}`);
    },
  },
];

const shutdowns: ConformanceCase[] = [
  ...variants<Way>(
    {
      clause: 'TCP-08',
      title: 'shutdown takes its turn behind the sends that are queued: they arrive whole, then the end',
      reference: shutting,
    },
    { 'behind-sends': 'getManySync', 'behind-sends-dispatch': 'dispatch' },
    async (t, way) => {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      narrow(a, b);
      const lengths = [300_000, 1, 0, 500_000];
      const total = 800_001;
      const content = t.pattern(0, total);
      let at = 0;
      const started: Operation[] = lengths.map((length) => a.send(content.subarray(at, (at += length))));
      const last = a.shutdown();
      started.push(last);
      t.nothing(port, 10);
      t.ok(last.pending, 'the shutdown waits behind the sends');
      const done: Packet[] = [];
      const parts: Buffer[] = [];
      const view = t.room(30_000);
      let ended = false;
      b.recv(view);
      await drive(
        t,
        port,
        way,
        (packet) => {
          t.succeeded(packet, packet.kind);
          if (packet.kind !== 'recv') {
            done.push(packet);
            return;
          }
          ended = packet.bytesTransferred === 0;
          parts.push(Buffer.from(view.slice(0, packet.bytesTransferred)));
          if (!ended) b.recv(view);
        },
        () => ended && done.length === started.length,
      );
      t.sameBytes(Buffer.concat(parts), content, 'what arrived before the end');
      for (const [i, packet] of done.entries()) {
        t.ok(packet.operation === started[i], `packet ${i} is of operation ${i}`);
        t.equal(packet.bytesTransferred, lengths[i] ?? 0, `bytes of operation ${i}`);
      }
      t.equal(done.at(-1)?.kind, 'shutdown', 'the last packet’s kind');
    },
  ),

  {
    id: 'TCP-08/reads-go-on',
    clause: 'TCP-08',
    title: 'after shutdown of writing reads go on, pending ones too; a send fails with EPIPE',
    reference: shutting,
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const view = t.room(100);
      const pending = a.recv(view);
      moved(t, port, a.send(Buffer.from('question')), 8, 'send');
      moved(t, port, a.shutdown({ how: 'write' }), 0, 'shutdown');
      t.ok(pending.pending, 'the recv waits on');
      const question = receive(t, port, b, 100);
      t.equal(question.bytes.toString(), 'question', 'what the other end received');
      t.ok(question.ended, 'then the end');
      const failed = packetOf(t, port, a.send(Buffer.from('late')), 'send');
      t.failed(failed, { code: 'EPIPE' }, 'a send after the own shutdown');
      t.equal(failed.bytesTransferred, 0, 'its bytes');
      const answer = b.send(t.pattern(0, 60));
      // Which of the two ends first is the kernel's to say: they are of two sockets.
      const packets = t.takeSync(port, 2);
      for (const operation of [answer, pending]) {
        const packet = t.some(
          packets.find((entry) => entry.operation === operation),
          `the packet of the ${operation.kind}`,
        );
        t.succeeded(packet, `the ${operation.kind}`);
        t.equal(packet.bytesTransferred, 60, `bytes of the ${operation.kind}`);
      }
      t.sameBytes(view.subarray(0, 60), t.pattern(0, 60), 'the answer’s bytes');
      moved(t, port, b.send(t.pattern(60, 5000)), 5000, 'more of it');
      t.sameBytes(receive(t, port, a, 5000).bytes, t.pattern(60, 5000), 'more of it');
      moved(t, port, b.shutdown(), 0, 'the other end’s shutdown');
      t.ok(receive(t, port, a, 1).ended, 'the stream ended');
    },
  },

  {
    id: 'TCP-08/in-flight',
    clause: 'TCP-08',
    title: 'what was sent before a shutdown and a close arrives, all of it, and then the end',
    reference: shutting,
    run(t) {
      const port = t.createPort();
      const far = t.createPort();
      for (let round = 0; round < 10; round++) {
        const { socket, peer } = apart(t, port, far);
        const length = t.random.between(1, 60_000);
        const content = t.pattern(0, length, round);
        const send = socket.send(content);
        const shutdown = socket.shutdown();
        const packets = t.takeSync(port, 2);
        t.ok(packets[0]?.operation === send && packets[1]?.operation === shutdown, 'send, then shutdown');
        for (const packet of packets) t.succeeded(packet, packet.kind);
        socket.close();
        const stream = receive(t, far, peer, length + 1, { chunk: 10_000 });
        t.sameBytes(stream.bytes, content, 'what arrived');
        t.ok(stream.ended, `an orderly end (${stream.error?.code ?? 'no error'})`);
      }
    },
  },

  ...variants<'read' | 'both'>(
    {
      clause: 'TCP-08',
      title: 'after own shutdown of reading, recvs that wait and later ones give 0 bytes, whatever the peer sends',
      reference: shutting,
    },
    { read: 'read', both: 'both' },
    (t, how) => {
      const port = t.createPort();
      const far = t.createPort();
      for (const kind of bufferKindList) {
        const { socket, peer } = apart(t, port, far);
        const started = [1, 2, 3].map(() => socket.recv(makeBuffer(port, kind, 20)));
        t.nothing(port, 2);
        started.push(socket.shutdown({ how }));
        const packets = t.takeSync(port, 4);
        for (const packet of packets) {
          t.succeeded(packet, packet.kind);
          t.equal(packet.bytesTransferred, 0, `bytes of a ${packet.kind}`);
        }
        const recvs = packets.filter((packet) => packet.kind === 'recv').map((packet) => packet.operation);
        t.ok(recvs.length === 3 && recvs.every((operation, i) => operation === started[i]), 'the recvs in starting order');
        t.ok(
          packets.some(({ operation }) => operation === started[3]),
          'the packet of the shutdown',
        );
        for (let i = 0; i < 3; i++) {
          // Linux would still hand over what comes now: the port must remember the shutdown.
          packetOf(t, far, peer.send(Buffer.from('unwanted')), 'the peer’s send');
          const view = makeBuffer(port, kind, 20);
          moved(t, port, socket.recv(view), 0, 'a later recv');
          untouched(t, view, 'its buffer');
        }
        const packet = packetOf(t, port, socket.send(Buffer.from('x')), 'send');
        if (how === 'both') t.failed(packet, { code: lost }, 'a send after both directions were shut down');
        else t.succeeded(packet, 'a send after shutdown of reading');
      }
    },
  ),

  {
    id: 'TCP-08/read-drops',
    clause: 'TCP-08',
    title: 'bytes that were there before the shutdown of reading are not given any more; writing goes on',
    reference: shutting,
    run(t) {
      const port = t.createPort();
      const { socket, far, peer } = apart(t, port);
      moved(t, far, peer.send(t.pattern(0, 100)), 100, 'the peer’s send');
      t.sameBytes(receive(t, port, socket, 10).bytes, t.pattern(0, 10), 'the first bytes, before the shutdown');
      moved(t, port, socket.shutdown({ how: 'read' }), 0, 'shutdown');
      for (let i = 0; i < 3; i++) {
        const view = makeBuffer(port, 'heap', 50);
        moved(t, port, socket.recv(view), 0, 'a recv after the shutdown');
        untouched(t, view, 'its buffer');
      }
      moved(t, port, socket.send(Buffer.from('still')), 5, 'a send');
      t.equal(receive(t, far, peer, 5).bytes.toString(), 'still', 'what the peer received');
    },
  },

  {
    id: 'TCP-08/both-behind-sends',
    clause: 'TCP-08',
    title: 'shutdown of both directions waits for the queued sends as well',
    reference: shutting,
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      narrow(a, b);
      const length = 2 * 2 ** 20;
      const content = t.pattern(0, length);
      const started = [a.send(content), a.shutdown({ how: 'both' })];
      t.nothing(port, 5);
      t.ok(
        started.every(({ pending }) => pending),
        'both are pending',
      );
      let next = 0;
      const check = (packet: Packet): void => {
        t.ok(packet.operation === started[next], `packet ${next} is of operation ${next}`);
        t.succeeded(packet, packet.kind);
        t.equal(packet.bytesTransferred, next === 0 ? length : 0, `bytes of the ${packet.kind}`);
        next++;
      };
      const stream = receive(t, port, b, length + 1, { other: check });
      t.sameBytes(stream.bytes, content, 'what arrived before the end');
      t.ok(stream.ended, `an orderly end (${stream.error?.code ?? 'no error'})`);
      while (next < started.length) check(t.takeOneSync(port));
    },
  },
];

export const cases: readonly ConformanceCase[] = [...losses, ...shutdowns];
