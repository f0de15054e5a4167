// The page of `completion-port bench` in a real browser (Debian's Chromium, headless): bars and tables are there, sorting and copying work,
// nothing is wrong in the console, nothing asks the network. The screenshots in build/screenshots are for eyes.

import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nameReports } from '../dist/bench/compare.js';
import { pageOf } from '../dist/bench/html.js';
import type { BenchReport } from '../dist/bench/types.js';

const root = fileURLToPath(new URL('../', import.meta.url));
const screenshots = path.join(root, 'build/screenshots');
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'completion-port-test-'));
const limitMs = 120_000;

/** Made-up figures: the page is the subject, not the machine. */
const report = JSON.parse(fs.readFileSync(path.join(root, 'test/fixtures/bench-report.json'), 'utf8')) as BenchReport;

/** The same from a machine that is half as fast, with another system. */
const other = structuredClone(report) as { -readonly [K in keyof BenchReport]: BenchReport[K] };
other.os = { platform: 'freebsd', release: '14.1', arch: 'arm64' };
other.results = other.results
  .filter(({ subject }) => subject !== 'C io_uring')
  .map((result) => {
    const { min, median, max } = result.cpuUsPerOp;
    return { ...result, cpuUsPerOp: { min: min * 2, median: median * 2.1, max: max * 2.3 } };
  });

let browser: Browser;

beforeAll(async () => {
  fs.mkdirSync(screenshots, { recursive: true });
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
}, limitMs);

afterAll(async () => {
  await browser?.close();
  fs.rmSync(folder, { recursive: true, force: true });
});

interface Opened {
  page: Page;
  context: BrowserContext;
  complaints: string[];
  requests: string[];
}

async function open(html: string, colorScheme: 'light' | 'dark'): Promise<Opened> {
  const file = path.join(folder, `${colorScheme}.html`);
  fs.writeFileSync(file, html);
  const context = await browser.newContext({ colorScheme, viewport: { width: 1100, height: 900 } });
  const page = await context.newPage();
  const complaints: string[] = [];
  const requests: string[] = [];
  page.on('console', (message) => complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith('data:') && url !== pathToFileURL(file).href) requests.push(url);
  });
  await page.goto(pathToFileURL(file).href);
  await page.waitForFunction('document.documentElement.dataset.ready === "true"');
  return { page, context, complaints, requests };
}

const column = (page: Page, section: number, index: number): Promise<string[]> =>
  page
    .locator('section')
    .nth(section)
    .locator('tbody tr')
    .evaluateAll((rows, at) => rows.map((row) => row.children[at]?.textContent ?? ''), index);

describe.each(['light', 'dark'] as const)('one report, %s', (scheme) => {
  let opened: Opened;
  beforeAll(async () => {
    opened = await open(pageOf([{ name: 'this machine', report }]), scheme);
  }, limitMs);
  afterAll(async () => {
    await opened?.context.close();
  });

  test('has a bar for each result', async () => {
    const groups = new Map<string, number>();
    for (const { workload, params } of report.results) {
      const key = JSON.stringify([workload, params]);
      groups.set(key, (groups.get(key) ?? 0) + 1);
    }
    const bars = await opened.page.locator('canvas').evaluateAll((all) => all.map((canvas) => Number(canvas.dataset.bars)));
    expect(bars).toEqual([...groups.values()]);
  });

  test('names the machine, the versions and what is absent', async () => {
    const text = await opened.page.locator('article').innerText();
    expect(text).toContain(report.os.release);
    expect(text).toContain(report.cpu.model);
    expect(text).toContain(report.runtime.version);
    expect(text).toContain(`${report.absent.length} absent`);
  });

  test('follows the colour scheme', async () => {
    const background = await opened.page.evaluate('getComputedStyle(document.body).backgroundColor');
    expect(background).toBe(scheme === 'dark' ? 'rgb(21, 26, 24)' : 'rgb(252, 252, 251)');
  });

  test('complains of nothing, asks for nothing', async () => {
    await opened.page.screenshot({ path: path.join(screenshots, `bench-${scheme}.png`), fullPage: true });
    expect(opened.complaints).toEqual([]);
    expect(opened.requests).toEqual([]);
  });
});

test(
  'a table is sorted by a click on its heading, down by the next; what has no figure comes last',
  async () => {
    const { page, context } = await open(pageOf([{ name: 'this machine', report }]), 'light');
    const head = page.locator('section').first().locator('thead th');
    await head.nth(1).locator('button').click();
    const up = (await column(page, 0, 1)).map(Number);
    expect(up).toEqual([...up].sort((a, b) => a - b));
    expect(await head.nth(1).getAttribute('aria-sort')).toBe('ascending');
    await head.nth(1).locator('button').click();
    expect((await column(page, 0, 1)).map(Number)).toEqual([...up].reverse());
    await head.nth(4).locator('button').click();
    const ratios = await column(page, 0, 4);
    expect(ratios[0]).toMatch(/^\d/);
    expect(ratios.at(-1)).toBe('');
    await context.close();
  },
  limitMs,
);

test(
  'a table is copied with tabs, as it is sorted',
  async () => {
    const { page, context } = await open(pageOf([{ name: 'this machine', report }]), 'light');
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    await page.locator('.copy').first().click();
    await page.getByText('Copied').waitFor();
    const lines = ((await page.evaluate('navigator.clipboard.readText()')) as string).split('\n');
    expect(lines[0]).toMatch(/^subject\tCPU µs an echo\tmin\tmax/);
    expect(lines).toHaveLength(1 + (await column(page, 0, 0)).length);
    await context.close();
  },
  limitMs,
);

describe.each(['light', 'dark'] as const)('two machines, %s', (scheme) => {
  test(
    'stand side by side, each also against its own baseline',
    async () => {
      const { page, context, complaints, requests } = await open(pageOf(nameReports([report, other])), scheme);
      const first = page.locator('section').first();
      expect(await first.locator('canvas').count()).toBe(2);
      const bars = await page
        .locator('section')
        .first()
        .locator('canvas')
        .evaluateAll((all) => all.map((canvas) => Number(canvas.dataset.bars)));
      const of = (results: BenchReport['results']): number =>
        results.filter(({ workload, params }) => workload === 'tcp-echo' && params.connections === 64).length;
      expect(bars[0]).toBe(of(report.results) + of(other.results));
      expect(bars[1]).toBeGreaterThan(0);
      expect(new Set(await column(page, 0, 1))).toEqual(new Set(nameReports([report, other]).map(({ name }) => name)));
      await page.screenshot({ path: path.join(screenshots, `bench-compare-${scheme}.png`), fullPage: true });
      expect(complaints).toEqual([]);
      expect(requests).toEqual([]);
      await context.close();
    },
    limitMs,
  );
});

test('a report cannot break out of the page', async () => {
  const hostile = structuredClone(report) as { -readonly [K in keyof BenchReport]: BenchReport[K] };
  hostile.cpu = { ...report.cpu, model: '</script><script>document.title="broken"</script><!--' };
  const { page, context, complaints } = await open(pageOf([{ name: '<b>', report: hostile }]), 'light');
  expect(await page.title()).toBe('completion-port bench');
  expect(await page.locator('article').innerText()).toContain('<script>document.title');
  expect(complaints).toEqual([]);
  await context.close();
});

describe('bench compare', () => {
  const compare = (...args: string[]): string =>
    execFileSync(process.execPath, [path.join(root, 'dist/cli/main.js'), 'bench', 'compare', ...args], {
      cwd: folder,
      encoding: 'utf8',
      stdio: 'pipe',
    });

  test('prints both machines, and writes the page', () => {
    fs.writeFileSync(path.join(folder, 'a.json'), JSON.stringify(report));
    fs.writeFileSync(path.join(folder, 'b.json'), JSON.stringify(other));
    const text = compare('a.json', 'b.json', '--html', 'both.html');
    expect(text).toMatch(/^B {2}freebsd 14\.1/m);
    expect(text).toMatch(/^ {2}C io_uring +[\d.]+ +-$/m);
    expect(text).toMatch(/^ {2}dispatch \/ node:net +[\d.]+ +[\d.]+$/m);
    expect(fs.readFileSync(path.join(folder, 'both.html'), 'utf8')).toContain('freebsd 14.1');
  });

  test.each([
    [[], 'at least one'],
    [['absent.json'], 'absent.json'],
    [['other.json'], 'not a report'],
    [['--htlm', 'x'], '--html'],
  ])('%j is wrong use: one line, exit code 2', (args, hint) => {
    fs.writeFileSync(path.join(folder, 'other.json'), '{}');
    try {
      compare(...args);
    } catch (error) {
      const { status, stderr } = error as { status: number; stderr: string };
      expect(status).toBe(2);
      expect(stderr.trimEnd().split('\n')).toHaveLength(1);
      expect(stderr).toContain(hint);
      return;
    }
    expect.unreachable('it was taken');
  });
});
