import { wrap } from './wrap.mjs';

export const mutant = { about: 'keeps 12 KiB of each port that was closed', cases: ['PORT-03/unused'] };

const kept = [];

export default wrap({
  port: (Port) =>
    class extends Port {
      static create(options) {
        kept.push(Buffer.alloc(12 * 1024, 1));
        return super.create(options);
      }
    },
});
