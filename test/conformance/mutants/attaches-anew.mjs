import { wrap } from './wrap.mjs';

export const mutant = { about: 'makes another port object each time that a thread attaches', cases: ['THREAD-06'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      static attach(token) {
        const port = super.attach(token);
        return Object.create(port, { real: { value: port.real } });
      }
    },
});
