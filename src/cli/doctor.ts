// `completion-port doctor`: what this machine can run, for people and as JSON. It works without a usable addon too: then the
// reason is the answer.

import * as fs from 'node:fs';
import * as os from 'node:os';
import { showError } from '../conformance/check.js';
import { runtimeInfo } from '../conformance/process.js';
import { packageVersion } from '../conformance/runner.js';
import { noPositionals, paintFor, parseOptions } from './options.js';

const help = `Usage: completion-port doctor [--json]

Says which backends this machine can run, with their probed features, which one 'auto' takes, why another
can't be used, and what to do about it. Ends with 0 where one works, otherwise with 1.

Options:
  --json       the same as JSON on standard output
  --help, -h   this text

Environment:
  COMPLETION_PORT_BACKEND   what 'auto' means
  COMPLETION_PORT_DISABLE   features to leave unused, comma-separated

Examples:
  completion-port doctor
  completion-port doctor --json
  COMPLETION_PORT_DISABLE=io_uring completion-port doctor
`;

/** What makes a backend that is refused available, in words for whoever runs this machine; null where nothing does. */
function adviceFor({ name, reason }: { name: string; reason: string | null }): string | null {
  if (reason === null) return null;
  if (/COMPLETION_PORT_DISABLE/.test(reason)) return `take ${name} out of COMPLETION_PORT_DISABLE`;
  if (name !== 'io_uring') return null;
  if (/io_uring_disabled/.test(reason)) {
    return "as root, of the host where this is a container: 'sysctl -w kernel.io_uring_disabled=0', and a file in /etc/sysctl.d for the next start";
  }
  if (/seccomp/.test(reason)) {
    return (
      'in Docker\'s default profile (profiles/seccomp/default.json of github.com/moby/profiles) add to "syscalls" the entry ' +
      '{"names": ["io_uring_setup", "io_uring_enter", "io_uring_register"], "action": "SCMP_ACT_ALLOW"} and start the container with ' +
      '--security-opt seccomp=FILE; in Kubernetes name that file under securityContext.seccompProfile (type Localhost). Until then epoll does the same work'
    );
  }
  if (/too old|no io_uring/.test(reason)) return 'a newer kernel brings it; until then epoll does the same work';
  return null;
}

interface BackendReport {
  name: string;
  available: boolean;
  reason: string | null;
  features: Record<string, boolean>;
}

interface Report {
  version: string;
  runtime: { name: string; version: string };
  os: { platform: string; release: string; arch: string };
  selected: string | null;
  fallbackReason: string | null;
  backends: BackendReport[];
}

async function examine(): Promise<{ report: Report; problem: string | null }> {
  const report: Report = {
    version: packageVersion(),
    runtime: runtimeInfo(),
    os: { platform: process.platform, release: os.release(), arch: process.arch },
    selected: null,
    fallbackReason: null,
    backends: [],
  };
  try {
    // Not a static import: a missing or foreign addon makes it throw, and that is what a doctor has to tell.
    const { CompletionPort } = await import('../index.js');
    report.backends = CompletionPort.probe().map(({ name, available, reason, features }) => ({
      name,
      available,
      reason: reason ?? null,
      features: { ...features },
    }));
    const port = CompletionPort.create();
    report.selected = port.backend.name;
    report.fallbackReason = port.backend.fallbackReason ?? null;
    port.close();
    await port.closed;
    return { report, problem: null };
  } catch (error) {
    return { report, problem: showError(error) };
  }
}

export async function run(argv: string[]): Promise<number> {
  const { values, positionals } = parseOptions('completion-port doctor', argv, { json: { value: 'boolean' } });
  if (values.help === true) {
    process.stdout.write(help);
    return 0;
  }
  noPositionals('completion-port doctor', positionals);
  const { report, problem } = await examine();
  const works = problem === null && report.selected !== null;
  if (values.json === true) {
    // Whatever keeps a port from working is the reason that people look for here.
    const shown = problem === null ? report : { ...report, fallbackReason: problem };
    fs.writeSync(1, `${JSON.stringify(shown, null, 2)}\n`);
    return works ? 0 : 1;
  }
  const paint = paintFor(process.stdout);
  const lines = [
    `completion-port ${report.version} on ${report.runtime.name} ${report.runtime.version}, ${report.os.platform} ${report.os.release} ${report.os.arch}`,
    '',
  ];
  for (const backend of report.backends) {
    const state = backend.available ? paint.green('available') : paint.red('not available');
    lines.push(`${paint.bold(backend.name.padEnd(9))} ${state}${backend.reason === null ? '' : `: ${backend.reason}`}`);
    const advice = adviceFor(backend);
    if (advice !== null) lines.push(...wrap('to do', advice.split(' '), ' '));
    const names = Object.keys(backend.features);
    const has = names.filter((name) => backend.features[name] === true);
    const hasNot = names.filter((name) => backend.features[name] !== true);
    if (has.length > 0) lines.push(...wrap('has', has));
    if (hasNot.length > 0) lines.push(...wrap('lacks', hasNot));
  }
  if (report.backends.length > 0) lines.push('');
  if (report.selected !== null) {
    lines.push(
      `A new port uses ${paint.bold(report.selected)}${report.fallbackReason === null ? '.' : `: ${report.fallbackReason}`}`,
    );
  }
  if (problem !== null) lines.push(`${paint.red('No port can be made here.')} ${problem}`);
  process.stdout.write(`${lines.join('\n')}\n`);
  return works ? 0 : 1;
}

/** A list of names under a label, in lines of at most 100 characters. */
function wrap(label: string, names: readonly string[], separator = ', '): string[] {
  const lines: string[] = [];
  let line = '';
  for (const name of names) {
    const joined = line === '' ? name : `${line}${separator}${name}`;
    if (joined.length > 80 && line !== '') {
      lines.push(`${line}${separator}`.trimEnd());
      line = name;
    } else line = joined;
  }
  lines.push(line);
  return lines.map((text, index) => `          ${index === 0 ? label.padEnd(6) : '      '}${text}`);
}
