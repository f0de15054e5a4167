// ERR-02 and -03: every public call with every wrong type and range, generated from a table, and calls in any order. Each is answered with
// an ERR_ code before anything starts, and the port works afterwards.

import { eventLoops } from '../support/inverted.js';
import type { ConformanceCase, Context } from '../types.js';
import { variants } from '../variants.js';
import { childAnswer } from './buffers.js';
import { anyOrder } from './misuse-script.js';
import { families, RANGE, type Things } from './misuse-table.js';

const refusal = 'ERROR_INVALID_PARAMETER (87): the call fails and no packet will come';

const VALUE = 'ERR_INVALID_ARG_VALUE';

/** The good arguments with one value, at `where`, replaced. */
function spoiled(good: readonly unknown[], where: string, value: unknown): unknown[] {
  const args = [...good];
  const [at, property] = where.split('.');
  const index = Number(at);
  args[index] = property === undefined ? value : { ...(args[index] as object | null), [property]: value };
  return args;
}

function show(value: unknown): string {
  return typeof value === 'symbol' || typeof value === 'bigint'
    ? String(value)
    : (JSON.stringify(value) ?? String(value)).slice(0, 60);
}

function things(t: Context): Things {
  const port = t.createPort();
  const path = t.tempFile('file', 'abcdef');
  const socket = t.track(t.api.TcpSocket.openSync());
  port.associate(socket, 3);
  return { port, path, file: t.openFile(port, 1, path), listener: t.listener(port, 2), socket };
}

export const cases: readonly ConformanceCase[] = [
  ...variants(
    {
      clause: 'ERR-03',
      title: 'every call of the family with every wrong type and range: its ERR_ code, nothing started, and the port works',
      reference: refusal,
    },
    families,
    async (t, family) => {
      const all = things(t);
      const { port, file } = all;
      const fds = t.fdCount();
      let tried = 0;
      for (const [name, { call, good, bad, async }] of Object.entries(family(t, all))) {
        for (const [where, values] of Object.entries(bad)) {
          for (const [value, ...codes] of values) {
            const args = spoiled(good(), where, value);
            const what = `${name} with ${show(value)} as argument ${where}`;
            const run = (): unknown => Reflect.apply(call, undefined, args);
            const shape = { code: codes };
            const error = async === true ? await t.rejects((async () => run())(), shape, what) : t.throws(run, shape, what);
            const { code } = error;
            t.equal(error.constructor.name, code === RANGE ? 'RangeError' : 'TypeError', `class of the error of ${what}`);
            t.atLeast(error.message.length, 10, `length of the message of ${what}`);
            t.equal(port.inFlight, 0, `inFlight after ${what}`);
            tried++;
          }
        }
      }
      t.atLeast(tried, 10, 'calls that were tried');
      // Nothing was started, queued or lost; what is given rightly still works.
      t.nothing(port);
      t.less(t.fdCount(), fds + 100, 'descriptors (fresh sockets are closed after the case)');
      file.size();
      t.equal(t.takeOneSync(port).result, 6, 'an ordinary operation afterwards');
    },
  ),

  ...variants(
    { clause: 'ERR-02', title: 'the good arguments that the refusals are made from are accepted', reference: refusal },
    Object.fromEntries(Object.entries(families).map(([name, family]) => [`${name}-good`, family])),
    async (t, family) => {
      const all = things(t);
      for (const [name, { call, good }] of Object.entries(family(t, all))) {
        const before = all.port.inFlight;
        try {
          await Reflect.apply(call, undefined, good());
        } catch (error) {
          t.fail(`${name} with good arguments threw ${String(error)}`);
        }
        t.less(all.port.inFlight - before, 2, `operations that ${name} started`);
      }
    },
  ),

  {
    id: 'ERR-02/before',
    clause: 'ERR-02',
    title: 'misuse is found before anything starts: an operation object that was refused is as it was',
    reference: refusal,
    run(t) {
      const { port, file, socket, listener } = things(t);
      const operation = new t.api.Operation('context', { id: 4 });
      const attempts: [string, () => unknown][] = [
        ['position', () => file.read(t.room(4), Object.assign(operation, { position: -1 }))],
        ['length', () => file.read(t.room(4), Object.assign(operation, { position: 0, length: 5 }))],
        ['timeout', () => listener.accept(Object.assign(operation, { length: undefined, timeout: -1 }))],
        ['signal', () => socket.recv(t.room(4), Object.assign(operation, { timeout: undefined, signal: {} }))],
        ['id', () => socket.recv(t.room(4), Object.assign(operation, { signal: undefined, id: -1 }))],
        ['how', () => socket.shutdown(Object.assign(operation, { id: 4, how: 'other' }))],
        ['address', () => socket.connect({ host: 'localhost', port: 1 }, operation)],
        ['handle', () => t.track(t.api.TcpSocket.openSync()).recv(t.room(4), operation)],
      ];
      const started = port.stats().operationsStarted;
      for (const [name, attempt] of attempts) {
        const error = t.throws(attempt, {}, name);
        t.ok(/^ERR_/.test(error.code ?? ''), `the code of a wrong ${name}, which is ${error.code}`);
        t.equal(operation.pending, false, `pending after a wrong ${name}`);
        t.equal(operation.kind, null, `kind after a wrong ${name}`);
        t.equal(operation.cancel(), false, `cancel() after a wrong ${name}`);
        t.equal(port.inFlight, 0, `inFlight after a wrong ${name}`);
      }
      t.equal(port.stats().operationsStarted, started, 'operationsStarted');
      t.ok(
        /dns/.test(t.throws(() => socket.connect({ host: 'localhost', port: 1 }), { code: VALUE }, 'a name').message),
        'the refusal of a name says where names are looked up',
      );
      file.size(operation);
      t.ok(t.takeOneSync(port).operation === operation, 'the operation works after all refusals');
    },
  },

  {
    id: 'ERR-03/getters',
    clause: 'ERR-03',
    title: 'options with getters that throw, start, close or change things: an error or a proper start, never half of one',
    reference: refusal,
    run(t) {
      for (const name of ['position', 'offset', 'length', 'timeout', 'signal', 'id', 'context']) {
        const port = t.createPort();
        const file = t.openFile(port, 1, t.tempFile(undefined, 'abcdef'));
        const thrown = new Error('out of a getter');
        const withGetter = (get: () => unknown): object =>
          Object.defineProperty(name === 'position' ? {} : { position: 0 }, name, { get, enumerable: true });
        const start = (get: () => unknown): unknown => file.read(t.room(4), withGetter(get));
        try {
          start(() => {
            throw thrown;
          });
          t.fail(`a start whose ${name} throws`);
        } catch (error) {
          t.ok(error === thrown, `what a start whose ${name} throws, throws`);
        }
        t.equal(port.inFlight, 0, `inFlight after a ${name} that threw`);
        // A start within a start.
        const good: Readonly<Record<string, unknown>> = { position: 0, offset: 0, length: 4, id: 0 };
        start(() => {
          file.size();
          return good[name];
        });
        t.equal(port.inFlight, 2, `inFlight after a start within the ${name} of another`);
        for (const packet of t.takeSync(port, 2)) t.succeeded(packet, packet.kind);
        // The handle closed, or the port, in the middle of it.
        for (const close of [() => file.close(), () => port.close()]) {
          try {
            start(() => {
              close();
              return good[name];
            });
          } catch (error) {
            const { code } = error as { code?: string };
            t.ok(
              ['ERR_HANDLE_CLOSED', 'ERR_PORT_CLOSED'].includes(code ?? ''),
              `what a close within ${name} leads to, which is ${code}`,
            );
          }
          if (port.isClosed) break;
          // Started or refused: what was started ends, with the handle.
          for (const packet of t.takeSync(port, port.inFlight))
            t.failed(packet, { code: ['ECANCELED', 'ERR_HANDLE_CLOSED', 'EBADF'] }, packet.kind);
        }
      }
    },
  },

  {
    id: 'ERR-03/receivers',
    clause: 'ERR-03',
    title: 'methods on foreign receivers, and constructors that aren’t offered, throw',
    reference: refusal,
    run(t) {
      const { port, file, listener, socket } = things(t);
      const operation = new t.api.Operation();
      const foreign = [{}, null, undefined, 5, Object.create(Object.getPrototypeOf(port) as object), function named() {}];
      for (const object of [port, file, listener, socket, operation]) {
        const others = [...foreign, object === port ? file : port, Object.create(object)];
        for (
          let prototype = Object.getPrototypeOf(object) as object | null;
          prototype !== null && prototype !== Object.prototype;
        ) {
          for (const name of Reflect.ownKeys(prototype)) {
            // Dispose is close() by another name, of whatever has one.
            if (name === 'constructor' || name === Symbol.dispose) continue;
            const descriptor = Reflect.getOwnPropertyDescriptor(prototype, name);
            const method: unknown = descriptor?.get ?? descriptor?.value;
            if (typeof method !== 'function' || name === 'token') continue;
            for (const receiver of others) {
              let result: unknown;
              try {
                result = Reflect.apply(method, receiver, []);
              } catch (error) {
                t.ok(error instanceof Error, `what ${String(name)} throws on a foreign receiver`);
                continue;
              }
              // A promise may be what says it; anything else must not have worked.
              t.ok(result instanceof Promise, `${String(name)} on a foreign receiver returned ${show(result)}`);
              (result as Promise<unknown>).catch(() => {});
            }
          }
          prototype = Object.getPrototypeOf(prototype) as object | null;
        }
      }
      for (const Class of [t.api.CompletionPort, t.api.FileHandle, t.api.TcpListener, t.api.TcpSocket]) {
        for (const args of [[], [0], [file.id], [socket.id], [{}]]) {
          t.throws(() => Reflect.construct(Class, args), { name: 'TypeError' }, `new ${Class.name}(${args.map(show).join()})`);
        }
      }
      t.equal(port.inFlight, 0, 'inFlight');
      file.size();
      t.equal(t.takeOneSync(port).result, 6, 'an ordinary operation afterwards');
    },
  },

  {
    id: 'ERR-03/order',
    clause: 'ERR-03',
    title: 'thousands of public calls with anything, in any order and state: results and errors, no crash, no hang',
    reference: refusal,
    timeoutMs: 30_000,
    async run(t) {
      const path = t.tempFile('file', 'abcdef');
      const code = anyOrder(path, t.tempDir(), t.random.int(2 ** 32), t.count(20_000, 500), ['plain', ...eventLoops(t)]);
      const answer = await childAnswer<{ wrong: string[]; threw: number; returned: number }>(t, code, {
        gc: true,
        timeoutMs: 25_000,
      });
      t.deepEqual(answer.wrong, [], 'what went wrong');
      t.atLeast(answer.threw, 100, 'calls that threw');
      t.atLeast(answer.returned, 100, 'calls that returned');
    },
  },
];
