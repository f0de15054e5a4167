// THREAD-08, and CLOSE-03 for shared ports: how long a shared port and its handles live: as long as one thread is attached, whoever
// created them.

import { Crew, sharedPort } from '../support/threads.js';
import type { ConformanceCase, PortToken, SharedPort, TcpSocket } from '../types.js';
import { variants } from '../variants.js';
import { endThread, hows, leave } from './threads-common.js';

const outlives = 'A port is closed with its last handle; the thread that created it is nothing special';

export const cases: readonly ConformanceCase[] = [
  ...variants(
    { clause: 'THREAD-08', title: 'the port outlives the thread that created it', reference: outlives },
    { ...hows, detach: 'detach' } as const,
    async (t, how) => {
      const crew = await Crew.start(t, null, 2);
      const path = t.tempFile('file', '0123456789');
      sharedPort(t);
      const created = new Promise<{ token: PortToken; file: number; listener: number; number: number }>((resolve) => {
        crew.worker(0).on('message', (message) => {
          if (message.token !== undefined) resolve(message);
        });
      });
      const job = crew.run(
        0,
        (w) => {
          const options = { backend: w.backend as 'io_uring', shared: true, concurrency: 4 };
          const port = w.api.CompletionPort.create(options) as SharedPort;
          const file = w.api.FileHandle.openSync(w.data.path, 'r+');
          port.associate(file, 5);
          const listener = w.api.TcpListener.listenSync({ port: 0, host: '127.0.0.1' });
          port.associate(listener, 6);
          listener.accept({ id: 66 });
          port.post(1);
          w.parentPort.postMessage({ token: port.token, file: file.id, listener: listener.id, number: listener.address.port });
          w.until('go', 1);
          if (w.data.how === 'detach') {
            port.detach();
            return w.codeOf(() => port.post(2));
          }
          return w.call(w.data.leave, w.data.how, port);
        },
        { path, how, leave },
      );
      const { token, file, listener, number } = await t.within(3000, created, 'a port made by another thread');
      const port: SharedPort = t.api.CompletionPort.attach(token);
      t.cleanup(() => port.close());
      const other = crew.run(
        1,
        (w) => {
          const port = w.attach(w.data.token);
          w.add('arrived');
          return port.getSync(8000)?.key;
        },
        { token },
      );
      await crew.reached('arrived', 1, 'another thread is attached');
      crew.set('go', 1);
      if (how === 'detach') t.equal(await t.within(2000, job, 'detach'), 'ERR_PORT_CLOSED', 'a post behind detach');
      else await endThread(t, crew, 0, how);
      // What it posted and started is there, and the handles that it made can be used.
      t.equal(await t.within(3000, other, 'the packet that was posted'), 1, 'its key');
      const handle = port.handleOf(file) as ReturnType<typeof t.api.FileHandle.openSync>;
      const view = port.allocate(16);
      handle.read(view, { position: 0, id: 55 });
      const read = t.takeOneSync(port);
      t.deepEqual(
        [read.key, read.operationId, read.bytesTransferred],
        [5, 55, 10],
        'a read through a handle of the thread that is gone',
      );
      const client = await t.peerClient(number);
      const accept = t.takeOneSync(port);
      t.deepEqual([accept.key, accept.operationId, accept.kind], [6, 66, 'accept'], 'the accept that it started');
      t.succeeded(accept, 'that accept');
      (accept.result as TcpSocket).close();
      client.destroy();
      handle.close();
      port.handleOf(listener).close();
      t.equal(port.isClosed, false, 'isClosed of the port');
    },
  ),
  {
    id: 'THREAD-08/last-detach',
    clause: 'THREAD-08',
    title: 'it closes with the last attached thread: what is in flight ends, its handles are closed',
    reference: outlives,
    async run(t) {
      for (const first of ['main', 'worker'] as const) {
        const fds = t.fdCount();
        const port = sharedPort(t);
        const { token } = port;
        const crew = await Crew.start(t, port, 1);
        const listener = t.api.TcpListener.listenSync({ port: 0, host: '127.0.0.1' });
        port.associate(listener, 1);
        const handle = t.api.FileHandle.openSync(t.tempFile(`file-${first}`, 'x'), 'r');
        port.associate(handle, 2);
        const number = listener.address.port;
        const theirs = (): Promise<string[]> =>
          crew.everyone(async (w) => {
            const { port } = w;
            const wait = w.codeOfAsync(() => port.get({ timeout: 4000 }));
            port.detach();
            return [await wait, w.codeOf(() => port.post(1)), w.codeOf(() => port.getSync(0)), w.codeOf(() => port.token)].join();
          }, {});
        const gone = ['ERR_PORT_CLOSED', 'ERR_PORT_CLOSED', 'ERR_PORT_CLOSED', 'ERR_PORT_CLOSED'].join();
        if (first === 'worker') {
          t.deepEqual(await theirs(), [gone], 'the waiting get and every later use in the thread that detached');
          port.post(1);
          t.equal(t.takeOneSync(port).key, 1, 'key of a packet that this thread gets afterwards');
        }
        const wait = port.get({ timeout: 4000 });
        const closed = t.rejects(wait, { code: 'ERR_PORT_CLOSED' }, 'a waiting get of the thread that detaches');
        port.detach();
        await closed;
        t.throws(() => port.post(1), { code: 'ERR_PORT_CLOSED' }, 'a post in the thread that has detached');
        t.throws(() => port.getSync(0), { code: 'ERR_PORT_CLOSED' }, 'a get there');
        t.throws(() => listener.accept(), { code: ['ERR_PORT_CLOSED', 'ERR_HANDLE_CLOSED'] }, 'a start there');
        if (first === 'main') {
          // A thread is attached: the listener still listens.
          const again = () => t.api.TcpListener.listenSync({ port: number, host: '127.0.0.1' });
          t.throws(again, { code: 'EADDRINUSE' }, 'listening where the port’s listener still does');
          t.deepEqual(await theirs(), [gone], 'the waiting get and every later use in the other thread');
        }
        await t.within(2000, port.closed, 'closed of the thread’s port object');
        t.throws(() => t.api.CompletionPort.attach(token), { code: 'ERR_PORT_CLOSED' }, 'attaching after the last detach');
        await t.within(2000, crew.terminate(0), 'the end of the thread');
        await t.eventually(() => t.fdCount() <= fds, 'all descriptors are closed, those of the handles too');
        // Nobody listens there any more.
        t.api.TcpListener.listenSync({ port: number, host: '127.0.0.1' }).close();
      }
    },
  },
  {
    id: 'CLOSE-03/shared',
    clause: 'CLOSE-03',
    title:
      'a shared port’s handles outlive the thread that made them, aren’t collected with its objects, and close with the last detach',
    reference: 'A handle belongs to the process, not to a thread, and is closed with the process or by CloseHandle',
    async run(t) {
      const port = sharedPort(t);
      const warnings = t.warnings();
      const path = t.tempFile('file', '0123456789');
      const before = t.fdCount();
      // Nobody keeps these objects: the port does.
      const ids = ((): number[] =>
        Array.from({ length: 20 }, (_, key) => {
          const handle = t.api.FileHandle.openSync(path, 'r');
          port.associate(handle, key);
          return handle.id;
        }))();
      for (let i = 0; i < 5; i++) {
        t.gc();
        await t.turn();
      }
      const crew = await Crew.start(t, port, 1);
      const made = await crew.run(
        0,
        (w) => {
          const handle = w.api.FileHandle.openSync(w.data.path, 'r');
          w.port.associate(handle, 99);
          return handle.id;
        },
        { path },
      );
      await endThread(t, crew, 0, 'terminate');
      for (const id of [...ids, made]) {
        (port.handleOf(id) as ReturnType<typeof t.api.FileHandle.openSync>).size();
        const packet = t.takeOneSync(port);
        t.equal(packet.result, 10, 'size by a handle whose object is gone');
        t.equal(packet.handleId, id, 'its id');
      }
      t.atLeast(t.fdCount(), before + 21, 'descriptors while the port lives');
      port.detach();
      await t.eventually(() => t.fdCount() < before, 'all handles are closed with the port');
      await t.turn();
      t.deepEqual(warnings.map(String), [], 'warnings about handles that were collected');
    },
  },
];
