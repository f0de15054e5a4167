import { wrap } from './wrap.mjs';

export const mutant = { about: 'does nothing in detach', cases: ['CONC-07/detach', 'THREAD-08/last-detach'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      detach() {
        if (!this.shared) super.detach();
      }
    },
});
