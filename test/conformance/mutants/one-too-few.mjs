import { wrap } from './wrap.mjs';

export const mutant = {
  about: 'lets one thread fewer run on a shared port than its concurrency says',
  cases: ['CONC-03/reaches-2', 'CONC-03/reaches-4'],
};

export default wrap({
  port: (Port) =>
    class extends Port {
      static options(options) {
        return options?.shared === true && options.concurrency > 1
          ? { ...options, concurrency: options.concurrency - 1 }
          : options;
      }
    },
});
