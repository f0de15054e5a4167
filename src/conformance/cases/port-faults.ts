// PORT-05 to PORT-07: a machine that refuses. The refusals are real ones: the case's child runs under a seccomp filter that answers
// io_uring's system calls with an error, as container runtimes do, or without the right to lock memory.

import { type Denial, deny } from '../support/deny.js';
import type { ChildResult, ConformanceCase, Context } from '../types.js';
import { variants } from '../variants.js';

/** What a child tells of `create` with an explicit backend, of `auto`, and of what they leave behind. */
interface Attempt {
  readonly name?: string;
  readonly fallbackReason?: string | null;
  readonly stats?: Readonly<Record<string, unknown>>;
  readonly code?: string;
  readonly message?: string;
}
interface Said {
  readonly explicit: Attempt;
  readonly auto: Attempt;
  readonly probe: { name: string; available: boolean; reason: string | null };
  readonly others: readonly string[];
  readonly fds: readonly [number, number];
  readonly worked: boolean;
}

// Both kinds of create are tried twice: the second time nothing that is opened once a process is new, so the descriptors must
// be the same before and after. A port that was made has to work: a read, a post and a wake-up of the event loop.
const attempt = `
import { readdirSync, writeFileSync } from 'node:fs';
const fds = () => readdirSync('/proc/self/fd').length;
async function works(port) {
  const file = FileHandle.openSync(process.argv[1], 'r');
  port.associate(file, 1);
  const buffers = [new Uint8Array(6), port.allocate(6), new Uint8Array(new SharedArrayBuffer(6))];
  for (const buffer of buffers) file.read(buffer, { position: 0 });
  const packets = [await port.get({ timeout: 3000 }), await port.get({ timeout: 3000 }), await port.get({ timeout: 3000 })];
  port.post(9);
  const post = port.getSync(1000);
  file.close();
  return packets.every((packet) => packet !== null && packet.error === null && packet.bytesTransferred === 6) && post?.key === 9 &&
    buffers.every((buffer) => Buffer.from(buffer).toString() === 'import');
}
let worked = true;
async function create(name) {
  try {
    const port = CompletionPort.create({ backend: name });
    const result = { name: port.backend.name, fallbackReason: port.backend.fallbackReason ?? null };
    worked = (await works(port)) && worked;
    result.stats = port.stats();
    port.close();
    await port.closed;
    return result;
  } catch (error) {
    return { code: error.code, message: error.message };
  }
}
await create(backend);
await create('auto');
const before = fds();
const explicit = await create(backend);
const auto = await create('auto');
const all = CompletionPort.probe();
const { name, available, reason } = all.find((entry) => entry.name === backend);
console.log(JSON.stringify({ explicit, auto, fds: [before, fds()], worked,
  probe: { name, available, reason }, others: all.filter((entry) => entry.available).map((entry) => entry.name) }));
`;

const plainEnv = { COMPLETION_PORT_BACKEND: undefined, COMPLETION_PORT_DISABLE: undefined };

function said(t: Context, result: ChildResult): Said {
  t.equal(result.signal, null, `signal that ended the child (${result.stderr})`);
  t.equal(result.code, 0, `exit code of the child (${result.stderr})`);
  const answer = JSON.parse(result.stdout) as Said;
  t.equal(answer.fds[1], answer.fds[0], 'descriptors after create');
  t.equal(answer.worked, true, 'every port that was made worked');
  return answer;
}

async function attempts(t: Context, wrap: readonly string[]): Promise<Said> {
  return said(t, await t.child(attempt, { wrap, env: plainEnv, timeoutMs: 15_000 }));
}

/** The backend can't be used here: explicit throws, auto falls back or says that there is nothing to fall back to. */
function checkUnavailable(t: Context, answer: Said, cause: RegExp): void {
  t.equal(answer.explicit.code, 'ERR_BACKEND_UNAVAILABLE', `code of an explicit create (${answer.explicit.message})`);
  t.ok(cause.test(answer.explicit.message ?? ''), `the likely cause, ${cause}, in: ${answer.explicit.message}`);
  t.equal(answer.probe.available, false, 'available in probe()');
  t.ok(cause.test(answer.probe.reason ?? ''), `the likely cause, ${cause}, in probe(): ${answer.probe.reason}`);
  if (answer.others.length > 0) {
    t.equal(answer.auto.name, answer.others[0], `what auto fell back to (${answer.auto.message})`);
    t.ok(
      cause.test(answer.auto.fallbackReason ?? ''),
      `the likely cause, ${cause}, in fallbackReason: ${answer.auto.fallbackReason}`,
    );
  } else {
    t.equal(answer.auto.code, 'ERR_BACKEND_UNAVAILABLE', `code of auto without any other backend (${answer.auto.message})`);
    t.ok(cause.test(answer.auto.message ?? ''), `the likely cause, ${cause}, in: ${answer.auto.message}`);
    t.ok(/no other backend/i.test(answer.auto.message ?? ''), `that there is no other backend, in: ${answer.auto.message}`);
  }
}

const reference = 'the portable rule: an explicit choice is met or refused, never replaced in silence';
const onUring = { backends: ['io_uring'], needs: ['linux', 'proc'], timeoutMs: 40_000 } as const;

/** What is refused, and words of which one must stand in the message. */
const refusals: Record<string, { clause: string; denials: readonly Denial[]; cause: RegExp }> = {
  'setup EPERM': {
    clause: 'PORT-05',
    denials: [{ call: 'io_uring_setup', error: 'EPERM' }],
    cause: /seccomp|container|io_uring_disabled/i,
  },
  'setup ENOSYS': { clause: 'PORT-05', denials: [{ call: 'io_uring_setup', error: 'ENOSYS' }], cause: /kernel|seccomp/i },
  'enter EPERM': {
    clause: 'PORT-06',
    denials: [{ call: 'io_uring_enter', error: 'EPERM' }],
    cause: /enter.*(seccomp|container|profile)|(seccomp|container|profile).*enter/is,
  },
  'enter ENOSYS': { clause: 'PORT-06', denials: [{ call: 'io_uring_enter', error: 'ENOSYS' }], cause: /enter/i },
  'register EPERM': { clause: 'PORT-06', denials: [{ call: 'io_uring_register', error: 'EPERM' }], cause: /register/i },
  'register ENOSYS': { clause: 'PORT-06', denials: [{ call: 'io_uring_register', error: 'ENOSYS' }], cause: /register/i },
};

const registerBuffers = { index: 1, equals: 0 } as const;

export const cases: ConformanceCase[] = [
  {
    id: 'PORT-05/other-systems',
    clause: 'PORT-05',
    title: "another system's backend, asked for by name, throws and says so; an unknown name is refused",
    reference,
    run(t) {
      const report = t.api.CompletionPort.probe();
      const fds = t.fdCount();
      const there = new Map(report.map((entry) => [entry.name, entry]));
      for (const name of ['io_uring', 'epoll', 'kqueue', 'iocp'] as const) {
        if (there.get(name)?.available === true) continue;
        const error = t.throws(() => t.createPort({ backend: name }), { code: 'ERR_BACKEND_UNAVAILABLE' }, `create on ${name}`);
        t.ok(error.message.includes(name), `the backend’s name, ${name}, in: ${error.message}`);
        t.atLeast(error.message.length, name.length + 30, 'length of a message that gives a cause');
        const reason = there.get(name)?.reason;
        if (there.has(name)) t.ok(typeof reason === 'string' && reason.length > 0, `probe() has a reason for ${name}`);
      }
      for (const name of ['', 'IO_URING', 'select', 'io_uring ', 'toString', '__proto__']) {
        t.throws(() => t.createPort({ backend: name as 'auto' }), { code: 'ERR_INVALID_ARG_VALUE' }, `create on '${name}'`);
      }
      for (const name of [1, {}, null, true]) {
        t.throws(
          () => t.createPort({ backend: name as unknown as 'auto' }),
          { code: 'ERR_INVALID_ARG_TYPE' },
          `create on ${name}`,
        );
      }
      t.equal(t.fdCount(), fds, 'descriptors after the refusals');
    },
  },
  {
    id: 'PORT-05/environment',
    clause: 'PORT-05',
    title: 'COMPLETION_PORT_BACKEND says what auto means, and is never replaced in silence',
    reference,
    async run(t) {
      const script = `
        const results = [undefined, 'auto', backend].map((name) => {
          try { return CompletionPort.create({ backend: name }).backend.name; } catch (error) { return error.code + ' ' + error.message; }
        });
        console.log(JSON.stringify(results));`;
      const run = async (env: Record<string, string | undefined>): Promise<[string, string, string]> => {
        const result = await t.child(script, { env: { ...plainEnv, ...env } });
        t.equal(result.code, 0, `exit code (${result.stderr})`);
        return JSON.parse(result.stdout) as [string, string, string];
      };
      t.deepEqual(await run({ COMPLETION_PORT_BACKEND: t.backend }), [t.backend, t.backend, t.backend], 'what was chosen');
      const missing = t.backend === 'iocp' ? 'kqueue' : 'iocp';
      const [none, auto, explicit] = await run({ COMPLETION_PORT_BACKEND: missing });
      for (const answer of [none, auto]) {
        t.ok(
          answer.startsWith('ERR_BACKEND_UNAVAILABLE') && answer.includes(missing),
          `auto with ${missing} asked for throws: ${answer}`,
        );
      }
      t.equal(explicit, t.backend, 'an explicit choice beside the environment’s');
    },
  },
  {
    id: 'PORT-05/disabled',
    clause: 'PORT-05',
    title: 'a backend that is left unused by COMPLETION_PORT_DISABLE is as one that this machine lacks',
    reference,
    ...onUring,
    async run(t) {
      const result = await t.child(attempt, { env: { ...plainEnv, COMPLETION_PORT_DISABLE: 'io_uring' } });
      checkUnavailable(t, said(t, result), /COMPLETION_PORT_DISABLE/);
    },
  },
  ...Object.entries(refusals).map(
    ([name, { clause, denials, cause }]): ConformanceCase => ({
      id: `${clause}/${name.replaceAll(' ', '-')}`,
      clause,
      title:
        clause === 'PORT-05'
          ? `io_uring denied: an explicit backend throws with the likely cause, auto falls back and says why (${name})`
          : `io_uring_setup allowed but another call denied: found at creation, handled the same (${name})`,
      reference,
      ...onUring,
      run: async (t) => checkUnavailable(t, await attempts(t, deny(t, denials)), cause),
    }),
  ),

  {
    id: 'PORT-07/large-ring-refused',
    clause: 'PORT-07',
    title: 'where a large ring is refused a smaller one is used, and stats() says how large it is',
    reference: 'the portable rule: the size of the ring has nothing to do with what a program may start',
    ...onUring,
    async run(t) {
      const largest = 64;
      const refusal: Denial = { call: 'io_uring_setup', error: 'ENOMEM', argument: { index: 0, above: largest } };
      const { explicit, auto } = await attempts(t, deny(t, [refusal]));
      for (const made of [explicit, auto]) {
        t.equal(made.name, 'io_uring', `the backend (${made.code}: ${made.message})`);
        const entries = Number(made.stats?.ringEntries);
        t.ok(entries >= 8 && entries <= largest, `stats().ringEntries (${entries}) is a ring's size that the kernel allowed`);
      }
    },
  },
  ...variants(
    {
      clause: 'PORT-07',
      title: 'where the arena can’t be registered it is used unregistered, and stats() says so',
      reference: 'the portable rule: registering memory is an advantage, never a condition',
      ...onUring,
    },
    {
      'register ENOMEM': (t: Context): string[] =>
        deny(t, [{ call: 'io_uring_register', error: 'ENOMEM', argument: registerBuffers }]),
      // Root may lock what it likes; without the capability, pages pinned by io_uring count towards RLIMIT_MEMLOCK. The rings count
      // too on recent kernels, and those of a closed port for a moment longer: the limit has room for several, not for an arena.
      'locked memory': (): string[] => {
        if (process.getuid?.() !== 0) return ['prlimit', '--memlock=4194304:4194304'];
        const drop = ['setpriv', '--bounding-set=-dac_override,-dac_read_search,-ipc_lock', '--inh-caps=-all'];
        return [...drop, 'prlimit', '--memlock=4194304:4194304'];
      },
      none: (): string[] => ['env'],
    },
    async (t, wrap, name) => {
      const { explicit, auto } = await attempts(t, wrap(t));
      for (const made of [explicit, auto]) {
        t.equal(made.name, 'io_uring', `the backend (${made.code}: ${made.message})`);
        t.equal(typeof made.stats?.arenaRegistered, 'boolean', 'type of stats().arenaRegistered');
        if (name !== 'none') t.equal(made.stats?.arenaRegistered, false, 'stats().arenaRegistered');
      }
    },
  ),
  {
    id: 'PORT-07/no-memory',
    clause: 'PORT-07',
    title: 'no memory for any ring: ENOMEM, with what to do about it, and nothing is left behind',
    reference: 'CreateIoCompletionPort fails with ERROR_NOT_ENOUGH_MEMORY or ERROR_NO_SYSTEM_RESOURCES',
    ...onUring,
    async run(t) {
      const { explicit, auto, fds } = await attempts(t, deny(t, [{ call: 'io_uring_setup', error: 'ENOMEM' }]));
      for (const refused of [explicit, auto]) {
        t.equal(refused.code, 'ENOMEM', `code of create (${refused.message})`);
        t.ok(/memory/i.test(refused.message ?? ''), `the word memory in: ${refused.message}`);
      }
      t.equal(fds[1], fds[0], 'descriptors after the refusals');
    },
  },
];
