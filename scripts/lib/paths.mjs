// Where things lie in the repository. Nothing here depends on the current folder.

import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
export const buildFolder = join(root, 'build');
export const stampFolder = join(buildFolder, 'stamps');
export const reportFolder = join(buildFolder, 'reports');
export const distFolder = join(root, 'dist');
export const liburingFolder = join(root, 'native/linux/liburing');

/** Named as `src/native.ts` looks for it. */
export const target = `${process.platform}-${process.arch}`;
export const addonFile = join(buildFolder, target, 'completion_port.node');
export const testAddonFile = join(buildFolder, `${target}-test`, 'completion_port_test.node');

/** The same two over a stand-in for kqueue (test/kqueue-shim), chosen by COMPLETION_PORT_KQUEUE_SHIM. */
export const kqueueAddonFile = join(buildFolder, `${target}-kqueue`, 'completion_port.node');
export const kqueueTestAddonFile = join(buildFolder, `${target}-kqueue`, 'completion_port_test.node');

/** The addons and the Node-free test program for Windows, made by scripts/build-win.mjs on Linux. */
export const windowsAddonFile = join(buildFolder, 'win32-x64', 'completion_port.node');
export const windowsProgramFile = join(buildFolder, 'win32-x64-test', 'native_test.exe');
export const windowsTestAddonFile = join(buildFolder, 'win32-x64-test', 'completion_port_test.node');

/** Starts a command to which io_uring is denied (test/seccomp/deny_uring.c). */
export const denyUringFile = join(buildFolder, 'test/deny_uring');

/** The package's command, for the scripts that run it. */
export const cliFile = join(distFolder, 'cli/main.js');
