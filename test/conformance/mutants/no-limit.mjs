import { wrap } from './wrap.mjs';

export const mutant = { about: 'lets twice as many operations be in flight as were allowed', cases: ['OP-04/limit'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      static options(options) {
        const { maxOperations } = options ?? {};
        return typeof maxOperations === 'number' && maxOperations < 500_000
          ? { ...options, maxOperations: maxOperations * 2 }
          : options;
      }
      get maxOperations() {
        return super.maxOperations / 2;
      }
    },
});
