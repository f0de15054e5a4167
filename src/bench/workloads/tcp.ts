// TCP: servers in processes of their own, loaded by one client that is the same for all. At one connection the client spins: two thirds
// of the server's cost would be waking it.

import { benchFile, echoExample, hasUring, type Machine, startClient } from '../machine.js';
import { LineProcess, listeningPort, SUBJECT_CPU } from '../processes.js';
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

/** Echoes on connections that stay. */
const echo: Start = async (machine, { connections, bytes }, server) => {
  const port = await listeningPort(server);
  const client = startClient(machine, { port, connections, bytes, spin: connections === 1 });
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

/** A server; `env` is its environment beyond ours. */
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
function echoServers(machine: Machine, load: Load, start: Start, quick: boolean): Subject[] {
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
    for (const [variant, args] of place > 0 && quick ? forms.slice(0, 1) : forms) {
      const arena = load.bytes > 1792 ? ['--arena', String(Math.min(2 ** 31, 2 * load.connections * (load.bytes + 4096)))] : [];
      add(variant, [echoExample, '--port', '0', '--buffer', buffer, ...arena, ...args]);
    }
    if (place === 0 || !quick) add('net', [benchFile('peers/net_echo.mjs'), 'completion-port/net']);
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

export function tcpWorkloads(machine: Machine, quick: boolean): Workload[] {
  return echoLoads.map((load) => ({
    name: 'tcp-echo',
    params: { connections: load.connections, bytes: load.bytes },
    title: `TCP echo of ${sizeOf(load.bytes)}, ${load.connections} connection${load.connections === 1 ? ', client spinning' : 's'}`,
    unit: 'echo',
    quick: load.connections === 64 && load.bytes === 64,
    spinning: load.connections === 1,
    subjects: echoServers(machine, load, echo, quick),
  }));
}
