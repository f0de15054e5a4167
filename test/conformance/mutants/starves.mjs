import { wrap } from './wrap.mjs';

export const mutant = {
  about: 'a dispatch lets nothing else run for a second while packets keep coming',
  cases: ['DISP-03/dispatch'],
};

export default wrap({
  port: (Port) =>
    class extends Port {
      #spells = 3;
      dispatch(handler) {
        return super.dispatch((packet) => {
          let next = packet;
          // Not for ever, so that the case can say what it saw.
          const end = performance.now() + (this.#spells-- > 0 ? 1000 : 0);
          while (next !== null) {
            handler(next);
            next = this.isClosed || performance.now() >= end ? null : this.real.getSync(0);
          }
        });
      }
    },
});
