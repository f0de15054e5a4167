// DISP-01 and DISP-02: packets handed to a function from the event loop. What a handler may do, and what it can't break.

import { alsoInverted } from '../support/inverted.js';
import type { ConformanceCase, Context, Operation, Packet, Port } from '../types.js';
import { variants } from '../variants.js';

const range = (end: number): number[] => Array.from({ length: end }, (_, i) => i);

/** Starts one operation for each key on files of their own, finished or about to be when this returns. */
function startReads(t: Context, port: Port, count: number): Operation[] {
  const path = t.tempFile(undefined, 'x');
  return range(count).map((key) => t.openFile(port, 100 + key, path, 'r').read(t.room(1), { position: 0 }));
}

export const cases: ConformanceCase[] = alsoInverted([
  {
    id: 'DISP-01',
    clause: 'DISP-01',
    title: 'a handler that throws is an uncaught exception and loses no later packet',
    reference: 'the portable rule, as an event listener that throws',
    async run(t) {
      const uncaught = t.expectUncaught();
      const port = t.createPort();
      const thrown = new Map(
        t.random
          .shuffle(range(200))
          .slice(0, 40)
          .map((key) => [key, new Error(`packet ${key}`)]),
      );
      thrown.set(0, new Error('the first one'));
      thrown.set(199, new Error('the last one'));
      const keys: number[] = [];
      const consumer = port.dispatch((packet) => {
        keys.push(packet.key);
        const error = thrown.get(packet.key);
        if (error !== undefined) throw error;
      });
      for (const key of range(200)) port.post(key);
      await t.eventually(() => keys.length >= 200, 'all packets have been handled');
      await t.turn();
      t.deepEqual(keys, range(200), 'keys in the order of the handler’s calls');
      t.equal(uncaught.length, thrown.size, 'uncaught exceptions');
      const expected = [...thrown.keys()].sort((a, b) => a - b).map((key) => thrown.get(key));
      for (const [i, error] of expected.entries()) t.equal(uncaught[i], error, `uncaught exception ${i}`);
      t.equal(consumer.active, true, 'active of the consumer');
      port.post(200);
      await t.eventually(() => keys.length > 200, 'a packet after them has been handled');
    },
  },
  {
    id: 'DISP-01/operations',
    clause: 'DISP-01',
    title: 'whatever a handler throws, the operations of the batch are delivered and can be started again',
    reference: 'the portable rule, as an event listener that throws',
    async run(t) {
      const uncaught = t.expectUncaught();
      const port = t.createPort();
      const operations = startReads(t, port, 20);
      const seen: (Operation | undefined)[] = [];
      const values = [undefined, null, 0, 'text', Symbol('mark'), new TypeError('type'), { an: 'object' }];
      port.dispatch((packet) => {
        seen.push(packet.operation);
        t.equal(packet.operation?.pending, false, 'pending of the packet’s operation');
        throw values[seen.length % values.length];
      });
      await t.eventually(() => seen.length >= 20, 'all packets have been handled');
      await t.turn();
      t.deepEqual(new Set(seen), new Set(operations), 'operations of the packets');
      t.equal(seen.length, 20, 'calls of the handler');
      t.equal(uncaught.length, 20, 'uncaught exceptions');
      t.equal(port.inFlight, 0, 'inFlight');
    },
  },
  {
    id: 'DISP-01/process',
    clause: 'DISP-01',
    title: 'without a listener it ends the process with the error on standard error; with one it says where it came from',
    reference: 'the portable rule, as an event listener that throws',
    async run(t) {
      const body = `const port = createPort(); port.dispatch((packet) => { console.log(packet.key); if (packet.key === 2) throw new Error('from the handler'); if (packet.key === 4) process.exit(7); });
        for (let key = 1; key < 5; key++) port.post(key);`;
      const plain = await t.child(body);
      t.equal(plain.code, 1, 'exit code without a listener');
      t.equal(plain.stdout, '1\n2\n', 'what was printed before');
      t.ok(plain.stderr.includes('from the handler'), `the error’s message in: ${plain.stderr}`);
      const listening = await t.child(
        `process.on('uncaughtException', (error, origin) => console.log(error.message, origin)); ${body}`,
      );
      t.equal(listening.code, 7, `exit code with a listener (${listening.stderr})`);
      t.equal(listening.stdout, '1\n2\nfrom the handler uncaughtException\n3\n4\n', 'what was printed');
    },
  },

  ...variants<'dispatch' | 'get'>(
    {
      clause: 'DISP-01',
      title: 'what a handler leaves behind may throw, too: the port goes on, with operations as with posts',
      reference: 'the portable rule, as an event listener that throws',
    },
    { 'tick-of-dispatch': 'dispatch', 'tick-of-get': 'get' },
    async (t, way) => {
      const uncaught = t.expectUncaught();
      const port = t.createPort();
      // The peer answers some turns of the loop later: the port sleeps by then, and is woken by the answer.
      const { socket, peer } = await t.peer(port, 1);
      peer.on('data', async (data) => {
        for (let turn = 0; turn < 5; turn++) await t.turn();
        peer.write(data);
      });
      peer.resume();
      const rounds = 20;
      let received = 0;
      let posts = 0;
      const echo = (): void => {
        socket.recv(t.room(1));
        socket.send(new Uint8Array(1));
      };
      const onPacket = (packet: Packet): void => {
        if (packet.kind === 'post') posts++;
        if (packet.kind !== 'recv') return;
        if (++received < rounds) echo();
        process.nextTick(() => {
          throw new Error('a tick');
        });
      };
      if (way === 'dispatch') port.dispatch(onPacket);
      else {
        void (async () => {
          while (posts === 0) onPacket((await port.get()) as Packet);
        })();
      }
      echo();
      await t.eventually(() => received === rounds, 'every recv, each of them started before a tick threw');
      t.equal(uncaught.length, rounds, 'uncaught exceptions');
      port.post(3);
      await t.eventually(() => posts === 1, 'a post after them');
    },
  ),

  {
    id: 'DISP-02/getSync',
    clause: 'DISP-02',
    title: 'in a handler getSync and getManySync take the next packets in order',
    reference: 'a thread that handles a packet may dequeue further ones',
    async run(t) {
      const port = t.createPort();
      const order: string[] = [];
      let done = 0;
      port.dispatch((packet) => {
        done++;
        order.push(`handler ${packet.key}`);
        if (packet.key % 5 === 0) {
          const one = t.some(port.getSync(0), 'the next packet');
          order.push(`getSync ${one.key}`);
          const many = port.getManySync(2, 0);
          order.push(...many.map((next) => `getManySync ${next.key}`));
          done += 1 + many.length;
          t.equal(many.length, 2, 'packets of getManySync(2, 0)');
        }
      });
      for (const key of range(1000)) port.post(key);
      await t.eventually(() => done >= 1000, 'all packets have been handled');
      t.equal(port.getSync(0), null, 'a get after all of them');
      const takers = ['handler', 'getSync', 'getManySync', 'getManySync', 'handler'];
      t.deepEqual(
        order,
        range(1000).map((key) => `${takers[key % 5]} ${key}`),
        'who took which packet',
      );
    },
  },
  {
    id: 'DISP-02/second',
    clause: 'DISP-02',
    title: 'a second dispatch throws ERR_ALREADY_DISPATCHING and changes nothing; after stop() there may be another',
    reference: 'the portable rule: a port has one dispatch at a time',
    async run(t) {
      const port = t.createPort();
      const keys: string[] = [];
      let again: { readonly active: boolean; stop(): void } | null = null;
      const first = port.dispatch((packet) => {
        keys.push(`first ${packet.key}`);
        t.throws(
          () => port.dispatch(() => t.fail('the refused handler was called')),
          { code: 'ERR_ALREADY_DISPATCHING' },
          'in the handler',
        );
        if (packet.key !== 2) return;
        first.stop();
        t.equal(first.active, false, 'active after stop()');
        again = port.dispatch((next) => keys.push(`second ${next.key}`));
      });
      t.equal(first.active, true, 'active');
      t.throws(() => port.dispatch(() => {}), { code: 'ERR_ALREADY_DISPATCHING' }, 'a second dispatch');
      for (const key of range(5)) port.post(key);
      await t.eventually(() => keys.length >= 5, 'all packets have been handled');
      t.deepEqual(keys, ['first 0', 'first 1', 'first 2', 'second 3', 'second 4'], 'who handled which packet');
      // Stopping what has ended must not stop its successor.
      first.stop();
      first[Symbol.dispose]();
      const second = t.some(again as { readonly active: boolean; stop(): void } | null, 'the second consumer');
      t.equal(second.active, true, 'active of the second after the first was stopped again');
      port.post(5);
      await t.eventually(() => keys.length >= 6, 'one more');
      second.stop();
      for (const wrong of [undefined, null, {}, 'handler', 1]) {
        t.throws(
          () => port.dispatch(wrong as unknown as () => void),
          { code: 'ERR_INVALID_ARG_TYPE', name: 'TypeError' },
          'no function',
        );
      }
      t.equal(port.dispatch(() => {}).active, true, 'a dispatch after the refused ones');
    },
  },
  {
    id: 'DISP-02/close',
    clause: 'DISP-02',
    title: 'close in a handler drops the rest: the handler is not called again',
    reference: 'packets of a closed port go with it',
    async run(t) {
      for (const stopAt of [0, 1, 100, 127, 128, 300]) {
        const port = t.createPort();
        const operations = startReads(t, port, 4);
        const seen: number[] = [];
        const consumer = port.dispatch(() => {
          seen.push(seen.length);
          if (seen.length - 1 === stopAt) port.close();
        });
        for (const key of range(600)) port.post(key);
        await t.within(2000, port.closed, 'port.closed');
        for (let i = 0; i < 5; i++) await t.turn();
        t.equal(seen.length, stopAt + 1, 'calls of the handler');
        t.equal(consumer.active, false, 'active after the close');
        for (const operation of operations) t.equal(operation.pending, false, 'pending of an operation after the close');
      }
    },
  },
  {
    id: 'DISP-02/head',
    clause: 'DISP-02',
    title: 'a packet not yet delivered stays at the head of the queue, its operation pending',
    reference: 'a packet is dequeued when it is given to the program, not before',
    async run(t) {
      const port = t.createPort();
      const file = t.openFile(port, 50, t.tempFile('file', 'x'), 'r');
      const buffer = t.room(1);
      for (let round = 0; round < 20; round++) {
        // The read is finished and queued before the dispatch begins, so that it shares a batch with the post before it.
        port.post(1);
        const operation = file.read(buffer, { position: 0 });
        port.flush();
        // Where the port tells: a port whose packets are the kernel's may not, and has a while.
        const until = t.now() + 20;
        do {
          t.sleepSync(1);
          port.flush();
        } while (port.stats().queued < 2 && t.now() < until);
        port.post(2);
        const head = await new Promise<Packet>((resolve) => {
          const consumer = port.dispatch((packet) => {
            consumer.stop();
            resolve(packet);
            if (packet.operation === operation) return;
            t.equal(operation.pending, true, 'pending of an operation whose packet has not been delivered');
            t.equal(port.inFlight, 1, 'inFlight');
            t.throws(() => file.read(buffer, operation), { code: 'ERR_OPERATION_PENDING' }, 'starting it again');
            port.post(3);
          });
        });
        t.equal(head.key, 1, 'key of the first packet');
        const keys = t.takeSync(port, 3).map((packet) => packet.key);
        t.deepEqual(
          keys.filter((key) => key !== 50),
          [2, 3],
          'keys of the posts: what was queued comes before the handler’s',
        );
        t.ok(keys.includes(50), 'the read’s packet is among them');
        t.less(keys.indexOf(50), keys.indexOf(3), 'place of the read, before the handler’s post');
        t.equal(operation.pending, false, 'pending after the packet');
        t.nothing(port);
      }
    },
  },
  {
    id: 'DISP-02/stop',
    clause: 'DISP-02',
    title: 'stop leaves the rest queued, in order, for any way of getting',
    reference: 'a packet is dequeued when it is given to the program, not before',
    async run(t) {
      const port = t.createPort();
      for (const way of ['getSync', 'getManySync', 'get', 'getMany', 'iterator', 'dispatch'] as const) {
        for (const stopAt of [0, 5, 127, 128, 200]) {
          for (const key of range(400)) port.post(key);
          let calls = 0;
          await new Promise<void>((resolve) => {
            const consumer = port.dispatch((packet) => {
              t.equal(packet.key, calls++, 'key in the handler');
              if (packet.key !== stopAt) return;
              consumer.stop();
              resolve();
            });
          });
          await t.turn();
          t.equal(calls, stopAt + 1, 'calls of the handler');
          const rest = await t.take(port, 399 - stopAt, { way });
          t.deepEqual(
            rest.map((packet) => packet.key),
            range(400).slice(stopAt + 1),
            `keys of the rest by ${way}`,
          );
          t.nothing(port);
        }
      }
    },
  },
]);
