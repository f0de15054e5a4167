import { wrap } from './wrap.mjs';

export const mutant = {
  about: 'looks for packets every 200 ms in place of waiting',
  cases: ['GET-04/threads-getSync', 'CONC-01/getSync'],
};

const cell = new Int32Array(new SharedArrayBuffer(4));

export default wrap({
  port: (Port) =>
    class extends Port {
      getSync(timeout = Number.POSITIVE_INFINITY) {
        const end = performance.now() + timeout;
        for (;;) {
          const packet = super.getSync(0);
          const left = end - performance.now();
          if (packet !== null || left <= 0) return packet;
          Atomics.wait(cell, 0, 0, Math.min(200, left));
        }
      }
    },
});
