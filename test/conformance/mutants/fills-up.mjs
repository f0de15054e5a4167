import { wrap } from './wrap.mjs';

export const mutant = { about: 'waits in getMany until `max` packets are there', cases: ['EX-01/getMany'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      async getMany(max, options) {
        const packets = await super.getMany(max, options);
        while (options?.timeout === undefined && packets.length < max)
          packets.push(...(await super.getMany(max - packets.length)));
        return packets;
      }
    },
});
