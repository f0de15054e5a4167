// The workloads that need no client: each subject is a program of bench/subjects or bench/peers that does operations for the time that it is
// told and prints how many it did; `startup` runs a fresh process each time.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { benchFile, hasUring, type Machine } from '../machine.js';
import { canPin, LineProcess, SUBJECT_CPU } from '../processes.js';
import type { Answer, Running, Subject, Workload } from '../types.js';

const exec = promisify(execFile);

async function startProgram(command: string, args: readonly string[], env: NodeJS.ProcessEnv): Promise<Running> {
  const child = new LineProcess(command, args, { cpu: SUBJECT_CPU, env });
  try {
    const line = await child.line();
    if (line !== 'ready') throw new Error(`${child.name} printed "${line}" in place of "ready"`);
  } catch (error) {
    await child.stop();
    throw error;
  }
  return {
    pid: child.pid,
    async run(seconds) {
      return await child.ask<Answer>(`run ${seconds}`);
    },
    check: async () => {
      await child.ask('check');
    },
    stop: () => child.stop(),
  };
}

/** The environment that has `auto` mean this backend. */
export const environmentOf = (backend: string | null): NodeJS.ProcessEnv =>
  backend === null ? process.env : { ...process.env, COMPLETION_PORT_BACKEND: backend };

/** A variant's name on a backend: the first backend is the one that a user gets, and goes without saying. */
export const variantOn = (machine: Machine, backend: string, variant: string): string =>
  backend === machine.backends[0] ? variant : `${backend} ${variant}`;

const node =
  (file: string, args: readonly string[], backend: string | null = null) =>
  (): Promise<Running> =>
    startProgram(process.execPath, [benchFile('subjects', file), ...args], environmentOf(backend));

/** Ours on each backend, in these forms. */
function ours(machine: Machine, file: string, forms: readonly string[], args: readonly string[], few: boolean): Subject[] {
  return machine.backends.flatMap((backend, place) =>
    forms
      .filter((_, index) => place === 0 || !few || index === 0)
      .map((form) => ({
        subject: 'completion-port',
        variant: variantOn(machine, backend, form),
        backend,
        start: node(file, [form, ...args], backend),
      })),
  );
}

const other = (subject: string, start: () => Promise<Running>, variant = ''): Subject => ({
  subject,
  variant,
  backend: null,
  start,
});

interface FileSet {
  readonly bytes: number;
  readonly order: 'random' | 'sequential';
  readonly depth: number;
  readonly direct: boolean;
}

const fileSets: readonly FileSet[] = [false, true].flatMap((direct) =>
  [
    { bytes: 4096, order: 'random' as const },
    { bytes: 2 ** 20, order: 'sequential' as const },
  ].flatMap(({ bytes, order }) => [64, 1].map((depth) => ({ bytes, order, depth, direct }))),
);

function files(machine: Machine, kind: 'read' | 'write', few: boolean): Workload[] {
  return fileSets.map(({ bytes, order, depth, direct }) => {
    const args = [kind, String(bytes), String(depth), order, ...(direct ? ['--direct'] : [])];
    const size = bytes === 4096 ? '4 KiB' : '1 MiB';
    const subjects = [
      ...ours(machine, 'files.mjs', ['dispatch', 'inverted', 'block'], args, few),
      ...[`fs.${kind}`, 'fs.promises', `fs.${kind}Sync`].map((form) => other(form, node('files.mjs', [form, ...args]))),
    ];
    const { programs } = machine.peers;
    if (programs !== null && hasUring(machine)) {
      const cArgs = [kind, String(bytes), String(depth), order, ...(direct ? ['direct'] : [])];
      subjects.push(other('C io_uring', () => startProgram(programs.uring_ops, cArgs, process.env)));
    }
    return {
      name: `file-${kind}`,
      params: { bytes, order, depth, direct },
      title: `${kind}s of ${size}, ${order}, ${depth} in flight${direct ? ', O_DIRECT' : ', cached'}`,
      unit: kind,
      quick: bytes === 4096 && depth === 64 && !direct,
      subjects,
    };
  });
}

function posts(machine: Machine): Workload[] {
  const [backend = null] = machine.backends;
  const port = (variant: string, start: () => Promise<Running>): Subject => ({
    subject: 'completion-port',
    variant,
    backend,
    start,
  });
  return [
    {
      name: 'post',
      params: { to: 'same thread', batch: 64 },
      title: 'messages within a thread, 64 under way',
      unit: 'message',
      quick: false,
      short: true,
      subjects: [port('post+get', node('posts.mjs', ['port'], backend)), other('MessageChannel', node('posts.mjs', ['channel']))],
    },
    {
      name: 'post',
      params: { to: 'other thread', batch: 1024 },
      title: 'messages to another thread, one way, in bursts of 1,024',
      unit: 'message',
      quick: true,
      subjects: [
        port('post', node('thread_posts.mjs', ['port', '1', '1024'], backend)),
        other('postMessage', node('thread_posts.mjs', ['post-message', '1', '1024'])),
      ],
    },
    {
      name: 'post',
      params: { to: 'other thread and back', batch: 1 },
      title: 'a message to another thread and one back, again and again',
      unit: 'round trip',
      quick: false,
      subjects: [
        port('block', node('ping_pong.mjs', ['block'], backend)),
        port('dispatch', node('ping_pong.mjs', ['dispatch'], backend)),
        other('postMessage', node('ping_pong.mjs', ['postMessage'])),
        other('Atomics.waitAsync', node('ping_pong.mjs', ['Atomics.waitAsync'])),
      ],
    },
  ];
}

function cancels(machine: Machine, few: boolean): Workload {
  const subjects = ours(machine, 'cancels.mjs', ['dispatch', 'block'], [], few);
  const { programs } = machine.peers;
  if (programs !== null && hasUring(machine)) {
    subjects.push(other('C io_uring', () => startProgram(programs.uring_ops, ['cancel'], process.env)));
  }
  return {
    name: 'cancel',
    params: { batch: 64 },
    title: 'receives that are started and cancelled, 64 at a time',
    unit: 'cancelled receive',
    quick: true,
    subjects,
  };
}

/** A fresh process each run, which measures itself: it knows when its first packet came. */
const startOnce = (form: string, backend: string | null) => async (): Promise<Running> => ({
  pid: null,
  async run() {
    const args = [process.execPath, benchFile('subjects/startup.mjs'), form];
    const [command = '', ...rest] = canPin() ? ['taskset', '-c', String(SUBJECT_CPU), ...args] : args;
    const { stdout } = await exec(command, rest, { env: environmentOf(backend) });
    const answer = JSON.parse(stdout) as Answer & { elapsedMs: number };
    const us = answer.elapsedMs * 1000;
    return { ...answer, latencyUs: { p50: us, p99: us, p999: us } };
  },
  async stop() {},
});

function startup(machine: Machine): Workload {
  return {
    name: 'startup',
    params: {},
    title: 'from the start of the process to the first packet',
    unit: 'start',
    quick: true,
    single: true,
    subjects: [
      ...machine.backends.map((backend) => ({
        subject: 'completion-port',
        variant: variantOn(machine, backend, 'import'),
        backend,
        start: startOnce('port', backend),
      })),
      other('empty module', startOnce('empty', null)),
    ],
  };
}

export const programWorkloads = (machine: Machine, few: boolean): Workload[] => [
  ...files(machine, 'read', few),
  ...files(machine, 'write', few),
  ...posts(machine),
  cancels(machine, few),
  startup(machine),
];
