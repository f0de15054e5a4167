// THREAD-09 and -12: a connection served by several threads, each of which finds its state by the packet's numbers alone, with buffers in
// the arena; and threads that do something else are not disturbed by what the port does.

import { spawnSync } from 'node:child_process';
import * as fs from 'node:fs';
import type * as net from 'node:net';
import { Crew, sharedPort, waiting } from '../support/threads.js';
import type { ConformanceCase, FileHandle, TcpListener, TcpSocket } from '../types.js';
import { variants } from '../variants.js';

const served = 'A server’s threads take turns on a connection: its state is found by the key and the OVERLAPPED of each packet';

export const cases: readonly ConformanceCase[] = [
  {
    id: 'THREAD-09',
    clause: 'THREAD-09',
    title: 'a connection is accepted in one thread, read in a second, answered in a third, its buffer in the arena',
    reference: served,
    async run(t) {
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 3);
      const listener = t.listener(port, 1);
      const copied = (): number => port.stats().bounceBytes;
      const before = copied();
      for (let round = 0; round < t.count(5); round++) {
        const text = `request ${round}`;
        const accepting = crew.run(
          0,
          (w) => {
            (w.port.handleOf(w.data.listener) as TcpListener).accept({ id: 1 });
            const packet = w.port.getSync(4000);
            if (packet?.kind !== 'accept' || packet.error !== null)
              throw new Error(`not an accepted connection: ${packet?.kind}`);
            const socket = packet.result;
            w.port.associate(socket, 1000 + w.data.round);
            // The block is the connection's state and buffer; its place in the arena is the operations' id.
            const block = w.port.allocate(256);
            new DataView(block.buffer, block.byteOffset).setFloat64(0, w.data.round);
            socket.recv(block, { id: block.byteOffset, offset: 64 });
            return socket.id;
          },
          { listener: listener.id, round },
        );
        await waiting(t, port, 1);
        const client = await t.peerClient(listener.address.port);
        const id = await t.within(4000, accepting, 'the connection is accepted in the first thread');
        const reading = crew.run(
          1,
          (w) => {
            const packet = w.port.getSync(4000);
            if (packet?.kind !== 'recv' || packet.error !== null) throw new Error(`not a recv: ${packet?.kind}`);
            const { handleId, operationId, key, bytesTransferred } = packet;
            const state = new DataView(w.port.arena, operationId);
            state.setUint32(8, bytesTransferred);
            return { handleId, operationId, key, round: state.getFloat64(0), operation: packet.operation === undefined };
          },
          {},
        );
        await waiting(t, port, 1);
        client.write(text);
        const read = await t.within(4000, reading, 'its request is read in the second thread');
        t.deepEqual(
          [read.handleId, read.key, read.round, read.operation],
          [id, 1000 + round, round, true],
          'what the second thread found: handle, key, the connection’s state, and no operation',
        );
        const answered = crew.run(
          2,
          (w) => {
            const { handleId, operationId } = w.data;
            const length = new DataView(w.port.arena, operationId).getUint32(8);
            const bytes = new Uint8Array(w.port.arena, operationId + 64, length);
            for (let i = 0; i < length; i++) bytes[i] = (bytes[i] ?? 0) ^ 32;
            (w.port.handleOf(handleId) as TcpSocket).send(bytes, { id: operationId });
          },
          { handleId: read.handleId, operationId: read.operationId },
        );
        await t.within(4000, answered, 'the third thread answers');
        const sent = t.takeOneSync(port);
        t.deepEqual([sent.kind, sent.operationId, sent.key], ['send', read.operationId, 1000 + round], 'the send’s packet');
        const wanted = Buffer.from(text).map((byte) => byte ^ 32);
        t.sameBytes(await t.readPeer(client, text.length), wanted, 'the answer');
        port.handleOf(id).close();
        client.destroy();
      }
      t.equal(copied() - before, 0, 'bytes that were copied outside of the arena');
    },
  },
  {
    id: 'THREAD-09/pool',
    clause: 'THREAD-09',
    title: 'a pool of threads serves many connections, whoever gets which packet: every answer is right, no lock about',
    reference: served,
    timeoutMs: 25_000,
    async run(t) {
      const connections = 16;
      const requests = t.count(50);
      const size = 512;
      const port = sharedPort(t, { concurrency: 4 });
      const crew = await Crew.start(t, port, 4);
      const listener = t.listener(port, 1, { backlog: 64 });
      const base = port.allocate(connections * size).byteOffset;
      const jobs = crew.all(
        async (w) => {
          const { port } = w;
          const { size, base, connections } = w.data;
          const view = (slot: number, length = size - 64): Uint8Array =>
            new Uint8Array(port.arena, base + slot * size + 64, length);
          // One packet at a time: each of the posts at the end is for one thread.
          const ways = ['getSync', 'iterator', 'dispatch', 'get'] as const;
          const handled = { accept: 0, recv: 0, send: 0 };
          await w.consume(port, ways[w.index] as (typeof ways)[number], (packet) => {
            if (packet.kind === 'accept') {
              if (packet.error !== null) return false; // the listener was closed
              // The next free slot of the arena is the connection's, and its key.
              const slot = w.add('arrived') - 1;
              if (slot >= connections) throw new Error('one connection too many');
              port.associate(packet.result, slot);
              packet.result.recv(view(slot), { id: slot });
              handled.accept++;
              return false;
            }
            if (packet.kind === 'post') return true;
            if (packet.error !== null) throw packet.error;
            const slot = packet.key;
            if (packet.operationId !== slot) throw new Error(`operation ${packet.operationId} on connection ${slot}`);
            // The state: how often the connection was served, a plain number without a lock.
            const state = new Uint32Array(port.arena, base + slot * size, 1);
            const socket = port.handleOf(packet.handleId) as TcpSocket;
            if (packet.kind === 'recv') {
              if (packet.bytesTransferred === 0) {
                socket.close();
                w.add('stop');
                return false;
              }
              handled.recv++;
              state[0] = (state[0] ?? 0) + 1;
              const answer = view(slot, packet.bytesTransferred);
              for (let i = 0; i < answer.length; i++) answer[i] = (answer[i] ?? 0) ^ 0x5a;
              socket.send(answer, { id: slot });
            } else {
              handled.send++;
              socket.recv(view(slot), { id: slot });
            }
            return false;
          });
          return handled;
        },
        { size, base, connections },
      );
      await waiting(t, port, 4);
      for (let i = 0; i < connections; i++) listener.accept();
      const clients = await Promise.all(Array.from({ length: connections }, () => t.peerClient(listener.address.port)));
      const talk = async (client: net.Socket, seed: number): Promise<void> => {
        for (let n = 0; n < requests; n++) {
          const bytes = t.pattern(n * 31, 1 + ((seed * 7 + n * 13) % 400), seed);
          client.write(bytes);
          const answer = await t.readPeer(client, bytes.length, 15_000);
          t.sameBytes(
            answer,
            bytes.map((byte) => byte ^ 0x5a),
            `the answer to request ${n} of connection ${seed}`,
          );
        }
        client.end();
      };
      await Promise.all(clients.map(talk));
      await crew.reached('stop', connections, 'all connections are closed');
      const states = Array.from({ length: connections }, (_, slot) => new Uint32Array(port.arena, base + slot * size, 1)[0] ?? 0);
      // A stream may cut a request in two; it never loses one.
      for (const count of states) t.atLeast(count, requests, 'times that a connection was served');
      for (let i = 0; i < 4; i++) port.post(i);
      const all = await t.within(3000, Promise.all(jobs), 'the end of all threads');
      t.equal(
        all.reduce((sum, { recv }) => sum + recv, 0),
        states.reduce((sum, count) => sum + count, 0),
        'receives by thread, against turns by connection: a turn that two threads had at once would be missing',
      );
    },
  },

  ...variants(
    {
      clause: 'THREAD-12',
      title: 'foreign code in an attached thread sees no EINTR that the port caused',
      reference: 'A completion interrupts nobody: it is queued, and the threads that wait for it are released',
      needs: ['linux'],
    },
    { 'own operations': true, 'posts to it': false } as const,
    async (t, own) => {
      const fifo = t.tempFile('fifo');
      if (spawnSync('mkfifo', [fifo]).status !== 0) t.unable('mkfifo doesn’t work here');
      const port = sharedPort(t);
      const crew = await Crew.start(t, port, 1);
      const { a, b } = t.pair(port, 1, 2);
      const writer = fs.openSync(fifo, 'r+');
      t.cleanup(() => fs.closeSync(writer));
      const path = t.tempFile('file', t.pattern(0, 65_536));
      const handle = t.openFile(port, 3, path);
      const view = port.allocate(8);
      for (let round = 1; round <= t.count(20); round++) {
        const job = crew.run(
          0,
          (w) => {
            const fs = w.require('node:fs');
            const { ids, own, fifo } = w.data;
            const [socket, file] = ids.map((id) => w.port.handleOf(id)) as [TcpSocket, FileHandle];
            const view = new Uint8Array(new SharedArrayBuffer(4096));
            if (own) {
              // They complete while this thread sleeps in a system call that Node doesn't begin again by itself.
              for (let i = 0; i < 8; i++) socket.recv(view, { length: 1 });
              for (let i = 0; i < 8; i++) file.read(view, { position: 4096 * i });
            }
            const fd = fs.openSync(fifo, 'r+');
            w.add('arrived');
            const read = w.codeOf(() => {
              const count = fs.readSync(fd, new Uint8Array(1));
              if (count !== 1) throw Object.assign(new Error('no byte'), { code: `${count} bytes` });
            });
            fs.closeSync(fd);
            return read;
          },
          { ids: [a.id, handle.id], own, fifo },
        );
        await crew.reached('arrived', round, 'the thread reads from a pipe');
        await t.sleep(3);
        for (let i = 0; i < 8; i++) {
          if (own) b.send(new Uint8Array(1));
          else {
            port.post(i);
            handle.read(view, { position: 0 });
          }
          await t.turn();
        }
        await t.sleep(2);
        t.takeSync(port, own ? 24 : 16);
        fs.writeSync(writer, 'x');
        t.equal(await t.within(3000, job, 'the end of the read'), 'nothing', 'the error of a read in an attached thread');
      }
    },
  ),
];
