import { wrap } from './wrap.mjs';

export const mutant = {
  about: 'swaps every two posts of a thread',
  cases: ['ORDER-02/threads-getSync', 'ORDER-02/threads-dispatch'],
};

let held = null;

export default wrap({
  port: (Port) =>
    class extends Port {
      post(key, bytes, operation) {
        const release = () => {
          const post = held;
          held = null;
          if (post !== null) post();
        };
        if (!this.shared) {
          super.post(key, bytes, operation);
        } else if (held === null) {
          held = () => super.post(key, bytes, operation);
          queueMicrotask(release);
        } else {
          super.post(key, bytes, operation);
          release();
        }
      }
    },
});
