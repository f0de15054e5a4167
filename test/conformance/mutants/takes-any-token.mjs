import { wrap } from './wrap.mjs';

export const mutant = {
  about: 'attaches with a token of which something was changed',
  cases: ['THREAD-07/secret', 'THREAD-07/generation'],
};

let last = null;

export default wrap({
  port: (Port) =>
    class extends Port {
      static create(options) {
        const port = super.create(options);
        if (port.shared) last = port.token;
        return port;
      }
      static attach(token) {
        try {
          return super.attach(token);
        } catch (error) {
          if (error.code !== 'ERR_INVALID_ARG_VALUE' || last === null) throw error;
          return super.attach(last);
        }
      }
    },
});
