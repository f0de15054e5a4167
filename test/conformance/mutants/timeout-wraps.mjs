import { wrap } from './wrap.mjs';

export const mutant = {
  about: 'takes a timeout of 2^31 ms or more for 1 ms, as setTimeout does',
  cases: ['GET-10/get', 'GET-10/getSync'],
};

const wrapped = (timeout) => (Number.isFinite(timeout) && timeout >= 2 ** 31 ? 1 : timeout);

export default wrap({
  port: (Port) =>
    class extends Port {
      getSync(timeout) {
        return super.getSync(wrapped(timeout));
      }
      getManySync(max, timeout) {
        return super.getManySync(max, wrapped(timeout));
      }
      get(options) {
        return super.get({ ...options, timeout: wrapped(options?.timeout) });
      }
      getMany(max, options) {
        return super.getMany(max, { ...options, timeout: wrapped(options?.timeout) });
      }
    },
});
