// CLOSE-06: what becomes of a closed handle's number. The kernel gives the lowest free one to the next who opens something, so each
// round below closes a handle under an operation and opens another in its place.

import * as fs from 'node:fs';
import type { ConformanceCase, Context } from '../types.js';
import { variants } from '../variants.js';
import { noMore } from './flight.js';
import { accepted, connected } from './tcp-common.js';
import { testBuild } from './test-build.js';

const stale = 'ERROR_INVALID_HANDLE; but a number that was given out again is somebody else’s handle, so ours have generations';

/** Rounds in which a handle is closed under an operation and another takes its number; the packets must not be mixed up. */
const roundsOf: Readonly<Record<string, (t: Context, rounds: number) => void>> = {
  sockets(t, rounds) {
    const port = t.createPort();
    const listener = t.listener(port, 0);
    for (let round = 1; round <= rounds; round++) {
      const client = connected(t, port, listener, round);
      listener.accept();
      const server = accepted(t, t.takeOneSync(port));
      port.associate(server, 2 ** 40 + round);
      const old = client.recv(t.room(8).fill(round));
      if (t.random.int(2) === 0) port.flush();
      const oldId = client.id;
      client.close();
      // The lowest free number: the one that was just closed. Its connect meets the old handle's packet on its way.
      const next = t.track(t.api.TcpSocket.openSync());
      port.associate(next, 2 ** 41 + round);
      const connecting = next.connect({ host: '127.0.0.1', port: listener.address.port });
      for (const packet of t.takeSync(port, 2)) {
        const isOld = packet.operation === old;
        t.ok(isOld || packet.operation === connecting, 'the packet is of the old handle’s recv or the new one’s connect');
        t.equal(packet.key, isOld ? round : 2 ** 41 + round, `key of the ${isOld ? 'old' : 'new'} handle’s packet`);
        t.equal(packet.handleId, isOld ? oldId : next.id, `handleId of the ${isOld ? 'old' : 'new'} handle’s packet`);
        if (isOld) t.failed(packet, { code: 'ECANCELED', by: 'close' }, 'the old handle’s recv');
        else t.succeeded(packet, 'the new handle’s connect');
      }
      t.notEqual(next.id, oldId, 'the id of a new handle');
      old.cancel();
      listener.accept();
      const nextServer = accepted(t, t.takeOneSync(port));
      port.associate(nextServer, 5);
      const view = t.room(4);
      const mine = next.recv(view);
      nextServer.send(new Uint8Array([round, round >> 8]));
      const packets = t.takeSync(port, 2);
      const packet = t.some(
        packets.find((entry) => entry.operation === mine),
        'the packet of the new handle’s recv',
      );
      t.equal(packet.key, 2 ** 41 + round, 'key of the new handle’s packet');
      t.equal(packet.handleId, next.id, 'handleId of the new handle’s packet');
      t.deepEqual([...view.subarray(0, 2)], [round & 255, round >> 8], 'what the new handle received');
      for (const handle of [server, next, nextServer]) handle.close();
    }
    noMore(t, port, 'after all rounds');
  },

  files(t, rounds) {
    const port = t.createPort();
    const paths = [t.tempFile('a', Buffer.alloc(64, 1)), t.tempFile('b', Buffer.alloc(64, 2))] as const;
    for (let round = 0; round < rounds; round++) {
      const old = t.api.FileHandle.openSync(paths[0], 'r+');
      port.associate(old, 1);
      const view = t.room(64);
      const read = old.read(view, { position: 0 });
      const write = old.write(new Uint8Array(8).fill(1), { position: t.random.int(56) });
      if (t.random.int(2) === 0) port.flush();
      old.close();
      const next = t.api.FileHandle.openSync(paths[1], 'r+');
      port.associate(next, 2);
      const nextView = t.room(64);
      const nextRead = next.read(nextView, { position: 0 });
      const seen = new Set<unknown>();
      for (const packet of t.takeSync(port, 3)) {
        t.ok(!seen.has(packet.operation), 'each operation has one packet');
        seen.add(packet.operation);
        if (packet.operation === nextRead) {
          t.succeeded(packet, 'the new file’s read');
          t.equal(packet.key, 2, 'its key');
          t.ok(
            nextView.every((byte) => byte === 2),
            'the new file’s read has the new file’s bytes',
          );
          continue;
        }
        t.equal(packet.key, 1, 'key of an operation of the old file');
        t.equal(packet.handleId, old.id, 'handleId of an operation of the old file');
        if (packet.error !== null) t.failed(packet, { code: 'ECANCELED', by: 'close' }, 'an operation of the old file');
        else if (packet.operation === read)
          t.ok(
            view.every((byte) => byte === 1),
            'the old file’s read has the old file’s bytes',
          );
        else t.ok(packet.operation === write && packet.bytesTransferred === 8, 'the old file’s write wrote all of it');
      }
      next.close();
    }
    t.ok(
      fs.readFileSync(paths[1]).every((byte) => byte === 2),
      'no write of an old handle reached the new file',
    );
    t.ok(
      fs.readFileSync(paths[0]).every((byte) => byte === 1),
      'the old file',
    );
  },

  listeners(t, rounds) {
    const port = t.createPort();
    for (let round = 0; round < rounds; round++) {
      const old = t.api.TcpListener.listenSync({ port: 0 });
      port.associate(old, 1);
      const oldAccept = old.accept();
      if (t.random.int(2) === 0) port.flush();
      old.close();
      const next = t.api.TcpListener.listenSync({ port: 0 });
      port.associate(next, 2);
      const accept = next.accept();
      const client = t.api.TcpSocket.openSync();
      port.associate(client, 3);
      const connecting = client.connect({ host: '127.0.0.1', port: next.address.port });
      for (const packet of t.takeSync(port, 3)) {
        if (packet.operation === oldAccept) {
          t.failed(packet, { code: 'ECANCELED', by: 'close' }, 'the old listener’s accept');
          t.equal(packet.key, 1, 'its key');
        } else {
          t.succeeded(packet, 'the new listener’s accept, or its client’s connect');
          t.equal(packet.key, packet.operation === accept ? 2 : 3, 'key');
          t.ok(packet.operation === accept || packet.operation === connecting, 'the packet is of one of the three operations');
          if (packet.kind === 'accept') packet.result?.close();
        }
      }
      client.close();
      next.close();
    }
    noMore(t, port, 'after all rounds');
  },
};

export const cases: readonly ConformanceCase[] = [
  ...variants(
    {
      clause: 'CLOSE-06',
      title: 'a thousand rounds of closing a handle under an operation and reopening its number mix nothing up',
      reference: stale,
      timeoutMs: 20_000,
    },
    roundsOf,
    (t, run) => run(t, t.count(1000, 20)),
  ),

  {
    id: 'CLOSE-06/wrap',
    clause: 'CLOSE-06',
    title: 'the same where handle generations wrap around many times (test build: 6 bits)',
    reference: stale,
    async run(t) {
      const answer = await testBuild<{ ids: number; wrong: string[]; wrapped: boolean }>(
        t,
        `
        const port = createPort();
        const listener = TcpListener.listenSync({ port: 0 });
        port.associate(listener, 0);
        const wrong = [];
        const ids = new Map();
        let wrapped = false;
        let last = null;
        for (let round = 1; round <= ${t.count(400, 200)}; round++) {
          const client = TcpSocket.openSync();
          port.associate(client, round);
          client.connect({ host: '127.0.0.1', port: listener.address.port });
          listener.accept();
          let server;
          for (let got = 0; got < 2; ) for (const packet of port.getManySync(2, 2000)) {
            got++;
            if (packet.error !== null) wrong.push(packet.kind + ' ' + packet.error.code);
            if (packet.kind === 'accept') server = packet.result;
          }
          wrapped ||= ids.has(client.id);
          ids.set(client.id, round);
          if (last !== null) {
            if (!last.closed) wrong.push('closed');
            try { last.recv(room(1)); wrong.push('a stale handle took a recv'); } catch (error) {
              if (error.code !== 'ERR_HANDLE_CLOSED') wrong.push(error.code);
            }
            last.close();
          }
          port.associate(server, 2 ** 30);
          const operation = client.recv(room(1));
          const closing = round % 2 === 0;
          if (closing) client.close(); else server.send(new Uint8Array([1]));
          for (let got = 0; got < (closing ? 1 : 2); ) for (const packet of port.getManySync(2, 2000)) {
            got++;
            if (packet.kind !== 'recv') continue;
            if (packet.operation !== operation || packet.key !== round) wrong.push('mixed up in round ' + round);
            if ((packet.error?.code === 'ECANCELED') !== closing) wrong.push('round ' + round + ': ' + packet.error?.code);
          }
          last = client;
          client.close();
          server.close();
        }
        if (port.getManySync(8, 5).length > 0) wrong.push('more packets');
        console.log(JSON.stringify({ ids: ids.size, wrong: wrong.slice(0, 5), wrapped }));
        `,
      );
      t.deepEqual(answer.wrong, [], 'what went wrong');
      if (!answer.wrapped) t.unable(`handle ids don’t wrap in what is under test (${answer.ids} different ones)`);
    },
  },
];
