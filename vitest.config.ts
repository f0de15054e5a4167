// Tests import the package by its name, as a user does, and so run against dist/: `npm test` builds it first.

import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const dist = (file: string) => fileURLToPath(new URL(`./dist/${file}`, import.meta.url));

export default defineConfig({
  resolve: {
    alias: [
      { find: /^completion-port$/, replacement: dist('index.js') },
      { find: /^completion-port\/conformance$/, replacement: dist('conformance/index.js') },
      { find: /^completion-port\/(promises|net)$/, replacement: dist('$1.js') },
    ],
  },
  test: {
    include: ['test/**/*.test.ts'],
    // A process per file: a port left open, a crash or a changed environment variable stays in its own file.
    pool: 'forks',
    // Two files at a time on the smallest machine; the limits in the tests are for a loaded one.
    maxWorkers: 2,
    maxConcurrency: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // dist/ is loaded by Node itself, not transformed: workers and child processes then see the same modules.
    server: { deps: { external: [/\/dist\//] } },
    passWithNoTests: false,
    allowOnly: false,
  },
});
