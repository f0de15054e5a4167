import { CompletionPort } from '../../../dist/index.js';
import { wrap } from './wrap.mjs';

export const mutant = {
  about: 'frees the place of an async consumer before the job that received the packet runs',
  cases: ['CONC-09/get', 'CONC-02/get'],
};

let other = null;

export default wrap({
  port: (Port) =>
    class extends Port {
      async get(options) {
        const packet = await super.get(options);
        if (packet !== null && this.shared) {
          // A get from another port frees the place on this one.
          other ??= CompletionPort.create({ arenaBytes: 0 });
          other.getSync(0);
        }
        return packet;
      }
    },
});
