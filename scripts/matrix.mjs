// npm run matrix: keeps what the full runs of the suite have shown. The reports in build/reports go as summaries into docs/reports, in the
// place of those of the same name; the others there, of other machines, stay. docs/CONFORMANCE.md is made of all of them; the page for
// a browser is a part of npm run docs.
//
//   npm run matrix -- [--check]
//
// --check writes nothing and ends with 1 if docs/CONFORMANCE.md isn't what docs/reports says.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { buildTypeScript } from './build.mjs';
import { Failure, runMain, say } from './lib/log.mjs';
import { distFolder, reportFolder, root } from './lib/paths.mjs';

const kept = join(root, 'docs/reports');
const page = join(root, 'docs/CONFORMANCE.md');

await runMain(async () => {
  let values;
  try {
    ({ values } = parseArgs({ options: { check: { type: 'boolean', default: false } } }));
  } catch (error) {
    throw new Failure(`${error.message}; the only option is --check`, 2);
  }
  await buildTypeScript();
  const suite = await import(pathToFileURL(join(distFolder, 'conformance/index.js')).href);
  if (values.check) {
    const same = readFileSync(page, 'utf8') === suite.markdownPage(suite.makeMatrix(suite.readReports([kept])));
    say(same ? 'docs/CONFORMANCE.md is what docs/reports says' : 'docs/CONFORMANCE.md is out of date: run `npm run matrix`');
    return same ? 0 : 1;
  }
  mkdirSync(kept, { recursive: true });
  if (existsSync(reportFolder)) {
    for (const column of suite.makeMatrix(suite.readReports([reportFolder])).columns) {
      // Only what is whole is a result of the project's.
      if (column.partial !== null) throw new Failure(`build/reports has a partial report of ${column.label}: ${column.partial}`);
      writeFileSync(join(kept, `${column.name}.json`), suite.formatSummary(column.summary));
      say(`docs/reports/${column.name}.json: ${column.summary.totals.pass} passed, ${column.summary.totals.fail} failed`);
    }
  }
  writeFileSync(page, suite.markdownPage(suite.makeMatrix(suite.readReports([kept]))));
  say('docs/CONFORMANCE.md');
  return 0;
});
