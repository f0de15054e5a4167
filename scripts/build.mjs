// npm run build: liburing if it is missing, the addon by cmake-js, the TypeScript sources by tsc
// and rolldown. Each step is skipped
// if its inputs are what they were; all output goes to standard error.
//
//   npm run build -- [--debug] [--test-build] [--no-native] [--no-ts] [--force]

import { chmodSync, copyFileSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, dirname, join, relative } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { rolldown } from 'rolldown';
import { $ } from 'zx';
import { Failure, runMain, say } from './lib/log.mjs';
import {
  addonFile,
  buildFolder,
  cliFile,
  denyUringFile,
  distFolder,
  kqueueAddonFile,
  kqueueTestAddonFile,
  liburingFolder,
  root,
  testAddonFile,
} from './lib/paths.mjs';
import { filesBelow, fingerprint, isFresh, writeStamp } from './lib/stamp.mjs';
import { buildTools, ensureTools } from './setup.mjs';
import { isVendored, vendorLiburing } from './vendor-liburing.mjs';

const usage = `usage: npm run build -- [options]

Builds the addon (build/<platform>-<arch>/) and dist/.
  --debug        assertions for debugging and symbols (CP_DEBUG_ASSERT), into the same place
  --test-build   also the addon of the tests (build/<platform>-<arch>-test/) and their launchers (build/test/)
  --no-native    only dist/
  --no-ts        only the addon
  --force        even what is up to date
examples:
  npm run build
  npm run build -- --debug --no-ts
`;

/** A command of zx with everything that it prints on our standard error. */
export const loud = $({ cwd: root, quiet: true, stdio: ['ignore', 2, 2] });

/** What the native code is made from: our sources, the part of liburing that is compiled, the build's own files. */
export function nativeInputs() {
  return [
    ...filesBelow([join(root, 'native')], ['liburing', 'test']),
    ...filesBelow([join(liburingFolder, '.vendored'), join(root, 'CMakeLists.txt'), join(root, 'package.json')]),
  ];
}

/**
 * Puts a file in its place by renaming: a process that has the old one mapped keeps it, where overwriting in place would
 * change its code under its feet.
 */
export function install(from, to) {
  mkdirSync(dirname(to), { recursive: true });
  const temporary = join(dirname(to), `.${basename(to)}.${process.pid}`);
  copyFileSync(from, temporary);
  renameSync(temporary, to);
}

/** The launcher of the tests that denies io_uring; one C file, and no part of the package. */
export async function buildLauncher({ force = false } = {}) {
  if (process.platform !== 'linux') return false;
  const source = join(root, 'test/seccomp/deny_uring.c');
  const print = fingerprint([source]);
  if (!force && isFresh('deny-uring', print)) return false;
  await ensureTools(buildTools);
  mkdirSync(dirname(denyUringFile), { recursive: true });
  const built =
    await loud`${process.env.CC ?? 'cc'} -O1 -std=gnu11 -Wall -Wextra -Werror -o ${denyUringFile} ${source}`.nothrow();
  if (built.exitCode !== 0) throw new Failure("the tests' launcher does not build; the compiler's words stand above");
  writeStamp('deny-uring', print, [denyUringFile]);
  return true;
}

export async function buildNative({ debug = false, testBuild = false, force = false } = {}) {
  if (process.platform === 'linux' && !isVendored()) await vendorLiburing();
  const mode = debug ? 'debug' : 'release';
  const print = fingerprint(nativeInputs(), mode);
  const wanted = [['completion_port.node', addonFile, 'addon']];
  if (testBuild) wanted.push(['completion_port_test.node', testAddonFile, 'addon-test']);
  if (!force && wanted.every(([, , stamp]) => isFresh(stamp, print))) return false;
  say(`building the addon (${mode}${testBuild ? ', with the test build' : ''})`);
  await compile(mode, [`--CDCP_TEST_BUILD=${testBuild ? 'ON' : 'OFF'}`], wanted, print, debug);
  return true;
}

/** The addons with the kqueue backend over its stand-in, for the tests on Linux. */
export async function buildKqueue({ force = false } = {}) {
  const print = fingerprint([...nativeInputs(), ...filesBelow([join(root, 'test/kqueue-shim')])]);
  const wanted = [
    ['completion_port.node', kqueueAddonFile, 'addon-kqueue'],
    ['completion_port_test.node', kqueueTestAddonFile, 'addon-kqueue-test'],
  ];
  if (!force && wanted.every(([, , stamp]) => isFresh(stamp, print))) return false;
  say('building the addon with the kqueue backend, over its stand-in');
  await compile('kqueue', ['--CDCP_TEST_BUILD=ON', '--CDCP_KQUEUE_SHIM=ON'], wanted, print);
  return true;
}

/** One build of the addon by cmake-js in `build/cmake/NAME`; then `wanted`, lists of name, place and stamp, is put in its place. */
async function compile(name, options, wanted, print, debug = false) {
  await ensureTools(buildTools);
  const folder = join(buildFolder, 'cmake', name);
  const flags = ['--out', folder, '--CDCP_WERROR=ON', ...options];
  if (debug) flags.push('--debug');
  const cmakeJs = join(root, 'node_modules/cmake-js/bin/cmake-js');
  if (!existsSync(cmakeJs)) throw new Failure('cmake-js is missing: run `npm ci` first');
  // cmake-js configures only a fresh folder by itself, so it is asked to each time: options and file lists may be new.
  await loud`${process.execPath} ${cmakeJs} configure ${flags}`;
  const done =
    await loud`${process.execPath} ${cmakeJs} build --parallel ${availableParallelism()} --out ${folder} ${debug ? ['--debug'] : []}`.nothrow();
  if (done.exitCode !== 0) throw new Failure("the addon does not build; the compiler's words stand above");
  for (const [built, file, stamp] of wanted) {
    install(join(folder, 'out', built), file);
    writeStamp(stamp, print, [file]);
  }
}

/** The script of the benchmark's page: for a browser, so with types and a compilation of its own. */
const pageFolder = join(root, 'src/bench/page');

/** The modules of the package that others load, and what the tests look into. */
const entries = ['index', 'net', 'promises', 'native'];
const compiledFolder = join(buildFolder, 'tsc');

/** Copies tsc's output to dist/ but for the package's own modules, which are put together into a few files (bundle), and clears the rest away. */
async function assemble() {
  const files = new Map();
  for (const file of filesBelow([compiledFolder])) {
    const path = relative(compiledFolder, file);
    if (path.endsWith('.d.ts') || /^(bench|cli|conformance)[\\/]/.test(path)) files.set(path, readFileSync(file));
  }
  for (const source of filesBelow([join(root, 'src')]).filter((file) => file.endsWith('.json') && !file.startsWith(pageFolder))) {
    files.set(relative(join(root, 'src'), source), readFileSync(source));
  }
  for (const { fileName, code } of await bundle()) files.set(fileName, Buffer.from(code));
  files.set('bench/page/page.js', Buffer.from(await bundlePage()));
  files.set('bench/page/page.css', readFileSync(join(pageFolder, 'page.css')));
  for (const file of filesBelow([distFolder])) if (!files.has(relative(distFolder, file))) rmSync(file);
  for (const [path, content] of files) {
    const to = join(distFolder, path);
    mkdirSync(dirname(to), { recursive: true });
    writeFileSync(to, content);
  }
  return [...files.keys()].map((path) => join(distFolder, path));
}

/**
 * Loading twenty modules costs each worker thread three times as much as loading four (55 and 87 ms of CPU time in all, where an empty worker
 * takes 43): so the package's own are one chunk behind its entries. The suite and the command stay as they are.
 */
async function bundle() {
  const build = await rolldown({
    cwd: root,
    platform: 'node',
    input: Object.fromEntries(entries.map((name) => [name, join(compiledFolder, `${name}.js`)])),
    logLevel: 'warn',
    treeshake: false,
  });
  try {
    const { output } = await build.generate({ format: 'esm', entryFileNames: '[name].js', chunkFileNames: 'chunk-[name].js' });
    return output;
  } finally {
    await build.close();
  }
}

/** One script with the chart library in it, since the page may ask the network for nothing. Licences' comments stay. */
async function bundlePage() {
  const build = await rolldown({ cwd: root, platform: 'browser', input: join(pageFolder, 'page.ts'), logLevel: 'warn' });
  try {
    const { output } = await build.generate({ format: 'esm', minify: true });
    return output[0].code;
  } finally {
    await build.close();
  }
}

export async function buildTypeScript({ force = false } = {}) {
  const sources = filesBelow([join(root, 'src')]).filter((file) => /\.(ts|json|css)$/.test(file));
  if (sources.length === 0) throw new Failure('src/ is empty');
  const configs = ['tsconfig.json', 'tsconfig.build.json', 'package-lock.json', 'scripts/build.mjs'].map((name) =>
    join(root, name),
  );
  const print = fingerprint([...sources, ...configs]);
  if (!force && isFresh('typescript', print)) return false;
  say('compiling TypeScript');
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  if (!existsSync(tsc)) throw new Failure('TypeScript is missing: run `npm ci` first');
  // From nothing: tsc deletes no output of a source that is gone, and its notes on what is up to date look at sources only.
  rmSync(compiledFolder, { recursive: true, force: true });
  const compiled = await loud`${process.execPath} ${tsc} -p tsconfig.build.json`.nothrow();
  if (compiled.exitCode !== 0) throw new Failure('tsc found errors; they stand above');
  const page = await loud`${process.execPath} ${tsc} -p ${pageFolder}`.nothrow();
  if (page.exitCode !== 0) throw new Failure("tsc found errors in the benchmark's page; they stand above");
  const outputs = await assemble();
  if (existsSync(cliFile)) chmodSync(cliFile, 0o755);
  writeStamp('typescript', print, outputs);
  return true;
}

/** What `npm start`, the tests and the examples rely on. */
export async function buildAll(options = {}) {
  const native = options.native === false ? false : await buildNative(options);
  const launcher = options.testBuild && options.native !== false ? await buildLauncher(options) : false;
  const ts = options.ts === false ? false : await buildTypeScript(options);
  return native || launcher || ts;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(async () => {
    let values;
    try {
      values = parseArgs({
        options: {
          debug: { type: 'boolean' },
          'test-build': { type: 'boolean' },
          'no-native': { type: 'boolean' },
          'no-ts': { type: 'boolean' },
          force: { type: 'boolean' },
          help: { type: 'boolean' },
        },
      }).values;
    } catch (error) {
      throw new Failure(`${error.message}\n${usage}`, 2);
    }
    if (values.help) {
      process.stdout.write(usage);
      return;
    }
    // The package needs the sources of liburing even where nothing native is built.
    if (values['no-native'] && process.platform === 'linux') await vendorLiburing();
    const did = await buildAll({
      debug: values.debug,
      testBuild: values['test-build'],
      force: values.force,
      native: !values['no-native'],
      ts: !values['no-ts'],
    });
    if (!did) say('everything is up to date');
  });
}
