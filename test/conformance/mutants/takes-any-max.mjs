import { wrap } from './wrap.mjs';

export const mutant = { about: 'takes a max of 0 or below, or a fraction, for 1', cases: ['EX-02/getManySync', 'EX-02/getMany'] };

const allowed = (max) => (typeof max === 'number' ? Math.max(1, Math.floor(max) || 1) : max);

export default wrap({
  port: (Port) =>
    class extends Port {
      getManySync(max, timeout) {
        return super.getManySync(allowed(max), timeout);
      }
      getMany(max, options) {
        return super.getMany(allowed(max), options);
      }
    },
});
