// Description: what runs on GitHub can't be run here, so that what can be known of it is checked: the workflow against GitHub's own schema and
// expressions (the parser that its editors use), and the commands in it against the scripts that there are.

import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { rolldown } from 'rolldown';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = path.join(root, '.github/workflows');

type Parser = typeof import('@actions/workflow-parser');
let parser: Parser;
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'completion-port-workflow-'));

// It imports its schema in a way that Node refuses, so it is bundled first.
beforeAll(async () => {
  const bundle = await rolldown({
    input: path.join(root, 'node_modules/@actions/workflow-parser/dist/index.js'),
    platform: 'node',
  });
  const file = path.join(scratch, 'parser.mjs');
  await bundle.write({ file, format: 'esm' });
  await bundle.close();
  parser = (await import(pathToFileURL(file).href)) as Parser;
});
afterAll(() => fs.rmSync(scratch, { recursive: true }));

async function problems(name: string, content: string): Promise<string[]> {
  const { context, value } = parser.parseWorkflow({ name, content }, new parser.NoOperationTraceWriter());
  if (value !== undefined) await parser.convertWorkflowTemplate(context, value);
  return context.errors.getErrors().map(({ message }) => message);
}

describe('.github/workflows', () => {
  const files = fs.readdirSync(folder);
  test('there is the one that CI is', () => {
    expect(files).toContain('ci.yml');
  });

  test.each(files)('%s is a workflow', async (name) => {
    expect(await problems(name, fs.readFileSync(path.join(folder, name), 'utf8'))).toEqual([]);
  });

  test.each(files)('%s calls scripts that there are', (name) => {
    const called = [...fs.readFileSync(path.join(folder, name), 'utf8').matchAll(/node (scripts\/\S+)|run: (\.ci\/\S+)/g)];
    expect(called.length).toBeGreaterThan(0);
    for (const [, script, own] of called) expect(fs.existsSync(path.join(root, script ?? own ?? ''))).toBe(true);
    const { scripts } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as { scripts: object };
    for (const [, script] of fs.readFileSync(path.join(folder, name), 'utf8').matchAll(/npm run (\S+)/g))
      expect(Object.keys(scripts)).toContain(script);
  });

  test('a wrong one is noticed: an unknown key, a job that there isn’t, an expression that is none', async () => {
    const workflow = (job: string): string =>
      `on: push\njobs:\n  one:\n    runs-on: ubuntu-24.04\n${job}    steps:\n      - run: 'true'\n`;
    expect(await problems('good.yml', workflow(''))).toEqual([]);
    expect(await problems('key.yml', workflow('    time-out: 5\n'))).not.toEqual([]);
    expect(await problems('needs.yml', workflow('    needs: two\n'))).not.toEqual([]);
    expect(await problems('expression.yml', workflow(`    if: \${{ github.event_name == }}\n`))).not.toEqual([]);
  });
});
