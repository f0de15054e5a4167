import { wrap } from './wrap.mjs';

export const mutant = { about: 'fulfils `closed` before the operations have let go', cases: ['CLOSE-09'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      #fulfil;
      #early = new Promise((resolve) => {
        this.#fulfil = resolve;
      });
      get closed() {
        return this.#early;
      }
      close() {
        super.close();
        this.#fulfil();
      }
    },
});
