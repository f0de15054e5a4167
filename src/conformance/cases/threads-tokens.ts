// THREAD-06 and -07: who may attach to a port: a thread of its process that has its token, and nobody with anything else.

import { Crew, sharedPort, tokenOf } from '../support/threads.js';
import type { ConformanceCase, Context, PortToken, SharedPort } from '../types.js';
import { variants } from '../variants.js';

const tokens = 'The portable rule: a port’s handle is valid in the process that made it, and can’t be made up';

/** A token with something changed. */
const forged: Record<string, (t: Context, token: PortToken, other: PortToken) => unknown> = {
  index: (_, token) => ({ ...token, index: token.index + 1 }),
  generation: (_, token) => ({ ...token, generation: token.generation + 1 }),
  secret: (_, token, other) => ({ ...token, secret: other.secret }),
  arena: (_, token) => ({ ...token, arena: new SharedArrayBuffer(token.arena.byteLength) }),
  'arena of another port': (_, token, other) => ({ ...token, arena: other.arena }),
  'made up': (t, token) => ({ index: t.random.int(8), generation: t.random.int(8), secret: 'secret', arena: token.arena }),
  empty: () => ({}),
  'one part less': (_, token) => ({ index: token.index, generation: token.generation, secret: token.secret }),
  'wrong types': (_, token) => ({ index: '0', generation: null, secret: 7, arena: token }),
  'wild numbers': (_, token) => ({ ...token, index: 2 ** 53, generation: -1 }),
  array: (_, token) => [token.index, token.generation, token.secret, token.arena],
};

export const cases: readonly ConformanceCase[] = [
  {
    id: 'THREAD-06',
    clause: 'THREAD-06',
    title: 'a token attached twice in one thread gives the same port',
    reference: 'The portable rule: one object per port and thread, however often it is asked for',
    async run(t) {
      const port = sharedPort(t, { concurrency: 3, maxOperations: 77, arenaBytes: 131_072 });
      const { token } = port;
      t.ok(t.api.CompletionPort.attach(token) === port, 'the creator’s own attach gives the port itself');
      t.ok(t.api.CompletionPort.attach(structuredClone(token)) === port, 'so it does with a clone of the token');
      const crew = await Crew.start(t, null, 2);
      const seen = await crew.everyone(
        (w) => {
          const port = w.attach(w.data.token);
          const again = w.attach(w.data.token);
          const fromPort = w.attach(port.token);
          return {
            same: [port === again, port === fromPort, port.shared, port instanceof w.api.CompletionPort],
            figures: [port.concurrency, port.maxOperations, port.arena.byteLength, port.backend.name],
            threads: port.stats().threads,
          };
        },
        { token },
      );
      for (const { same, figures } of seen) {
        t.deepEqual(same, [true, true, true, true], 'the same object each time, a shared port');
        t.deepEqual(figures, [3, 77, port.arena.byteLength, port.backend.name], 'the port’s figures in another thread');
      }
      t.atLeast(port.arena.byteLength, 131_072, 'the arena’s bytes');
      const { threads } = port.stats();
      if (typeof threads === 'number') t.equal(threads, 3, 'threads attached, each once');
    },
  },
  {
    id: 'THREAD-06/token',
    clause: 'THREAD-06',
    title: 'a token is a frozen plain object that brings the arena along, the same each time, different for each port',
    reference: tokens,
    async run(t) {
      const port = sharedPort(t);
      const other = sharedPort(t);
      const token = tokenOf(port);
      t.equal(Object.getPrototypeOf(token), Object.prototype, 'its prototype');
      t.equal(Object.isFrozen(token), true, 'whether it is frozen');
      t.deepEqual(Object.keys(token).sort(), ['arena', 'generation', 'index', 'secret'], 'its properties');
      t.ok(token.arena === port.arena, 'its arena is the port’s');
      t.deepEqual({ ...tokenOf(port), arena: 0 }, { ...token, arena: 0 }, 'the token, asked for again');
      t.notEqual(JSON.stringify(token.secret), JSON.stringify(tokenOf(other).secret), 'the secrets of two ports');
      const view = port.allocate(64).fill(77);
      const crew = await Crew.start(t, port, 1);
      const [bytes] = await crew.everyone(
        (w) => {
          const view = new Uint8Array(w.port.arena, w.data.offset, 64);
          const before = view[63];
          view[0] = 78;
          return [before, w.port.arena.byteLength];
        },
        { offset: view.byteOffset },
      );
      t.deepEqual(bytes, [77, port.arena.byteLength], 'what another thread sees in the arena');
      t.equal(view[0], 78, 'what this thread sees that the other one wrote');
    },
  },
  {
    id: 'THREAD-06/closed',
    clause: 'THREAD-06',
    title: 'the token of a closed port throws ERR_PORT_CLOSED, in every thread, also when others have been created since',
    reference: tokens,
    async run(t) {
      const crew = await Crew.start(t, null, 1);
      const codes: string[] = [];
      for (let round = 0; round < 8; round++) {
        const port = sharedPort(t);
        const token = tokenOf(port);
        if (round % 2 === 0) await crew.everyone((w) => void w.attach(w.data.token), { token });
        port.close();
        sharedPort(t);
        t.throws(() => t.api.CompletionPort.attach(token), { code: 'ERR_PORT_CLOSED' }, 'attaching in the creator’s thread');
        codes.push(...(await crew.everyone((w) => w.codeOf(() => w.attach(w.data.token)), { token })));
        t.throws(() => port.token, { code: 'ERR_PORT_CLOSED' }, 'the token of a closed port');
      }
      t.deepEqual(codes, Array(8).fill('ERR_PORT_CLOSED'), 'attaching in another thread');
    },
  },

  {
    id: 'THREAD-07/private',
    clause: 'THREAD-07',
    title: 'a port that isn’t shared has no token and can’t be detached from: ERR_NOT_SHARED',
    reference: tokens,
    run(t) {
      sharedPort(t);
      const port = t.createPort() as SharedPort;
      t.equal(port.shared, false, 'shared');
      t.throws(() => port.token, { code: 'ERR_NOT_SHARED' }, 'its token');
      t.throws(() => port.detach(), { code: 'ERR_NOT_SHARED' }, 'detach');
      port.post(1);
      t.equal(t.takeOneSync(port).key, 1, 'key of a packet afterwards');
    },
  },
  ...variants(
    { clause: 'THREAD-07', title: 'a token that was changed or made up throws ERR_INVALID_ARG_VALUE', reference: tokens },
    forged,
    async (t, forge) => {
      const port = sharedPort(t);
      const other = sharedPort(t);
      const token = forge(t, tokenOf(port), tokenOf(other)) as PortToken;
      t.throws(
        () => t.api.CompletionPort.attach(token),
        { code: 'ERR_INVALID_ARG_VALUE', name: 'TypeError' },
        'attaching with it',
      );
      const crew = await Crew.start(t, null, 1);
      const codes = await crew.everyone((w) => w.codeOf(() => w.attach(w.data.token)), { token });
      t.deepEqual(codes, ['ERR_INVALID_ARG_VALUE'], 'attaching with it in another thread');
      // Neither port has taken harm.
      for (const each of [port, other]) {
        each.post(1);
        t.equal(t.takeOneSync(each).key, 1, 'key of a packet afterwards');
        const { threads } = each.stats();
        if (typeof threads === 'number') t.equal(threads, 1, 'threads attached');
      }
    },
  ),
  {
    id: 'THREAD-07/types',
    clause: 'THREAD-07',
    title: 'what is no object throws ERR_INVALID_ARG_TYPE; getters and proxies can do no harm',
    reference: tokens,
    run(t) {
      const port = sharedPort(t);
      for (const value of [undefined, null, 0, 7, 'token', true, 1n, Symbol('token')]) {
        t.throws(
          () => t.api.CompletionPort.attach(value as unknown as PortToken),
          { code: 'ERR_INVALID_ARG_TYPE', name: 'TypeError' },
          `attaching with ${String(value)}`,
        );
      }
      const token = tokenOf(port);
      const throwing = {
        ...token,
        get index(): number {
          throw Object.assign(new Error('of a getter'), { code: 'MINE' });
        },
      };
      t.throws(() => t.api.CompletionPort.attach(throwing), { code: ['MINE', 'ERR_INVALID_ARG_VALUE'] }, 'a getter that throws');
      let reads = 0;
      const changing = {
        ...token,
        get index(): number {
          return token.index + reads++;
        },
      };
      try {
        // It may be taken, or not: what counts is that nothing breaks.
        t.ok(t.api.CompletionPort.attach(changing) === port, 'the port of a token whose index is read once');
      } catch (error) {
        t.equal((error as { code?: string }).code, 'ERR_INVALID_ARG_VALUE', 'code for a token that changes while it is read');
      }
      port.post(1);
      t.equal(t.takeOneSync(port).key, 1, 'key of a packet afterwards');
    },
  },
  {
    id: 'THREAD-07/foreign-process',
    clause: 'THREAD-07',
    title: 'the token of another process throws',
    reference: tokens,
    async run(t) {
      const port = sharedPort(t);
      const result = await t.child(
        `const port = createPort({ shared: true });
         const { index, generation, secret } = port.token;
         console.log(JSON.stringify({ index, generation, secret }));
         port.close();`,
      );
      t.equal(result.code, 0, `exit code of the other process (${result.stderr})`);
      const token: PortToken = { ...(JSON.parse(result.stdout) as PortToken), arena: tokenOf(port).arena };
      t.throws(() => t.api.CompletionPort.attach(token), { code: 'ERR_INVALID_ARG_VALUE' }, 'attaching with it');
    },
  },
];
