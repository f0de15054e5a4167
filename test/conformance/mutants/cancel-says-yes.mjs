import { Operation, replaceMethod, wrap } from './wrap.mjs';

export const mutant = { about: 'cancel() says true of an operation that has finished', cases: ['CANCEL-02/finished'] };

replaceMethod(
  Operation,
  'cancel',
  (original) =>
    function () {
      Reflect.apply(original, this, []);
      return true;
    },
);

export default wrap();
