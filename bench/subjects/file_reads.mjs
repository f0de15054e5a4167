// Reads 4 KiB at random places of a file that is in the page cache: through a port (dispatch or a getManySync loop), with
// fs.read, or with readSync. 64 reads are in flight, but for readSync, which has one.
//
// node bench/subjects/file_reads.mjs dispatch|aligned|block|fs-read|read-sync

import { closeSync, mkdtempSync, openSync, read, readSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CompletionPort, FileHandle, Operation } from 'completion-port';
import { obeyCommands } from './commands.mjs';

const BLOCK = 4096;
// 1 MiB: a file that the processor's own caches hold. With a larger one the memory's bandwidth is measured, which is the same
// for every subject and comes and goes with the machine's other guests.
const BLOCKS = 256;
const DEPTH = 64;

// A block of the arena begins at a page, and so does a page of the file: where both have the same place in their page, some processors
// copy at a third of their speed (seen on an EPYC of the Zen family with `rep movsb`: readSync into such a buffer takes 3.7 µs in
// place of 1.2). A Uint8Array never lies so, so no subject's does here; `aligned` shows what it costs.
const OFF_THE_PAGE = 64;

const folder = mkdtempSync(join(tmpdir(), 'completion-port-bench-'));
const path = join(folder, 'data');
const writer = openSync(path, 'w');
const pattern = new Uint8Array(BLOCK);
for (let block = 0; block < BLOCKS; block++) {
  pattern.fill(block & 0xff);
  writeSync(writer, pattern);
}
closeSync(writer);

// The same places for every subject, computed beforehand.
const PLACES = 4096;
const places = new Float64Array(PLACES);
for (let at = 0, random = 1; at < PLACES; at++) {
  random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
  places[at] = Math.floor((random / 2 ** 32) * BLOCKS) * BLOCK;
}
let turn = 0;
const nextPlace = () => places[turn++ & (PLACES - 1)];

/** Wall-clock time is looked at only now and then: it costs as much as a small part of a read. */
const CHECK_EVERY = 256;

function check(bytes, buffer, position) {
  if (bytes !== BLOCK || buffer[0] !== ((position / BLOCK) & 0xff)) throw new Error(`a wrong read at ${position}`);
}

/** The operations of a port, each with a buffer of the arena at that place in its page. */
const operationsOf = (port, place) =>
  Array.from({ length: DEPTH }, () => new Operation(port.allocate(place + BLOCK).subarray(place)));

const runs = {
  aligned() {
    return runs.dispatch(0);
  },

  dispatch(place = OFF_THE_PAGE) {
    const port = CompletionPort.create();
    const file = FileHandle.openSync(path, 'r');
    port.associate(file, 1);
    const operations = operationsOf(port, place);
    return (seconds) =>
      new Promise((resolve) => {
        const end = performance.now() + seconds * 1000;
        let done = 0;
        let going = DEPTH;
        let over = false;
        const consumer = port.dispatch((packet) => {
          const operation = packet.operation;
          if (packet.error !== null) throw packet.error;
          check(packet.bytesTransferred, operation.context, operation.position);
          if (++done % CHECK_EVERY === 0 && performance.now() >= end) over = true;
          if (over) {
            if (--going === 0) {
              consumer.stop();
              resolve({ operations: done });
            }
          } else {
            operation.position = nextPlace();
            file.read(operation.context, operation);
          }
        });
        for (const operation of operations) {
          operation.position = nextPlace();
          file.read(operation.context, operation);
        }
      });
  },

  block() {
    const port = CompletionPort.create();
    const file = FileHandle.openSync(path, 'r');
    port.associate(file, 1);
    const operations = operationsOf(port, OFF_THE_PAGE);
    return (seconds) => {
      const end = performance.now() + seconds * 1000;
      let done = 0;
      for (const operation of operations) {
        operation.position = nextPlace();
        file.read(operation.context, operation);
      }
      for (let going = DEPTH, over = false; going > 0; ) {
        for (const packet of port.getManySync(DEPTH)) {
          const operation = packet.operation;
          if (packet.error !== null) throw packet.error;
          check(packet.bytesTransferred, operation.context, operation.position);
          if (++done % CHECK_EVERY === 0 && performance.now() >= end) over = true;
          if (over) {
            going--;
          } else {
            operation.position = nextPlace();
            file.read(operation.context, operation);
          }
        }
      }
      return { operations: done };
    };
  },

  'fs-read'() {
    const file = openSync(path, 'r');
    const buffers = Array.from({ length: DEPTH }, () => new Uint8Array(BLOCK));
    return (seconds) =>
      new Promise((resolve, reject) => {
        const end = performance.now() + seconds * 1000;
        let done = 0;
        let going = DEPTH;
        let over = false;
        const start = (buffer) => {
          const position = nextPlace();
          read(file, buffer, 0, BLOCK, position, (error, bytes) => {
            if (error) return reject(error);
            check(bytes, buffer, position);
            if (++done % CHECK_EVERY === 0 && performance.now() >= end) over = true;
            if (!over) start(buffer);
            else if (--going === 0) resolve({ operations: done });
          });
        };
        for (const buffer of buffers) start(buffer);
      });
  },

  'read-sync'() {
    const file = openSync(path, 'r');
    const buffers = Array.from({ length: DEPTH }, () => new Uint8Array(BLOCK));
    return (seconds) => {
      const end = performance.now() + seconds * 1000;
      let done = 0;
      while (done % CHECK_EVERY !== 0 || performance.now() < end) {
        const buffer = buffers[done % DEPTH];
        const position = nextPlace();
        check(readSync(file, buffer, 0, BLOCK, position), buffer, position);
        done++;
      }
      return { operations: done };
    };
  },
};

const run = runs[process.argv[2]]();
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
process.on('SIGTERM', () => process.exit(0));
console.log('ready');
obeyCommands((_word, seconds) => run(seconds));
