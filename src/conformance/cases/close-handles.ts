// CLOSE-04, -07, -10: the close of a handle. Its operations end once each, and its peer sees it without anybody getting a packet.
// What happens to its number afterwards is in close-reuse.ts.

import { starvedUrl } from '../support/starved.js';
import type { ConformanceCase, Context, Handle, Operation } from '../types.js';
import { variants } from '../variants.js';
import { endOf, type Flight, flights, mainFlights, noMore, settled } from './flight.js';
import { nativeUrl } from './security-scripts.js';
import { accepted, receive } from './tcp-common.js';
import { testBuild } from './test-build.js';

const ends = 'CloseHandle and closesocket end the handle’s pending I/O: 995, 64 or 1236, which are all ECANCELED here';
const stale = 'ERROR_INVALID_HANDLE; but a number that was given out again is somebody else’s handle, so ours have generations';

/** What a closed handle’s operation must look like: ended by the close, its own bytes said. */
function endedByClose(t: Context, flight: Flight, packet: ReturnType<typeof endOf>): void {
  const error = t.failed(packet, { code: 'ECANCELED', by: 'close' }, `the ${flight.kind} of a closed handle`);
  t.equal(error.name, 'CompletionError', 'name of the error');
}

/** A peer in another thread, so that this one can stand still: says when its connection ended, and how. */
const watchingPeer = `
  const seen = new Int32Array(workerData.shared);
  const socket = net.connect({ host: '127.0.0.1', port: workerData.port, allowHalfOpen: true });
  const say = (value) => { Atomics.compareExchange(seen, 0, 0, value); Atomics.notify(seen, 0); };
  socket.on('data', () => {});
  socket.on('end', () => say(1));
  socket.on('error', (error) => say(error.code === 'ECONNRESET' ? 2 : 3));
`;

export const cases: readonly ConformanceCase[] = [
  ...variants<(handle: Handle, operations: Operation[]) => number>(
    {
      clause: 'CLOSE-04',
      title: 'ending 65,000 operations of one handle takes them one by one, not each past all others',
      reference: 'CancelIoEx and closesocket end what is pending on the handle; the order of the ends is open',
      timeoutMs: 60_000,
    },
    {
      'many-by-close': (handle, operations) => {
        handle.close();
        return operations.length;
      },
      'many-by-cancel': (handle) => handle.cancel(),
      'many-last-first': (_, operations) => {
        let count = 0;
        for (let i = operations.length - 1; i >= 0; i--) if (operations[i]?.cancel() === true) count++;
        return count;
      },
    },
    (t, end) => {
      const count = t.count(65_000, 1000);
      const port = t.createPort({ maxOperations: count });
      const { a } = t.pair(port, 1, 2);
      const listener = t.listener(port, 3);
      const byte = t.room(1);
      for (const [handle, start] of [
        [listener, () => listener.accept()],
        [a, () => a.recv(byte)],
      ] as const) {
        const operations = Array.from({ length: count }, start);
        t.nothing(port);
        const begin = t.now();
        t.equal(end(handle, operations), count, 'operations that were pending');
        t.less(t.now() - begin, 3000, `milliseconds for the end of ${count} operations`);
        for (const packet of t.takeSync(port, count)) t.failed(packet, { code: 'ECANCELED' }, packet.kind);
      }
    },
  ),
  ...variants(
    { clause: 'CLOSE-04', title: 'closing a handle ends its pending operation once, with key and operation', reference: ends },
    flights,
    (t, start) => {
      const port = t.createPort();
      const flight = start(t, port);
      settled(t, port, flight);
      flight.handle.close();
      t.equal(flight.operation.pending, true, 'pending until the packet is delivered');
      // Where others were before it on the handle, they end too.
      const packets = t.takeSync(port, port.inFlight);
      const mine = packets.filter((packet) => packet.operation === flight.operation);
      t.equal(mine.length, 1, 'packets of the operation');
      for (const packet of packets) {
        t.equal(packet.key, flight.key, 'key');
        t.equal(packet.handleId, flight.handle.id, 'handleId');
        t.failed(packet, { code: 'ECANCELED', by: 'close' }, `the ${packet.kind} of a closed handle`);
      }
      t.equal(mine[0]?.kind, flight.kind, 'kind');
      if (flight.partly !== true) t.equal(mine[0]?.bytesTransferred, 0, 'bytes');
      noMore(t, port, 'after the packets of a closed handle');
    },
  ),

  ...variants(
    {
      clause: 'CLOSE-04',
      title: 'a handle closed before its operation was flushed: one packet, ended by the close',
      reference: ends,
    },
    { 'recv-unflushed': flights.recv, 'send-unflushed': flights.send, 'accept-unflushed': flights.accept },
    (t, start) => {
      const port = t.createPort();
      const flight = t.some(start, 'a kind of operation')(t, port);
      flight.handle.close();
      endedByClose(t, flight, endOf(t, port, flight));
      noMore(t, port, 'after it');
    },
  ),

  {
    id: 'CLOSE-04/many',
    clause: 'CLOSE-04',
    title: 'hundreds of pending operations of both directions end once each; other handles’ operations stay',
    reference: ends,
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 7, 8);
      const listener = t.listener(port, 9);
      const others = [b.recv(t.room(1)), listener.accept()];
      const started = new Set<Operation>();
      const all = t.count(300, 20);
      for (let i = 0; i < all; i++) started.add(a.recv(t.room(16), { id: i }));
      const big = a.send(new Uint8Array(32 * 2 ** 20));
      started.add(big);
      for (let i = 0; i < all; i++) started.add(a.send(new Uint8Array(16)));
      started.add(a.shutdown());
      // The peer's recv gets the beginning of the big send.
      t.ok(t.takeOneSync(port).operation === others[0], 'the first packet is of the peer’s recv');
      t.nothing(port, 5);
      a.close();
      for (const packet of t.takeSync(port, started.size)) {
        t.ok(
          packet.operation !== undefined && started.delete(packet.operation),
          'each operation of the closed handle has one packet',
        );
        t.equal(packet.key, 7, 'key');
        t.failed(packet, { code: 'ECANCELED', by: 'close' }, `a ${packet.kind}`);
        if (packet.operation !== big) t.equal(packet.bytesTransferred, 0, `bytes of a ${packet.kind}`);
      }
      t.equal(started.size, 0, 'operations without a packet');
      t.equal(others[1]?.pending, true, 'pending of an accept on another handle');
      t.equal(port.inFlight, 1, 'inFlight');
    },
  },

  {
    id: 'CLOSE-04/finished',
    clause: 'CLOSE-04',
    title: 'an operation that had finished keeps its own result, also if the handle was closed before the packet was taken',
    reference: 'A completed IRP’s packet is in the queue; closing the handle doesn’t take it back',
    run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      b.send(new Uint8Array([1, 2, 3]));
      t.takeOneSync(port);
      const view = t.room(8);
      const operation = a.recv(view);
      const path = t.tempFile('file', 'abcdef');
      const file = t.openFile(port, 3, path);
      const size = file.size();
      port.flush();
      // A post takes what has finished to the queue: until that is both.
      let posts = 0;
      const end = t.now() + 3000;
      do {
        port.post(4);
        posts++;
      } while (port.stats().queued < posts + 2 && t.now() < end);
      a.close();
      file.close();
      const packets = t.takeSync(port, posts + 2);
      const received = t.some(
        packets.find((packet) => packet.operation === operation),
        'the recv’s packet',
      );
      t.succeeded(received, 'a recv that had finished before the close');
      t.equal(received.bytesTransferred, 3, 'its bytes');
      t.sameBytes(view.subarray(0, 3), new Uint8Array([1, 2, 3]), 'its buffer');
      t.equal(packets.find((packet) => packet.operation === size)?.result, 6, 'the size that was asked before the close');
      noMore(t, port, 'after both');
    },
  },

  {
    id: 'CLOSE-04/uncancellable',
    clause: 'CLOSE-04',
    title: 'an operation that can’t be stopped says its own result after the close of its handle, and the fd goes with it',
    reference: ends,
    async run(t) {
      const answer = await testBuild<{
        code: string | null;
        took: number;
        took2: number;
        key: number;
        packets: number;
        fds: number[];
      }>(
        t,
        `
        import { readdirSync, readlinkSync } from 'node:fs';
        const { ownTime } = await import(${JSON.stringify(starvedUrl)});
        const path = ${JSON.stringify(t.tempFile('file', 'abc'))};
        const port = createPort();
        let fds;
        if (process.platform === 'win32') {
          // There is no list of what each handle is of: how many more there are than before the file was opened.
          const { native } = await import(${JSON.stringify(nativeUrl)});
          const without = native.countProcess().descriptors;
          fds = () => native.countProcess().descriptors - without;
        } else {
          /** This process's descriptors of the file. Others come and go while a runtime starts. */
          fds = () => readdirSync('/proc/self/fd').filter((fd) => {
            try { return readlinkSync('/proc/self/fd/' + fd) === path; } catch { return false; } // the listing's own, closed by now
          }).length;
        }
        const file = FileHandle.openSync(path, 'r+');
        port.associate(file, 5);
        const before = fds();
        const begin = performance.now();
        const began = ownTime();
        const operation = file.sync();
        port.flush();
        file.close();
        const took2 = ownTime() - began;
        const packet = port.getSync(5000);
        const took = performance.now() - begin;
        const rest = port.getManySync(10, 20);
        console.log(JSON.stringify({ code: packet.error?.code ?? null, took, took2, key: packet.operation === operation ? packet.key : -1,
          packets: 1 + rest.length, fds: [before, fds()] }));
        `,
        { COMPLETION_PORT_TEST_STALL: '200' },
      );
      if (answer.took < 190) t.unable(`what is under test has no operation that stalls (a sync took ${answer.took} ms)`);
      t.less(answer.took2, 100, 'milliseconds until the handle’s close returned');
      t.equal(answer.code, null, 'code of the packet');
      t.equal(answer.key, 5, 'its key');
      t.equal(answer.packets, 1, 'packets');
      t.deepEqual(answer.fds, [1, 0], 'descriptors of the file, before and after');
    },
  },

  ...variants(
    {
      clause: 'CLOSE-07',
      title: 'the peer sees a socket’s close at once, with no further get and the thread standing still',
      reference: 'closesocket sends a FIN, or a reset where data is unread or linger says so',
    },
    {
      idle: { pending: 'nothing', reset: false },
      'recv-pending': { pending: 'recv', reset: false },
      'recv-unflushed': { pending: 'unflushed', reset: false },
      'send-done': { pending: 'send', reset: false },
      reset: { pending: 'recv', reset: true },
    } as const,
    (t, { pending, reset }) => {
      const port = t.createPort();
      const listener = t.listener(port, 1);
      const shared = new SharedArrayBuffer(4);
      t.worker(watchingPeer, { shared, port: listener.address.port });
      listener.accept();
      const socket = accepted(t, t.takeOneSync(port));
      port.associate(socket, 2);
      if (pending === 'send') {
        socket.send(new Uint8Array(1000));
        t.takeOneSync(port);
      }
      if (pending === 'recv' || pending === 'unflushed') socket.recv(t.room(10));
      if (pending === 'recv') t.nothing(port, 5);
      const seen = new Int32Array(shared);
      t.equal(Atomics.load(seen, 0), 0, 'what the peer has seen before the close');
      socket.close({ reset });
      Atomics.wait(seen, 0, 0, 2000);
      t.equal(Atomics.load(seen, 0), reset ? 2 : 1, 'what the peer has seen (1: the end, 2: a reset)');
    },
  ),

  ...variants(
    {
      clause: 'CLOSE-07',
      title: 'a listener’s address can be listened on again as soon as it is closed',
      reference: 'closesocket releases the address when the last reference goes; a pending AcceptEx is cancelled by it',
    },
    { 'listen-idle': 0, 'listen-accept': 1, 'listen-accepts': 50 },
    async (t, accepts) => {
      const port = t.createPort();
      for (let round = 0; round < 20; round++) {
        const listener = t.listener(port, 1);
        for (let i = 0; i < accepts; i++) listener.accept();
        if (round % 2 === 0) port.flush();
        const number = listener.address.port;
        listener.close();
        const again = t.track(t.api.TcpListener.listenSync({ port: number }));
        t.equal(again.address.port, number, 'the port listened on again');
        again.close();
        const socket = t.track(t.api.TcpSocket.openSync());
        port.associate(socket, 2);
        const connecting = socket.connect({ host: '127.0.0.1', port: number });
        const packets = t.takeSync(port, accepts + 1);
        const refused = t.some(
          packets.find((packet) => packet.operation === connecting),
          'the connect’s packet',
        );
        // A socket that the system has bound to the very number that is free again finds itself there (RFC 9293, 3.5, simultaneous synchronization).
        if (refused.error === null && socket.localAddress?.port === number) continue;
        t.failed(refused, { code: 'ECONNREFUSED' }, 'a connect to the closed listener');
      }
    },
  ),

  {
    id: 'CLOSE-10',
    clause: 'CLOSE-10',
    title: 'any use of a closed handle throws ERR_HANDLE_CLOSED, and starts nothing',
    reference: 'ERROR_INVALID_HANDLE (6), WSAENOTSOCK (10038)',
    run(t) {
      const port = t.createPort();
      const file = t.openFile(port, 1, t.tempFile('file', 'abc'));
      const loose = t.track(t.api.FileHandle.openSync(t.tempFile('other', 'abc')));
      const listener = t.listener(port, 2);
      const { a, b } = t.pair(port, 3, 4);
      for (const handle of [file, loose, listener, a]) {
        t.equal(handle.closed, false, 'closed of an open handle');
        handle.close();
        t.equal(handle.closed, true, 'closed of a closed handle');
      }
      const view = t.room(1);
      const uses: Record<string, () => unknown> = {
        read: () => file.read(view, { position: 0 }),
        write: () => file.write(view, { position: 0 }),
        readv: () => file.readv([view], { position: 0 }),
        writev: () => file.writev([view], { position: 0 }),
        sync: () => file.sync(),
        datasync: () => file.datasync(),
        truncate: () => file.truncate(0),
        size: () => file.size(),
        'cancel of a file': () => file.cancel(),
        'read of one without a port': () => loose.read(view, { position: 0 }),
        associate: () => port.associate(loose, 1),
        'associate again': () => port.associate(file, 1),
        accept: () => listener.accept(),
        'cancel of a listener': () => listener.cancel(),
        connect: () => a.connect({ host: '127.0.0.1', port: 1 }),
        recv: () => a.recv(view),
        send: () => a.send(view),
        sendv: () => a.send([view]),
        shutdown: () => a.shutdown(),
        'cancel of a socket': () => a.cancel(),
        setNoDelay: () => a.setNoDelay(),
        setKeepAlive: () => a.setKeepAlive(true),
        recvBufferSize: () => a.recvBufferSize,
        sendBufferSize: () => a.sendBufferSize,
        'setting recvBufferSize': () => {
          a.recvBufferSize = 10_000;
        },
        'setting sendBufferSize': () => {
          a.sendBufferSize = 10_000;
        },
      };
      for (const [name, use] of Object.entries(uses)) t.throws(use, { code: 'ERR_HANDLE_CLOSED' }, name);
      t.equal(port.inFlight, 0, 'inFlight');
      for (const handle of [file, listener, a] as Handle[]) handle.close();
      // Nothing of that reached somebody else.
      t.equal(receive(t, port, b, 1).ended, true, 'the peer of the closed socket sees its end');
    },
  },

  {
    id: 'CLOSE-10/stale-id',
    clause: 'CLOSE-10',
    title: 'a stale id is refused by the native module, whoever has the number now',
    reference: stale,
    async run(t) {
      const native = await t.native();
      const port = t.createPort();
      const call = (name: string, ...args: unknown[]): unknown => (native[name] as (...args: unknown[]) => unknown)(...args);
      const old = t.track(t.api.TcpSocket.openSync());
      const [index, generation] = [old.id % 2 ** 20, Math.floor(old.id / 2 ** 20)];
      old.close();
      const next = t.track(t.api.TcpSocket.openSync());
      t.equal(next.id % 2 ** 20, index, 'the index of the handle that was opened next');
      t.notEqual(next.id, old.id, 'its id');
      t.equal(call('closeHandle', index, generation, false), -1, 'closeHandle of a stale id');
      t.less(call('address', index, generation, false, new Uint8Array(24)) as number, 0, 'address of a stale id');
      t.less(call('setOption', index, generation, 1, 1) as number, 0, 'setOption of a stale id');
      t.less(call('getOption', index, generation, 4) as number, 0, 'getOption of a stale id');
      // The new one is as it was.
      port.associate(next, 3);
      next.setNoDelay(true);
      t.atLeast(next.recvBufferSize, 1, 'recvBufferSize of the new handle');
    },
  },

  ...variants(
    {
      clause: 'CLOSE-10',
      title: 'a handle closed by its operation’s own packet handler takes no more operations',
      reference: stale,
    },
    mainFlights,
    (t, start) => {
      const port = t.createPort();
      const flight = start(t, port);
      settled(t, port, flight);
      flight.operation.cancel();
      endOf(t, port, flight);
      flight.handle.close();
      t.throws(() => flight.handle.cancel(), { code: 'ERR_HANDLE_CLOSED' }, 'cancel of the closed handle');
      t.throws(() => port.associate(flight.handle, 1), { code: 'ERR_HANDLE_CLOSED' }, 'associate of the closed handle');
      t.equal(flight.operation.cancel(), false, 'cancel() of its operation');
      noMore(t, port, 'after the close');
    },
  ),
];
