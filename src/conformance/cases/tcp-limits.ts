// TCP-12 and TCP-14: a process without descriptors, and processes that must not get any. The first is shown in a child with a
// small limit, so that nothing else of the suite suffers from it.

import { spawn, spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import type { ConformanceCase, Context, Port, Way } from '../types.js';
import { variants } from '../variants.js';
import { childAnswer, childCaseMs, childMs, moved, packetOf } from './buffers.js';
import { accepted, receive } from './tcp-common.js';

const exhausted = 'AcceptEx takes a socket that exists already: WSAEMFILE (10024) comes from making it';

interface Starved {
  early: { failed: number; inFlight: number; ms: number };
  ms: number;
  codes: string[];
  connects: number;
  connectErrors: string[];
  acceptedEarly: number;
  inFlight: number;
  file: string;
  post: number;
  thrown: string[];
  resumedMs: number;
  peers: number;
  leftover: number;
  after: string;
}

const windowMs = 550;

const limits: ConformanceCase[] = [
  ...variants<Way>(
    {
      clause: 'TCP-12',
      title:
        'out of descriptors: EMFILE once in 100 ms a listener, all else lives on, and with descriptors again service resumes',
      reference: exhausted,
      needs: ['linux'],
      timeoutMs: childCaseMs,
    },
    { getSync: 'getSync', get: 'get', dispatch: 'dispatch' },
    async (t, way) => {
      const seen = await childAnswer<Starved>(
        t,
        `import * as fs from 'node:fs';
        fs.writeFileSync('file', 'content');
        const port = createPort();
        const queue = [];
        let wake = () => {};
        if ('${way}' === 'dispatch') port.dispatch((packet) => { handle(packet); });
        // One packet, or null after so long, by the way of the variant.
        const turn = async (ms) => {
          if ('${way}' === 'dispatch') return new Promise((resolve) => setTimeout(resolve, Math.min(ms, 5)));
          const packet = '${way}' === 'get' ? await port.get({ timeout: ms }) : port.getSync(ms);
          if (packet !== null) handle(packet);
        };
        const listener = TcpListener.listenSync({ port: 0 });
        port.associate(listener, 5);
        const file = FileHandle.openSync('file', 'r');
        port.associate(file, 6);
        const clients = Array.from({ length: 4 }, () => {
          const socket = TcpSocket.openSync();
          port.associate(socket, 9);
          return socket;
        });
        const fillers = [];
        try {
          for (;;) fillers.push(fs.openSync('/dev/null'));
        } catch (error) {
          if (error.code !== 'EMFILE') throw error;
        }
        const seen = { early: null, ms: 0, codes: [], connects: 0, connectErrors: [], acceptedEarly: 0, inFlight: 0, file: '', post: 0,
                       thrown: [], resumedMs: 0, peers: 0, leftover: 0, after: '' };
        const peers = new Set();
        const sockets = [];
        let starving = true;
        let restarting = true;
        const view = Buffer.from(room(7).buffer);
        // Restarted at once, as a server does it: it is the port that keeps this from spinning.
        function handle(packet) {
          if (packet.kind === 'connect') {
            seen.connects++;
            if (packet.error !== null) seen.connectErrors.push(packet.error.code);
          } else if (packet.kind === 'read') seen.file = view.toString('latin1', 0, packet.bytesTransferred);
          else if (packet.kind === 'post') seen.post = packet.key;
          else if (packet.error !== null) {
            if (restarting) { seen.codes.push(packet.error.code); listener.accept(); }
            else seen.leftover++;
          } else {
            if (starving) seen.acceptedEarly++;
            sockets.push(packet.result);
            peers.add(packet.result.remoteAddress?.port);
          }
        }
        for (let i = 0; i < 4; i++) listener.accept();
        for (const client of clients) client.connect({ host: '127.0.0.1', port: listener.address.port });
        const begin = performance.now();
        while (seen.codes.length === 0 && performance.now() - begin < 3000) await turn(20);
        // From the first one on: no second one, and the others pending, for nearly 100 ms.
        const first = performance.now();
        while (performance.now() - first < 60) await turn(10);
        seen.early = { failed: seen.codes.length, inFlight: port.inFlight, ms: performance.now() - begin };
        file.read(view, { position: 0 });
        port.post(77);
        for (const open of [() => TcpSocket.openSync(), () => FileHandle.openSync('file'), () => TcpListener.listenSync({ port: 0 })]) {
          try { open(); seen.thrown.push('opened'); } catch (error) { seen.thrown.push(error.code); }
        }
        while (performance.now() - begin < ${windowMs}) await turn(20);
        seen.inFlight = port.inFlight;
        seen.ms = performance.now() - begin;
        starving = false;
        for (const fd of fillers) fs.closeSync(fd);
        const freed = performance.now();
        while (peers.size < 4 && performance.now() - freed < 5000) await turn(20);
        seen.resumedMs = performance.now() - freed;
        seen.peers = peers.size;
        // Accepts that met the lack were started again, so none is missing and none too many.
        seen.after = String(port.inFlight);
        restarting = false;
        listener.close();
        for (let i = 0; i < 20; i++) await turn(5);
        for (const socket of sockets) socket.close();
        console.log(JSON.stringify(seen));
        process.exit(0);`,
        { wrap: ['sh', '-c', 'ulimit -n 64 && exec "$@"', 'sh'], timeoutMs: childMs },
      );
      // By the child's own clock, so that a slow machine changes nothing: one at the start, and one for each 100 ms since.
      const most = (ms: number): number => 1 + Math.floor(ms / 100);
      t.ok(
        seen.early.failed >= 1 && seen.early.failed <= most(seen.early.ms),
        `${seen.early.failed} failed in ${seen.early.ms} ms`,
      );
      t.equal(seen.early.inFlight, 4, 'accepts pending then: the others, and the one started again');
      t.ok(
        seen.codes.every((code) => code === 'EMFILE'),
        `what accepts failed with: ${seen.codes.join(', ')}`,
      );
      t.ok(seen.codes.length <= most(seen.ms), `${seen.codes.length} failed in ${seen.ms} ms`);
      t.equal(seen.acceptedEarly, 0, 'accepts that succeeded without a descriptor');
      t.equal(seen.connects, 4, 'connects that completed meanwhile');
      t.deepEqual(seen.connectErrors, [], 'what connects failed with');
      t.equal(seen.file, 'content', 'a file that was read meanwhile');
      t.equal(seen.post, 77, 'the key of a post meanwhile');
      t.deepEqual(seen.thrown, ['EMFILE', 'EMFILE', 'EMFILE'], 'what making a socket, a file and a listener threw meanwhile');
      t.equal(seen.inFlight, 4, 'accepts pending at the end of it');
      t.equal(seen.peers, 4, 'connections accepted once there were descriptors');
      t.less(seen.resumedMs, 3000, 'milliseconds until service resumed');
      t.equal(seen.after, '0', 'operations in flight when all were accepted');
      t.equal(seen.leftover, 0, 'accepts ended by the close');
    },
  ),

  {
    id: 'TCP-12/repeated',
    clause: 'TCP-12',
    title: 'lack and plenty in turns: no connection is lost, no accept is forgotten',
    reference: exhausted,
    needs: ['linux'],
    timeoutMs: childCaseMs,
    async run(t) {
      const answer = await childAnswer<{ rounds: string[]; before: number; after: number }>(
        t,
        `import * as fs from 'node:fs';
        const port = createPort();
        const listener = TcpListener.listenSync({ port: 0 });
        port.associate(listener, 5);
        const open = () => fs.readdirSync('/proc/self/fd').length;
        const rounds = [];
        const before = open();
        for (let round = 0; round < 4; round++) {
          const clients = Array.from({ length: 3 }, () => { const socket = TcpSocket.openSync(); port.associate(socket, 9); return socket; });
          const fillers = [];
          try { for (;;) fillers.push(fs.openSync('/dev/null')); } catch (error) { if (error.code !== 'EMFILE') throw error; }
          // One descriptor is left: one accept gets it, the next one lacks it.
          fs.closeSync(fillers.pop());
          for (const client of clients) client.connect({ host: '127.0.0.1', port: listener.address.port });
          for (let i = 0; i < 3; i++) listener.accept();
          let connects = 0, starved = 0;
          const sockets = [];
          const end = performance.now() + 6000;
          while ((connects < 3 || sockets.length < 3) && performance.now() < end) {
            const packet = port.getSync(50);
            if (packet === null) continue;
            if (packet.kind === 'connect' && packet.error === null) connects++;
            else if (packet.kind === 'accept' && packet.error === null) sockets.push(packet.result);
            else if (packet.kind === 'accept' && packet.error.code === 'EMFILE') {
              starved++;
              listener.accept();
              for (const fd of fillers.splice(0)) fs.closeSync(fd);
            } else throw packet.error;
          }
          rounds.push([connects, sockets.length, starved > 0, port.inFlight].join(' '));
          for (const fd of fillers) fs.closeSync(fd);
          for (const socket of [...clients, ...sockets]) socket.close();
        }
        console.log(JSON.stringify({ rounds, before, after: open() }));
        process.exit(0);`,
        { wrap: ['sh', '-c', 'ulimit -n 64 && exec "$@"', 'sh'], timeoutMs: childMs },
      );
      t.deepEqual(
        answer.rounds,
        Array(4).fill('3 3 true 0'),
        'connects, accepts, whether one lacked a descriptor, what stayed pending',
      );
      t.equal(answer.after, answer.before, 'descriptors at the end');
    },
  },
];

const inheriting = 'Handles are made with WSA_FLAG_NO_HANDLE_INHERIT and without an inheritable SECURITY_ATTRIBUTES';

/** Everything that has a descriptor: files by both ways of opening, a listener, sockets of both kinds, a port with its ring. */
function openAll(t: Context): { port: Port } {
  const port = t.createPort();
  const path = t.tempFile('file', 'content');
  t.openFile(port, 1, path);
  const packet = packetOf(t, port, port.open(path, 'r', { key: 2 }), 'open');
  if (packet.kind !== 'open' || packet.error !== null) return t.fail('the open failed');
  t.track(packet.result);
  const { a, b } = t.pair(port, 3, 4);
  const listener = t.listener(port, 5);
  t.track(t.api.TcpSocket.openSync());
  // Operations that are pending hold whatever they hold.
  listener.accept();
  a.recv(t.room(10));
  b.recv(t.room(10));
  t.nothing(port);
  return { port };
}

/** The descriptors above the standard ones that a child of this process has: number and what it is. */
function inherited(t: Context, extra: number[] = []): string[] {
  const result = spawnSync('ls', ['-l', '/proc/self/fd'], { stdio: ['ignore', 'pipe', 'inherit', ...extra], encoding: 'utf8' });
  if (result.status !== 0) t.unable(`ls can’t list its descriptors: ${result.error?.message ?? String(result.status)}`);
  const entries = result.stdout.split('\n').flatMap((line) => / (\d+ -> .*)$/.exec(line)?.[1] ?? []);
  // The standard ones are the child's own, and so is the folder that it reads.
  return entries.filter((entry) => !/^[012] /.test(entry) && !/^\d+ -> \/proc\/\d+\/fd$/.test(entry));
}

const children: ConformanceCase[] = [
  {
    id: 'TCP-14',
    clause: 'TCP-14',
    title: 'a child process has no descriptor of a file, socket, listener or port',
    reference: inheriting,
    needs: ['linux', 'proc'],
    run(t) {
      const before = inherited(t);
      openAll(t);
      t.deepEqual(inherited(t), before, 'the descriptors that a child has above the standard ones');
      // That this looks at all: one that is passed on is seen.
      const passed = fs.openSync(t.tempFile('passed', ''), 'r');
      try {
        t.ok(
          inherited(t, [passed]).some((line) => line.endsWith('/passed')),
          'a file that is passed on is in the list',
        );
      } finally {
        fs.closeSync(passed);
      }
    },
  },

  {
    id: 'TCP-14/flag',
    clause: 'TCP-14',
    title: 'every descriptor is made close-on-exec',
    reference: inheriting,
    needs: ['linux', 'proc'],
    run(t) {
      const list = (): Set<string> => new Set(fs.readdirSync('/proc/self/fd'));
      const before = list();
      openAll(t);
      const closeOnExec = 0o2000000;
      let made = 0;
      for (const fd of list()) {
        if (before.has(fd)) continue;
        let info: string;
        try {
          info = fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1');
        } catch (error) {
          // The descriptor that listed the folder has gone.
          if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
          throw error;
        }
        const flags = Number.parseInt(t.some(/^flags:\s*(\d+)/m.exec(info)?.[1], 'flags in fdinfo'), 8);
        const link = fs.readlinkSync(`/proc/self/fd/${fd}`);
        t.ok((flags & closeOnExec) !== 0, `descriptor ${fd} (${link}) is close-on-exec`);
        made++;
      }
      t.atLeast(made, 7, 'descriptors that were looked at');
    },
  },

  {
    id: 'TCP-14/end-seen',
    clause: 'TCP-14',
    title: 'while a child lives on, a closed socket’s peer sees the end and a closed listener’s port is free',
    reference: inheriting,
    async run(t) {
      const port = t.createPort();
      const { a, b } = t.pair(port, 1, 2);
      const listener = t.listener(port, 3);
      const accept = listener.accept();
      const { socket: plain } = await (async () => ({ socket: await t.peerClient(listener.address.port) }))();
      const server = accepted(t, packetOf(t, port, accept, 'accept'));
      port.associate(server, 4);
      const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 60000)'], { stdio: 'ignore' });
      t.cleanup(() => void child.kill('SIGKILL'));
      await t.within(
        5000,
        new Promise<void>((resolve, reject) => child.once('spawn', resolve).once('error', reject)),
        'a child starts',
      );
      a.close();
      t.ok(receive(t, port, b, 1).ended, 'the end of a socket that was closed while the child lives');
      const { port: number } = listener.address;
      server.close();
      t.equal((await t.readPeer(plain, 1, 2000)).length, 0, 'bytes before the end of an accepted socket');
      t.ok(plain.readableEnded, 'its peer has seen the end');
      listener.close();
      const again = t.track(t.api.TcpListener.listenSync({ port: number }));
      t.equal(again.address.port, number, 'the port again');
      t.equal(child.exitCode, null, 'the exit code of the child: it lives');
      moved(t, port, b.shutdown(), 0, 'the other end');
    },
  },
];

export const cases: readonly ConformanceCase[] = [...limits, ...children];
