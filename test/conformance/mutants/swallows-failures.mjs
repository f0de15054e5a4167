import { wrap } from './wrap.mjs';

export const mutant = { about: 'delivers no packet for a failed operation', cases: ['GET-03/getSync'] };

export default wrap({ deliver: (packets) => packets.filter((packet) => packet.error === null) });
