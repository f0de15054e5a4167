import { wrap } from './wrap.mjs';

export const mutant = {
  about: 'keeps posts in a queue of their own, ahead of I/O',
  cases: ['POST-07/getManySync', 'ORDER-01/getMany'],
};

export default wrap({ deliver: (packets) => packets.sort((a, b) => Number(b.kind === 'post') - Number(a.kind === 'post')) });
