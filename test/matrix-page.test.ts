// The page of `completion-port conformance --matrix` in a real browser (Debian's Chromium, headless): every verdict can be seen, rows are
// found and hidden, nothing overflows a wide or a narrow window, nothing is wrong in the console, nothing asks the network. The screenshots in
// build/screenshots are for eyes.

import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { htmlPage, makeMatrix, readReports } from 'completion-port/conformance';
import { type Browser, chromium, type Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../', import.meta.url));
const screenshots = path.join(root, 'build/screenshots');
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'completion-port-test-'));
const limitMs = 120_000;

/** The committed reports, and one with every verdict, whose texts are long and mean. */
function page(): string {
  const kept = readReports([path.join(root, 'docs/reports')]);
  const odd = structuredClone(kept[0] as (typeof kept)[number]);
  odd.backend = { name: 'kqueue', features: { one: true, other: false } };
  odd.standIn = 'freebsd';
  const texts = [
    ['fail', null, `expected 5, got ${'x'.repeat(300)}`],
    ['unable', '</script><script>document.title="broken"</script><!--', null],
    ['gated', 'a <b>difference</b>', null],
  ] as const;
  for (const [verdict, reason, error] of texts) {
    const id = odd.passed.shift() as string;
    odd.others.push({ id, verdict, reason, error });
    odd.totals.pass--;
    odd.totals[verdict]++;
  }
  return htmlPage(makeMatrix([...kept, odd]), new Map());
}

let browser: Browser;
const file = path.join(folder, 'matrix.html');

beforeAll(async () => {
  fs.mkdirSync(screenshots, { recursive: true });
  fs.writeFileSync(file, page());
  browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
}, limitMs);

afterAll(async () => {
  await browser?.close();
  fs.rmSync(folder, { recursive: true, force: true });
});

const visible = (shown: Page, rows: string): Promise<number> =>
  shown.locator(rows).evaluateAll((all) => all.filter((row) => (row as { offsetParent?: unknown }).offsetParent !== null).length);

describe.each(['light', 'dark'] as const)('%s', (colorScheme) => {
  let shown: Page;
  const complaints: string[] = [];
  const requests: string[] = [];

  beforeAll(async () => {
    const context = await browser.newContext({ colorScheme, viewport: { width: 1280, height: 1000 } });
    shown = await context.newPage();
    shown.on('console', (message) => complaints.push(message.text()));
    shown.on('pageerror', (error) => complaints.push(error.message));
    shown.on('request', (request) => {
      if (request.url() !== pathToFileURL(file).href) requests.push(request.url());
    });
    await shown.goto(pathToFileURL(file).href);
  }, limitMs);
  afterAll(async () => {
    await shown?.context().close();
  });

  test('has a column for each report, and a row for each clause and case', async () => {
    const { columns, families } = makeMatrix(readReports([path.join(root, 'docs/reports')]));
    expect(await shown.locator('#matrix thead .cell').count()).toBe(columns.length + 1);
    const clauses = families.flatMap((family) => family.clauses);
    expect(await shown.locator('#matrix .clause').count()).toBe(clauses.length);
    expect(await shown.locator('#matrix .case').count()).toBe(clauses.flatMap(({ cases }) => cases).length);
  });

  test('follows the colour scheme', async () => {
    const background = await shown.evaluate('getComputedStyle(document.body).backgroundColor');
    expect(background).toBe(colorScheme === 'dark' ? 'rgb(21, 26, 24)' : 'rgb(252, 252, 251)');
  });

  test('texts of a report stay texts', async () => {
    expect(await shown.title()).toBe('completion-port: what each backend passes');
    expect(await shown.locator('.remarks').innerText()).toContain('<script>document.title');
    expect(await shown.locator('b').count()).toBe(0);
  });

  test('shows clauses, on demand their cases, or those only that differ, or that have a word', async () => {
    expect(await visible(shown, '#matrix .case')).toBe(0);
    await shown.screenshot({ path: path.join(screenshots, `matrix-${colorScheme}.png`) });
    await shown.locator('#cases').check();
    const all = await visible(shown, '#matrix .case');
    expect(all).toBe(await shown.locator('#matrix .case').count());
    expect(await visible(shown, '#matrix .why')).toBeGreaterThan(2);
    await shown.locator('#passes').uncheck();
    const differing = await visible(shown, '#matrix .case');
    expect(differing).toBeGreaterThan(2);
    expect(differing).toBeLessThan(all);
    await shown.locator('#passes').check();
    await shown.locator('#search').fill('cancel-01');
    expect(await visible(shown, '#matrix .clause')).toBeLessThan(10);
    expect(await shown.locator('#matrix .clause:visible th', { hasText: 'CANCEL-01' }).count()).toBe(1);
    await shown.locator('#search').fill('');
    await shown.locator('#matrix .case .fail').scrollIntoViewIfNeeded();
    await shown.screenshot({ path: path.join(screenshots, `matrix-cases-${colorScheme}.png`) });
  });

  test.each([1920, 1280, 480])('a window of %i pixels has no bar to scroll sideways, whatever the texts', async (width) => {
    await shown.setViewportSize({ width, height: 900 });
    expect(await shown.evaluate('document.documentElement.scrollWidth')).toBe(width);
    // What is too wide scrolls within its own frame; a long word is no reason.
    const reason = shown.locator('.remarks td', { hasText: 'xxxxxxxx' });
    expect(await reason.evaluate((cell) => cell.scrollWidth <= cell.clientWidth)).toBe(true);
    await shown.evaluate('scrollTo(0, 0)');
    await shown.screenshot({ path: path.join(screenshots, `matrix-${colorScheme}-${width}.png`) });
  });

  test('complains of nothing, asks for nothing', () => {
    expect(complaints).toEqual([]);
    expect(requests).toEqual([]);
  });
});
