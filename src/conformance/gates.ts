// Known differences that a backend is allowed, each with its reason in words and the source that says why. A gate whose case
// passes is an error, so none outlives its cause. There is none on io_uring.

import type { Gate } from './types.js';

export const gates: readonly Gate[] = [];
