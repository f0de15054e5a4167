// The registry of cases, in the order of the catalogue's families. A family's file exports `cases`; nothing else is looked at.

import { notShared, reasons } from '../support/shared.js';
import type { ConformanceCase } from '../types.js';
import { cases as association } from './association.js';
import { cases as associationKeys } from './association-keys.js';
import { cases as asyncContext } from './async-context.js';
import { cases as batches } from './batches.js';
import { cases as cancel } from './cancel.js';
import { cases as cancelLeaks } from './cancel-leaks.js';
import { cases as cancelRaces } from './cancel-races.js';
import { cases as cancelSignals } from './cancel-signals.js';
import { cases as close } from './close.js';
import { cases as closeHandles } from './close-handles.js';
import { cases as closeReuse } from './close-reuse.js';
import { cases as closeThreads } from './close-threads.js';
import { cases as closeWaits } from './close-waits.js';
import { cases as concurrency } from './concurrency.js';
import { cases as concurrencyBlocking } from './concurrency-blocking.js';
import { cases as concurrencyLimit } from './concurrency-limit.js';
import { cases as concurrencyPlaces } from './concurrency-places.js';
import { cases as dispatch } from './dispatch.js';
import { cases as dispatchThreads } from './dispatch-threads.js';
import { cases as dispatchTurns } from './dispatch-turns.js';
import { cases as errors } from './errors.js';
import { cases as files } from './files.js';
import { cases as filesDisk } from './files-disk.js';
import { cases as filesEnds } from './files-ends.js';
import { cases as filesErrors } from './files-errors.js';
import { cases as filesFlight } from './files-flight.js';
import { cases as get } from './get.js';
import { cases as getAlive } from './get-alive.js';
import { cases as getLeft } from './get-left.js';
import { cases as getMixed } from './get-mixed.js';
import { cases as life } from './life.js';
import { cases as lifeThreads } from './life-threads.js';
import { cases as memory } from './memory.js';
import { cases as memoryArena } from './memory-arena.js';
import { cases as memoryBytes } from './memory-bytes.js';
import { cases as memoryLife } from './memory-life.js';
import { cases as misuse } from './misuse.js';
import { cases as operations } from './operations.js';
import { cases as operationsLimits } from './operations-limits.js';
import { cases as order } from './order.js';
import { cases as port } from './port.js';
import { cases as portFaults } from './port-faults.js';
import { cases as post } from './post.js';
import { cases as postFinished } from './post-finished.js';
import { cases as postPending } from './post-pending.js';
import { cases as postThreads } from './post-threads.js';
import { cases as security } from './security.js';
import { cases as tcp } from './tcp.js';
import { cases as tcpConnect } from './tcp-connect.js';
import { cases as tcpErrors } from './tcp-errors.js';
import { cases as tcpLimits } from './tcp-limits.js';
import { cases as tcpListen } from './tcp-listen.js';
import { cases as tcpShutdown } from './tcp-shutdown.js';
import { cases as tcpSoak } from './tcp-soak.js';
import { cases as tcpStreams } from './tcp-streams.js';
import { cases as threads } from './threads.js';
import { cases as threadsConnections } from './threads-connections.js';
import { cases as threadsEnds } from './threads-ends.js';
import { cases as threadsLives } from './threads-lives.js';
import { cases as threadsMany } from './threads-many.js';
import { cases as threadsStarters } from './threads-starters.js';
import { cases as threadsTokens } from './threads-tokens.js';
import { cases as wake } from './wake.js';

export const cases: readonly ConformanceCase[] = [
  ...port,
  ...portFaults,
  ...associationKeys,
  ...association,
  ...get,
  ...getMixed,
  ...getLeft,
  ...getAlive,
  ...batches,
  ...dispatch,
  ...dispatchTurns,
  ...asyncContext,
  ...wake,
  ...post,
  ...postFinished,
  ...postPending,
  ...notShared(reasons.threads, postThreads),
  ...order,
  ...notShared(reasons.threads, concurrency),
  ...notShared(reasons.threads, concurrencyLimit),
  ...notShared(reasons.threads, concurrencyBlocking),
  ...notShared(reasons.threads, concurrencyPlaces),
  ...notShared(reasons.threads, threads),
  ...notShared(reasons.threads, threadsStarters),
  ...notShared(reasons.threads, threadsMany),
  ...notShared(reasons.threads, threadsTokens),
  ...notShared(reasons.threads, threadsEnds),
  ...notShared(reasons.threads, threadsLives),
  ...notShared(reasons.threads, threadsConnections),
  ...notShared(reasons.threads, dispatchThreads),
  ...closeWaits,
  ...close,
  ...closeHandles,
  ...closeReuse,
  ...notShared(reasons.threads, closeThreads),
  ...cancel,
  ...cancelSignals,
  ...cancelRaces,
  ...cancelLeaks,
  ...operations,
  ...operationsLimits,
  ...memory,
  ...memoryBytes,
  ...memoryArena,
  ...memoryLife,
  ...security,
  ...life,
  ...notShared(reasons.threads, lifeThreads),
  ...files,
  ...filesEnds,
  ...filesErrors,
  ...filesFlight,
  ...filesDisk,
  ...tcp,
  ...tcpConnect,
  ...tcpErrors,
  ...tcpStreams,
  ...tcpShutdown,
  ...tcpSoak,
  ...tcpListen,
  ...tcpLimits,
  ...errors,
  ...misuse,
];
