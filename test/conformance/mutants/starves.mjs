import { wrap } from './wrap.mjs';

export const mutant = { about: 'a dispatch empties the whole queue before it lets anything else run', cases: ['DISP-03'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      dispatch(handler) {
        return super.dispatch((packet) => {
          let next = packet;
          while (next !== null && !this.isClosed) {
            handler(next);
            next = this.isClosed ? null : this.real.getSync(0);
          }
        });
      }
    },
});
