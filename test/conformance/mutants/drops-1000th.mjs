import { wrap } from './wrap.mjs';

export const mutant = { about: 'drops each 1,000th packet', cases: ['EX-04/getManySync'] };

let seen = 0;
export default wrap({ deliver: (packets) => packets.filter(() => ++seen % 1000 !== 0) });
