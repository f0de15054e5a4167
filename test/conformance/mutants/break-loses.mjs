import { wrap } from './wrap.mjs';

export const mutant = {
  about: 'an iterator fetches one packet ahead and loses it when the loop is left',
  cases: ['GET-08/break'],
};

export default wrap({
  port: (Port) =>
    class extends Port {
      [Symbol.asyncIterator]() {
        const iterator = super[Symbol.asyncIterator]();
        const { real } = this;
        const ahead = [];
        return {
          async next() {
            if (ahead.length > 0) return { done: false, value: ahead.shift() };
            const result = await iterator.next();
            if (!result.done) ahead.push(...real.getManySync(1, 0));
            return result;
          },
          return: () => iterator.return(),
          [Symbol.asyncIterator]() {
            return this;
          },
        };
      }
    },
});
