import { change, Operation, wrap } from './wrap.mjs';

export const mutant = { about: 'delivers a copy of the operation', cases: ['OP-03', 'GET-03/get'] };

export default wrap({
  deliver: (packets) =>
    packets.map((packet) =>
      packet.kind === 'post' || packet.operation === undefined
        ? packet
        : change(packet, { operation: Object.assign(new Operation(), packet.operation) }),
    ),
});
