// GET-01 to GET-04 and GET-10: what one get gives, and when it gives up. Several gets at once are in get-mixed.ts, what keeps the
// process alive (GET-07) in get-alive.ts.

import { asyncGetters, getters, quietPeer, waitFor } from '../support/getting.js';
import { alsoInverted } from '../support/inverted.js';
import { ownTime } from '../support/starved.js';
import type { ConformanceCase } from '../types.js';
import { forEachWay, variants, waysAsync } from '../variants.js';
import { unusedPort } from './tcp-common.js';

const timeouts = [0.25, 1, 4.5, 10, 30, 60.7];

export const cases: ConformanceCase[] = alsoInverted(
  [
    ...variants(
      {
        clause: 'GET-01',
        title: 'an empty port and timeout 0 give nothing, at once',
        reference: 'GetQueuedCompletionStatus with dwMilliseconds 0 returns FALSE with WAIT_TIMEOUT and a NULL overlapped',
      },
      getters,
      async (t, get) => {
        const port = t.createPort();
        const check = async (when: string): Promise<void> => {
          const begin = ownTime();
          t.deepEqual(await get(port, 0), [], `packets of a port ${when}`);
          t.less(ownTime() - begin, 50, `milliseconds that it took on a port ${when}`);
        };
        await check('just created');
        port.post(1);
        t.equal((await get(port, 0))[0]?.key, 1, 'key of the packet that is there, with timeout 0');
        await check('that is empty again');
        const listener = t.listener(port, 1);
        listener.accept();
        await check('with an operation in flight');
        t.equal(port.inFlight, 1, 'inFlight');
      },
    ),
    {
      id: 'GET-01/null',
      clause: 'GET-01',
      title: 'nothing is null, and an empty array where many are asked for',
      reference: 'lpOverlapped is NULL; ulNumEntriesRemoved is 0',
      async run(t) {
        const port = t.createPort();
        t.equal(port.getSync(0), null, 'getSync(0)');
        t.deepEqual(port.getManySync(5, 0), [], 'getManySync(5, 0)');
        t.equal(await port.get({ timeout: 0 }), null, 'get({ timeout: 0 })');
        t.deepEqual(await port.getMany(5, { timeout: 0 }), [], 'getMany(5, { timeout: 0 })');
      },
    },

    ...variants(
      {
        clause: 'GET-02',
        title: 'with timeout t it gives up not before t, and not later than t + 50 ms',
        reference: 'dwMilliseconds: the time the caller is willing to wait; WAIT_TIMEOUT when it has elapsed',
      },
      getters,
      async (t, get) => {
        const port = t.createPort();
        for (const timeout of timeouts) {
          // Never early is without exception. The upper limit is of an idle machine: one of several tries has to keep it.
          let best = Number.POSITIVE_INFINITY;
          for (let attempt = 0; attempt < 10 && best >= timeout + 50; attempt++) {
            const begin = t.now();
            t.equal((await get(port, timeout)).length, 0, 'packets of an empty port');
            const took = t.now() - begin;
            t.atLeast(took, timeout, `milliseconds of a get with timeout ${timeout}`);
            best = Math.min(best, took);
          }
          t.less(best, timeout + 50, `milliseconds of the quickest of 10 gets with timeout ${timeout}`);
        }
      },
    ),
    ...variants(
      {
        clause: 'GET-02',
        title: 'never early, whatever fraction of the loop’s millisecond has gone when it asks',
        reference: 'dwMilliseconds: counted from the call',
      },
      Object.fromEntries(Object.entries(getters).map(([name, get]) => [`late ${name}`, get])),
      async (t, get) => {
        const port = t.createPort();
        for (let round = 0; round < 60; round++) {
          const timeout = 1 + t.random.next() * 2;
          await t.turn();
          t.spin(t.random.next());
          const begin = t.now();
          t.equal((await get(port, timeout)).length, 0, 'packets of an empty port');
          t.atLeast(t.now() - begin, timeout, `milliseconds of a get with timeout ${timeout}`);
        }
      },
    ),
    ...variants(
      {
        clause: 'GET-02',
        title: 'fractions and Infinity are accepted; NaN, negatives and what is no number are refused and lose no packet',
        reference: 'INFINITE waits for ever; a DWORD has neither sign nor NaN',
      },
      Object.fromEntries(Object.entries(getters).map(([name, get]) => [`range ${name}`, get])),
      async (t, get) => {
        const port = t.createPort();
        for (const timeout of [undefined, Number.POSITIVE_INFINITY, 0.001, 1e-300, 0, 2 ** 40 + 0.5, Number.MAX_VALUE]) {
          port.post(1);
          const packets = await t.within(2000, get(port, timeout), `a get with timeout ${timeout}`);
          t.equal(packets.length, 1, `packets with timeout ${timeout}`);
        }
        port.post(2);
        for (const timeout of [Number.NaN, -1, -0.001, Number.NEGATIVE_INFINITY, -(2 ** 53)]) {
          await t.rejects(
            (async () => get(port, timeout))(),
            { code: 'ERR_OUT_OF_RANGE', name: 'RangeError' },
            `timeout ${timeout}`,
          );
        }
        for (const timeout of ['5', null, {}, 5n, true]) {
          const wrong = (async () => get(port, timeout as unknown as number))();
          await t.rejects(wrong, { code: 'ERR_INVALID_ARG_TYPE', name: 'TypeError' }, `timeout ${typeof timeout}`);
        }
        t.equal(t.takeOneSync(port).key, 2, 'key of the packet that was there all the time');
      },
    ),
    ...variants(
      {
        clause: 'GET-02',
        title: 'signals that interrupt the wait neither end it early nor make it longer',
        reference: 'a wait ends with a packet, by its time or with the port, by nothing else',
        needs: ['linux'],
      },
      { 'signals getSync': getters.getSync, 'signals getManySync': getters.getManySync, 'signals get': getters.get },
      async (t, get) => {
        const port = t.createPort();
        let signals = 0;
        const listener = (): void => void signals++;
        process.on('SIGUSR2', listener);
        t.cleanup(() => void process.off('SIGUSR2', listener));
        const worker = t.worker(
          `let n = 0; const send = () => { process.kill(process.pid, 'SIGUSR2'); if (++n < 40) setTimeout(send, 3); }; send();`,
        );
        const done = new Promise((resolve) => worker.once('exit', resolve));
        let best = Number.POSITIVE_INFINITY;
        for (let round = 0; round < 4; round++) {
          const begin = t.now();
          t.equal((await get(port, 100)).length, 0, 'packets of an empty port');
          t.atLeast(t.now() - begin, 100, 'milliseconds of a get with timeout 100');
          best = Math.min(best, t.now() - begin);
        }
        t.less(best, 150, 'milliseconds of the quickest get with timeout 100');
        await t.within(5000, done, 'the worker’s end');
        await t.eventually(() => signals > 0, 'a signal arrived');
      },
    ),

    ...forEachWay(
      {
        clause: 'GET-03',
        title: 'a failed operation is still a packet, with its key, its operation and an error',
        reference:
          'GetQueuedCompletionStatus returns FALSE with a non-NULL overlapped; the Ex form TRUE, the status in the OVERLAPPED',
      },
      async (t, way) => {
        const port = t.createPort();
        const readOnly = t.openFile(port, 11, t.tempFile('file', 'x'), 'r');
        const closedPort = unusedPort(t);
        const socket = t.track(t.api.TcpSocket.openSync());
        port.associate(socket, 12);
        const listener = t.listener(port, 13);
        const write = readOnly.write(new Uint8Array(1), { position: 0, context: 'a', id: 1 });
        const connect = socket.connect({ host: '127.0.0.1', port: closedPort }, { context: 'b', id: 2 });
        const accept = listener.accept({ context: 'c', id: 3 });
        accept.cancel();
        const wanted = new Map([
          [write, { kind: 'write', key: 11, code: 'EBADF', context: 'a', id: 1 }],
          [connect, { kind: 'connect', key: 12, code: 'ECONNREFUSED', context: 'b', id: 2 }],
          [accept, { kind: 'accept', key: 13, code: 'ECANCELED', context: 'c', id: 3 }],
        ]);
        for (const packet of await t.take(port, 3, { way })) {
          const operation = t.some(packet.operation, 'operation');
          const expected = t.some(wanted.get(operation as typeof write), 'an operation whose packet has not come yet');
          wanted.delete(operation as typeof write);
          t.equal(packet.kind, expected.kind, 'kind');
          t.equal(packet.key, expected.key, 'key');
          t.equal(packet.operationId, expected.id, 'operationId');
          t.equal(operation.context, expected.context, 'context');
          t.equal(packet.bytesTransferred, 0, 'bytes');
          t.equal(packet.result, undefined, 'result');
          t.failed(packet, { code: expected.code }, expected.kind);
          t.equal(operation.pending, false, 'pending after the packet');
        }
        t.equal(port.inFlight, 0, 'inFlight');
        t.nothing(port);
      },
    ),

    ...forEachWay(
      {
        clause: 'GET-04',
        title: 'a waiting get is ended by a post, within milliseconds',
        reference: 'PostQueuedCompletionStatus satisfies an outstanding call to GetQueuedCompletionStatus',
      },
      async (t, way) => {
        const port = t.createPort();
        let best = Number.POSITIVE_INFINITY;
        for (let round = 0; round < 20; round++) {
          const { packet } = waitFor(port, way);
          // The loop goes to sleep before the post, from a timer as from an immediate.
          await (round % 2 === 0 ? t.sleep(3) : t.turn());
          const begin = t.now();
          port.post(round, 3, { id: 9 });
          const got = await t.within(2000, packet, 'the packet');
          best = Math.min(best, t.now() - begin);
          t.equal(got.key, round, 'key');
          t.equal(got.bytesTransferred, 3, 'bytes');
          t.equal(got.operationId, 9, 'operationId');
        }
        t.less(best, 10, 'milliseconds from the post to the packet, in the quickest of 20 rounds');
        t.nothing(port);
      },
      waysAsync,
    ),
    {
      id: 'GET-04/sync',
      clause: 'GET-04',
      title: 'a synchronous get without a limit returns what was posted before it',
      reference: 'GetQueuedCompletionStatus returns at once where a packet is queued',
      run(t) {
        const port = t.createPort();
        for (const get of [() => port.getSync(), () => port.getSync(Number.POSITIVE_INFINITY), () => port.getManySync(3)[0]]) {
          port.post(4);
          t.equal(t.some(get() ?? null, 'a packet').key, 4, 'key');
        }
      },
    },

    ...variants(
      {
        clause: 'GET-10',
        title: 'timeouts beyond what timers of 31 or 32 bits can hold don’t end early',
        reference: 'the portable rule: any finite time is waited for; INFINITE alone means no limit',
      },
      asyncGetters,
      async (t, get) => {
        const port = t.createPort();
        const warnings = t.warnings();
        for (const timeout of [2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 5, 2 ** 53 - 1, 1e300]) {
          let settled = false;
          const waiting = get(port, timeout).finally(() => {
            settled = true;
          });
          await t.sleep(30);
          t.equal(settled, false, `a get with timeout ${timeout} has ended after 30 ms`);
          port.post(1);
          t.equal((await t.within(2000, waiting, 'the get')).length, 1, 'packets');
        }
        await t.turn();
        t.deepEqual(warnings.map(String), [], 'process warnings');
      },
    ),
    ...variants(
      {
        clause: 'GET-10',
        title: 'a blocking get with such a timeout waits for its packet',
        reference: 'the portable rule: any finite time is waited for',
      },
      { getSync: getters.getSync, getManySync: getters.getManySync },
      async (t, get) => {
        const port = t.createPort();
        const number = await quietPeer(t, 40);
        const socket = t.track(t.api.TcpSocket.openSync());
        port.associate(socket, 5);
        socket.connect({ host: '127.0.0.1', port: number });
        t.succeeded(t.takeOneSync(port), 'the connect');
        for (const timeout of [2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1, 1e300]) {
          socket.send(new Uint8Array(1));
          t.succeeded(t.takeOneSync(port), 'the send');
          socket.recv(t.room(1));
          t.doing(`a blocking get with timeout ${timeout}`);
          // The answer comes 40 ms later: a get that ends early returns without it.
          const packets = await get(port, timeout);
          t.equal(packets[0]?.kind, 'recv', `kind of the packet of a get with timeout ${timeout}`);
        }
      },
    ),
  ],
  ['GET-02', 'GET-04'],
);
