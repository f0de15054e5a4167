// npm start: builds what is missing, makes the documentation's pages if there are none, and serves them with the
// package's own example, examples/serve.mjs. Standard output belongs to the server: builds speak on standard error.
//
//   npm start -- [--port N] [other options of examples/serve.mjs]

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { buildAll, loud } from './build.mjs';
import { runMain, say } from './lib/log.mjs';
import { buildFolder, root } from './lib/paths.mjs';

const defaultPort = 8080;
const parentCheckMs = 250;
const docs = join(buildFolder, 'docs');

// A signal to npm ends the shell between npm and this script, but not this script: seen with npm 11, whose child is `sh -c`.
// So it looks whether it has lost its parent.
const parent = process.ppid;

const given = process.argv.slice(2);
const optionOf = (name) => {
  const index = given.findIndex((argument) => argument === name || argument.startsWith(`${name}=`));
  if (index < 0) return undefined;
  return given[index].includes('=') ? given[index].slice(name.length + 1) : given[index + 1];
};

/** Whether somebody could listen there just now. */
function isFree(host, port) {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

await runMain(async () => {
  const help = given.includes('--help');
  await buildAll();
  if (!help && !existsSync(join(docs, 'index.html'))) {
    await loud`${process.execPath} ${join(root, 'scripts/docs.mjs')}`;
  }
  const args = [join(root, 'examples/serve.mjs'), docs, ...given];
  if (!help && optionOf('--port') === undefined) {
    const host = optionOf('--host') ?? '127.0.0.1';
    const free = await isFree(host, defaultPort);
    if (!free) say(`port ${defaultPort} is taken: another one is used, see the next line`);
    args.push('--port', free ? String(defaultPort) : '0');
  }
  const server = spawn(process.execPath, args, { stdio: 'inherit' });
  // A terminal's Ctrl-C reaches the server by itself; this script only must not die before it.
  const pass = (signal) => server.kill(signal);
  process.on('SIGTERM', pass);
  process.on('SIGINT', () => {});
  process.on('SIGHUP', pass);
  const watch = setInterval(() => process.ppid !== parent && pass('SIGTERM'), parentCheckMs);
  if (process.env.npm_lifecycle_event !== 'start') clearInterval(watch);
  return new Promise((resolve, reject) => {
    server.on('error', reject);
    server.on('exit', (code, signal) => {
      clearInterval(watch);
      if (signal) say(`the server was ended by ${signal}`);
      resolve(code ?? 1);
    });
  });
});
