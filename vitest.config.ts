// Tests import the package by its name, as a user does, and so run against dist/: `npm test` builds it first.

import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const dist = (file: string) => fileURLToPath(new URL(`./dist/${file}`, import.meta.url));

const file = (name: string) => fileURLToPath(new URL(`./test/${name}.test.ts`, import.meta.url));

/**
 * The file that takes longest begins, the next longest ends: two workers are done at about the same time, also in a clone that is new and doesn't
 * know, and the two, one of which is held to times, have little of theirs in common.
 */
class InOrder extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification): number =>
      moduleId === file('conformance/mutants') ? 0 : moduleId === file('conformance') ? 2 : 1;
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
    // Two files at a time on the smallest machine, and two mutants; the limits in the tests are for a loaded one.
    maxWorkers: 2,
    maxConcurrency: 2,
    sequence: { sequencer: InOrder },
    testTimeout: 30_000,
    hookTimeout: 60_000,
    // dist/ is loaded by Node itself, not transformed: workers and child processes then see the same modules.
    server: { deps: { external: [/\/dist\//] } },
    passWithNoTests: false,
    allowOnly: false,
  },
});
