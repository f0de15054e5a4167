// SEC-01, -02, -03: scripts that mean ill. Whatever they give to the native module, or do to the language's own prototypes, the answer
// is an error: no crash, no memory given away, and what others have started goes on.

import { createHook } from 'node:async_hooks';
import * as fs from 'node:fs';
import { reasons } from '../support/shared.js';
import type { ConformanceCase, FileHandle } from '../types.js';
import { variants } from '../variants.js';
import { childAnswer } from './buffers.js';
import { patchedRun, patches } from './security-patches.js';
import { anyCalls, hostileEntries, nativeUrl, prelude } from './security-scripts.js';

const probed = 'A driver probes what user mode gives it (ProbeForRead, captured parameters) and fails the request with a status';

export const cases: readonly ConformanceCase[] = [
  ...variants<number>(
    {
      clause: 'SEC-01',
      title: 'hostile submission entries fail alone: good ones beside them end well, once, with their bytes',
      reference: probed,
      timeoutMs: 30_000,
    },
    { entries: 0, 'entries-again': 1, 'entries-test-build': 2 },
    async (t, which) => {
      const path = t.tempFile('good', t.random.bytes(20_000));
      const victim = t.tempFile('victim', t.random.bytes(20_000));
      const code = (await prelude(t)) + hostileEntries(path, victim, t.count(1500, 50), which === 2);
      const env = which === 2 ? { COMPLETION_PORT_BUILD: 'test' } : {};
      const answer = await childAnswer<{ wrong: string[]; goodEnds: number; hostileEnds: number }>(t, code, {
        env,
        timeoutMs: 25_000,
      });
      t.deepEqual(answer.wrong, [], 'what went wrong');
      t.atLeast(answer.goodEnds, t.count(1500, 50), 'good reads');
      t.atLeast(answer.hostileEnds, t.count(500, 10), 'hostile entries that had a slot, and an end');
    },
  ),

  ...Object.entries(patches).map(
    ([name, patch]): ConformanceCase => ({
      id: `SEC-02/${name.replaceAll(' ', '-')}`,
      clause: 'SEC-02',
      title: `patched prototypes neither crash it nor give memory away (${name})`,
      reference: 'What a driver has captured doesn’t change any more; here a script can change what its own language says',
      async run(t) {
        const path = t.tempFile('file', Buffer.from(t.pattern(0, 4096)));
        const answer = await childAnswer<{ wrong: string[]; rounds: number }>(t, patchedRun(path, patch));
        t.deepEqual(answer.wrong, [], 'what went wrong');
        t.equal(answer.rounds, 3, 'rounds of operations');
      },
    }),
  ),

  ...variants<(act: () => void) => () => void>(
    {
      clause: 'SEC-02',
      title: 'code that a script gets to run in the middle of a start, and that starts others, has no part in that one’s memory',
      notShared: reasons.heap,
      reference: 'What a driver has captured doesn’t change any more; here a script can change what its own language says',
    },
    {
      'within-a-start-by-constructor': (act) => {
        const before = Reflect.getOwnPropertyDescriptor(Promise.prototype, 'constructor') as PropertyDescriptor;
        const get = (): PromiseConstructor => {
          act();
          return Promise;
        };
        Reflect.defineProperty(Promise.prototype, 'constructor', { configurable: true, get });
        return () => Reflect.defineProperty(Promise.prototype, 'constructor', before);
      },
      'within-a-start-by-promise-hook': (act) => {
        const hook = createHook({ init: (_, type) => type === 'PROMISE' && act() });
        hook.enable();
        return () => hook.disable();
      },
    },
    async (t, patch) => {
      const port = t.createPort();
      const path = t.tempFile('file', Buffer.alloc(1000, 'a'));
      const other = t.tempFile('other', Buffer.alloc(1000, 'b'));
      const shared = (length: number): Uint8Array => new Uint8Array(new SharedArrayBuffer(length));
      const heap = (length: number): Uint8Array => new Uint8Array(length);
      const arena = (length: number): Uint8Array => port.allocate(length);
      for (const make of [heap, shared, arena]) {
        for (const vectored of [false, true]) {
          for (const out of [false, true]) {
            const outer = t.openFile(port, 1, path);
            const inner = t.openFile(port, 2, other);
            const views = [make(50), make(out ? 50 : 30)];
            const views2 = [make(40), make(40)];
            if (out) {
              for (const view of views) view.fill(97);
              for (const view of views2) view.fill(98);
            }
            // A job of its own: what is started in it is the first since the port last flushed.
            await null;
            await null;
            let nested = false;
            const undo = patch(() => {
              if (nested) return;
              nested = true;
              start(inner, views2);
            });
            const start = (file: FileHandle, to: Uint8Array[]): void => {
              if (out) {
                if (vectored) file.writev(to, { position: 0 });
                else file.write(to[0] as Uint8Array, { position: 0 });
              } else if (vectored) file.readv(to, { position: 0 });
              else file.read(to[0] as Uint8Array, { position: 0 });
            };
            try {
              start(outer, views);
            } finally {
              undo();
            }
            for (const packet of t.takeSync(port, nested ? 2 : 1)) {
              t.succeeded(packet, packet.kind);
              const own = packet.key === 1 ? views : views2;
              const bytes = (own[0] as Uint8Array).length + (vectored ? (own[1] as Uint8Array).length : 0);
              t.equal(packet.bytesTransferred, bytes, `bytes of the ${packet.kind} with key ${packet.key}`);
            }
            const check = (own: Uint8Array[], byte: number, file: string): void => {
              for (const view of vectored ? own : own.slice(0, 1))
                t.ok(
                  view.every((each) => each === byte),
                  `each byte of ${out ? 'what was written' : 'what was read'}`,
                );
              t.ok(
                fs.readFileSync(file).every((each) => each === byte),
                'each byte of its file',
              );
            };
            check(views, 97, path);
            if (nested) check(views2, 98, other);
            t.nothing(port);
            outer.close();
            inner.close();
          }
        }
      }
    },
  ),

  {
    id: 'SEC-03/any-calls',
    clause: 'SEC-03',
    title: 'the native module’s functions, called directly with anything and in any order: a result or an error',
    reference: probed,
    timeoutMs: 60_000, // under Wine each call that reaches the system goes to another process
    async run(t) {
      const path = t.tempFile('file', 'abcdef');
      const code = (await prelude(t)) + anyCalls(path, t.count(20_000, 500));
      const answer = await childAnswer<{ wrong: string[] }>(t, code, { gc: true, timeoutMs: 55_000 });
      t.deepEqual(answer.wrong, [], 'what went wrong');
    },
  },

  {
    id: 'SEC-03/closed',
    clause: 'SEC-03',
    title: 'each function of a closed port, called rightly, says an error, and closing twice is harmless',
    reference: 'ERROR_INVALID_HANDLE (6)',
    async run(t) {
      const code = `${await prelude(t)}
        const { port, arena } = makePort();
        const [index, generation] = place(TcpSocket.openSync().id);
        const id = port.registerMemory(new Uint8Array(new SharedArrayBuffer(65536)));
        const offset = port.arenaAllocate(64);
        const loose = TcpSocket.openSync();
        await new Promise((resolve) => port.close(resolve));
        const calls = { enter: [], post: [], cancel: [0, 1, 1], cancelHandle: [index, generation, 1], associate: [...place(loose.id), 1],
          registerMemory: [new Uint8Array(new SharedArrayBuffer(64))], unregisterMemory: [id], arenaAllocate: [64], arenaRelease: [offset],
          open: [0, 1, '/tmp', 0, 0, 1, Infinity, 0, 0], startLoop: [() => false], ref: [], unref: [], wake: [], stats: [], close: [() => {}],
          token: [], detach: [], endJob: [true], setBlocking: [true], reserve: [], unreserve: [1], handleInfo: [index, generation] };
        const results = {};
        for (const [name, args] of Object.entries(calls)) {
          for (let i = 0; i < 2; i++) {
            try { results[name] = { returned: String(port[name](...args)) }; } catch (error) { results[name] = { threw: error.code ?? String(error) }; }
          }
        }
        const missing = Object.keys(port).filter((name) => typeof port[name] === 'function' && calls[name] === undefined);
        const own = createPort();
        own.associate(loose, 5);
        finish({ results, missing, key: loose.key });
      `;
      const answer = await childAnswer<{
        results: Record<string, { returned?: string; threw?: string }>;
        missing: string[];
        key: number;
      }>(t, code);
      t.deepEqual(answer.missing, [], 'functions that this case doesn’t know');
      // Nothing to say and nothing to do: these may return. All others say that they could do nothing.
      const harmless = ['close', 'ref', 'unref', 'wake', 'unregisterMemory', 'endJob', 'setBlocking', 'unreserve'];
      for (const [name, { returned, threw }] of Object.entries(answer.results)) {
        if (threw !== undefined) t.ok(threw.startsWith('ERR_'), `what ${name} of a closed port throws, which is ${threw}`);
        else if (!harmless.includes(name)) {
          t.ok(
            returned === 'false' || Number(returned) < 0 || returned === '0',
            `what ${name} of a closed port returns, which is ${returned}`,
          );
          t.ok(returned !== '0' || name === 'registerMemory', `${name} of a closed port returned 0`);
        }
      }
      t.equal(answer.key, 5, 'key of a handle that a closed port was to take, on the port that took it');
    },
  },

  {
    id: 'SEC-03/threads',
    clause: 'SEC-03',
    title: 'from another thread: a private port’s handles are nobody else’s, and its functions can’t travel',
    reference: 'Handles belong to the process on Windows; here each thread has its own ports',
    async run(t) {
      await t.native();
      const answer = await childAnswer<{ results: Record<string, number | string>; main: Record<string, unknown> }>(
        t,
        `
        import { isMainThread, Worker, parentPort, workerData } from 'node:worker_threads';
        const { native } = await import(${JSON.stringify(nativeUrl)});
        if (isMainThread) {
          const port = createPort();
          const listener = TcpListener.listenSync({ port: 0 });
          port.associate(listener, 3);
          const loose = TcpSocket.openSync();
          const accept = listener.accept();
          const worker = new Worker(new URL(import.meta.url), { workerData: { bound: listener.id, loose: loose.id } });
          const results = await new Promise((resolve, reject) => { worker.once('message', resolve); worker.once('error', reject); });
          await new Promise((resolve) => worker.once('exit', resolve));
          let cloned = 'cloned';
          try { structuredClone(native.closeHandle); } catch (error) { cloned = error.name; }
          port.associate(loose, 4);
          loose.connect({ host: '127.0.0.1', port: listener.address.port });
          const packets = [];
          while (packets.length < 2) packets.push(...port.getManySync(4, 3000));
          console.log(JSON.stringify({ results, main: { cloned, pending: accept.pending, codes: packets.map((packet) => packet.error?.code ?? null) } }));
          process.exit(0);
        } else {
          const place = (id) => [id % 2 ** 20, Math.floor(id / 2 ** 20)];
          const port = createPort();
          const results = {};
          for (const [name, id] of Object.entries(workerData)) {
            const [index, generation] = place(id);
            const { controlBytes, entryBytes, maxSubmissions, maxCompletions } = native.abi;
            const bytes = controlBytes + (maxSubmissions + maxCompletions) * entryBytes;
            const own = native.createPort(new Uint8Array(new SharedArrayBuffer(bytes)), new Uint8Array(new SharedArrayBuffer(65536)),
              { backend, maxOperations: 8, ringEntries: 8, concurrency: 1, inverted: false, disable: '' });
            results[name + ' associate'] = own.associate(index, generation, 1);
            results[name + ' cancelHandle'] = own.cancelHandle(index, generation, 1);
            results[name + ' closeHandle'] = native.closeHandle(index, generation, false);
            results[name + ' setOption'] = native.setOption(index, generation, 1, 1);
            results[name + ' getOption'] = native.getOption(index, generation, 4);
            results[name + ' address'] = native.address(index, generation, false, new Uint8Array(24));
            own.close(() => {});
          }
          parentPort.postMessage(results);
          port.close();
        }
        `,
      );
      for (const [name, result] of Object.entries(answer.results))
        t.less(Number(result), 0, `what another thread’s ${name} returned`);
      t.equal(Object.keys(answer.results).length, 12, 'calls that were made');
      t.deepEqual(
        answer.main,
        { cloned: 'DataCloneError', pending: false, codes: [null, null] },
        'what the handles’ own thread says afterwards',
      );
    },
  },

  {
    id: 'SEC-03/collected',
    clause: 'SEC-03',
    title: 'functions outlive the object that they were taken from, and a port that is collected ends its operations',
    reference: probed,
    async run(t) {
      const code = `${await prelude(t)}
        let taken = (() => {
          const { port, u32, f64 } = makePort();
          const { enter, post, stats, arenaAllocate } = port;
          return { enter, post, stats, arenaAllocate, u32, f64 };
        })();
        for (let i = 0; i < 10; i++) { globalThis.gc(); await new Promise((resolve) => setImmediate(resolve)); }
        taken.f64[8] = 12; taken.u32[22] = 2 ** 32 - 1;
        taken.post();
        taken.u32[0] = 0; taken.u32[1] = 0; taken.u32[4] = 8; taken.u32[5] = 6; taken.f64[1] = 0;
        if (taken.enter() !== 1) say('enter of a taken function');
        if (taken.arenaAllocate(64) < 0) say('arenaAllocate of a taken function');
        taken.stats();
        taken = null;
        const openCount = () =>
          process.platform === 'win32' ? native.countProcess().descriptors : fs.readdirSync(process.platform === 'linux' ? '/proc/self/fd' : '/dev/fd').length;
        const before = openCount();
        for (let i = 0; i < 20; i++) makePort({ arenaBytes: 65536 });
        let after = 0;
        for (let i = 0; i < 50; i++) {
          globalThis.gc();
          await new Promise((resolve) => setTimeout(resolve, 2));
          after = openCount();
          if (after <= before) break;
        }
        if (after > before) say('descriptors of collected ports: ' + before + ' before, ' + after + ' after');
        finish();
      `;
      const answer = await childAnswer<{ wrong: string[] }>(t, code, { gc: true });
      t.deepEqual(answer.wrong, [], 'what went wrong');
    },
  },
];
