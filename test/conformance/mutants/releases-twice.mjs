import { wrap } from './wrap.mjs';

export const mutant = {
  about: 'says nothing about a second release of a block, or one of a foreign view',
  cases: ['BUF-09/twice'],
};

export default wrap({
  port: (Port) =>
    class extends Port {
      release(view) {
        try {
          super.release(view);
        } catch (error) {
          if (error.code !== 'ERR_INVALID_ARG_VALUE') throw error;
        }
      }
    },
});
