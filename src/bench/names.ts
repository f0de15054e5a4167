// The names that the options of `completion-port bench` take. No imports: they are needed where the addon is missing.

/** In the order in which they are measured and shown. */
export const workloadNames = ['tcp-echo', 'file-read', 'post', 'cancel', 'startup'] as const;

/** What this package is compared with, by the names of `--against`. */
export const rivalNames = [
  'node:net',
  'fs.read',
  'fs.promises',
  'fs.readSync',
  'postMessage',
  'MessageChannel',
  'Atomics.waitAsync',
  'empty module',
  'C io_uring',
  'C epoll',
  'bun',
  'deno',
] as const;
