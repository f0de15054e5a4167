// `completion-port conformance --matrix`: reads reports, writes the two pages, and says in a line each what it read.

import * as fs from 'node:fs';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Column, type Matrix, makeMatrix, markdownPage, ReportError, readReports } from '../conformance/matrix.js';
import { htmlPage } from '../conformance/matrix-page.js';
import { paintVerdict } from '../conformance/report.js';
import { selectCases } from '../conformance/runner.js';
import { type Paint, paintFor, UsageError } from './options.js';

/** Where the full runs of a checkout leave their reports. */
const reportFolder = fileURLToPath(new URL('../../build/reports/', import.meta.url));

export async function writeMatrix(command: string, given: readonly string[], out: string): Promise<number> {
  if (given.length === 0 && !fs.existsSync(reportFolder)) {
    throw new UsageError(`${command}: --matrix needs reports: files that --json has written, or folders of them`);
  }
  let matrix: Matrix;
  try {
    matrix = makeMatrix(readReports(given.length === 0 ? [reportFolder] : given));
  } catch (error) {
    if (!(error instanceof ReportError)) throw error;
    throw new UsageError(`${command}: ${error.message}`);
  }
  const cases = await selectCases({});
  const paint = paintFor(process.stdout);
  for (const column of matrix.columns) process.stdout.write(`${columnLine(column, paint)}\n`);

  const pages = { md: markdownPage(matrix), html: htmlPage(matrix, new Map(cases.map(({ id, title }) => [id, title]))) };
  try {
    fs.mkdirSync(out, { recursive: true });
    for (const [ending, text] of Object.entries(pages)) writeWhole(path.join(out, `CONFORMANCE.${ending}`), text);
  } catch (error) {
    throw new UsageError(`${command}: --out: ${(error as Error).message}`);
  }

  const tested = new Set(matrix.columns.flatMap((column) => [...column.results.keys()]));
  const untold = cases.filter(({ id }) => !tested.has(id)).length;
  if (untold > 0) process.stderr.write(`no report has anything on ${untold} of the ${cases.length} cases of this version\n`);
  const failed = matrix.columns.reduce((sum, { summary }) => sum + summary.totals.fail, 0);
  const count = `${matrix.columns.length} report${matrix.columns.length === 1 ? '' : 's'}`;
  process.stdout.write(
    `${path.join(out, 'CONFORMANCE.md')} and ${path.join(out, 'CONFORMANCE.html')}: ${count}, ${tested.size} cases, ${failed} failed\n`,
  );
  return failed === 0 ? 0 : 1;
}

function columnLine({ label, summary: { totals }, partial }: Column, paint: Paint): string {
  const failed = totals.fail === 0 ? '0 failed' : paintVerdict('fail', paint, `${totals.fail} failed`);
  const part = partial === null ? '' : paint.yellow(`; partial: ${partial}`);
  return `${label}: ${totals.pass} passed, ${failed}, ${totals.gated} gated, ${totals.unable} unable, ${totals['n/a']} n/a${part}`;
}

/** Whole or not at all. */
function writeWhole(file: string, text: string): void {
  const temporary = `${file}.${process.pid}.tmp`;
  fs.writeFileSync(temporary, text);
  fs.renameSync(temporary, file);
}
