// The workloads that need no client: each subject is a program of bench/subjects that does operations for the time it is
// told, and prints how many it did.

import { join } from 'node:path';
import { LineProcess, SUBJECT_CPU } from '../../dist/bench/processes.js';

const program = (file, modes) => async (name, context) => {
  const path = join(context.root, 'bench', 'subjects', file);
  const [said, ...rest] = [modes[name]].flat();
  const [mode, backend] = said.split(' on ');
  const env = backend === undefined ? process.env : { ...process.env, COMPLETION_PORT_BACKEND: backend };
  const child = new LineProcess(process.execPath, [path, mode, ...rest], { cpu: SUBJECT_CPU, env });
  try {
    const line = await child.line();
    if (line !== 'ready') throw new Error(`${child.name} printed "${line}" in place of "ready"`);
  } catch (error) {
    await child.stop();
    throw error;
  }
  return { name, pid: child.pid, run: (seconds) => child.ask(`run ${seconds}`), stop: () => child.stop() };
};

/** What subjects/files.mjs is told. */
const reads = ['read', '4096', '64', 'random'];

export const workloads = [
  {
    name: 'file-read',
    title: 'reads of 4 KiB at random places of a cached file of 1 MiB, 64 in flight',
    unit: 'read',
    figures: [
      { subject: 'dispatch', against: 'fs.read', bar: 1 / 6 },
      { subject: 'block', against: 'fs.read', bar: 1 / 6 },
      { subject: 'dispatch', against: 'readSync', bar: 0.85 },
      { subject: 'block', against: 'readSync', bar: 0.85 },
      { subject: 'epoll dispatch', against: 'fs.read', bar: 0.5 },
      { subject: 'epoll block', against: 'fs.read', bar: 0.5 },
      { subject: 'aligned', against: 'dispatch', bar: null },
    ],
    start: program('files.mjs', {
      dispatch: ['dispatch', ...reads],
      aligned: ['dispatch', ...reads, '--aligned'],
      block: ['block', ...reads],
      'epoll dispatch': ['dispatch on epoll', ...reads],
      'epoll block': ['block on epoll', ...reads],
      'fs.read': ['fs.read', ...reads],
      readSync: ['fs.readSync', ...reads],
    }),
  },
  {
    name: 'post',
    title: 'post and get on one thread in batches of 64, against a MessageChannel within one thread',
    unit: 'message',
    figures: [{ subject: 'post+get', against: 'MessageChannel', bar: 0.1 }],
    start: program('posts.mjs', { 'post+get': 'port', MessageChannel: 'channel' }),
  },
  ...[1024, 4096].map((burst) => ({
    name: `post-threads/${burst}`,
    title: `posts to a waiting worker in bursts of ${burst.toLocaleString('en')}, one way, against postMessage`,
    unit: 'message',
    figures: [{ subject: 'post', against: 'postMessage', bar: 1 / 8 }],
    start: program('thread_posts.mjs', { post: ['port', '1', `${burst}`], postMessage: ['post-message', '1', `${burst}`] }),
  })),
];
