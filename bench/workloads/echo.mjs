// TCP echo, 64-byte messages, one in flight a connection: examples/echo.mjs in its forms against a C server on liburing (on epoll,
// against one on epoll) and against node:net. At one connection the client spins: two thirds of the server's cost would be waking it.

import { join } from 'node:path';
import { LineProcess, LOAD_CPU, listeningPort, SUBJECT_CPU } from '../../dist/bench/processes.js';

const BYTES = 64;

const onEpoll = { COMPLETION_PORT_BACKEND: 'epoll' };

/** How each subject is started; `--wait block` and the rest are the example's own options; a last object is its environment. */
const commands = ({ root, programs }) => {
  const echo = [join(root, 'examples', 'echo.mjs'), '--port', '0'];
  return {
    C: [programs.uring_echo],
    'node:net': [process.execPath, join(root, 'bench', 'peers', 'net_echo.mjs')],
    plain: [process.execPath, ...echo],
    inverted: [process.execPath, ...echo, '--event-loop', 'inverted'],
    block: [process.execPath, ...echo, '--wait', 'block'],
    'epoll C': [programs.epoll_echo],
    'epoll plain': [process.execPath, ...echo, onEpoll],
    'epoll inverted': [process.execPath, ...echo, '--event-loop', 'inverted', onEpoll],
    'epoll block': [process.execPath, ...echo, '--wait', 'block', onEpoll],
    heap: [process.execPath, ...echo, '--buffers', 'heap'],
    'shared, 2 block': [process.execPath, ...echo, '--workers', '2', '--wait', 'block'],
    'shared, 2 loops': [process.execPath, ...echo, '--workers', '2'],
    'port each, 2 block': [process.execPath, ...echo, '--workers', '2', '--port-per-worker', '--wait', 'block'],
    'port each, 2 loops': [process.execPath, ...echo, '--workers', '2', '--port-per-worker'],
  };
};

/** Every figure: connections, subject, what it is compared with, the bar (null: shown, no bar). */
const figures = [
  [1, 'plain', 'C', 1.4],
  [1, 'inverted', 'C', 1.1],
  [1, 'block', 'C', 1.05],
  [1, 'node:net', 'C', null],
  [64, 'plain', 'C', 1.05],
  [64, 'inverted', 'C', null],
  [64, 'block', 'C', 1.05],
  [64, 'node:net', 'C', null],
  [64, 'plain', 'node:net', 0.6],
  [64, 'inverted', 'node:net', 0.6],
  [64, 'heap', 'plain', 1.1],
  [512, 'plain', 'C', 1.2],
  [512, 'inverted', 'C', 1.1],
  [512, 'block', 'C', 1.1],
  [512, 'node:net', 'C', null],
  [512, 'plain', 'node:net', 0.6],
  [512, 'inverted', 'node:net', 0.6],
  [512, 'heap', 'plain', 1.1],
  [8000, 'plain', 'C', 1.1],
  [8000, 'inverted', 'C', 1.1],
  [8000, 'node:net', 'C', null],
];

/** The second backend. */
const epollFigures = [
  [64, 'epoll plain', 'epoll C', 1.15],
  [64, 'epoll inverted', 'epoll C', null],
  [64, 'epoll block', 'epoll C', 1.15],
  [64, 'epoll plain', 'node:net', 0.7],
  [64, 'epoll plain', 'plain', null],
  [512, 'epoll plain', 'epoll C', 1.15],
  [512, 'epoll inverted', 'epoll C', null],
  [512, 'epoll block', 'epoll C', 1.15],
  [512, 'epoll plain', 'node:net', 0.7],
  [512, 'epoll plain', 'plain', null],
];

/** Two worker threads: on one shared port, or with a port each; against one thread, and against node:net in one process. */
const workerFigures = [
  ['shared, 2 block', 'node:net', 0.75],
  ['shared, 2 loops', 'node:net', 0.75],
  ['port each, 2 block', 'block', 1.1],
  ['port each, 2 loops', 'plain', 1.1],
];

async function start(name, connections, context) {
  const [command, ...args] = commands(context)[name];
  const settings = typeof args.at(-1) === 'object' ? args.pop() : {};
  const server = new LineProcess(command, args, { cpu: SUBJECT_CPU, env: { ...process.env, ...settings } });
  let client;
  try {
    const port = await listeningPort(server);
    client = new LineProcess(context.programs.echo_client, [
      ...['--control', '--port', String(port), '--connections', String(connections), '--bytes', String(BYTES)],
      ...['--cpu', String(LOAD_CPU), ...(connections === 1 ? ['--spin'] : [])],
    ]);
    await client.ask('connect');
  } catch (error) {
    await client?.stop();
    await server.stop();
    throw error;
  }
  return {
    name,
    pid: server.pid,
    async run(seconds) {
      const answer = await client.ask(`run ${seconds}`);
      if (answer.errors > 0) throw new Error(`${name}: ${answer.errors} connections were lost`);
      return { ...answer, operations: answer.messages };
    },
    async stop() {
      await client.stop();
      await server.stop();
    },
  };
}

/** One workload for each number of connections; their servers stay up over all rounds. */
export const workloads = [1, 64, 512, 8000].map((connections) => ({
  name: `echo/${connections}`,
  title: `TCP echo of ${BYTES} bytes, ${connections} connection${connections === 1 ? ', client spinning' : 's'}`,
  unit: 'echo',
  figures: figures.filter(([count]) => count === connections).map(([, subject, against, bar]) => ({ subject, against, bar })),
  start: (name, context) => start(name, connections, context),
}));

for (const connections of [64, 512]) {
  workloads.push({
    name: `epoll/${connections}`,
    title: `TCP echo of ${BYTES} bytes on the epoll backend, ${connections} connections`,
    unit: 'echo',
    figures: epollFigures
      .filter(([count]) => count === connections)
      .map(([, subject, against, bar]) => ({ subject, against, bar })),
    start: (name, context) => start(name, connections, context),
  });
}

workloads.push({
  name: 'workers/64',
  title: `TCP echo of ${BYTES} bytes, 64 connections, two workers`,
  unit: 'echo',
  figures: workerFigures.map(([subject, against, bar]) => ({ subject, against, bar })),
  start: (name, context) => start(name, 64, context),
});
