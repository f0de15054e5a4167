// The clauses that the suite checks: what a completion port does, by the reference of documented Windows behaviour. Each clause is
// one or more cases with its id. A clause may be added, none is dropped; where Windows turns out to differ, Windows wins and
// the clause is corrected here, with its source. `windows` is the raw outcome there, where it has a number of its own.

export interface Clause {
  readonly id: string;
  readonly text: string;
  readonly windows?: string;
}

export interface ClauseFamily {
  readonly title: string;
  readonly clauses: readonly Clause[];
}

export const families: readonly ClauseFamily[] = [
  {
    title: 'Port',
    clauses: [
      {
        id: 'PORT-01',
        text: "create returns a port with the chosen backend's name and its features; two ports are independent.",
      },
      {
        id: 'PORT-02',
        text: 'concurrency 0 means `os.availableParallelism()` at creation; negative, fractional, NaN, above 2^31-1: `ERR_OUT_OF_RANGE`, nothing created.',
      },
      { id: 'PORT-03', text: 'a thousand ports created and closed leave no fd, thread or memory behind.' },
      { id: 'PORT-04', text: 'any use of a closed port throws `ERR_PORT_CLOSED`; closing twice is harmless.' },
      {
        id: 'PORT-05',
        text: "an explicit backend that this machine can't run throws with the likely cause; `auto` falls back and says why.",
      },
      { id: 'PORT-06', text: 'io_uring_setup allowed, but enter or register denied: found at creation, handled as PORT-05.' },
      {
        id: 'PORT-07',
        text: 'ring or locked memory refused: a smaller ring or unregistered memory, said in stats; no memory at all: ENOMEM.',
      },
    ],
  },
  {
    title: 'Association',
    clauses: [
      { id: 'ASSOC-01', text: 'a handle associated with key k returns k with every packet, up to 2^53-1, 0 included.' },
      {
        id: 'ASSOC-02',
        text: 'associating again, with the same or another port or key, is an error and changes nothing.',
        windows: 'ERROR_INVALID_PARAMETER (87)',
      },
      { id: 'ASSOC-03', text: "many handles, one key; and one port with 10,000 handles: each packet has its own handle's key." },
      {
        id: 'ASSOC-04',
        text: 'starting an operation on a handle that has no port throws `ERR_NOT_ASSOCIATED`; the handle stays usable.',
      },
      {
        id: 'ASSOC-05',
        text: "association ends with the handle's close; a new handle on the same fd number has nothing of the old one.",
      },
      { id: 'ASSOC-06', text: "an accepted socket isn't associated by itself; it takes its own key." },
    ],
  },
  {
    title: 'Get',
    clauses: [
      {
        id: 'GET-01',
        text: 'an empty port and timeout 0: returns null at once.',
        windows: 'FALSE, WAIT_TIMEOUT (258), overlapped NULL',
      },
      {
        id: 'GET-02',
        text: 'timeout t: null not before t by the monotonic clock, and not later than t + 50 ms on an idle machine; fractions and Infinity are accepted, NaN and negatives are refused.',
      },
      {
        id: 'GET-03',
        text: 'a failed operation is still a packet, with its key, its operation and an error.',
        windows: 'FALSE with a non-NULL overlapped; Ex: TRUE, the NTSTATUS in the OVERLAPPED',
      },
      { id: 'GET-04', text: 'a get that waits is ended by a packet that any thread posts, within milliseconds.' },
      {
        id: 'GET-05',
        text: 'an async get never blocks the event loop: timers fire while it waits; an AbortSignal ends it with AbortError and loses no packet.',
      },
      {
        id: 'GET-06',
        text: 'a packet goes to exactly one get, whatever mix of sync, async, iterator and dispatch waits for it.',
      },
      {
        id: 'GET-07',
        text: "an operation in flight and a waiting get, iterator or dispatch keep the process alive unless unref'd; an unread packet doesn't.",
      },
      { id: 'GET-08', text: 'leaving `for await` (break, throw, return) and an aborted get lose no packet.' },
      { id: 'GET-09', text: 'concurrency reached, packets queued, timeout 0: null.' },
      { id: 'GET-10', text: "timeouts of 2^31, 2^32-1 and 2^53-1 ms don't end early." },
      { id: 'GET-11', text: "gets on several ports in one thread don't starve each other." },
      {
        id: 'EX-01',
        text: "getMany returns up to max packets, at least one unless time runs out, in queue order; it doesn't wait to fill up.",
      },
      { id: 'EX-02', text: "max 0, negative or fractional is refused; max above the queue's length returns the queue." },
      { id: 'EX-03', text: "one getMany's packets all belong to the thread that called it." },
      { id: 'EX-04', text: 'a thousand queued packets come out in batches of 64 without loss, repetition or reordering.' },
    ],
  },
  {
    title: 'Dispatch and flushing',
    clauses: [
      { id: 'DISP-01', text: 'a handler that throws is an uncaught exception and loses no later packet.' },
      {
        id: 'DISP-02',
        text: 'in a handler getSync takes the next packet in order, a second dispatch throws `ERR_ALREADY_DISPATCHING`, close drops the rest; a packet not yet delivered stays at the head of the queue, its operation pending.',
      },
      {
        id: 'DISP-03',
        text: "promise continuations run after each batch; timers and other I/O of the loop aren't starved by a flood of posts.",
      },
      { id: 'DISP-04', text: 'AsyncLocalStorage: handlers see the context of `dispatch`, promises that of their await.' },
      { id: 'DISP-05', text: 'on a shared port a slow handler holds back no packet that another thread could take.' },
      { id: 'WAKE-01', text: 'an event loop asleep is woken by I/O alone, no post or timer about, in each ring mode.' },
      {
        id: 'FLUSH-01',
        text: 'start, then compute for a second: a private port begins it by the end of the job at the latest, a shared port at once.',
      },
      {
        id: 'FLUSH-02',
        text: 'a blocking get on the same port flushes first; starts in an exit handler neither crash nor hang.',
      },
    ],
  },
  {
    title: 'Post',
    clauses: [
      {
        id: 'POST-01',
        text: 'key, bytes and operation id come back as given: bytes 0 to 2^32-1, key and id 0 to 2^53-1, no operation at all. Out of range: `ERR_OUT_OF_RANGE`. Nothing is read through them.',
      },
      {
        id: 'POST-02',
        text: 'posting never blocks and never fails for lack of a waiter; a million unread posts are only memory, and come out in order.',
      },
      {
        id: 'POST-03',
        text: 'a post from any thread reaches a shared port, including one where every thread waits in a blocking get.',
      },
      { id: 'POST-04', text: "posting inside a packet handler is allowed; the handler's posts come after what was queued." },
      {
        id: 'POST-05',
        text: 'posting to a closed port throws `ERR_PORT_CLOSED`, from another thread too, and never crashes while the close runs.',
      },
      { id: 'POST-06', text: "a posted packet says so (`kind` 'post'); otherwise it is what the poster put in it." },
      {
        id: 'POST-07',
        text: "an operation that finished before the post is dequeued before it. (A reactor's operation finishes when its poller sees it: gate.)",
      },
      {
        id: 'POST-08',
        text: "posting a pending operation leaves it pending, with its own packet still to come; an id equal to a live operation's changes nothing.",
      },
    ],
  },
  {
    title: 'Order, threads, concurrency',
    clauses: [
      { id: 'ORDER-01', text: 'packets leave in the order of entry, posts and I/O in one queue.' },
      {
        id: 'ORDER-02',
        text: "posts of one thread keep their order; posts of many threads interleave, and each thread's own order holds.",
      },
      {
        id: 'ORDER-03',
        text: 'per stream and direction, bytes are taken and packets enter in starting order; on files, packets may finish in any order.',
      },
      { id: 'CONC-01', text: 'waiting threads are released last-in-first-out, also after waits longer than several slices.' },
      {
        id: 'CONC-02',
        text: 'with concurrency 1 and four waiting threads, four packets are handled one at a time while handlers compute.',
      },
      {
        id: 'CONC-03',
        text: 'with concurrency n no thread is released while n run unblocked, over 10,000 packets of random work (n = 1, 2, 4).',
      },
      {
        id: 'CONC-04',
        text: 'a thread that calls get while packets wait takes one even where others wait, unless `concurrency` other threads run.',
      },
      {
        id: 'CONC-05',
        text: 'a thread that declares `port.blocking(fn)` frees its place until fn returns; on return the count may exceed the limit for a moment, and no new thread is released until it falls below.',
      },
      { id: 'CONC-06', text: 'a thread that sleeps in the kernel without declaring it is noticed within 50 ms if packets wait.' },
      {
        id: 'CONC-07',
        text: 'a thread that exits or detaches frees its place at once. A thread belongs to the last port it got from.',
      },
      { id: 'CONC-08', text: 'a get that returned null counts its thread, as Windows does.' },
      { id: 'CONC-09', text: 'an async consumer frees its place at the end of the job that received the packet.' },
      {
        id: 'THREAD-01',
        text: 'operations started by one thread are dequeued by another; `operationId` matches, `operation` is undefined there, `result` is usable there.',
      },
      { id: 'THREAD-02', text: 'the starter computes for a second: its operations complete elsewhere within 50 ms.' },
      { id: 'THREAD-03', text: 'eight workers, one port, 100,000 posts and reads: each packet exactly once.' },
      {
        id: 'THREAD-04',
        text: "a worker's end cancels exactly the operations that use its own memory, each with one packet that others may dequeue; those in the arena go on; no other thread's are touched.",
      },
      { id: 'THREAD-05', text: '`worker.terminate()` on a worker in a blocking get resolves within 100 ms.' },
      { id: 'THREAD-06', text: 'a token attached twice in one thread gives the same port; a token of a closed port throws.' },
      {
        id: 'THREAD-07',
        text: "`token` of a port that isn't shared throws `ERR_NOT_SHARED`; a forged, edited or foreign process's token throws.",
      },
      { id: 'THREAD-08', text: 'the port outlives the worker that created it; it closes with the last attached thread.' },
      {
        id: 'THREAD-09',
        text: 'a connection is accepted in one thread, read in a second, answered in a third, its buffer in the arena.',
      },
      { id: 'THREAD-10', text: 'slot and buffer of an operation dequeued elsewhere become free for its starter.' },
      { id: 'THREAD-11', text: 'a thousand workers created and terminated leave no fd, thread or memory.' },
      {
        id: 'THREAD-13',
        text: 'what was written before a start or post is seen by the thread that dequeues, shared memory included.',
      },
      { id: 'THREAD-12', text: 'foreign code in an attached thread sees no EINTR that the port caused.' },
    ],
  },
  {
    title: 'Close',
    clauses: [
      {
        id: 'CLOSE-01',
        text: 'closing the port ends every waiting get, sync and async, in every thread, with `ERR_PORT_CLOSED`; a `for await` ends, a dispatch gets no further packet.',
        windows: 'ERROR_ABANDONED_WAIT_0 (735)',
      },
      {
        id: 'CLOSE-02',
        text: 'close cancels what is in flight and returns without waiting; queued packets are dropped, `pending` becomes false, promises reject; memory goes after the last operation has let go.',
      },
      {
        id: 'CLOSE-03',
        text: "handles outlive a private port: they can be closed, not used. A shared port's handles outlive the thread that made them and close with the last detach.",
      },
      {
        id: 'CLOSE-04',
        text: "closing a handle ends each pending operation once, with key and operation: ECANCELED, or its own result if it had finished or can't be stopped.",
        windows: '995, 64 or 1236, all ECANCELED',
      },
      {
        id: 'CLOSE-05',
        text: 'close while ten threads start operations on the handle: each start throws closed or ends in exactly one packet.',
      },
      {
        id: 'CLOSE-06',
        text: 'no operation of the old handle acts on, or is reported for, a new one with the same number; a thousand rounds of close and reopen mix nothing up.',
      },
      {
        id: 'CLOSE-07',
        text: "a handle's close is seen by the peer, and the address can be listened on again, with no further get.",
      },
      { id: 'CLOSE-08', text: 'packets dropped by a close leak no accepted socket or opened file.' },
      {
        id: 'CLOSE-09',
        text: "close returns within 50 ms with an operation pending that can't be cancelled; `port.closed` waits for it.",
      },
      { id: 'CLOSE-10', text: 'any use of a closed handle, or of a stale id, throws `ERR_HANDLE_CLOSED`.' },
    ],
  },
  {
    title: 'Cancel',
    clauses: [
      {
        id: 'CANCEL-01',
        text: 'cancelling a pending operation gives ECANCELED once; bytes is what was moved before (0 but for a partly done send or write).',
        windows: '995',
      },
      {
        id: 'CANCEL-02',
        text: 'cancelling a finished or unknown operation returns false and harms nothing.',
        windows: 'ERROR_NOT_FOUND (1168)',
      },
      {
        id: 'CANCEL-03',
        text: 'handle.cancel() cancels all its operations, of every thread, and returns how many were pending; other handles, also of the same file or socket, are untouched.',
      },
      {
        id: 'CANCEL-04',
        text: 'a cancel that loses the race: the packet says success with its bytes. 10,000 races: always exactly one packet, data never lost: bytes reported are bytes taken. (W: a TCP stream may be unusable after a cancel: gate, sourced.)',
      },
      { id: 'CANCEL-05', text: 'cancel of a started but unflushed operation gives its packet too.' },
      {
        id: 'CANCEL-06',
        text: 'a signal that is aborted at the start: packet ECANCELED, nothing done; aborted later: as cancel.',
      },
      { id: 'CANCEL-07', text: 'a cancelled accept or open that wins anyway leaks no fd.' },
      {
        id: 'CANCEL-08',
        text: "cancelling one operation leaves the handle's others pending. Cancel works while the submission queue is full.",
      },
      {
        id: 'CANCEL-09',
        text: "an operation's own timeout: packet ETIMEDOUT, bytes as CANCEL-01; it loses the race as cancel does.",
      },
    ],
  },
  {
    title: 'Operations, buffers, limits',
    clauses: [
      { id: 'OP-01', text: 'an operation that completes at once still queues its packet.' },
      {
        id: 'OP-02',
        text: 'an operation object is reusable after its packet, on any handle, port and kind; starting it while pending throws `ERR_OPERATION_PENDING` and disturbs nothing; it may be started again inside the batch that delivered it.',
      },
      { id: 'OP-03', text: 'packet.operation is the object returned by the start; its context is untouched.' },
      {
        id: 'OP-04',
        text: '`maxOperations` in flight: one more throws EAGAIN; a handler that starts one for each packet never meets it.',
      },
      { id: 'OP-05', text: '200,000 operations through a ring of any size: none lost, submission queue full included.' },
      {
        id: 'OP-06',
        text: "a failure to start is a packet like any other failure, the same on each OS; exactly one packet also where the start's status is a warning.",
      },
      { id: 'OP-07', text: 'lengths above 2^31-4096 are refused; slot generations wrap around without mixing operations up.' },
      {
        id: 'BUF-01',
        text: "a buffer isn't moved, freed or collected while the kernel may use it, with `--expose-gc` in a loop and every reference dropped.",
      },
      {
        id: 'BUF-02',
        text: 'detached, resizable and out-of-range buffers are refused before anything starts. Arena and SharedArrayBuffer views are used in place, others copied; on a shared port a read into others throws `ERR_BUFFER_NOT_SHARED`.',
      },
      {
        id: 'BUF-03',
        text: 'a zero-length read, write, recv and send each complete with 0 bytes; a zero-length recv on a stream completes when data or the end is there and takes none (datagram sockets, once there are any: refused).',
      },
      {
        id: 'BUF-04',
        text: "two operations may share one buffer's disjoint parts; Buffer, any TypedArray, DataView and SharedArrayBuffer views work, offsets respected.",
      },
      {
        id: 'BUF-05',
        text: 'bytes beyond bytesTransferred are untouched; after the packet nothing is written (memory poisoned and watched).',
      },
      {
        id: 'BUF-06',
        text: 'a buffer detached, transferred or shrunk between start and packet: no crash; a read says `ERR_BUFFER_DETACHED`, a write goes through.',
      },
      { id: 'BUF-07', text: 'a worker terminated during an operation into its own memory: nothing is written to freed memory.' },
      {
        id: 'BUF-08',
        text: "`allocate` beyond locked-memory limits works; released and allocated again in a loop it doesn't grow; a full arena throws ENOBUFS there and nowhere else.",
      },
      {
        id: 'BUF-09',
        text: 'a block released while an operation uses it is handed out again only after the packet; a second release, or a foreign view, throws.',
      },
      { id: 'SEC-01', text: 'random and hostile submission entries given to the native module fail alone, without a crash.' },
      {
        id: 'SEC-02',
        text: 'patched prototypes (`%TypedArray%`, `byteLength`, `Promise`, `Symbol.iterator`) neither crash it nor give memory away.',
      },
      {
        id: 'SEC-03',
        text: "the native module's functions called directly, in any order, from any thread, after close: an error.",
      },
    ],
  },
  {
    title: 'Files',
    clauses: [
      {
        id: 'FILE-01',
        text: "read and write at explicit positions, beyond 4 GiB too; the position isn't shared between operations.",
      },
      {
        id: 'FILE-02',
        text: 'a read is short only at the end of the file; one that crosses the end returns what is there; a read at the end: 0 bytes, no error, `nativeCode` keeps the OS’s own number.',
        windows: 'ERROR_HANDLE_EOF (38)',
      },
      {
        id: 'FILE-03',
        text: 'a write past the end extends; a hole reads as zeros; append mode appends whatever position is given.',
      },
      {
        id: 'FILE-04',
        text: 'open of a missing file, a directory, without permission, exclusive on an existing one: ENOENT, EISDIR (checked after the open), EACCES, EEXIST; as an operation and Sync.',
      },
      {
        id: 'FILE-05',
        text: 'a read on a write-only handle and the reverse: a packet with EBADF (Windows: EACCES mapped to the same).',
      },
      {
        id: 'FILE-06',
        text: '1,000 reads in flight on one file each return their own data. Vectored reads and writes keep order.',
      },
      {
        id: 'FILE-07',
        text: 'sync and datasync complete after earlier completed writes are durable; full disk: ENOSPC and the bytes that fit.',
      },
      { id: 'FILE-08', text: 'a FIFO, tty or socket is refused as a File: `ERR_NOT_A_FILE`.' },
      { id: 'FILE-09', text: "extending or uncached I/O doesn't hold the event loop for 50 ms." },
    ],
  },
  {
    title: 'TCP',
    clauses: [
      {
        id: 'TCP-01',
        text: "accept gives a connected socket, its peer's and own address; a connection that waits in the backlog is taken at once.",
      },
      {
        id: 'TCP-02',
        text: 'connect completes connected; refused: ECONNREFUSED (W: 1225); unreachable: ENETUNREACH or EHOSTUNREACH; cancelled connect: ECANCELED and the socket closes cleanly.',
      },
      { id: 'TCP-03', text: "recv completes with what is there, at least 1 byte; peer's orderly close: 0 bytes, no error." },
      {
        id: 'TCP-04',
        text: "peer's reset: ECONNRESET for every pending and later recv (W: ERROR_NETNAME_DELETED 64 / WSAECONNRESET 10054), never a clean end.",
      },
      {
        id: 'TCP-05',
        text: 'a send completes when all bytes are accepted by the kernel: no short sends; 100 MiB in one send arrive whole.',
      },
      {
        id: 'TCP-06',
        text: 'send after the peer closed: first may succeed, then EPIPE or ECONNRESET; no signal kills the process.',
      },
      {
        id: 'TCP-07',
        text: 'several recvs and sends pending on one socket finish in starting order per direction; both directions at once; two large sends never mix.',
      },
      {
        id: 'TCP-08',
        text: 'shutdown takes its turn behind queued sends; it lets reads go on, data in flight arrives; after own shutdown of reading, pending and later recvs give 0 bytes.',
      },
      { id: 'TCP-09', text: 'buffers of 1 byte to 16 MiB, 1,000 connections, random sizes: streams arrive intact (checksums).' },
      {
        id: 'TCP-10',
        text: 'listen on a used port: EADDRINUSE; port 0 gives a free one; IPv4, IPv6, dual stack; backlog and reusePort options (ENOTSUP where the OS has none).',
      },
      { id: 'TCP-11', text: 'accept operations pending on a listener that closes: each ECANCELED, no fd left.' },
      {
        id: 'TCP-12',
        text: "out of descriptors: the accept completes with EMFILE, others stay pending, the port lives on; restarts can't spin (one such packet in 100 ms a listener); service resumes when fds are free.",
      },
      { id: 'TCP-13', text: "a connection reset while in the backlog doesn't fail an accept." },
      { id: 'TCP-14', text: 'child processes inherit no socket or file.' },
    ],
  },
  {
    title: 'Errors',
    clauses: [
      {
        id: 'ERR-01',
        text: 'codes are the portable ones on each OS; `errno`, `nativeCode`, `syscall`, `message` are set; the message says what to do where something can be done.',
      },
      {
        id: 'ERR-04',
        text: 'ECANCELED and ETIMEDOUT of ours say by whom (`by`: cancel, signal with its reason as `cause`, timeout, close); ten thousand errors at once cost no stack traces.',
      },
      { id: 'ERR-02', text: 'misuse throws `ERR_…` TypeErrors and RangeErrors before anything is started.' },
      {
        id: 'ERR-03',
        text: 'no input from JavaScript can crash the process: every public call with every wrong type, range and order.',
      },
      {
        id: 'LIFE-01',
        text: 'process.exit in a handler, in a blocking get, with a helper thread about to wake the loop: exit status kept, no crash, no hang.',
      },
    ],
  },
];

export const clauses: readonly Clause[] = families.flatMap((family) => family.clauses);
