// The names that the options of `completion-port bench` take. No imports: they are needed where the addon is missing.

/** In the order in which they are measured and shown. */
export const workloadNames = [
  'tcp-echo',
  'tcp-connect',
  'http',
  'file-read',
  'file-write',
  'post',
  'idle',
  'workers',
  'cancel',
  'startup',
] as const;

/** What this package is compared with, by the names of `--against`. */
export const rivalNames = [
  'node:net',
  'fs.read',
  'fs.write',
  'fs.promises',
  'fs.readSync',
  'fs.writeSync',
  'postMessage',
  'MessageChannel',
  'Atomics.waitAsync',
  'empty module',
  'C io_uring',
  'C epoll',
  'bun',
  'deno',
] as const;
