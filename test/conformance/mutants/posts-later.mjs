import { wrap } from './wrap.mjs';

export const mutant = { about: 'posts at the end of the current job', cases: ['THREAD-02/posts-blocking'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      post(key, bytes, operation) {
        setImmediate(() => {
          if (!this.isClosed) super.post(key, bytes, operation);
        });
      }
    },
});
