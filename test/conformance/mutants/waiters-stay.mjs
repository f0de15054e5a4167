import { wrap } from './wrap.mjs';

export const mutant = { about: 'close() leaves waiting gets waiting', cases: ['CLOSE-01/from-a-job'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      async getMany(max, options) {
        try {
          return await super.getMany(max, options);
        } catch (error) {
          if (error.code === 'ERR_PORT_CLOSED') return new Promise(() => {});
          throw error;
        }
      }
      async get(options) {
        return (await this.getMany(1, options))[0] ?? null;
      }
    },
});
