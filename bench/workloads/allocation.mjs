// Bytes that the JavaScript heap grows by an operation, less the packet object: exact, because the young generation is
// made so large that no collection comes in between. A turn of the event loop has a few objects of its own (Node's
// Immediate is one), whatever number of packets it delivers: measured with few and with many connections, the two parts
// come apart. Not a ratio and not a matter of rounds.

import { join } from 'node:path';
import { LineProcess } from '../../dist/bench/processes.js';

const FEW = 8;
const MANY = 512;
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

/** @returns bytes an operation, with and without what a turn allocates, and the bytes of a packet */
export async function measureAllocation(context) {
  const few = await measure(FEW, context);
  const many = await measure(MANY, context);
  const bytesPerTurn = (few.bytesPerOperation - many.bytesPerOperation) / (few.turnsPerOperation - many.turnsPerOperation);
  const bytesPerOperation = many.bytesPerOperation - bytesPerTurn * many.turnsPerOperation;
  return {
    bytesPerOperation,
    bytesPerTurn,
    packetBytes: many.packetBytes,
    beyond: bytesPerOperation - many.packetBytes,
    bar: SLACK_BYTES,
  };
}
