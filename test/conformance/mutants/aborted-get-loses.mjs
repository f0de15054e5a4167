import { wrap } from './wrap.mjs';

export const mutant = { about: 'loses the next packet when a get was aborted', cases: ['GET-08/abort'] };

const aborted = () => Object.assign(new Error('The operation was aborted'), { name: 'AbortError', code: 'ABORT_ERR' });

// The real get isn't told: it takes a packet that nobody sees any more.
const abortable = (start, options) => {
  const { signal, ...rest } = options ?? {};
  if (signal === undefined) return start(options);
  if (signal.aborted) return Promise.reject(aborted());
  return new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(aborted()), { once: true });
    start(rest).then(resolve, reject);
  });
};

export default wrap({
  port: (Port) =>
    class extends Port {
      get(options) {
        return abortable((rest) => super.get(rest), options);
      }
      getMany(max, options) {
        return abortable((rest) => super.getMany(max, rest), options);
      }
    },
});
