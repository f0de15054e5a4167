import { wrap } from './wrap.mjs';

export const mutant = { about: 'swaps the last two packets of a batch', cases: ['EX-04/getManySync', 'ORDER-01/getMany'] };

export default wrap({
  deliver(packets) {
    if (packets.length > 1) packets.push(packets.splice(-2, 1)[0]);
    return packets;
  },
});
