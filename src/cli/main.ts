#!/usr/bin/env node
// The `completion-port` command: finds the subcommand and turns its outcome into an exit code. A subcommand is a module with
// `run(argv)` that resolves to the code; it is loaded only when it is asked for, so that `build` and `--help` work where the
// addon is missing.

import * as fs from 'node:fs';
import { nearest, UsageError } from './options.js';

const commands = ['doctor', 'conformance', 'bench', 'build'] as const;
type Command = (typeof commands)[number];

const help = `Usage: completion-port <command> [options]

One completion port for Node.js on every OS.

Commands:
  doctor        what this machine can run: the backends, and why one is missing
  conformance   check a backend, or a port of your own, against the reference
  bench         measure this package, its backends and what it is compared with
  build         build the native addon of an installed package

Options:
  --help, -h    this text; 'completion-port <command> --help' for a command's own
  --version     the version of the package

Examples:
  npx completion-port doctor
  npx completion-port conformance --filter '^CANCEL'
  npx completion-port bench --quick
`;

async function load(command: Command): Promise<(argv: string[]) => Promise<number> | number> {
  switch (command) {
    case 'doctor':
      return (await import('./doctor.js')).run;
    case 'conformance':
      return (await import('./conformance.js')).run;
    case 'bench':
      return (await import('./bench.js')).run;
    case 'build':
      return (await import('./build.js')).run;
  }
}

async function main(argv: string[]): Promise<number> {
  const [first, ...rest] = argv;
  if (first === undefined) {
    process.stderr.write(help);
    return 2;
  }
  if (first === '--help' || first === '-h' || first === 'help') {
    process.stdout.write(help);
    return 0;
  }
  if (first === '--version' || first === '-v') {
    const file = new URL('../../package.json', import.meta.url);
    process.stdout.write(`${(JSON.parse(fs.readFileSync(file, 'utf8')) as { version: string }).version}\n`);
    return 0;
  }
  const command = commands.find((name) => name === first);
  if (command === undefined) {
    const option = first.startsWith('-');
    const right = option ? nearest(first.replace(/^-+/, ''), ['help', 'version']) : nearest(first, commands);
    const hint = right === null ? `it is one of ${commands.join(', ')}` : `did you mean ${option ? '--' : ''}${right}?`;
    throw new UsageError(`completion-port: unknown ${option ? 'option' : 'command'} '${first}'; ${hint}`);
  }
  return (await load(command))(rest);
}

// Nobody reads on (`… | head`): that is an interrupt, which ends what runs and leaves nothing behind.
let unread = false;
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  if (!unread) process.kill(process.pid, 'SIGINT');
  unread = true;
});

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`${error.message}\n`);
  process.exitCode = 2;
}
