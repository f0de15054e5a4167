import { change, wrap } from './wrap.mjs';

export const mutant = {
  about: 'gives the operation id only to the thread that started it',
  cases: ['THREAD-01/read', 'THREAD-09'],
};

export default wrap({
  deliver: (packets) => packets.map((packet) => (packet.operation === undefined ? change(packet, { operationId: 0 }) : packet)),
});
