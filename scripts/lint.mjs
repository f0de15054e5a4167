// npm run lint: Biome over TypeScript, scripts and JSON; clang-format over native/, bench/ and test/kqueue-shim/. `-- --fix` (npm run
// format) writes what both want. A missing clang-format is installed on Debian as root, otherwise an error under CI and a
// loud remark elsewhere.

import { readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { $ } from 'zx';
import { Failure, runMain, say } from './lib/log.mjs';
import { root } from './lib/paths.mjs';
import { filesBelow } from './lib/stamp.mjs';
import { ensureTools } from './setup.mjs';

await runMain(async () => {
  const fix = process.argv.includes('--fix');
  const unknown = process.argv.slice(2).filter((argument) => argument !== '--fix');
  if (unknown.length > 0) throw new Failure(`unknown option ${unknown[0]}; the only one is --fix`, 2);
  const loud = $({ cwd: root, quiet: true, nothrow: true, stdio: ['ignore', 2, 2] });

  const biome = await loud`${process.execPath} ${join(root, 'node_modules/@biomejs/biome/bin/biome')} check ${
    fix ? ['--write'] : ['--error-on-warnings']
  }`;
  let failed = biome.exitCode !== 0 ? ['biome'] : [];

  const sources = filesBelow([join(root, 'native'), join(root, 'bench'), join(root, 'test/kqueue-shim')], ['liburing']).filter(
    (file) => /\.(h|cc|c)$/.test(file),
  );
  let formatter = true;
  try {
    await ensureTools(['clang-format']);
  } catch (error) {
    if (!(error instanceof Failure) || process.env.CI) throw error;
    formatter = false;
    say(`not checked: the format of ${sources.length} native files (${error.message})`);
  }
  if (formatter && fix && sources.length > 0) await loud`clang-format -i ${sources}`;
  if (formatter && !fix) {
    // Compared here, because clang-format's own check prints a remark for every place.
    const wrong = [];
    for (const file of sources) {
      const { stdout } = await $({ quiet: true })`clang-format ${file}`;
      const [is, should] = [readFileSync(file, 'utf8').split('\n'), stdout.split('\n')];
      const line = should.findIndex((text, index) => text !== is[index]);
      if (line >= 0 || is.length !== should.length) wrong.push(`${relative(root, file)}:${line < 0 ? should.length : line + 1}`);
    }
    if (wrong.length > 0) {
      say(`not as clang-format writes it, from line\n  ${wrong.join('\n  ')}`);
      failed = [...failed, 'clang-format'];
    }
  }
  if (failed.length > 0)
    throw new Failure(`lint: ${failed.join(' and ')} found something; npm run format mends what can be mended`);
  say('lint: nothing found');
});
