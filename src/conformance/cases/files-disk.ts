// FILE-07: what reaches the disk, and what happens when it is full. Both need a file system of the case's own, mounted in a
// mount namespace of a child, so that nothing can be left mounted.

import type { ConformanceCase, Context } from '../types.js';
import { variants } from '../variants.js';
import { childAnswer, childCaseMs, childMs, packetOf } from './buffers.js';

const flushed =
  'FlushFileBuffers returns when the file’s buffered data, and with it its metadata, have been written to the device';
const full = 'WriteFile on a full disk: ERROR_DISK_FULL (112)';

/** Common to the children: mounting programs are in sbin, which not every PATH has. */
const path = { PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin` };
const prelude = `
import * as fs from 'node:fs';
import { spawnSync } from 'node:child_process';
const answer = (value) => { console.log(JSON.stringify(value)); process.exit(0); };
const run = (command, ...args) => {
  const result = spawnSync(command, args, { encoding: 'utf8' });
  if (result.status !== 0) answer({ unable: command + ': ' + (result.error?.message ?? result.stderr.trim()) });
};
`;

/**
 * An ext4 on a loop device: what is written there stays in its page cache for seconds, and is in the image only once it was
 * flushed to the device. So the image tells whether a sync happened.
 */
function durable(t: Context, kind: 'sync' | 'datasync', setup: string): Promise<{ early: number; rounds: boolean[] }> {
  return childAnswer(
    t,
    `${prelude}
    fs.writeFileSync('image', ''); fs.truncateSync('image', 16 * 2 ** 20); fs.mkdirSync('disk');
    run('mkfs.ext4', '-q', '-O', '^has_journal', 'image');
    run('mount', '-o', 'loop', 'image', 'disk');
    const port = createPort();
    const one = () => {
      const packet = port.getSync(5000);
      if (packet === null) throw new Error('no packet');
      if (packet.error !== null) throw packet.error;
      return packet;
    };
    const file = FileHandle.openSync('disk/file', 'w+');
    port.associate(file, 1);
    const inImage = (text) => fs.readFileSync('image').includes(text);
    let early = 0;
    const rounds = [];
    for (let round = 0; round < 5; round++) {
      const marker = 'marker ' + ${t.random.int(2 ** 30)} + ' of round ' + round + ' ';
      const data = Buffer.alloc(30000, marker);
      ${setup}
      // Written back on its own account: this round shows nothing.
      if (inImage(marker)) { early++; continue; }
      const operation = file.${kind}();
      const packet = one();
      rounds.push(packet.operation === operation && packet.kind === '${kind}' && packet.bytesTransferred === 0 && inImage(marker));
    }
    file.close();
    port.close();
    await port.closed;
    answer({ early, rounds });`,
    { wrap: ['unshare', '-m'], env: path, timeoutMs: childMs },
  );
}

const syncs: ConformanceCase[] = [
  ...variants<{ kind: 'sync' | 'datasync'; setup: string }>(
    {
      clause: 'FILE-07',
      title: 'once its packet is there, what was written before is on the device',
      reference: flushed,
      needs: ['root', 'unshare', 'mount'],
      timeoutMs: childCaseMs,
    },
    {
      sync: { kind: 'sync', setup: 'file.write(data, { position: round * 40000 }); one();' },
      datasync: { kind: 'datasync', setup: 'file.write(data, { position: round * 40000 }); one();' },
      'sync-vectored': { kind: 'sync', setup: 'file.writev([data, data], { position: round * 70000 }); one();' },
      'datasync-many': {
        kind: 'datasync',
        setup:
          'for (let i = 0; i < 30; i++) file.write(data.subarray(0, 900), { position: round * 40000 + i * 1000 }); for (let i = 0; i < 30; i++) one();',
      },
    },
    async (t, { kind, setup }) => {
      const { early, rounds } = await durable(t, kind, setup);
      if (rounds.length === 0) t.unable(`the file system wrote everything back by itself in ${early} rounds`);
      t.deepEqual(rounds, Array(rounds.length).fill(true), 'whether the data was on the device after the packet, round by round');
    },
  ),

  {
    id: 'FILE-07/packets',
    clause: 'FILE-07',
    title: 'sync and datasync: a packet each with 0 bytes, among writes in flight and on a file opened for reading',
    reference: flushed,
    run(t) {
      const port = t.createPort();
      const path = t.tempFile('file', 'content');
      const file = t.openFile(port, 5, path);
      const readOnly = t.openFile(port, 6, path, 'r');
      for (const kind of ['sync', 'datasync'] as const) {
        const packet = packetOf(t, port, readOnly[kind](), kind);
        t.equal(packet.bytesTransferred, 0, `bytes of a ${kind} of a file opened for reading`);
        // FlushFileBuffers: "The file handle must have the GENERIC_WRITE access right."
        if (t.backend === 'iocp') t.failed(packet, { code: 'EBADF' }, `${kind} of a file opened for reading`);
        else t.succeeded(packet, `${kind} of a file opened for reading`);
      }
      const started = new Map<unknown, string>();
      for (let i = 0; i < 40; i++) {
        const write = i % 4 !== 3;
        const operation = write
          ? file.write(t.pattern(0, 1000, i), { position: i * 1000 })
          : i % 8 === 3
            ? file.sync()
            : file.datasync();
        started.set(operation, write ? 'write' : i % 8 === 3 ? 'sync' : 'datasync');
      }
      for (const packet of t.takeSync(port, 40)) {
        t.succeeded(packet, packet.kind);
        t.equal(packet.key, 5, 'key');
        t.equal(packet.kind, started.get(packet.operation), 'the kind of the operation’s one packet');
        t.equal(packet.bytesTransferred, packet.kind === 'write' ? 1000 : 0, `bytes of a ${packet.kind}`);
        t.equal(packet.result, undefined, 'result');
        started.delete(packet.operation);
      }
      t.equal(started.size, 0, 'operations without a packet');
      const packet = packetOf(t, port, file.size(), 'size');
      t.equal(packet.result, 39_000, 'size: the last block written ends there');
    },
  },
];

interface FullDisk {
  first: { code: string | null; bytes: number; kind: string; message: string };
  size: number;
  intact: boolean;
  next: { code: string | null; bytes: number };
  freed: { code: string | null; bytes: number };
  post: number;
}

/** A tmpfs of 64 KiB with 10,000 bytes in a file already; then 200,000 bytes more. */
function fillDisk(t: Context, start: string, flags: string): Promise<FullDisk> {
  return childAnswer<FullDisk>(
    t,
    `${prelude}
    fs.mkdirSync('disk');
    run('mount', '-t', 'tmpfs', '-o', 'size=64k', 'none', 'disk');
    const port = createPort();
    const take = () => {
      const packet = port.getSync(5000);
      if (packet === null) throw new Error('no packet');
      return packet;
    };
    const show = (packet) => ({ code: packet.error?.code ?? null, bytes: packet.bytesTransferred, kind: packet.kind,
                                message: packet.error?.message ?? '' });
    const head = Buffer.alloc(10000, 'head');
    fs.writeFileSync('disk/file', head);
    const file = FileHandle.openSync('disk/file', '${flags}');
    port.associate(file, 1);
    const data = Buffer.from(Array.from({ length: 200000 }, (_, i) => i % 251));
    const at = 10000;
    ${start}
    const first = show(take());
    const size = fs.statSync('disk/file').size;
    const intact = fs.readFileSync('disk/file').equals(Buffer.concat([head, data]).subarray(0, 10000 + first.bytes));
    file.write(data.subarray(0, 5000), { position: size });
    const next = show(take());
    fs.truncateSync('disk/file', 10000);
    file.write(data.subarray(0, 5000), { position: at });
    const freed = show(take());
    port.post(9);
    const post = take().key;
    file.close();
    port.close();
    await port.closed;
    answer({ first, size, intact, next, freed, post });`,
    { wrap: ['unshare', '-m'], env: path, timeoutMs: childMs },
  );
}

const fullDisk: ConformanceCase[] = variants<{ kind: string; flags: string; start: string }>(
  {
    clause: 'FILE-07',
    title: 'a full disk: ENOSPC with the bytes that fit, which are there; with room again writing goes on',
    reference: full,
    needs: ['root', 'unshare', 'mount'],
    timeoutMs: childCaseMs,
  },
  {
    'full-heap': { kind: 'write', flags: 'r+', start: 'file.write(data, { position: at });' },
    'full-arena': {
      kind: 'write',
      flags: 'r+',
      start: 'const view = port.allocate(data.length); view.set(data); file.write(view, { position: at });',
    },
    'full-vectored': {
      kind: 'writev',
      flags: 'r+',
      start: 'file.writev([data.subarray(0, 20000), data.subarray(20000, 21001), data.subarray(21001)], { position: at });',
    },
    'full-append': { kind: 'write', flags: 'a', start: 'file.write(data);' },
  },
  async (t, { kind, flags, start }) => {
    const { first, size, intact, next, freed, post } = await fillDisk(t, start, flags);
    t.equal(first.kind, kind, 'kind');
    t.equal(first.code, 'ENOSPC', 'the error of the write that didn’t fit');
    t.ok(/ENOSPC.*(full|space)/.test(first.message), `its message says what is wrong: ${first.message}`);
    t.equal(size, 65_536, 'size of the file: all that the disk holds');
    t.equal(first.bytes, 55_536, 'the bytes that fit');
    t.ok(intact, 'the file holds exactly the bytes that were reported');
    t.equal(next.code, 'ENOSPC', 'the error of a write to the full disk');
    t.equal(next.bytes, 0, 'its bytes');
    t.equal(freed.code, null, 'the error of a write once there is room');
    t.equal(freed.bytes, 5000, 'its bytes');
    t.equal(post, 9, 'the key of a post: the port lives on');
  },
);

export const cases: readonly ConformanceCase[] = [...syncs, ...fullDisk];
