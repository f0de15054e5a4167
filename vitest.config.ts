// Tests import the package by its name, as a user does, and so run against dist/: `npm test` builds it first.

import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const dist = (file: string) => fileURLToPath(new URL(`./dist/${file}`, import.meta.url));

/** Files that take minutes, longest first. A clone that is new doesn't know, and would end with one of them and an idle processor. */
const longest = ['conformance/mutants', 'conformance', 'pool', 'bench', 'package/tarball', 'bench-page'].map((name) =>
  fileURLToPath(new URL(`./test/${name}.test.ts`, import.meta.url)),
);

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification): number => longest.indexOf(moduleId) + 1 || longest.length + 1;
    return (await super.sort(files)).sort((a, b) => place(a) - place(b));
  }
}

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
    // Two files at a time on the smallest machine, and three mutants; the limits in the tests are for a loaded one.
    maxWorkers: 2,
    maxConcurrency: 3,
    sequence: { sequencer: LongestFirst },
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // dist/ is loaded by Node itself, not transformed: workers and child processes then see the same modules.
    server: { deps: { external: [/\/dist\//] } },
    passWithNoTests: false,
    allowOnly: false,
  },
});
