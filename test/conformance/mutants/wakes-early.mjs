import { wrap } from './wrap.mjs';

export const mutant = { about: 'ends a wait after nine tenths of its timeout', cases: ['GET-02/getSync', 'GET-02/get'] };

const shorter = (timeout) => (typeof timeout === 'number' && timeout > 0 ? timeout * 0.9 : timeout);

export default wrap({
  port: (Port) =>
    class extends Port {
      getSync(timeout) {
        return super.getSync(shorter(timeout));
      }
      getManySync(max, timeout) {
        return super.getManySync(max, shorter(timeout));
      }
      get(options) {
        return super.get(options?.timeout === undefined ? options : { ...options, timeout: shorter(options.timeout) });
      }
      getMany(max, options) {
        return super.getMany(max, options?.timeout === undefined ? options : { ...options, timeout: shorter(options.timeout) });
      }
    },
});
