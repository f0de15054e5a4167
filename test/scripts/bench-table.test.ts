// What scripts/bench-table.mjs makes of a report, and which ones it doesn't let into the document.

import * as fs from 'node:fs';
import { expect, test } from 'vitest';
import type { BenchReport } from '../../dist/bench/types.js';
// @ts-expect-error: a script, without types
import { figuresOf, objection } from '../../scripts/bench-table.mjs';

const report = JSON.parse(fs.readFileSync(new URL('../fixtures/bench-report.json', import.meta.url), 'utf8')) as BenchReport;

test('a workload becomes a table with the machine above it and a column for each rival', async () => {
  const text = (await figuresOf(report)) as string;
  expect(text).toContain(report.cpu.model);
  expect(text).toContain('### tcp-echo connections=64 bytes=64');
  expect(text).toContain('| subject | CPU µs an echo | min to max | / node:net |');
  expect(text).toMatch(/^\| completion-port net \| .* \| refused \|/m);
  expect(text).toMatch(/^- completion-port on iocp: /m);
});

test.each([
  [{ quick: true }, 'quick'],
  [{ interrupted: true }, 'interrupted'],
  [{ rounds: 3 }, 'at least 9'],
  [{ cpu: { ...report.cpu, loadBefore: 5 } }, 'other work'],
])('%j keeps a report out of the document', (change, reason) => {
  expect(objection({ ...report, ...change })).toContain(reason);
});

test('a full run on a quiet machine may go in', () => {
  expect(objection(report)).toBeNull();
});
