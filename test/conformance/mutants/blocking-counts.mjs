import { wrap } from './wrap.mjs';

export const mutant = { about: 'counts a thread that is in port.blocking', cases: ['CONC-05/computing', 'CONC-05/nested'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      blocking(action) {
        return action();
      }
    },
});
