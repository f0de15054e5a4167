// The layout of the control block: the one SharedArrayBuffer through which a port's JavaScript and native halves talk. It mirrors
// native/core/abi.h; the loader compares the sizes below with what the addon says of itself and refuses one that differs.
// Names ending in _U8, _U32 and _F64 are indexes into a view of that type; the others are bytes.

export const ABI_VERSION = 2;

export const CONTROL_BYTES = 512;
export const ENTRY_BYTES = 64;
export const SUBMISSIONS_MAX = 1024;
export const COMPLETIONS_MAX = 512;
export const SUBMISSIONS_AT = CONTROL_BYTES;
export const COMPLETIONS_AT = SUBMISSIONS_AT + SUBMISSIONS_MAX * ENTRY_BYTES;
export const BLOCK_BYTES = COMPLETIONS_AT + COMPLETIONS_MAX * ENTRY_BYTES;

// Control, in
export const SUBMIT_COUNT_U32 = 0;
export const MIN_COMPLETE_U32 = 1;
export const TIMEOUT_MS_F64 = 1;
export const MAX_PACKETS_U32 = 4;
export const ENTER_FLAGS_U32 = 5;
// Control, out
export const COMPLETIONS_U32 = 6;
export const IN_KERNEL_U32 = 7;
export const QUEUED_U32 = 8;
export const QUEUED_INTERNAL_U32 = 9;
export const NEXT_DEADLINE_F64 = 5;
export const REJECTED_U32 = 12;
export const ENTER_ERROR_I32 = 13;
export const FLAGS_U32 = 14;
export const REFUSAL_U32 = 15;
export const RETURNED_U32 = 70;
export const IN_FLIGHT_U32 = 71;
/** Pairs of slot and next generation; generation 0: a post's tag. */
export const RETURNS_U32 = 72;
// Control, in, for post()
export const POST_KEY_F64 = 8;
export const POST_BYTES_F64 = 9;
export const POST_OPERATION_F64 = 10;
export const POST_TAG_U32 = 22;
/** Of a shared port: set with packets, 0 again once they have been looked at. */
export const UNSEEN_U32 = 23;
// Control, out, written by stats()
export const STATS_F64 = 12;

export const ENTER_SUBMIT_ONLY = 1;
export const ENTER_WANT_USER = 2;
export const ENTER_WANT_INTERNAL = 4;
export const ENTER_ARM = 8;
/** Of a shared port: another slice of this wait will follow. */
export const ENTER_GOES_ON = 16;
/** Of a shared port: for a job of the event loop, at whose end the thread's place is free. */
export const ENTER_JOB = 32;
/** Of a shared port: more of what the get before has begun. */
export const ENTER_MORE = 64;

export const CONTROL_CLOSING = 1;

/** Why a start on a shared port was refused: too many operations, or a handle that is closed by now. */
export const REFUSED_FULL = 1;
export const REFUSED_HANDLE = 2;

export const ENTRY_INTERNAL = 1;
export const ENTRY_HAS_TIMEOUT = 2;
/** Its signal was aborted before the start: it ends at once. */
export const ENTRY_ABORTED = 4;
/** Its room was reserved before. */
export const ENTRY_DEFERRED = 8;
/** Of a completion: another thread started it. */
export const ENTRY_FOREIGN = 4;

/** memoryId of an entry: the arena, none; any other is a registered SharedArrayBuffer. */
export const MEMORY_ARENA = 0;
export const MEMORY_NONE = 0xffff_ffff;
export const TAG_NONE = 0xffff_ffff;
export const POSITION_APPEND = -1;

export const SEGMENTS_PER_ENTRY = 4;
export const SEGMENTS_MAX = 1024;
export const ADDRESS_BYTES = 24;

/** A handle's id is generation × 2^20 + index. */
export const HANDLE_INDEX_SPAN = 2 ** 20;

/** More than this in one operation is refused: it is what Linux moves in one call at most. */
export const LENGTH_MAX = 2 ** 31 - 4096;

export const OP_POST = 0;
export const OP_READ = 1;
export const OP_WRITE = 2;
export const OP_READV = 3;
export const OP_WRITEV = 4;
export const OP_SYNC = 5;
export const OP_DATASYNC = 6;
export const OP_TRUNCATE = 7;
export const OP_SIZE = 8;
export const OP_OPEN = 9;
export const OP_ACCEPT = 10;
export const OP_CONNECT = 11;
export const OP_RECV = 12;
export const OP_SEND = 13;
export const OP_SENDV = 14;
export const OP_SHUTDOWN = 15;

export const BY_CANCEL = 1;
export const BY_SIGNAL = 2;
export const BY_TIMEOUT = 3;
export const BY_CLOSE = 4;

/** Kinds of handles, by handleInfo. */
export const HANDLE_FILE = 0;
export const HANDLE_LISTENER = 1;
export const HANDLE_SOCKET = 2;

export const OPTION_NO_DELAY = 1;
export const OPTION_KEEP_ALIVE = 2;
export const OPTION_KEEP_ALIVE_IDLE = 3;
export const OPTION_RECV_BUFFER = 4;
export const OPTION_SEND_BUFFER = 5;

/** What the native functions that open something answer where no system error says it. */
export const OPENED_NOT_A_FILE = -100_000;
