// Builds the addon for Windows on Linux with mingw-w64, into build/win32-x64/, and that of the tests: what `npm run test:wine` runs. The addon that
// users get is built by MSVC (CMakeLists.txt, cmake-js); the sources are the same.
//
//   node scripts/build-win.mjs [--force]

import { mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { install, loud, nativeInputs } from './build.mjs';
import { Failure, runMain, say } from './lib/log.mjs';
import { buildFolder, root, windowsAddonFile, windowsProgramFile, windowsTestAddonFile } from './lib/paths.mjs';
import { filesBelow, fingerprint, isFresh, writeStamp } from './lib/stamp.mjs';
import { ensureTools, windowsBuildTools } from './setup.mjs';

const usage = `usage: node scripts/build-win.mjs [--force]

Cross-compiles the addon for 64-bit Windows into build/win32-x64/, and that of the tests and native/test into build/win32-x64-test/. Linux only.
  --force   even what is up to date
`;

/** True if there was anything to do. */
export async function buildWindows({ force = false } = {}) {
  const toolchain = join(root, 'scripts/tools/mingw-toolchain.cmake');
  const print = fingerprint([...nativeInputs(), ...filesBelow([toolchain, join(root, 'native/test')])], 'mingw');
  if (!force && isFresh('windows', print)) return false;
  await ensureTools(windowsBuildTools);
  say('compiling for Windows');
  const folder = join(buildFolder, 'cmake', 'mingw');
  const libraries = join(folder, 'lib');
  mkdirSync(libraries, { recursive: true });
  const headers = join(root, 'node_modules/node-api-headers');
  const made = [];
  // What node.exe exports, by the lists that its headers' package carries.
  for (const name of ['node_api', 'js_native_api']) {
    const file = join(libraries, `lib${name}.a`);
    await loud`x86_64-w64-mingw32-dlltool -d ${join(headers, `def/${name}.def`)} -D node.exe -l ${file}`;
    made.push(file);
  }
  const options = [
    `-DCMAKE_TOOLCHAIN_FILE=${toolchain}`,
    `-DCP_NODE_INCLUDE=${[join(headers, 'include'), join(root, 'node_modules/node-addon-api')].join(';')}`,
    `-DCP_NODE_LIBRARIES=${made.join(';')}`,
  ];
  const configured =
    await loud`cmake -S ${root} -B ${folder} -DCMAKE_BUILD_TYPE=Release -DCP_WERROR=ON -DCP_TEST_BUILD=ON -DCP_NATIVE_TEST=ON ${options}`.nothrow();
  if (configured.exitCode !== 0) throw new Failure('CMake could not configure for Windows; its words stand above');
  const built = await loud`cmake --build ${folder} --parallel ${availableParallelism()}`.nothrow();
  if (built.exitCode !== 0) throw new Failure('the addon for Windows does not build; the compiler’s words stand above');
  install(join(folder, 'out/completion_port.node'), windowsAddonFile);
  install(join(folder, 'out/completion_port_test.node'), windowsTestAddonFile);
  install(join(folder, 'out/cp_native_test.exe'), windowsProgramFile);
  writeStamp('windows', print, [windowsAddonFile, windowsTestAddonFile, windowsProgramFile]);
  return true;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(async () => {
    const given = process.argv.slice(2);
    if (given.includes('--help')) {
      process.stdout.write(usage);
      return 0;
    }
    const wrong = given.find((option) => option !== '--force');
    if (wrong !== undefined) throw new Failure(`unknown option ${wrong}\n${usage}`, 2);
    await buildWindows({ force: given.length > 0 });
    return 0;
  });
}
