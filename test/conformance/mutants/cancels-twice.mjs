import { wrap } from './wrap.mjs';

export const mutant = { about: 'reports a cancelled operation twice', cases: ['CANCEL-01/recv', 'CANCEL-01/accept'] };

export default wrap({
  deliver: (packets) => packets.flatMap((packet) => (packet.error?.code === 'ECANCELED' ? [packet, packet] : [packet])),
});
