import { wrap } from './wrap.mjs';

export const mutant = { about: 'handleOf gives another handle for the id of a closed one', cases: ['THREAD-01/handleOf'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      handleOf(id) {
        try {
          return (this.last = super.handleOf(id));
        } catch (error) {
          if (error.code === 'ERR_HANDLE_CLOSED' && this.last !== undefined) return this.last;
          throw error;
        }
      }
    },
});
