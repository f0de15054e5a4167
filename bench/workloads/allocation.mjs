// Bytes that the JavaScript heap grows by an operation, less the packet object: exact, because the young generation is
// made so large that no collection comes in between. Not a ratio and not a matter of rounds.

import { join } from 'node:path';
import { LineProcess } from '../lib/processes.mjs';

/** A thousandth of a packet: what the benchmark's own start and end leave behind, spread over the operations. */
const SLACK_BYTES = 0.1;

/** @returns rows for the table: the bytes an operation, and the bytes of a packet for comparison */
export async function measureAllocation(context) {
  const flags = ['--expose-gc', '--min-semi-space-size=512', '--max-semi-space-size=512'];
  const child = new LineProcess(process.execPath, [...flags, join(context.root, 'bench', 'subjects', 'allocation.mjs')]);
  try {
    const answer = JSON.parse(await child.line());
    return { ...answer, beyond: answer.bytesPerOperation - answer.packetBytes, bar: SLACK_BYTES };
  } finally {
    await child.stop();
  }
}
