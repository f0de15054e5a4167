// npm run clean: deletes what builds made. `-- --all` also the vendored liburing.

import { rmSync } from 'node:fs';
import { buildFolder, distFolder, liburingFolder } from './lib/paths.mjs';

const folders = [buildFolder, distFolder];
if (process.argv.includes('--all')) folders.push(liburingFolder);
for (const folder of folders) rmSync(folder, { recursive: true, force: true });
