// Bytes that the JavaScript heap grows by an operation, less the packet object: exact, because the young generation is
// made so large that no collection comes in between. Each call of the kernel, with the packets that it brings, has a few
// objects of its own (an async scope's), whatever number of packets these are: measured with few and with many connections,
// the two parts come apart. Not a ratio and not a matter of rounds.

import { join } from 'node:path';
import { LineProcess } from '../../dist/bench/processes.js';

const FEW = 4;
const MANY = 32;
/** What the measurement itself leaves behind: its own objects, spread over a million operations, and the fit's error. */
const SLACK_BYTES = 1;

async function measure(connections, context) {
  const flags = ['--expose-gc', '--min-semi-space-size=512', '--max-semi-space-size=512'];
  const path = join(context.root, 'bench', 'subjects', 'allocation.mjs');
  const child = new LineProcess(process.execPath, [...flags, path, String(connections)]);
  try {
    return JSON.parse(await child.line());
  } finally {
    await child.stop();
  }
}

/** @returns bytes an operation, less what a call of the kernel allocates, and the bytes of a packet */
export async function measureAllocation(context) {
  const few = await measure(FEW, context);
  const many = await measure(MANY, context);
  const apart = few.entersPerOperation - many.entersPerOperation;
  if (apart < 0.01) throw new Error(`few and many connections make equally large batches (${JSON.stringify({ few, many })})`);
  const bytesPerEnter = (few.bytesPerOperation - many.bytesPerOperation) / apart;
  const bytesPerOperation = many.bytesPerOperation - bytesPerEnter * many.entersPerOperation;
  return {
    bytesPerOperation,
    bytesPerEnter,
    packetBytes: many.packetBytes,
    beyond: bytesPerOperation - many.packetBytes,
    bar: SLACK_BYTES,
  };
}
