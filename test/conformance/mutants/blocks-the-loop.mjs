import { wrap } from './wrap.mjs';

export const mutant = { about: 'waits for an async get with a blocking one', cases: ['GET-05/get', 'GET-05/getMany'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      async getMany(max, { timeout = 2000 } = {}) {
        return this.real.getManySync(max, timeout);
      }
      async get(options) {
        return (await this.getMany(1, options))[0] ?? null;
      }
    },
});
