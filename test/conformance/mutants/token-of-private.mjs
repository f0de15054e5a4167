import { wrap } from './wrap.mjs';

export const mutant = { about: 'gives a token of a private port, too', cases: ['THREAD-07/private'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      get token() {
        return this.shared ? super.token : Object.freeze({ index: 0, generation: 0, secret: 0, arena: this.arena });
      }
    },
});
