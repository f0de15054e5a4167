// What of this machine the benchmark measures with: backends, C programs, other runtimes, the client. What isn't there is
// remembered with its reason, since the report names it.

import * as path from 'node:path';
import { CompletionPort } from '../index.js';
import { buildPeers, type Peers, packageFolder } from './peers.js';
import { findCommand, LineProcess, LOAD_CPU } from './processes.js';
import type { Absent } from './types.js';

export interface Machine {
  /** Those that run here, the port's own choice first. */
  readonly backends: readonly string[];
  readonly peers: Peers;
  readonly bun: string | null;
  readonly deno: string | null;
  readonly absent: Absent[];
}

const backendNames = ['io_uring', 'epoll', 'kqueue', 'iocp'] as const;

/** `wanted`: only this backend; null: all. Throws the port's own error where it can't be had. */
export async function examine(wanted: string | null): Promise<Machine> {
  const absent: Absent[] = [];
  const chosen = CompletionPort.create(wanted === null ? {} : { backend: wanted as 'auto' });
  const first = chosen.backend.name;
  chosen.close();
  await chosen.closed;
  const backends: string[] = [first];
  const probed = CompletionPort.probe();
  for (const name of backendNames) {
    const report = probed.find((backend) => backend.name === name);
    if (name === first) continue;
    if (report?.available !== true) {
      absent.push({ subject: `completion-port on ${name}`, reason: report?.reason ?? `not on ${process.platform}` });
    } else if (wanted !== null) {
      absent.push({ subject: `completion-port on ${name}`, reason: `--backend ${wanted}` });
    } else {
      backends.push(name);
    }
  }
  const peers = await buildPeers();
  if (peers.programs === null)
    absent.push({ subject: 'C io_uring', reason: peers.reason }, { subject: 'C epoll', reason: peers.reason });
  else if (!probed.some(({ name, available }) => name === 'io_uring' && available)) {
    absent.push({ subject: 'C io_uring', reason: 'io_uring is denied here' });
  }
  const [bun, deno] = [findCommand('bun'), findCommand('deno')];
  if (bun === null) absent.push({ subject: 'bun', reason: 'no bun in PATH' });
  if (deno === null) absent.push({ subject: 'deno', reason: 'no deno in PATH' });
  return { backends, peers, bun, deno, absent };
}

/** The C programs that use io_uring, where they can run. */
export function hasUring(machine: Machine): boolean {
  return machine.peers.programs !== null && !machine.absent.some(({ subject }) => subject === 'C io_uring');
}

export const benchFile = (...parts: string[]): string => path.join(packageFolder, 'bench', ...parts);
export const echoExample = path.join(packageFolder, 'examples/echo.mjs');

/** What the client is, in the report's words. The C one needs io_uring. */
export const clientName = (machine: Machine): string =>
  hasUring(machine) ? 'C (bench/peers/echo_client.c)' : "this package's port (bench/subjects/tcp_client.mjs)";

export interface ClientOptions {
  readonly port: number;
  readonly connections: number;
  readonly bytes: number;
  readonly spin: boolean;
  readonly http?: boolean;
}

/** The same client for every subject of a workload, on the other CPU. */
export function startClient(machine: Machine, { port, connections, bytes, spin, http = false }: ClientOptions): LineProcess {
  const args = [
    '--port',
    String(port),
    '--connections',
    String(connections),
    '--bytes',
    String(bytes),
    ...(spin ? ['--spin'] : []),
  ];
  if (!http && hasUring(machine) && machine.peers.programs !== null) {
    return new LineProcess(machine.peers.programs.echo_client, ['--control', ...args], { cpu: LOAD_CPU });
  }
  const flags = http ? ['--http'] : [];
  return new LineProcess(process.execPath, [benchFile('subjects/tcp_client.mjs'), ...args, ...flags], { cpu: LOAD_CPU });
}
