import { wrap } from './wrap.mjs';

export const mutant = {
  about: 'a dispatch takes along what else is queued, and hands it out behind a slow handler',
  cases: ['DISP-05/dispatch'],
};

export default wrap({
  port: (Port) =>
    class extends Port {
      dispatch(handler) {
        return super.dispatch((packet) => {
          const more = this.real.getManySync(63, 0);
          handler(packet);
          for (const other of more) handler(other);
        });
      }
    },
});
