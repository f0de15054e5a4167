// Known differences that a backend is allowed, each with its reason in words and the source that says why. A gate whose case
// passes is an error, so none outlives its cause. There is none on io_uring.

import type { Gate } from './types.js';

/** A thread that sleeps in the kernel without having said so. */
const unseenSleepers = ['futex', 'pipe', 'child-process', 'event-loop', 'resumes'].map(
  (name): Gate => ({
    id: `CONC-06/${name}`,
    backend: 'kqueue',
    reason:
      'a thread that sleeps in the kernel is not noticed: what another thread does is told by Linux in /proc/self/task only; here a thread frees its place by port.blocking(fn), or when it gets again',
    source:
      'proc(5) of Linux, which macOS lacks and FreeBSD has without threads (procfs(5)); kqueue(2) has no filter for it. sysctl(3) with KERN_PROC_INC_THREAD and thread_info of Mach tell it in forms that nobody has tried for this yet',
  }),
);

/** A reset that came while no recv was pending. */
const swallowedResets = ['later', 'prefix'].map(
  (name): Gate => ({
    id: `TCP-04/${name}`,
    backend: 'iocp',
    feature: 'wine',
    repeat: 3,
    reason: 'a recv that begins after the reset finds a clean end: Wine’s server has taken the error out of the socket',
    source:
      'Wine, server/sock.c: sock_poll_event asks for SO_ERROR and peeks by recv(2), either of which clears the error (socket(7)). Windows: WSARecv, WSAECONNRESET (10054)',
  }),
);

const tooLarge: Gate = {
  id: 'ERR-01/EFBIG',
  backend: 'iocp',
  feature: 'wine',
  reason: 'a write beyond what a file may have ends with ERROR_GEN_FAILURE, which is EIO: Wine has no status for EFBIG',
  source:
    'Wine 8.0, dlls/ntdll/unix/file.c: errno_to_status has no EFBIG and answers with STATUS_UNSUCCESSFUL. Windows: ERROR_FILE_TOO_LARGE (223)',
};

export const gates: readonly Gate[] = [...unseenSleepers, ...swallowedResets, tooLarge];
