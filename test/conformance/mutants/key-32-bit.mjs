import { change, wrap } from './wrap.mjs';

export const mutant = { about: 'keeps 32 bits of a key', cases: ['ASSOC-01/file', 'POST-01/getSync'] };

export default wrap({ deliver: (packets) => packets.map((packet) => change(packet, { key: packet.key % 2 ** 32 })) });
