// POST-07: an operation that finished before a post is dequeued before it, although nobody has looked at the kernel in between.

import { alsoInverted } from '../support/inverted.js';
import type { ConformanceCase, Context, Operation, Port } from '../types.js';
import { forEachWay, variants } from '../variants.js';

/** Operations that finish for certain, but unseen: this thread does nothing of the port's between their finish and the post. */
const finished: Record<string, (t: Context, port: Port) => Promise<() => Operation>> = {
  async 'file read'(t, port) {
    const file = t.openFile(port, 1, t.tempFile('file', 'x'), 'r');
    return () => {
      const operation = file.read(t.room(1), { position: 0 });
      port.flush();
      t.sleepSync(15);
      return operation;
    };
  },
  async 'recv of data that is there'(t, port) {
    const { a, b } = t.pair(port, 1, 2);
    return () => {
      a.send(new Uint8Array(1));
      t.succeeded(t.takeOneSync(port), 'the send');
      const operation = b.recv(t.room(1));
      port.flush();
      t.sleepSync(5);
      return operation;
    };
  },
  async 'recv of data that comes later'(t, port) {
    const { number, act } = await remote(t);
    const socket = t.track(t.api.TcpSocket.openSync());
    port.associate(socket, 1);
    socket.connect({ host: '127.0.0.1', port: number });
    t.succeeded(t.takeOneSync(port), 'the connect');
    return () => {
      const operation = socket.recv(t.room(1));
      port.flush();
      act();
      return operation;
    };
  },
  async accept(t, port) {
    const listener = t.listener(port, 1);
    const { act } = await remote(t, listener.address.port);
    return () => {
      const operation = listener.accept();
      port.flush();
      act();
      return operation;
    };
  },
};

/**
 * Another thread that, each time `act` is called, does something that ends an operation of this one: it writes a byte to
 * its connection, or connects to `target`. `act` returns when that has happened and the kernel has had time to deliver it, this thread
 * asleep meanwhile: nothing but the kernel can have seen the operation's end.
 */
async function remote(t: Context, target?: number): Promise<{ number: number; act: () => void }> {
  const flags = new Int32Array(new SharedArrayBuffer(8));
  const worker = t.worker(
    `const flags = new Int32Array(workerData.flags);
     let connection = null;
     const wait = () => {
       // A turn of this loop between two looks, so that the connection can arrive.
       const ready = workerData.target !== undefined || connection !== null;
       if (!ready || Atomics.load(flags, 0) === 0) return void setTimeout(wait, 1);
       Atomics.store(flags, 0, 0);
       const done = () => { Atomics.store(flags, 1, 1); Atomics.notify(flags, 1); };
       if (workerData.target === undefined) connection.write('x', done);
       else net.connect(workerData.target, '127.0.0.1', done).on('error', () => {});
       setTimeout(wait, 1);
     };
     const server = net.createServer((socket) => { connection = socket.on('error', () => {}); socket.setNoDelay(); });
     server.listen(0, '127.0.0.1', () => { parentPort.postMessage(server.address().port); wait(); });`,
    { flags: flags.buffer, target },
  );
  const number = await t.within(5000, new Promise<number>((resolve) => worker.once('message', resolve)), 'a worker');
  return {
    number,
    act() {
      Atomics.store(flags, 1, 0);
      Atomics.store(flags, 0, 1);
      if (Atomics.wait(flags, 1, 0, 3000) === 'timed-out') t.fail('the other thread did not act within 3 s');
      t.sleepSync(20);
    },
  };
}

export const cases: ConformanceCase[] = alsoInverted([
  ...variants(
    {
      clause: 'POST-07',
      title: 'an operation that finished before the post is dequeued before it',
      reference: 'I/O completions and posts are queued in the order in which they happen',
    },
    finished,
    async (t, prepare) => {
      const port = t.createPort();
      const begin = await prepare(t, port);
      for (let round = 0; round < 10; round++) {
        const operation = begin();
        port.post(round);
        const packets = t.takeSync(port, 2);
        for (const packet of packets) if (packet.kind === 'accept' && packet.error === null) packet.result.close();
        t.equal(packets[0]?.operation, operation, `operation of the first packet in round ${round}`);
        t.equal(packets[1]?.kind, 'post', 'kind of the second');
        t.equal(packets[1]?.key, round, 'key of the post');
      }
      t.nothing(port);
    },
  ),
  ...forEachWay(
    {
      clause: 'POST-07',
      title: 'however it is got, also by a consumer that waited all the time',
      reference: 'I/O completions and posts are queued in the order in which they happen',
    },
    async (t, way) => {
      const port = t.createPort();
      const begin = await t.some(finished['recv of data that comes later'], 'the preparation')(t, port);
      for (let round = 0; round < 5; round++) {
        const waiting = way === 'getSync' || way === 'getManySync' ? null : t.take(port, 2, { way });
        if (waiting !== null) await t.turn();
        const operation = begin();
        port.post(round);
        const packets = waiting === null ? await t.take(port, 2, { way }) : await waiting;
        t.equal(packets[0]?.operation, operation, `operation of the first packet in round ${round}`);
        t.equal(packets[1]?.kind, 'post', 'kind of the second');
      }
    },
  ),
]);
