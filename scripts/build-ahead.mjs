// node scripts/build-ahead.mjs: compiles what later steps of npm test need. scripts/test.mjs runs it beside the steps that mostly wait, and waits for
// it before the first step that needs it. It gives way to everything else: its priority is the lowest, and so is that of its session's scheduling
// group (sched(7), "The autogroup feature": priorities count within a group only). What fails here is built again, and reported, by its step.

import { writeFileSync } from 'node:fs';
import { constants, setPriority } from 'node:os';
import { buildKqueue } from './build.mjs';
import { buildWindows } from './build-win.mjs';
import { runMain, say } from './lib/log.mjs';
import { buildMachO } from './test-macho.mjs';
import { buildSanitized, sanitizers } from './test-native.mjs';
import { buildPrograms } from './test-program.mjs';
import { prepareWine } from './test-wine.mjs';

const parts = {
  'native/test under sanitizers': async () => {
    for (const name of Object.keys(sanitizers)) await buildSanitized(name);
  },
  'the addon over the stand-in for kqueue': () => buildKqueue(),
  'native/test by build.sh': () => buildPrograms(),
  // zig and node.exe are pinned for x86-64.
  ...(process.arch === 'x64'
    ? {
        'the addon for macOS': () => buildMachO(),
        'Wine and the addon for Windows': async () => {
          await prepareWine();
          await buildWindows();
        },
      }
    : {}),
};

await runMain(async () => {
  setPriority(0, constants.priority.PRIORITY_LOW);
  try {
    writeFileSync('/proc/self/autogroup', '19');
  } catch {
    // no such groups on this kernel: the priority does
  }
  let failed = 0;
  for (const [name, build] of Object.entries(parts)) {
    try {
      await build();
    } catch (error) {
      failed++;
      say(`${name}: ${error.message}`);
    }
  }
  return failed === 0 ? 0 : 1;
});
