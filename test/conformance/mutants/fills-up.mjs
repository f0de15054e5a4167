import { wrap } from './wrap.mjs';

export const mutant = { about: 'waits in getMany until `max` packets are there', cases: ['EX-01'] };

export default wrap({
  port: (Port) =>
    class extends Port {
      getManySync(max, timeout = 1000) {
        const end = performance.now() + Math.min(timeout, 1000);
        const packets = super.getManySync(max, timeout);
        while (packets.length < max && performance.now() < end) packets.push(...super.getManySync(max - packets.length, 1));
        return packets;
      }
      async getMany(max, options) {
        const end = performance.now() + Math.min(options?.timeout ?? 1000, 1000);
        const packets = await super.getMany(max, options);
        while (packets.length < max && performance.now() < end)
          packets.push(...(await super.getMany(max - packets.length, { timeout: 1 })));
        return packets;
      }
    },
});
