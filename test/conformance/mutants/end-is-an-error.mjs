import { change, wrap } from './wrap.mjs';

export const mutant = { about: 'reports the end of a file or stream as an error', cases: ['TCP-03/end-close', 'FILE-02/heap'] };

export default wrap({
  deliver: (packets) =>
    packets.map((packet) => {
      const end = (packet.kind === 'recv' || packet.kind === 'read') && packet.bytesTransferred === 0 && packet.error === null;
      return end ? change(packet, { error: Object.assign(new Error('the end'), { code: 'EOF' }) }) : packet;
    }),
});
