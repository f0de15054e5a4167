// Reads or writes of a file that is as large as it has to be: through a port (dispatch to an event loop of either kind, or a getManySync
// loop) or with node:fs. DEPTH requests are in flight, but for the synchronous calls, which have one. Each block is known by its first
// four bytes, and what was moved is checked: of a read at once, of the writes with a look at the file after the run.
//
// node bench/subjects/files.mjs FORM read|write BYTES DEPTH random|sequential [--direct] [--aligned]
//   FORM   dispatch, inverted, block, fs.read (fs.write), fs.promises, fs.readSync (fs.writeSync)

import {
  closeSync,
  constants,
  ftruncateSync,
  mkdtempSync,
  openSync,
  promises,
  read,
  readSync,
  rmSync,
  write,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { CompletionPort, FileHandle, Operation } from 'completion-port';
import { obeyCommands } from './commands.mjs';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { direct: { type: 'boolean', default: false }, aligned: { type: 'boolean', default: false } },
});
const [form, kind, bytesText, depthText, order] = positionals;
const BLOCK = Number(bytesText);
const DEPTH = Number(depthText);
const reading = kind === 'read';
const { direct } = options;

const MIB = 2 ** 20;
const PAGE = 4096;
// Small blocks, 1 MiB in all: a file that the processor's own caches hold. With a larger one the memory's bandwidth is measured, which is
// the same for every subject and comes and goes with the machine's other guests. Large blocks need room for more than one.
const BLOCKS = BLOCK < MIB ? MIB / BLOCK : 16;

// A block of the arena begins at a page, and so does a page of the file: where both have the same place in their page, some processors
// copy at a third of their speed (seen on an EPYC of the Zen family with `rep movsb`: readSync into such a buffer takes 3.7 µs in
// place of 1.2). A Uint8Array never lies so, so no subject's does here; `--aligned` shows what it costs. O_DIRECT allows nothing else.
const OFF_THE_PAGE = options.aligned ? 0 : 64;

const folder = mkdtempSync(join(tmpdir(), 'completion-port-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
const path = join(folder, 'data');
const flags = (reading ? constants.O_RDONLY : constants.O_RDWR) | (direct ? constants.O_DIRECT : 0);

const marks = new Uint32Array(BLOCKS); // what the first four bytes of each block have to be
{
  const writer = openSync(path, 'w');
  const pattern = new Uint8Array(BLOCK);
  for (let block = 0; block < BLOCKS; block++) {
    marks[block] = block + 1;
    pattern.fill(block & 0xff);
    new DataView(pattern.buffer).setUint32(0, marks[block], true);
    writeSync(writer, pattern);
  }
  ftruncateSync(writer, BLOCK * BLOCKS);
  closeSync(writer);
}

// The same places for every subject, computed beforehand.
const PLACES = 4096;
const places = new Float64Array(PLACES);
for (let at = 0, random = 1; at < PLACES; at++) {
  random = (Math.imul(random, 1_664_525) + 1_013_904_223) >>> 0;
  places[at] = (order === 'sequential' ? at % BLOCKS : Math.floor((random / 2 ** 32) * BLOCKS)) * BLOCK;
}
let turn = 0;
const nextPlace = () => places[turn++ & (PLACES - 1)];

/** Wall-clock time is looked at only now and then: it costs as much as a small part of a read. */
const CHECK_EVERY = direct || BLOCK >= MIB ? 1 : 256;

const markOf = (buffer) => (buffer[0] | (buffer[1] << 8) | (buffer[2] << 16) | (buffer[3] << 24)) >>> 0;
const setMark = (buffer, mark) => {
  buffer[0] = mark & 0xff;
  buffer[1] = (mark >>> 8) & 0xff;
  buffer[2] = (mark >>> 16) & 0xff;
  buffer[3] = mark >>> 24;
};

let written = BLOCKS;
/** Before a request: where it goes, and for a write what it says. Two writes of one block may be in flight: either may be the last. */
function begin(buffer) {
  const position = nextPlace();
  if (!reading) {
    const block = position / BLOCK;
    marks[block] = Math.max(marks[block], ++written);
    setMark(buffer, written);
  }
  return position;
}

function check(bytes, buffer, position) {
  if (bytes !== BLOCK) throw new Error(`${bytes} bytes at ${position} in place of ${BLOCK}`);
  if (reading && markOf(buffer) !== marks[position / BLOCK]) throw new Error(`a wrong read at ${position}`);
}

/** After writes: each block holds something that this run wrote there, whole. */
function checkFile() {
  if (reading) return;
  const file = openSync(path, 'r');
  const buffer = new Uint8Array(BLOCK);
  for (let block = 0; block < BLOCKS; block++) {
    const bytes = readSync(file, buffer, 0, BLOCK, block * BLOCK);
    const mark = markOf(buffer);
    // With several in flight the kernel may order two writes of one block either way, so the mark may be an older one of it.
    const right = DEPTH === 1 || form.endsWith('Sync') ? mark === marks[block] : mark > 0 && mark <= marks[block];
    if (bytes !== BLOCK || !right) throw new Error(`block ${block} holds ${mark} in place of ${marks[block]}`);
  }
  closeSync(file);
}

/** Buffers of node:fs. O_DIRECT wants them at a page, and a script can't ask where they lie: so the file is tried with one. */
function heapBuffers(count) {
  if (!direct) return Array.from({ length: count }, () => new Uint8Array(BLOCK));
  const all = new Uint8Array(count * BLOCK + PAGE);
  const probe = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  try {
    for (let offset = 0; offset < PAGE; offset += 8) {
      try {
        readSync(probe, all, offset, PAGE, 0);
      } catch (error) {
        if (error.code !== 'EINVAL') throw error;
        continue;
      }
      return Array.from({ length: count }, (_, index) => all.subarray(offset + index * BLOCK, offset + (index + 1) * BLOCK));
    }
  } finally {
    closeSync(probe);
  }
  throw new Error('no place in a Uint8Array is aligned for O_DIRECT');
}

function openPort(eventLoop) {
  const port = CompletionPort.create({ eventLoop, arenaBytes: Math.max(16 * MIB, 2 * DEPTH * (BLOCK + PAGE)) });
  const file = FileHandle.openSync(path, flags);
  port.associate(file, 1);
  const place = direct ? 0 : OFF_THE_PAGE;
  const operations = Array.from(
    { length: DEPTH },
    () => new Operation(port.allocate(PAGE + BLOCK).subarray(place, place + BLOCK)),
  );
  const start = (operation) => {
    operation.position = begin(operation.context);
    if (reading) file.read(operation.context, operation);
    else file.write(operation.context, operation);
  };
  return { port, operations, start };
}

const throughDispatch = (eventLoop) => () => {
  const { port, operations, start } = openPort(eventLoop);
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
          start(operation);
        }
      });
      for (const operation of operations) start(operation);
    });
};

function inBlockingLoop() {
  const { port, operations, start } = openPort('plain');
  return (seconds) => {
    const end = performance.now() + seconds * 1000;
    let done = 0;
    for (const operation of operations) start(operation);
    for (let going = DEPTH, over = false; going > 0; ) {
      for (const packet of port.getManySync(DEPTH)) {
        const operation = packet.operation;
        if (packet.error !== null) throw packet.error;
        check(packet.bytesTransferred, operation.context, operation.position);
        if (++done % CHECK_EVERY === 0 && performance.now() >= end) over = true;
        if (over) going--;
        else start(operation);
      }
    }
    return { operations: done };
  };
}

function withCallbacks() {
  const file = openSync(path, flags);
  const buffers = heapBuffers(DEPTH);
  const call = reading ? read : write;
  return (seconds) =>
    new Promise((resolve, reject) => {
      const end = performance.now() + seconds * 1000;
      let done = 0;
      let going = DEPTH;
      let over = false;
      const start = (buffer) => {
        const position = begin(buffer);
        call(file, buffer, 0, BLOCK, position, (error, bytes) => {
          if (error) return reject(error);
          check(bytes, buffer, position);
          if (++done % CHECK_EVERY === 0 && performance.now() >= end) over = true;
          if (!over) start(buffer);
          else if (--going === 0) resolve({ operations: done });
        });
      };
      for (const buffer of buffers) start(buffer);
    });
}

async function withPromises() {
  const file = await promises.open(path, flags);
  const buffers = heapBuffers(DEPTH);
  return async (seconds) => {
    const end = performance.now() + seconds * 1000;
    let done = 0;
    let over = false;
    const work = async (buffer) => {
      while (!over) {
        const position = begin(buffer);
        if (reading) check((await file.read(buffer, 0, BLOCK, position)).bytesRead, buffer, position);
        else check((await file.write(buffer, 0, BLOCK, position)).bytesWritten, buffer, position);
        if (++done % CHECK_EVERY === 0 && performance.now() >= end) over = true;
      }
    };
    await Promise.all(buffers.map(work));
    return { operations: done };
  };
}

function synchronously() {
  const file = openSync(path, flags);
  const buffers = heapBuffers(DEPTH);
  const call = reading ? readSync : writeSync;
  return (seconds) => {
    const end = performance.now() + seconds * 1000;
    let done = 0;
    while (done % CHECK_EVERY !== 0 || performance.now() < end) {
      const buffer = buffers[done % DEPTH];
      const position = begin(buffer);
      check(call(file, buffer, 0, BLOCK, position), buffer, position);
      done++;
    }
    return { operations: done };
  };
}

const forms = {
  dispatch: throughDispatch('plain'),
  inverted: throughDispatch('inverted'),
  block: inBlockingLoop,
  'fs.read': withCallbacks,
  'fs.write': withCallbacks,
  'fs.promises': withPromises,
  'fs.readSync': synchronously,
  'fs.writeSync': synchronously,
};

const run = await forms[form]();
process.on('SIGTERM', () => process.exit(0));
console.log('ready');
obeyCommands((_word, seconds) => run(seconds), checkFile);
