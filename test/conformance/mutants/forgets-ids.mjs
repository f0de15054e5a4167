import { change, wrap } from './wrap.mjs';

export const mutant = { about: 'gives every packet the operation id 0', cases: ['POST-01/getSync', 'OP-03'] };

export default wrap({ deliver: (packets) => packets.map((packet) => change(packet, { operationId: 0 })) });
