// Closing 8,000 connections at once, each with a receive pending, until the last of them has said so: a packet with
// ECANCELED here, a 'close' event on node:net. The client opens them again before each measurement, which isn't counted.

import { join } from 'node:path';
import { LineProcess, LOAD_CPU, listeningPort, SUBJECT_CPU } from '../../dist/bench/processes.js';

const CONNECTIONS = 8000;

async function start(name, context) {
  const mode = name === 'node:net' ? 'node-net' : 'port';
  const server = new LineProcess(process.execPath, [join(context.root, 'bench', 'subjects', 'closing.mjs'), mode], {
    cpu: SUBJECT_CPU,
  });
  let client;
  try {
    const port = await listeningPort(server);
    client = new LineProcess(context.programs.echo_client, [
      ...['--control', '--port', String(port), '--connections', String(CONNECTIONS), '--cpu', String(LOAD_CPU)],
    ]);
  } catch (error) {
    await server.stop();
    throw error;
  }
  return {
    name,
    pid: server.pid,
    prepare: async () => {
      await client.ask('connect');
    },
    async run() {
      const answer = await server.ask('close');
      await client.ask('closed');
      if (answer.operations !== CONNECTIONS) throw new Error(`${name} had ${answer.operations} connections`);
      return answer;
    },
    async stop() {
      await client.stop();
      await server.stop();
    },
  };
}

export const workloads = [
  {
    name: 'close',
    title: `close of ${CONNECTIONS} connections at once, each with a receive pending`,
    unit: 'connection',
    figures: [{ subject: 'port', against: 'node:net', bar: 1 }],
    start,
  },
];
