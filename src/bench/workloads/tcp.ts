// TCP: servers in processes of their own, loaded by one client that is the same for all: echoes, connections that come and go, http,
// connections that are silent, several threads. At one connection the client spins: two thirds
// of the server's cost would be waking it.

import * as fs from 'node:fs';
import { benchFile, echoExample, hasUring, type Machine, startClient } from '../machine.js';
import { cpuNs, LineProcess, listeningPort, SUBJECT_CPU } from '../processes.js';
import type { Latency, Running, Subject, Workload } from '../types.js';
import { environmentOf, variantOn } from './programs.js';

interface Load {
  readonly connections: number;
  readonly bytes: number;
}

interface ClientAnswer {
  readonly messages: number;
  readonly seconds: number;
  readonly errors: number;
  readonly clientCpuSeconds: number;
  readonly latencyUs: Latency;
}

type Start = (machine: Machine, load: Load, server: LineProcess) => Promise<Running>;

/** Messages and answers on connections that stay. */
const exchange =
  (http: boolean): Start =>
  async (machine, { connections, bytes }, server) => {
    const port = await listeningPort(server);
    const client = startClient(machine, { port, connections, bytes, spin: connections === 1, http });
    try {
      await client.ask('connect');
    } catch (error) {
      await client.stop();
      throw error;
    }
    return {
      pid: server.pid,
      async run(seconds) {
        const { messages, errors, ...rest } = await client.ask<ClientAnswer>(`run ${seconds}`);
        if (errors > 0) throw new Error(`${server.name}: ${errors} connections were lost`);
        return { ...rest, operations: messages };
      },
      async stop() {
        await client.stop();
        await server.stop();
      },
    };
  };

const echo = exchange(false);
const http = exchange(true);

/** Connections that are opened, echo once and are closed, a portion of them at a time. */
const connecting: Start = async (machine, { connections, bytes }, server) => {
  const port = await listeningPort(server);
  const client = startClient(machine, { port, connections, bytes, spin: false });
  return {
    pid: server.pid,
    async run(seconds) {
      const before = cpuNs(client.pid);
      const start = performance.now();
      let operations = 0;
      do {
        await client.ask('connect');
        await client.ask('close');
        operations += connections;
      } while (performance.now() - start < seconds * 1000);
      return { operations, clientCpuSeconds: (cpuNs(client.pid) - before) / 1e9 };
    },
    async stop() {
      await client.stop();
      await server.stop();
    },
  };
};

/**
 * Resident memory of a process in bytes, without the pages of its program's files, which come with code that is run for the first time
 * and not with connections; or null where it can't be told.
 */
function residentBytes(pid: number): number | null {
  try {
    const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
    const kilobytes = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]);
    return (kilobytes('RssAnon') + kilobytes('RssShmem')) * 1024;
  } catch {
    return null; // no /proc
  }
}

/** The kernel's own memory in bytes: all of it, so other work on the machine is in it as well. */
function kernelBytes(): number | null {
  try {
    return Number(/^Slab:\s+(\d+) kB/m.exec(fs.readFileSync('/proc/meminfo', 'utf8'))?.[1]) * 1024;
  } catch {
    return null; // no /proc
  }
}

/**
 * What connections cost that are silent: in a fresh server each time, after one echo on each, since an untouched page flatters. A first
 * client has connected before, so that the server's own start isn't counted.
 */
function idleSubject(
  machine: Machine,
  load: Load,
  of: Pick<Subject, 'subject' | 'variant' | 'backend'>,
  line: readonly string[],
): Subject {
  return {
    ...of,
    async start() {
      let server: LineProcess | null = null;
      let client: LineProcess | null = null;
      const end = async (): Promise<void> => {
        await client?.stop();
        await server?.stop();
        client = server = null;
      };
      return {
        pid: null,
        async run() {
          const [command = '', ...args] = line;
          server = new LineProcess(command, args, { cpu: SUBJECT_CPU, env: environmentOf(of.backend) });
          try {
            const port = await listeningPort(server);
            client = startClient(machine, { port, connections: idleWarmUp, bytes: load.bytes, spin: false });
            await client.ask('connect');
            await client.ask('close');
            await client.stop();
            client = startClient(machine, { port, ...load, spin: false });
            const [memory, kernel, cpu] = [residentBytes(server.pid), kernelBytes(), cpuNs(server.pid)];
            const start = performance.now();
            await client.ask('connect');
            const seconds = (performance.now() - start) / 1000;
            const [memoryAfter, kernelAfter] = [residentBytes(server.pid), kernelBytes()];
            const each = (from: number | null, to: number | null): number | null =>
              from === null || to === null ? null : (to - from) / load.connections;
            return {
              operations: load.connections,
              seconds,
              cpuNs: cpuNs(server.pid) - cpu,
              bytesPerConnection: each(memory, memoryAfter),
              kernelBytesPerConnection: each(kernel, kernelAfter),
            };
          } finally {
            await end();
          }
        },
        stop: end,
      };
    },
  };
}

/** Connections before the counted ones. */
const idleWarmUp = 64;

/** A server and its load. */
function subject(
  machine: Machine,
  load: Load,
  start: Start,
  of: { subject: string; variant?: string; backend?: string | null },
  command: string,
  args: readonly string[],
): Subject {
  const backend = of.backend ?? null;
  return {
    subject: of.subject,
    variant: of.variant ?? '',
    backend,
    async start() {
      const server = new LineProcess(command, args, { cpu: SUBJECT_CPU, env: environmentOf(backend) });
      try {
        return await start(machine, load, server);
      } catch (error) {
        await server.stop();
        throw error;
      }
    },
  };
}

/** What serves echoes here: the example in its forms on each backend, and all that it is compared with. */
function echoServers(machine: Machine, load: Load, start: Start, few: boolean): Subject[] {
  // As large as a message, so that one receive takes it, and never smaller than the example's own choice.
  const buffer = String(Math.max(1792, load.bytes));
  const forms: [string, string[]][] = [
    ['dispatch', []],
    ['inverted', ['--event-loop', 'inverted']],
    ['block', ['--wait', 'block']],
  ];
  const subjects: Subject[] = [];
  machine.backends.forEach((backend, place) => {
    const add = (variant: string, args: string[]): void => {
      const of = { subject: 'completion-port', variant: variantOn(machine, backend, variant), backend };
      subjects.push(subject(machine, load, start, of, process.execPath, args));
    };
    for (const [variant, args] of place > 0 && few ? forms.slice(0, 1) : forms) {
      const arena = load.bytes > 1792 ? ['--arena', String(Math.min(2 ** 31, 2 * load.connections * (load.bytes + 4096)))] : [];
      add(variant, [echoExample, '--port', '0', '--buffer', buffer, ...arena, ...args]);
    }
    if (place === 0 || !few) add('net', [benchFile('peers/net_echo.mjs'), 'completion-port/net']);
  });
  const other = (name: string, command: string, args: string[]): void => {
    subjects.push(subject(machine, load, start, { subject: name }, command, args));
  };
  other('node:net', process.execPath, [benchFile('peers/net_echo.mjs')]);
  const { programs } = machine.peers;
  const cArgs = ['--buffer', String(Math.max(4096, load.bytes))];
  if (programs !== null && hasUring(machine)) other('C io_uring', programs.uring_echo, cArgs);
  if (programs !== null) other('C epoll', programs.epoll_echo, cArgs);
  if (machine.bun !== null) other('bun', machine.bun, [benchFile('peers/bun_echo.mjs')]);
  if (machine.deno !== null) other('deno', machine.deno, ['run', '-A', '--quiet', benchFile('peers/deno_echo.mjs')]);
  return subjects;
}

const sizeOf = (bytes: number): string => (bytes < 1024 ? `${bytes} bytes` : `${bytes / 1024} KiB`);

/** Connections and bytes of a message. */
const echoLoads: readonly Load[] = [
  ...[64, 1, 512, 8000].map((connections) => ({ connections, bytes: 64 })),
  ...[4096, 65_536].flatMap((bytes) => [64, 1, 512].map((connections) => ({ connections, bytes }))),
];

function connectWorkload(machine: Machine, few: boolean): Workload {
  const load = { connections: 64, bytes: 64 };
  return {
    name: 'tcp-connect',
    params: { portion: load.connections },
    title: 'TCP connections that are accepted, echo once and are closed, 64 at a time',
    unit: 'connection',
    quick: true,
    subjects: echoServers(machine, load, connecting, few),
  };
}

function httpWorkloads(machine: Machine): Workload[] {
  return [64, 1].map((connections) => {
    const load = { connections, bytes: 0 };
    const server = (module: string): string[] => [benchFile('subjects/http_hello.mjs'), module];
    return {
      name: 'http',
      params: { connections },
      title: `a short answer of Node's http, keep-alive, ${connections} connection${connections === 1 ? '' : 's'}`,
      unit: 'request',
      quick: connections === 64,
      spinning: connections === 1,
      subjects: [
        ...machine.backends.map((backend) =>
          subject(
            machine,
            load,
            http,
            { subject: 'completion-port', variant: variantOn(machine, backend, 'net'), backend },
            process.execPath,
            server('completion-port/net'),
          ),
        ),
        subject(machine, load, http, { subject: 'node:net' }, process.execPath, server('node:net')),
      ],
    };
  });
}

function idleWorkloads(machine: Machine): Workload[] {
  return [10_000, 1000].map((connections) => {
    const load = { connections, bytes: 64 };
    const other = (name: string, line: string[]): Subject =>
      idleSubject(machine, load, { subject: name, variant: '', backend: null }, line);
    const ours = (form: string, line: string[]): Subject[] =>
      machine.backends.map((backend) =>
        idleSubject(machine, load, { subject: 'completion-port', variant: variantOn(machine, backend, form), backend }, line),
      );
    const { programs } = machine.peers;
    return {
      name: 'idle',
      params: { connections },
      title: `${connections.toLocaleString('en')} connections, silent after one echo on each: memory of the process and of the kernel (both ends)`,
      unit: 'connection',
      quick: connections === 1000,
      short: connections === 10_000,
      single: true,
      subjects: [
        ...ours('zero-length receive', [process.execPath, benchFile('subjects/idle.mjs')]),
        ...ours('dispatch', [process.execPath, echoExample, '--port', '0']).slice(0, 1),
        other('node:net', [process.execPath, benchFile('peers/net_echo.mjs')]),
        ...(programs !== null && hasUring(machine) ? [other('C io_uring', [programs.uring_echo])] : []),
      ],
    };
  });
}

function workersWorkloads(machine: Machine): Workload[] {
  const load = { connections: 64, bytes: 64 };
  const [backend = null] = machine.backends;
  const forms: [string, string[]][] = [
    ['shared dispatch', []],
    ['shared block', ['--wait', 'block']],
    ['port each dispatch', ['--port-per-worker']],
    ['port each block', ['--port-per-worker', '--wait', 'block']],
  ];
  return [2, 1, 4].map((workers) => ({
    name: 'workers',
    params: { workers, ...load },
    title: `TCP echo of 64 bytes, 64 connections, ${workers} worker thread${workers === 1 ? '' : 's'} on one CPU, against one thread of node:net`,
    unit: 'echo',
    quick: workers === 2,
    subjects: [
      ...forms.map(([variant, args]) =>
        subject(machine, load, echo, { subject: 'completion-port', variant, backend }, process.execPath, [
          ...[echoExample, '--port', '0', '--workers', String(workers)],
          ...args,
        ]),
      ),
      subject(machine, load, echo, { subject: 'node:net' }, process.execPath, [benchFile('peers/net_echo.mjs')]),
    ],
  }));
}

export function tcpWorkloads(machine: Machine, few: boolean): Workload[] {
  const echoes = echoLoads.map((load) => ({
    name: 'tcp-echo',
    params: { connections: load.connections, bytes: load.bytes },
    title: `TCP echo of ${sizeOf(load.bytes)}, ${load.connections} connection${load.connections === 1 ? ', client spinning' : 's'}`,
    unit: 'echo',
    quick: load.connections === 64 && load.bytes === 64,
    short: load.bytes === 64 || (load.connections === 64 && load.bytes === 65_536),
    spinning: load.connections === 1,
    subjects: echoServers(machine, load, echo, few),
  }));
  return [
    ...echoes,
    connectWorkload(machine, few),
    ...httpWorkloads(machine),
    ...idleWorkloads(machine),
    ...workersWorkloads(machine),
  ];
}
