// npm run test:wine: the addon for Windows, cross-compiled, and the conformance suite with it under Wine, on a real node.exe of each version; before it
// the Node-free test program.
//
//   npm run test:wine -- [--short] [--node 20,22] [--only native|suite] [--filter REGEXP] [--scale X]
//
// Wine is no Windows: what it does differently is gated in src/conformance/gates.ts (feature `wine`), each with its source; figures of time mean
// nothing here. node.exe comes from npm, pinned in scripts/tools/wine/, and is installed into build/tools/wine once. The standard streams of a
// node.exe under Wine are files: of a pipe it says EBADF.

import { spawn, spawnSync } from 'node:child_process';
import { closeSync, copyFileSync, existsSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { buildTypeScript, loud } from './build.mjs';
import { buildWindows } from './build-win.mjs';
import { Failure, runMain, say } from './lib/log.mjs';
import { buildFolder, cliFile, reportFolder, root, windowsProgramFile } from './lib/paths.mjs';
import { fingerprint, isFresh, writeStamp } from './lib/stamp.mjs';
import { ensureTools, windowsBuildTools } from './setup.mjs';

const usage = `usage: npm run test:wine -- [options]

  --short           native/test, and the part of the suite where a backend matters most, on node.exe 20
  --node LIST       versions of node.exe: 20,22
  --only PART       native (native/test as an .exe) or suite; both unless --filter is given, which is of the suite
  --filter REGEXP   some cases; the report then goes to build/reports/partial/
  --scale X         multiplies the counts inside cases (0.1); a full run, whose report counts, is at 1
examples:
  npm run test:wine
  npm run test:wine -- --node 20 --filter '^TCP'
`;

const minute = 60_000;
/** What cases ask of Linux, or of a tool that it has: unable here, and no failure under CI. Any other lack is one, as on every system. */
const needsLinux = /^(?:Linux only|no \/proc here|needs to be root|mkfifo )/;
/** By then native/test has to be done. */
const programSeconds = 240;
const versions = ['20', '22'];
/** Where a backend matters most. */
const short = '^(TCP|CANCEL|CLOSE|ORDER|WAKE|FLUSH|POST-07|ERR|FILE)';
const wine = '/usr/lib/wine/wine64';
const wineServer = '/usr/lib/wine/wineserver64';
const toolFolder = join(buildFolder, 'tools/wine');
/** Not below build/: its drive Z is a link to the root of the file system, which whatever walks the repository would follow. */
const prefix = join(tmpdir(), `completion-port-wine-${fingerprint([], root).slice(0, 16)}`);
const nodeFile = (version) => join(toolFolder, `node_modules/node-win-${version}/bin/node.exe`);
// Wine names files beside ASCII by the locale; a machine without one is "C", which has none but ASCII.
const environment = { ...process.env, LC_ALL: 'C.UTF-8', WINEPREFIX: prefix, WINEDEBUG: '-all' };
/** Wine shows the root of the file system as drive Z. */
const windowsPath = (file) => `Z:${file.replaceAll('/', '\\')}`;

/** Wine itself and the compiler, by apt where that is possible; a `Failure` says what is missing. */
export async function prepareWine() {
  await ensureTools(['wine', ...windowsBuildTools]);
  if (!existsSync(wine)) throw new Failure(`there is no ${wine}: install the package wine64`);
}

async function installTools() {
  await prepareWine();
  const inputs = ['package.json', 'package-lock.json'].map((name) => join(root, 'scripts/tools/wine', name));
  const print = fingerprint(inputs);
  if (isFresh('wine', print) && existsSync(prefix)) return;
  say('installing node.exe into build/tools/wine, and making a prefix for Wine (once)');
  mkdirSync(toolFolder, { recursive: true });
  for (const file of inputs) copyFileSync(file, join(toolFolder, file.slice(join(root, 'scripts/tools/wine/').length)));
  // --force: its packages are for Windows, as they should be.
  const done = await loud({ cwd: toolFolder })`npm ci --ignore-scripts --no-audit --no-fund --force`.nothrow();
  if (done.exitCode !== 0) throw new Failure('node.exe could not be installed; npm’s words stand above');
  rmSync(prefix, { recursive: true, force: true });
  const $ = loud({ env: environment });
  await $`${wine} wineboot -i`;
  // Node.js refuses to start on the version that Wine says it is.
  await $`${wine} reg add ${'HKCU\\Software\\Wine'} /v Version /d win10 /f`;
  writeStamp('wine', print, versions.map(nodeFile));
}

/** Runs an .exe with its streams in files; what it wrote, and its exit code: null where it was ended by the limit. */
function runProgram(name, file, args, limitMs) {
  const base = join(toolFolder, `run-${name}`);
  const streams = ['out', 'err'].map((name) => openSync(`${base}.${name}`, 'w'));
  return new Promise((resolve, reject) => {
    const child = spawn(wine, [windowsPath(file), ...args], {
      cwd: root,
      env: environment,
      stdio: ['ignore', ...streams],
      detached: true,
    });
    const end = () => {
      // All processes of our prefix: what a process of Wine starts is no child of it.
      spawnSync(wineServer, ['-k'], { env: environment, stdio: 'ignore' });
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch (error) {
        if (error.code !== 'ESRCH') throw error;
      }
    };
    const onSignal = (signal) => {
      end();
      process.exit(signal === 'SIGINT' ? 130 : 143);
    };
    process.once('SIGINT', onSignal);
    process.once('SIGTERM', onSignal);
    const timer = setTimeout(end, limitMs);
    child.on('error', reject);
    child.on('exit', (code) => {
      clearTimeout(timer);
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
      for (const stream of streams) closeSync(stream);
      resolve({ code, out: readFileSync(`${base}.out`, 'utf8'), err: readFileSync(`${base}.err`, 'utf8') });
    });
  });
}

async function conformance(version, { filter, scale }) {
  const whole = filter === undefined && Number(scale) === 1;
  // As the suite itself names it (reportFile in src/conformance/report.ts).
  const file = join(reportFolder, whole ? '' : 'partial', `iocp-wine-node${version}.json`);
  rmSync(file, { force: true });
  const options = ['--scale', scale, ...(filter === undefined ? [] : ['--filter', filter])];
  const { code, out, err } = await runProgram(
    `node${version}`,
    nodeFile(version),
    [windowsPath(cliFile), 'conformance', '--backend', 'iocp', ...options],
    15 * minute,
  );
  process.stdout.write(out);
  let report;
  try {
    report = JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    return { passed: 0, failed: 1, failures: [`node ${version}: exit code ${code}, no report; ${err.slice(-800)}`], note: '' };
  }
  const { pass, gated, unable, 'n/a': without } = report.totals;
  const failed = report.cases.filter(
    ({ verdict, reason }) => verdict === 'fail' || (process.env.CI && verdict === 'unable' && !needsLinux.test(reason)),
  );
  const failures = failed.map(({ id, verdict, error, reason }) => `node ${version}: ${id}: ${verdict}: ${error ?? reason}`);
  const note = `node ${version}: ${gated} gated, ${unable} unable, ${without} n/a`;
  return { passed: pass, failed: failed.length, failures, note };
}

/** native/test, which needs no Node. */
async function nativeProgram(filter) {
  say('native/test under Wine');
  const options = filter === undefined ? [] : ['--filter', filter];
  const { code, out, err } = await runProgram(
    'native',
    windowsProgramFile,
    ['--seconds', `${programSeconds}`, ...options],
    (programSeconds + 60) * 1000,
  );
  process.stdout.write(out);
  const counts = /^(\d+) passed, (\d+) failed/m.exec(out.split('\n').slice(-3).join('\n'));
  if (counts === null)
    return { passed: 0, failed: 1, failures: [`native/test: exit code ${code}, no count; ${err.slice(-800)}`], note: '' };
  const failures = [...out.matchAll(/^FAIL {2}(\S+).*\r?\n\s+(.*)$/gm)].map(([, id, why]) => `native/test: ${id}: ${why.trim()}`);
  const failed = Number(counts[2]);
  return { passed: Number(counts[1]), failed: failed || (code === 0 ? 0 : 1), failures, note: '' };
}

/** `{ passed, failed, failures, note }` of all versions together. */
export async function testWine({
  node = versions.join(),
  filter,
  scale = '0.1',
  only = filter === undefined ? undefined : 'suite',
} = {}) {
  if (process.platform !== 'linux' || process.arch !== 'x64') throw new Failure('test:wine runs on Linux on x86-64 only', 2);
  if (only !== undefined && !['native', 'suite', 'all'].includes(only)) throw new Failure('--only takes native or suite', 2);
  const chosen = node.split(',');
  const wrong = chosen.find((version) => !versions.includes(version));
  if (wrong !== undefined) throw new Failure(`no node.exe ${wrong}: there are ${versions.join(', ')}`, 2);
  await buildTypeScript();
  await buildWindows();
  await installTools();
  const total = { passed: 0, failed: 0, failures: [], note: '' };
  const add = ({ passed, failed, failures, note }) => {
    total.passed += passed;
    total.failed += failed;
    total.failures.push(...failures);
    total.note = [total.note, note].filter(Boolean).join('; ');
  };
  if (only !== 'suite') add(await nativeProgram(only === 'native' ? filter : undefined));
  if (only === 'native') return total;
  for (const version of chosen) {
    say(`the suite on node.exe ${version} under Wine`);
    add(await conformance(version, { filter, scale }));
  }
  return total;
}

export const testWineShort = () => testWine({ node: '20', filter: short, only: 'all' });

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(async () => {
    let values;
    try {
      const text = { type: 'string' };
      ({ values } = parseArgs({
        options: { node: text, filter: text, scale: text, only: text, short: { type: 'boolean' }, help: { type: 'boolean' } },
      }));
    } catch (error) {
      throw new Failure(`${error.message}\n${usage}`, 2);
    }
    if (values.help) {
      process.stdout.write(usage);
      return 0;
    }
    const { short: isShort, ...rest } = values;
    const { passed, failed, failures, note } = isShort ? await testWineShort() : await testWine(rest);
    const lines = [...failures, ...(note === '' ? [] : [note]), `${passed} passed, ${failed} failed`];
    process.stdout.write(`${lines.join('\n')}\n`);
    return failed === 0 ? 0 : 1;
  });
}
