import { wrap } from './wrap.mjs';

export const mutant = {
  about: 'lets one thread more run on a shared port than its concurrency says',
  cases: ['CONC-02/getSync', 'CONC-03/1', 'CONC-03/reaches-2'],
};

export default wrap({
  port: (Port) =>
    class extends Port {
      static options(options) {
        return options?.shared === true && options.concurrency > 0
          ? { ...options, concurrency: options.concurrency + 1 }
          : options;
      }
    },
});
