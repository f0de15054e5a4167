import { isMainThread } from 'node:worker_threads';
import { wrap } from './wrap.mjs';

export const mutant = { about: 'delivers each 50th packet of a thread twice', cases: ['GET-06/threads', 'EX-03/threads'] };

let count = 0;

export default wrap({
  deliver: (packets) => packets.flatMap((packet) => (++count % 50 === 0 && !isMainThread ? [packet, packet] : [packet])),
});
