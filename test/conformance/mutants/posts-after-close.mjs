import { wrap } from './wrap.mjs';

export const mutant = { about: 'takes posts to a closed port and drops them', cases: ['POST-05'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      post(key, bytes, operation) {
        if (!this.isClosed) super.post(key, bytes, operation);
      }
    },
});
