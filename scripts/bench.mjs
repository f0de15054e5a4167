// npm run bench: builds the package and the C peers, then measures; the options are those of bench/run.mjs.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { buildAll } from './build.mjs';
import { runMain } from './lib/log.mjs';
import { root } from './lib/paths.mjs';

await runMain(async () => {
  await buildAll();
  const child = spawn(process.execPath, [join(root, 'bench/run.mjs'), ...process.argv.slice(2)], { stdio: 'inherit' });
  // Ctrl-C of a terminal reaches it by itself; it ends what it has started.
  process.on('SIGINT', () => {});
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  const [code, signal] = await once(child, 'exit');
  return signal ? 1 : code;
});
