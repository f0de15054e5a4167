// CANCEL-07: accepts and opens that succeed although somebody ended them. Their descriptors belong to nobody unless the port, or whoever
// gets the packet, closes them; so descriptors are counted.

import type { ConformanceCase } from '../types.js';
import { variants } from '../variants.js';
import { noMore } from './flight.js';
import { type Ender, endings, inSomeOrder, raceAccept, raced } from './race-common.js';

const noLeak = 'An AcceptEx or CreateFile that completed although it was cancelled gives its handle to the caller, who closes it';

export const cases: readonly ConformanceCase[] = [
  ...variants<Ender | 'close'>(
    { clause: 'CANCEL-07', title: 'a cancelled open that wins anyway leaks no descriptor', reference: noLeak },
    { 'open-cancel': 'cancel', 'open-signal': 'signal', 'open-timeout': 'timeout', 'open-close': 'close' },
    async (t, ender) => {
      const rounds = t.count(300, 10);
      const path = t.tempFile('file', 'x');
      const before = t.fdCount();
      // Small arenas: hundreds of ports are made here.
      let port = t.createPort({ arenaBytes: 65_536 });
      const withPort = t.fdCount();
      for (let round = 0; round < rounds; round++) {
        const { options, end } = endings(t, ender === 'close' ? 'cancel' : ender);
        const open = port.open(path, 'r', { key: 1, ...options });
        if (ender === 'close') {
          if (round % 2 === 0) port.flush();
          port.close();
          await port.closed;
          port = t.createPort({ arenaBytes: 65_536 });
          continue;
        }
        inSomeOrder(t, port, [() => end(open, () => t.fail('an open has no handle')), () => port.flush()]);
        const packet = t.takeOneSync(port);
        t.ok(packet.operation === open && packet.kind === 'open', 'the packet is of this round’s open');
        if (raced(t, packet, ender, 'a raced open') && packet.kind === 'open') t.some(packet.result, 'the file').close();
        else t.equal(packet.result, undefined, 'result of an open that lost');
      }
      await t.eventually(() => t.fdCount() <= withPort, `no more than ${withPort} descriptors`);
      port.close();
      await port.closed;
      await t.eventually(() => t.fdCount() <= before, `no more than ${before} descriptors after the close of the port`);
    },
  ),

  ...variants<Ender | 'close'>(
    {
      clause: 'CANCEL-07',
      title: 'a cancelled accept that wins anyway leaks no descriptor, and its peer isn’t left hanging',
      reference: noLeak,
    },
    { 'accept-cancel': 'cancel', 'accept-signal': 'signal', 'accept-timeout': 'timeout', 'accept-close': 'close' },
    async (t, ender) => {
      if (ender !== 'close') {
        raceAccept(t, ender, t.count(300, 10));
        return;
      }
      // The listener is closed while connections arrive: what was accepted for nobody must be closed.
      const port = t.createPort();
      const before = t.fdCount();
      for (let round = 0; round < t.count(200, 10); round++) {
        const listener = t.api.TcpListener.listenSync({ port: 0 });
        port.associate(listener, 1);
        const accept = listener.accept();
        const client = t.api.TcpSocket.openSync();
        port.associate(client, 2);
        const connecting = client.connect({ host: '127.0.0.1', port: listener.address.port });
        inSomeOrder(t, port, [() => listener.close(), () => port.flush()]);
        for (const packet of t.takeSync(port, 2)) {
          if (packet.operation === connecting) continue; // refused or connected: both happen
          t.ok(packet.operation === accept && packet.kind === 'accept', 'the packet is of this round’s accept');
          if (packet.kind !== 'accept') continue;
          if (packet.error === null) packet.result.close();
          else t.failed(packet, { code: 'ECANCELED', by: 'close' }, 'an accept whose listener was closed');
        }
        client.close();
      }
      noMore(t, port, 'after all rounds');
      await t.eventually(() => t.fdCount() <= before, `no more than ${before} descriptors`);
    },
  ),
];
