import { change, wrap } from './wrap.mjs';

export const mutant = {
  about: 'takes the reset of a connection for its orderly end',
  cases: ['TCP-04/pending-heap', 'TCP-04/get'],
};

export default wrap({
  deliver: (packets) =>
    packets.map((packet) =>
      packet.error?.code === 'ECONNRESET' ? change(packet, { error: null, bytesTransferred: 0 }) : packet,
    ),
});
