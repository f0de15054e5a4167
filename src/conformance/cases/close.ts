// CLOSE-02, -03, -08, -09: the close of a port, checked by its effects: packets that are gone, descriptors and memory that are given
// back, and the promise that says when. Waits that it ends are in close-waits.ts, the closing of handles in close-handles.ts.

import { ownTime, starvedUrl } from '../support/starved.js';
import type { ConformanceCase, Packet } from '../types.js';
import { variants } from '../variants.js';
import { childAnswer } from './buffers.js';
import { flights, mainFlights } from './flight.js';
import { connect } from './tcp-common.js';
import { testBuild } from './test-build.js';

const closing = 'CloseHandle of a port ends waits with FALSE and ERROR_ABANDONED_WAIT_0 (735) and a NULL overlapped';
const closed = { code: 'ERR_PORT_CLOSED' };

export const cases: readonly ConformanceCase[] = [
  ...variants(
    {
      clause: 'CLOSE-02',
      title: 'close returns without waiting, cancels what is in flight, and `pending` is false at once',
      reference: 'Closing the port’s handles cancels their I/O; the queue and its packets go with the last reference',
    },
    flights,
    async (t, start) => {
      const port = t.createPort();
      const flight = start(t, port);
      port.flush();
      port.post(1);
      const begin = ownTime();
      port.close();
      t.less(ownTime() - begin, 50, 'milliseconds that close took');
      t.equal(flight.operation.pending, false, 'pending after the close');
      t.equal(flight.operation.cancel(), false, 'cancel() of an operation whose port is closed');
      t.equal(port.inFlight, 0, 'inFlight of a closed port');
      t.equal(port.isClosed, true, 'isClosed');
      t.throws(() => port.getSync(0), closed, 'a get');
      await t.within(1000, port.closed, 'closed: what was in flight is cancelled, so it ends by itself');
      // Let go of: the object can be used again, on another port.
      const other = t.createPort();
      const { a, b } = t.pair(other, 1, 2);
      a.recv(t.room(4), flight.operation);
      b.send(new Uint8Array([1, 2]));
      const packets = t.takeSync(other, 2);
      t.ok(
        packets.some((packet) => packet.operation === flight.operation && packet.bytesTransferred === 2),
        'the operation’s next packet, of another port',
      );
    },
  ),

  {
    id: 'CLOSE-02/unflushed',
    clause: 'CLOSE-02',
    title: 'operations that were started in the same job as the close are ended by it too',
    reference: 'A request that was issued belongs to the handle and is cancelled with it',
    async run(t) {
      const port = t.createPort();
      const started = Object.values(mainFlights).map((start) => start(t, port));
      const path = t.tempFile('file', '0123456789');
      const file = t.openFile(port, 1, path);
      const write = file.write(new Uint8Array(4).fill(33), { position: 2 });
      port.close();
      t.equal(write.pending, false, 'pending of a write after the close');
      for (const { operation } of started) t.equal(operation.pending, false, `pending of a ${operation.kind}`);
      await t.within(1000, port.closed, 'closed');
    },
  },

  {
    id: 'CLOSE-02/promises',
    clause: 'CLOSE-02',
    title: 'promises of operations in flight reject, each once, with an error that says so',
    reference: closing,
    async run(t) {
      const url = new URL('../../promises.js', import.meta.url).href;
      const answer = await childAnswer<{ results: string[]; closed: boolean }>(
        t,
        `
        const promises = await import(${JSON.stringify(url)});
        const index = await import(${JSON.stringify(new URL('../../index.js', import.meta.url).href)});
        const port = index.CompletionPort.create({ backend });
        const listener = index.TcpListener.listenSync({ port: 0 });
        port.associate(listener, 1);
        const address = { host: '127.0.0.1', port: listener.address.port };
        const [accepted, socket] = await Promise.all([promises.accept(listener), promises.connect(port, address)]);
        port.associate(accepted, 2);
        const waits = [promises.accept(listener), promises.recv(accepted, room(8)), promises.recv(accepted, room(8)),
          promises.recv(accepted, room(8), { timeout: 60000 }), promises.send(accepted, new Uint8Array(64 * 2 ** 20))];
        const settled = Promise.allSettled(waits);
        await new Promise(resolve => setTimeout(resolve, 20));
        port.close();
        const results = (await settled).map(result => result.status === 'rejected' ? result.reason.code : 'fulfilled');
        await port.closed;
        console.log(JSON.stringify({ results, closed: port.isClosed }));
        for (const handle of [listener, accepted, socket]) handle.close();
        `,
      );
      t.equal(answer.closed, true, 'isClosed');
      t.equal(answer.results.length, 5, 'promises');
      for (const code of answer.results)
        t.ok(['ECANCELED', 'ERR_PORT_CLOSED'].includes(code), `a promise’s end, which is ${code}`);
    },
  },

  {
    id: 'CLOSE-02/memory',
    clause: 'CLOSE-02',
    title: 'after `closed` nothing holds the port’s arena, its operations, contexts and buffers any more',
    reference: closing,
    timeoutMs: 15_000,
    async run(t) {
      const answer = await childAnswer<{ pending: number; left: string[] }>(
        t,
        `
        const refs = new Map();
        async function use() {
          const port = createPort();
          const listener = TcpListener.listenSync({ port: 0 });
          port.associate(listener, 1);
          const operation = new Operation({ big: 1 });
          const socket = TcpSocket.openSync();
          port.associate(socket, 2);
          socket.connect({ host: '127.0.0.1', port: listener.address.port });
          const connected = port.getSync(2000);
          if (connected === null || connected.error !== null) throw new Error('no connection');
          const buffer = room(1000);
          const own = new SharedArrayBuffer(1000);
          socket.recv(buffer, operation);
          socket.recv(new Uint8Array(own));
          port.flush();
          for (const [name, value] of Object.entries({ arena: port.arena, operation, context: operation.context, buffer: buffer.buffer, own }))
            refs.set(name, new WeakRef(value));
          const pending = port.inFlight;
          port.close();
          await port.closed;
          socket.close();
          listener.close();
          return pending;
        }
        const pending = await use();
        let left = [];
        for (let i = 0; i < 60; i++) {
          await new Promise(resolve => setTimeout(resolve, i < 10 ? 1 : 20));
          globalThis.gc();
          left = [...refs].filter(([, ref]) => ref.deref() !== undefined).map(([name]) => name);
          if (left.length === 0) break;
        }
        console.log(JSON.stringify({ pending, left }));
        `,
        { gc: true },
      );
      t.equal(answer.pending, 2, 'operations in flight at the close');
      t.deepEqual(answer.left, [], 'what is still held after `closed` and a collection');
    },
  },

  {
    id: 'CLOSE-03',
    clause: 'CLOSE-03',
    notShared: 'a shared port’s handles close with it (CLOSE-03/shared)',
    title: 'handles outlive a private port: they can be closed, not used, and not be given to another port',
    reference: 'A handle’s association lasts for its life; closing the port doesn’t close the handles',
    async run(t) {
      const port = t.createPort();
      const other = t.createPort();
      const file = t.openFile(port, 1, t.tempFile('file', 'abc'));
      const listener = t.listener(port, 2);
      const { a, b } = t.pair(port, 3, 4);
      port.close();
      await t.within(1000, port.closed, 'closed');
      const before = t.fdCount();
      const view = t.room(1);
      t.throws(() => file.read(view, { position: 0 }), closed, 'a read');
      t.throws(() => file.size(), closed, 'a size');
      t.throws(() => listener.accept(), closed, 'an accept');
      t.throws(() => a.recv(view), closed, 'a recv');
      t.throws(() => a.send(view), closed, 'a send');
      t.throws(() => a.shutdown(), closed, 'a shutdown');
      t.throws(() => other.associate(file, 1), { code: 'ERR_ALREADY_ASSOCIATED' }, 'associating with another port');
      for (const handle of [file, listener, a, b]) {
        t.equal(handle.closed, false, 'closed of a handle whose port is closed');
        handle.close();
        t.equal(handle.closed, true, 'closed of a closed handle');
        handle.close();
      }
      t.equal(t.fdCount(), before - 4, 'descriptors after the close of four handles');
      t.equal(other.inFlight, 0, 'inFlight of the other port');
    },
  },

  ...variants(
    {
      clause: 'CLOSE-08',
      title: 'accepted sockets and opened files in packets that a close drops are closed',
      reference: 'AcceptEx and CreateFile give the handle to the caller, who closes it; here nobody can',
    },
    {
      'accept-queued': { what: 'accept', stage: 'queued' },
      'accept-fetched': { what: 'accept', stage: 'fetched' },
      'accept-started': { what: 'accept', stage: 'started' },
      'open-queued': { what: 'open', stage: 'queued' },
      'open-fetched': { what: 'open', stage: 'fetched' },
      'open-started': { what: 'open', stage: 'started' },
    } as const,
    async (t, { what, stage }) => {
      const n = 20;
      const clients = t.createPort();
      const listener = t.listener();
      const path = t.tempFile('file', 'x');
      const sockets = what === 'open' ? [] : Array.from({ length: n }, () => connect(t, clients, listener, 1).socket);
      for (const packet of t.takeSync(clients, sockets.length)) t.succeeded(packet, 'a connect');
      const before = t.fdCount();
      const port = t.createPort();
      port.associate(listener, 1);
      const opened = t.fdCount();
      // One more waits behind the last connection.
      for (let i = 0; i < (what === 'accept' ? n + 1 : n); i++) {
        if (what === 'accept') listener.accept();
        else port.open(path, 'r', { key: i });
      }
      let kept = 0;
      if (stage !== 'started') {
        port.flush();
        await t.sleep(20);
        // A post makes sure that what has finished is in the queue, before it, and what that was before is begun. AcceptEx takes its socket beforehand.
        const all = opened + n + (what === 'accept' && t.backend === 'iocp' ? 1 : 0);
        await t.eventually(
          () => {
            port.post(99);
            return t.fdCount() >= all;
          },
          `${n} more descriptors than ${opened}`,
          5000,
        );
      }
      if (stage === 'fetched') {
        let packet = t.takeOneSync(port);
        while (t.backend === 'iocp' && packet.kind === 'post') packet = t.takeOneSync(port);
        t.succeeded(packet, 'the first packet');
        t.track(t.some(packet.result as { close(): void } | undefined, 'its result'));
        kept = 1;
      }
      port.close();
      await t.within(2000, port.closed, 'closed');
      // A shared port's own handles close with it: the listener here, and a file that it opened.
      const left = t.shared ? before - 1 + (what === 'open' ? 0 : kept) : before + kept;
      await t.eventually(() => t.fdCount() <= left, `no more than ${left} descriptors`);
      t.equal(t.fdCount(), left, 'descriptors after the close');
      if (what === 'accept' && stage === 'queued') {
        // The peers see it.
        for (const socket of sockets) socket.recv(t.room(1));
        const ends: Packet[] = t.takeSync(clients, n);
        for (const packet of ends) t.equal(packet.bytesTransferred, 0, 'bytes that a peer of a dropped connection gets');
      }
    },
  ),

  {
    id: 'CLOSE-09',
    clause: 'CLOSE-09',
    title:
      'close returns within 50 ms with an operation that can’t be cancelled; `closed` waits for it, and so does the operation object',
    reference: 'An IRP that a driver can’t cancel keeps its memory until it completes',
    timeoutMs: 15_000,
    async run(t) {
      const stall = 400;
      const answer = await testBuild<Record<string, number | string | boolean>>(
        t,
        `
        const { ownTime } = await import(${JSON.stringify(starvedUrl)});
        const path = ${JSON.stringify(t.tempFile('file', 'abc'))};
        const port = createPort();
        const file = FileHandle.openSync(path, 'r+');
        port.associate(file, 1);
        const probe = performance.now();
        file.sync();
        const first = port.getSync(5000);
        const probed = performance.now() - probe;
        const operation = file.sync();
        port.flush();
        const began = performance.now();
        const cancelled = operation.cancel();
        const early = port.getSync(50);
        const begin = ownTime();
        port.close();
        const took = ownTime() - begin;
        let code = 'none';
        const pending = operation.pending;
        const other = createPort();
        const otherFile = FileHandle.openSync(path, 'r+');
        other.associate(otherFile, 2);
        try { otherFile.size(operation); } catch (error) { code = error.code; }
        const inFlight = other.inFlight;
        await port.closed;
        const waited = performance.now() - began;
        otherFile.size(operation);
        const again = other.getSync(5000);
        console.log(JSON.stringify({ probed, error: first.error?.code ?? '', cancelled, early: early?.error?.code ?? '', took, code, pending,
          inFlight, waited, again: again.operation === operation && again.result === 3 }));
        `,
        { COMPLETION_PORT_TEST_STALL: String(stall) },
      );
      if (Number(answer.probed) < stall * 0.9)
        t.unable(`what is under test has no operation that stalls (a sync took ${answer.probed} ms)`);
      t.equal(answer.early, '', 'the packet of a cancelled operation that can’t be cancelled');
      t.less(Number(answer.took), 50, 'milliseconds that close took');
      t.equal(answer.pending, false, 'pending after the close');
      t.equal(answer.code, 'ERR_OPERATION_PENDING', 'what starting the operation again throws before `closed`');
      t.equal(answer.inFlight, 0, 'inFlight of the other port after that');
      t.atLeast(Number(answer.waited), stall * 0.95, 'milliseconds from the start of the operation until `closed`');
      t.equal(answer.again, true, 'the operation works on another port after `closed`');
    },
  },
];
