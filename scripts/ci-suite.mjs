// What a runner of .github/workflows/ci.yml does: builds the package as its users do, with the command that it brings, runs the conformance suite on
// every backend that the system has, and puts the reports of all runners beside each other.
//
//   node scripts/ci-suite.mjs build
//   node scripts/ci-suite.mjs run --name NAME [--denied] [--soak]
//   node scripts/ci-suite.mjs matrix

import { spawn } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildLauncher, buildTypeScript } from './build.mjs';
import { Failure, runMain, say } from './lib/log.mjs';
import { buildFolder, cliFile, denyUringFile, reportFolder, root } from './lib/paths.mjs';

const usage = `usage: node scripts/ci-suite.mjs build
       node scripts/ci-suite.mjs run --name NAME [--denied] [--soak]
       node scripts/ci-suite.mjs matrix

  build     dist/, and the addon by \`completion-port build\`
  run       the suite on every backend that there is; reports go to build/reports/ci/NAME-*.json
  matrix    a page of all reports in build/reports/ci, into build/matrix
  --name    what the reports are called
  --denied  Linux: on the port's own choice, with io_uring denied by seccomp
  --soak    ten times the counts
`;

const folder = join(reportFolder, 'ci');

/** The exit code. Nothing is read from it, so its output is the job's. */
function call(command, args, env = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } });
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

const commands = {
  async build() {
    await buildTypeScript();
    await buildLauncher();
    return call(process.execPath, [cliFile, 'build', '--force']);
  },

  async run({ name, denied, soak }) {
    if (name === undefined || !/^[\w.-]+$/.test(name))
      throw new Failure(`--name takes letters, digits, dots and dashes\n${usage}`, 2);
    if (denied && process.platform !== 'linux') throw new Failure('--denied is of Linux', 2);
    mkdirSync(folder, { recursive: true });
    for (const file of readdirSync(folder)) if (file.startsWith(`${name}-`)) rmSync(join(folder, file));
    const suite = [cliFile, 'conformance', '--json', join(folder, `${name}-suite.json`)];
    if (!denied) suite.push('--backend', 'all');
    if (soak) suite.push('--scale', '10');
    const [command, ...args] = denied ? [denyUringFile, 'EPERM', process.execPath, ...suite] : [process.execPath, ...suite];
    // 'unable' is a failure in .ci/run, where everything must be there, and a word of the report here: cases that need Linux, or root.
    return call(command, args, { CI: 'false' });
  },

  async matrix() {
    await buildTypeScript();
    const out = join(buildFolder, 'matrix');
    mkdirSync(out, { recursive: true });
    return call(process.execPath, [cliFile, 'conformance', '--matrix', folder, '--out', out]);
  },
};

await runMain(async () => {
  let parsed;
  try {
    const flag = { type: 'boolean', default: false };
    parsed = parseArgs({
      allowPositionals: true,
      options: { name: { type: 'string' }, denied: flag, soak: flag, help: flag },
    });
  } catch (error) {
    throw new Failure(`${error.message}\n${usage}`, 2);
  }
  const { values, positionals } = parsed;
  if (values.help) {
    process.stdout.write(usage);
    return 0;
  }
  const command = commands[positionals[0] ?? ''];
  if (command === undefined || positionals.length > 1) throw new Failure(usage, 2);
  say(`ci-suite: ${positionals[0]}`);
  return command(values);
});
