// POST-08: posts that name an operation in flight, by object or by id, and leave it alone.

import { checkPost } from '../support/getting.js';
import type { ConformanceCase, Context, Operation, Port } from '../types.js';
import { variants } from '../variants.js';

const range = (end: number): number[] => Array.from({ length: end }, (_, i) => i);

/** Operations that stay in flight until told, one of each kind of handle that can wait. */
const pending: Record<
  string,
  (t: Context, port: Port) => { operation: Operation; again: (operation: Operation) => unknown; finish: () => void }
> = {
  recv(t, port) {
    const { a, b } = t.pair(port, 1, 2);
    const buffer = t.room(4);
    const operation = a.recv(buffer, new t.api.Operation('context', { id: 77 }));
    return { operation, again: (one) => a.recv(buffer, one), finish: () => void b.send(Buffer.from('ping')) };
  },
  accept(t, port) {
    const listener = t.listener(port, 1);
    const operation = listener.accept(new t.api.Operation('context', { id: 77 }));
    return { operation, again: (one) => listener.accept(one), finish: () => void operation.cancel() };
  },
};

export const cases: ConformanceCase[] = [
  ...variants(
    {
      clause: 'POST-08',
      title: 'posting a pending operation leaves it pending, with its own packet still to come',
      reference: 'a posted OVERLAPPED is only a number to the queue',
    },
    pending,
    (t, make) => {
      const port = t.createPort();
      const { operation, again, finish } = make(t, port);
      port.flush();
      const inFlight = port.inFlight;
      for (const key of range(3)) port.post(key, 5, operation);
      for (const key of range(3)) {
        checkPost(t, t.takeOneSync(port), key, 5, operation, 77);
        t.equal(operation.pending, true, 'pending after the packet of a post');
        t.equal(port.inFlight, inFlight, 'inFlight');
        t.throws(() => again(operation), { code: 'ERR_OPERATION_PENDING' }, 'starting it');
      }
      port.post(9, 5, operation);
      finish();
      const packets = t.takeSync(port, port.inFlight + 1);
      const own = packets.filter((packet) => packet.operation === operation && packet.kind !== 'post');
      t.equal(own.length, 1, 'packets of its own');
      t.equal(own[0]?.operationId, 77, 'operationId');
      t.equal(own[0]?.operation?.context, 'context', 'context');
      t.equal(packets.filter((packet) => packet.kind === 'post').length, 1, 'posts');
      t.equal(operation.pending, false, 'pending after its own packet');
      t.nothing(port);
    },
  ),
  ...variants(
    {
      clause: 'POST-08',
      title: "an id equal to a live operation's changes nothing",
      reference: 'a posted OVERLAPPED is only a number to the queue',
    },
    Object.fromEntries(Object.entries(pending).map(([name, make]) => [`id of ${name}`, make])),
    (t, make) => {
      const port = t.createPort();
      const { operation, again, finish } = make(t, port);
      const impostor = new t.api.Operation('impostor', { id: 77 });
      port.post(1, 2, { id: 77 });
      port.post(3, 4, impostor);
      checkPost(t, t.takeOneSync(port), 1, 2, undefined, 77);
      checkPost(t, t.takeOneSync(port), 3, 4, impostor, 77);
      t.equal(operation.pending, true, 'pending of the live operation');
      t.equal(impostor.pending, false, 'pending of the other');
      t.equal(impostor.cancel(), false, 'cancel() of the other');
      t.throws(() => again(operation), { code: 'ERR_OPERATION_PENDING' }, 'starting the live one');
      finish();
      const packets = t.takeSync(port, port.inFlight);
      t.equal(packets.filter((packet) => packet.operation === operation).length, 1, 'packets of the live operation');
      t.nothing(port);
    },
  ),
  {
    id: 'POST-08/finished',
    clause: 'POST-08',
    title:
      'an operation may be posted while its own packet is queued, and started again after that packet, the post still unread',
    reference: 'a posted OVERLAPPED is only a number to the queue',
    run(t) {
      const port = t.createPort();
      const file = t.openFile(port, 5, t.tempFile('file', 'x'), 'r');
      const operation = new t.api.Operation();
      operation.position = 0;
      const buffer = t.room(1);
      for (let round = 0; round < 50; round++) {
        file.read(buffer, operation);
        if (t.random.int(2) === 0) port.flush();
        port.post(1, 0, operation);
        let posts = 1;
        for (let reads = 1; reads > 0 || posts > 0; ) {
          const packet = t.takeOneSync(port);
          t.equal(packet.operation, operation, 'operation');
          if (packet.kind === 'post') {
            posts--;
            t.equal(operation.pending, reads > 0, 'pending after the packet of the post');
          } else {
            reads--;
            t.equal(operation.pending, false, 'pending after its own packet');
            // With the post still in the queue it can be started anew: the post is no packet of the new start.
            if (posts > 0 && t.random.int(2) === 0) {
              file.read(buffer, operation);
              reads++;
            }
          }
        }
        t.nothing(port);
      }
    },
  },
];
