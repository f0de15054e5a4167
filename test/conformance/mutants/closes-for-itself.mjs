import { wrap } from './wrap.mjs';

export const mutant = {
  about: 'closes a shared port for its own thread only',
  cases: ['CLOSE-01/threads-closed-by-the-creator', 'POST-05/threads-closed-by-the-creator'],
};

export default wrap({
  port: (Port) =>
    class extends Port {
      close() {
        if (this.shared && !this.isClosed) this.real.detach();
        else super.close();
      }
    },
});
