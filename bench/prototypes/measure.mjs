// Builds shared_port and measures its forms side by side, in interleaved rounds, with the client of the echo figures.
//
// node bench/prototypes/measure.mjs [--rounds N] [--connections 1,64,512] [--batch N] [--both-cpus] [--quick]
//
// All the server's threads share one CPU and the client has the other, as in bench/workloads/echo.mjs; with --both-cpus the
// server may use both. Figures: CPU time per echo, of all threads; switches of threads that had to wait, per echo.

import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { buildPeers } from '../build-peers.mjs';
import { LineProcess, LOAD_CPU, listeningPort, SUBJECT_CPU } from '../lib/processes.mjs';
import { interleave, ratios, summary } from '../lib/rounds.mjs';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '11' },
    connections: { type: 'string', default: '1,64,512' },
    batch: { type: 'string', default: '1' },
    'both-cpus': { type: 'boolean', default: false },
    quick: { type: 'boolean', default: false },
  },
});

const here = dirname(fileURLToPath(import.meta.url));
const output = join(here, '..', '..', 'build', 'bench');
const peers = buildPeers();
const program = join(output, 'shared_port');
const liburing = join(output, 'liburing');
const objects = readdirSync(liburing).filter((name) => name.endsWith('.o'));
execFileSync(process.env.CXX ?? 'c++', [
  ...['-std=c++20', '-O2', '-DNDEBUG', '-Wall', '-Wextra', '-pthread', '-isystem', join(liburing, 'src', 'include')],
  ...['-o', program, join(here, 'shared_port.cc'), ...objects.map((name) => join(liburing, name))],
]);

/** Times that a thread of the process gave up its CPU to wait. */
function switches(pid) {
  let sum = 0;
  for (const thread of readdirSync(`/proc/${pid}/task`)) {
    sum += Number(/^voluntary_ctxt_switches:\s*(\d+)/m.exec(readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8'))[1]);
  }
  return sum;
}

async function start(name, command, connections) {
  const server = new LineProcess(command[0], command.slice(1), { cpu: values['both-cpus'] ? null : SUBJECT_CPU });
  const port = await listeningPort(server);
  const client = new LineProcess(peers.echo_client, [
    ...['--control', '--port', String(port), '--connections', String(connections), '--bytes', '64'],
    ...['--cpu', String(LOAD_CPU), ...(connections === 1 ? ['--spin'] : [])],
  ]);
  await client.ask('connect');
  const waited = { echoes: 0, switches: 0 };
  return {
    name,
    pid: server.pid,
    waited,
    async run(seconds) {
      const before = switches(server.pid);
      const answer = await client.ask(`run ${seconds}`);
      if (answer.errors > 0) throw new Error(`${name}: ${answer.errors} connections were lost`);
      waited.switches += switches(server.pid) - before;
      waited.echoes += answer.messages;
      return { ...answer, operations: answer.messages };
    },
    async stop() {
      await client.stop();
      await server.stop();
    },
  };
}

const text = ({ low, median, high }, digits) => `${median.toFixed(digits)} (${low.toFixed(digits)}-${high.toFixed(digits)})`;

for (const connections of values.connections.split(',').map(Number)) {
  const subjects = [await start('C, one thread', [peers.uring_echo], connections)];
  for (const workers of [1, 2]) {
    for (const form of ['io-thread', 'lock', 'lock-plain']) {
      const command = [program, '--form', form, '--workers', String(workers), '--batch', values.batch];
      subjects.push(await start(`${form} ${workers}`, command, connections));
    }
  }
  const load = readFileSync('/proc/loadavg', 'utf8').split(' ', 1)[0];
  const rounds = Number(values.rounds);
  const results = await interleave(subjects, { rounds, quick: values.quick, progress: () => {} });
  console.log(
    `${connections} connections, batch ${values.batch}, ${values['both-cpus'] ? 'both CPUs' : 'one CPU'}, load ${load}`,
  );
  for (const { name, waited } of subjects) {
    const workers = name.split(' ').pop();
    const against = name.startsWith('lock')
      ? `${text(ratios(results, name, `io-thread ${workers}`), 2)} x io-thread ${workers}`
      : '';
    console.log(
      [
        name.padEnd(14),
        `${text(summary(results.get(name).ns), 0)} ns`.padEnd(28),
        `${text(ratios(results, name, 'C, one thread'), 2)} x C`.padEnd(24),
        against.padEnd(40),
        `${(waited.switches / waited.echoes).toFixed(3)} switches`.padEnd(16),
        `p50 ${results.get(name).last.latencyUs.p50} us`,
      ].join(' '),
    );
  }
  for (const subject of subjects) await subject.stop();
}
