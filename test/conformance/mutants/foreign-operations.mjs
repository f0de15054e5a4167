import { change, Operation, wrap } from './wrap.mjs';

export const mutant = { about: 'shows an operation that another thread started', cases: ['THREAD-01/read', 'THREAD-01/send'] };

export default wrap({
  deliver: (packets) =>
    packets.map((packet) => (packet.operation === undefined ? change(packet, { operation: new Operation() }) : packet)),
});
