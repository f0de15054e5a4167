// BUF-08 and -09: the port's own memory, handed out, taken back and full.

import { constants, readFileSync } from 'node:fs';
import type { ConformanceCase, FileHandle, Operation, TcpSocket } from '../types.js';
import { variants } from '../variants.js';
import { arenaOf, childAnswer, filler, moved, untouched } from './buffers.js';

const owned =
  'The buffer is the system’s from the start of the request until its packet; nothing but the request’s bytes is touched';

export const cases: readonly ConformanceCase[] = [
  {
    id: 'BUF-08/loop',
    clause: 'BUF-08',
    title: 'blocks released and allocated again in a loop don’t grow; sizes, alignment and bounds are as promised',
    reference: 'No equivalent; registered I/O (RIORegisterBuffer) is the nearest',
    run(t) {
      // Room enough for a page of each size that the allocator may keep apart.
      const port = t.createPort({ arenaBytes: 2 ** 22 });
      arenaOf(t, port, 2 ** 22, 'bytes of the arena');
      const idle = port.stats().arenaUsed;
      const held: Uint8Array[] = [];
      let bytes = 0;
      // Where the arena begins in memory no script can see (BUF-08/direct does): one aligned block shows where all others may lie.
      let first: { at: number; size: number } | undefined;
      for (let round = 0; round < t.count(20_000, 500); round++) {
        if (held.length > 0 && (bytes > 2 ** 19 || t.random.int(2) === 0)) {
          const [view] = held.splice(t.random.int(held.length), 1);
          bytes -= view?.length ?? 0;
          t.ok(
            view?.every((byte, index) => byte === view[0] || index === 0),
            'a block holds what was put in: no two overlap',
          );
          port.release(t.some(view, 'a block'));
          continue;
        }
        const size = t.random.int(4) === 0 ? t.random.between(4096, 40_000) : t.random.between(1, 600);
        const view = port.allocate(size);
        t.equal(view.length, size, 'length of a block');
        t.ok(view.buffer === port.arena, 'a block lies in the arena');
        if (first === undefined || first.size < 4096) first = { at: view.byteOffset, size };
        const step = Math.min(size, first.size) >= 4096 ? 4096 : 64;
        t.equal(Math.abs(view.byteOffset - first.at) % step, 0, 'alignment of a block to the first one’s');
        view.fill(round);
        held.push(view);
        bytes += size;
      }
      for (const view of held) port.release(view);
      t.equal(port.stats().arenaUsed, idle, 'arenaUsed when all is released');
      port.release(port.allocate(2 ** 22));
    },
  },

  {
    id: 'BUF-08/direct',
    clause: 'BUF-08',
    title: 'blocks from 4 KiB up are aligned in memory as O_DIRECT asks for, whatever was allocated before them',
    reference: 'FILE_FLAG_NO_BUFFERING asks for buffers at addresses aligned to the sector; VirtualAlloc gives such',
    needs: ['linux'],
    run(t) {
      const content = t.random.bytes(2 ** 18);
      const path = t.tempFile('direct', content);
      for (const arenaBytes of [2 ** 18, 2 ** 22]) {
        const port = t.createPort({ arenaBytes });
        let file: FileHandle;
        try {
          file = t.openFile(port, 1, path, constants.O_RDWR | constants.O_DIRECT);
        } catch (error) {
          if ((error as { code?: string }).code === 'EINVAL') t.unable('the file system of the temporary folder has no O_DIRECT');
          throw error;
        }
        for (const length of [4096, 8192, 12_288, 20_480, 32_768, 65_536]) {
          const small = port.allocate(t.random.between(1, 4095));
          const blocks = [port.allocate(length), port.allocate(length)];
          for (const block of blocks) {
            const position = 4096 * t.random.int((content.length - length) / 4096 + 1);
            block.fill(filler);
            moved(t, port, file.read(block, { position }), length, `a read of ${length} bytes`);
            t.sameBytes(block, content.subarray(position, position + length), `what was read at ${position}`);
            content.set(t.random.bytes(length), position);
            block.set(content.subarray(position, position + length));
            moved(t, port, file.write(block, { position }), length, `a write of ${length} bytes`);
          }
          for (const block of [small, ...blocks]) port.release(block);
        }
        t.sameBytes(readFileSync(path), content, 'the file behind the writes');
      }
    },
  },

  {
    id: 'BUF-08/full',
    clause: 'BUF-08',
    title: 'a full arena makes allocate throw ENOBUFS and nothing else: copied operations of any size still work',
    reference: 'No equivalent; registered I/O (RIORegisterBuffer) is the nearest',
    run(t) {
      for (const arenaBytes of [0, 65_536, 2 ** 20]) {
        const port = t.createPort({ arenaBytes });
        const blocks: Uint8Array[] = [];
        for (;;) {
          try {
            blocks.push(port.allocate(64));
          } catch (error) {
            t.equal((error as { code?: string }).code, 'ENOBUFS', 'what a full arena throws');
            break;
          }
          if (blocks.length > arenaBytes / 64) t.fail('the arena gives more than it has');
        }
        t.atLeast(blocks.length, arenaBytes / 64 / 2, 'blocks of 64 bytes that the arena gave');
        t.throws(() => port.allocate(1), { code: 'ENOBUFS' }, 'one byte more');
        t.throws(() => port.allocate(2 ** 40), { code: 'ENOBUFS' }, 'far more than the arena');
        const content = t.random.bytes(300_000);
        const file = t.openFile(port, 1, t.tempFile('file', content));
        const before = port.stats().bounceBytes;
        const views = Array.from({ length: 50 }, () => t.room(300_000));
        for (const view of views) file.read(view, { position: 0 });
        for (const packet of t.takeSync(port, 50)) t.equal(packet.bytesTransferred, 300_000, 'bytes of a copied read');
        for (const view of views) t.sameBytes(view, content, 'what was read');
        const { a, b } = t.pair(port, 2, 3);
        for (let i = 0; i < 50; i++) {
          const view = t.room(8);
          b.recv(view);
          a.send(new Uint8Array([i, 1, 2, 3]));
          t.takeSync(port, 2);
          t.deepEqual([...view.subarray(0, 4)], [i, 1, 2, 3], 'what came');
        }
        // On a shared port the sends alone: what it reads into is used in place.
        const copied = t.shared ? 50 * 4 : 50 * 300_000;
        t.atLeast(port.stats().bounceBytes, before + copied, 'bounceBytes after copies outside the arena');
        const [block] = blocks;
        if (block !== undefined) {
          port.release(block);
          t.equal(port.allocate(64).byteOffset, block.byteOffset, 'place of the block that was released');
        }
      }
    },
  },

  {
    id: 'BUF-08/locked',
    clause: 'BUF-08',
    title: 'an arena far beyond the limit of locked memory works, registered or not',
    reference: 'RLIMIT_MEMLOCK bounds what io_uring may register (io_uring_register(2)); that must not bound the arena',
    needs: ['linux', 'root', 'setpriv'],
    async run(t) {
      const answer = await childAnswer<{ arena: number; registered: boolean; ok: boolean }>(
        t,
        `
        import { readFileSync } from 'node:fs';
        const port = createPort({ arenaBytes: 64 * 2 ** 20 });
        const file = FileHandle.openSync(process.argv[1], 'r');
        port.associate(file, 1);
        const content = readFileSync(process.argv[1]);
        let ok = true;
        for (let round = 0; round < 20; round++) {
          const views = [port.allocate(20 * 2 ** 20), port.allocate(30 * 2 ** 20)];
          for (const view of views) {
            view[view.length - 1] = 1;
            file.read(view.subarray(view.length - content.length), { position: 0 });
          }
          for (let got = 0; got < 2; ) got += port.getManySync(2, 2000).length;
          for (const view of views) {
            ok &&= Buffer.compare(view.subarray(view.length - content.length), content) === 0;
            port.release(view);
          }
        }
        console.log(JSON.stringify({ arena: port.arena.byteLength, registered: port.stats().arenaRegistered, ok }));
        `,
        {
          wrap: [
            'prlimit',
            '--memlock=8388608',
            'setpriv',
            '--bounding-set=-dac_override,-dac_read_search,-ipc_lock',
            '--inh-caps=-all',
          ],
        },
      );
      t.atLeast(answer.arena, 64 * 2 ** 20, 'bytes of the arena');
      t.equal(answer.ok, true, 'whether all reads gave the file');
      t.equal(answer.registered, false, 'arenaRegistered with 8 MiB of locked memory allowed');
    },
  },

  {
    id: 'BUF-09/in-use',
    clause: 'BUF-09',
    title: 'a block released while an operation uses it is handed out again only after the packet',
    reference: owned,
    run(t) {
      const port = t.createPort({ arenaBytes: 65_536 });
      const { a, b } = t.pair(port, 1, 2);
      for (const flushed of [true, false]) {
        const block = port.allocate(4096);
        const at = block.byteOffset;
        const operation = a.recv(block, { offset: 100, length: 50 });
        if (flushed) t.nothing(port);
        port.release(block);
        const others: Uint8Array[] = [];
        for (;;) {
          try {
            others.push(port.allocate(64).fill(filler));
          } catch {
            break; // ENOBUFS: that was all of it
          }
        }
        for (const other of others) {
          t.ok(
            other.byteOffset + 64 <= at || other.byteOffset >= at + 4096,
            'no block is handed out of one that an operation uses',
          );
        }
        b.send(new Uint8Array(50).fill(7));
        const packets = t.takeSync(port, 2);
        t.ok(
          packets.some((packet) => packet.operation === operation && packet.bytesTransferred === 50),
          'the recv into the released block',
        );
        for (const other of others) untouched(t, other, 'a block that was handed out meanwhile');
        const again: Uint8Array[] = [];
        for (let i = 0; i < 64; i++) again.push(port.allocate(64));
        t.ok(
          again.every((view) => view.byteOffset >= at && view.byteOffset < at + 4096),
          'after the packet the block is handed out again',
        );
        for (const view of [...others, ...again]) port.release(view);
      }
    },
  },

  ...variants<boolean>(
    {
      clause: 'BUF-09',
      title: 'a released block that waits for a range over it, and is used again by a stale view, comes back once',
      reference: owned,
    },
    { 'range-ends-first': true, 'stale-ends-first': false },
    (t, rangeFirst) => {
      const port = t.createPort({ arenaBytes: 2 ** 20 });
      const first = t.pair(port, 1, 2);
      const second = t.pair(port, 3, 4);
      const block = port.allocate(100);
      const kept = port.allocate(100).fill(filler);
      const ranging = first.a.recv(new Uint8Array(port.arena), { length: 2 ** 17 });
      t.nothing(port);
      port.release(block);
      const stale = second.a.recv(block);
      t.nothing(port);
      const end = (operation: Operation, from: TcpSocket): void => {
        const sent = from.send(new Uint8Array([filler]));
        for (const packet of t.takeSync(port, 2)) {
          t.ok(packet.operation === operation || packet.operation === sent, `the ${packet.kind} is of one of both`);
          t.succeeded(packet, packet.kind);
        }
      };
      if (rangeFirst) end(ranging, first.b);
      end(stale, second.b);
      if (!rangeFirst) end(ranging, first.b);
      const places = new Set<number>();
      for (let i = 0; i < 1000; i++) places.add(port.allocate(100).fill(i).byteOffset);
      t.equal(places.size, 1000, 'different places of 1000 blocks');
      t.ok(!places.has(kept.byteOffset), 'none is the place of a block that was kept');
      untouched(t, kept, 'the block that was kept');
    },
  ),

  {
    id: 'BUF-09/twice',
    clause: 'BUF-09',
    title: 'a second release, or a view that isn’t a block of this port, throws and frees nothing',
    reference: 'Releasing twice is an error of the program; here one that can’t hurt',
    run(t) {
      const port = t.createPort();
      const other = t.createPort();
      const kept = port.allocate(100);
      const block = port.allocate(100);
      const foreign = other.allocate(100);
      const used = port.stats().arenaUsed;
      const shape = { code: 'ERR_INVALID_ARG_VALUE', name: 'TypeError' };
      t.throws(() => port.release(foreign), shape, 'a block of another port');
      t.throws(() => port.release(new Uint8Array(100)), shape, 'a view of other memory');
      t.throws(() => port.release(new Uint8Array(new SharedArrayBuffer(100))), shape, 'a view of other shared memory');
      t.throws(() => port.release(kept.subarray(1)), shape, 'a view into the middle of a block');
      t.throws(
        () => port.release(new Uint8Array(port.arena, port.arena.byteLength - 64, 64)),
        shape,
        'a view of the arena outside of any block',
      );
      t.equal(port.stats().arenaUsed, used, 'arenaUsed after the refusals');
      port.release(block);
      t.throws(() => port.release(block), shape, 'a second release');
      t.throws(() => port.release(block.subarray(0, 10)), shape, 'a second release by another view');
      // With an operation on it that still runs, too.
      const { a } = t.pair(port, 1, 2);
      a.recv(kept);
      t.nothing(port);
      port.release(kept);
      t.throws(() => port.release(kept), shape, 'a second release while an operation uses the block');
      for (const what of [null, undefined, 5, {}, port.arena, new ArrayBuffer(8)]) {
        t.throws(() => port.release(what as never), { code: 'ERR_INVALID_ARG_TYPE', name: 'TypeError' }, 'a release of no view');
      }
      t.equal(a.cancel(), 1, 'what the handle’s cancel() returned');
      t.takeOneSync(port);
    },
  },
];
