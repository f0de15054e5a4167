import { CompletionPort } from '../../../dist/index.js';
import { wrap } from './wrap.mjs';

export const mutant = { about: 'counts no thread whose get returned nothing', cases: ['CONC-08/null', 'CONC-08/next-get'] };

let other = null;

export default wrap({
  port: (Port) =>
    class extends Port {
      getSync(timeout) {
        return this.getManySync(1, timeout)[0] ?? null;
      }
      getManySync(max, timeout) {
        const packets = super.getManySync(max, timeout);
        if (packets.length === 0 && this.shared) {
          // A get from another port frees the place on this one.
          other ??= CompletionPort.create({ arenaBytes: 0 });
          other.getSync(0);
        }
        return packets;
      }
    },
});
