import { wrap } from './wrap.mjs';

export const mutant = { about: 'swallows what a dispatch handler throws', cases: ['DISP-01'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      dispatch(handler) {
        return super.dispatch((packet) => {
          try {
            handler(packet);
          } catch {
            // Lost: that is the mutation.
          }
        });
      }
    },
});
