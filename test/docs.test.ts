// npm run docs makes pages that lack nothing: every page of the guide, the API, every clause; no link to nowhere; and
// nothing that a browser would fetch from the network.

import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { clauses } from 'completion-port/conformance';
import { beforeAll, expect, test } from 'vitest';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = join(root, 'build/docs');
let pages: { path: string; html: string }[];

beforeAll(() => {
  execFileSync(process.execPath, [join(root, 'scripts/docs.mjs')], { stdio: ['ignore', 'ignore', 'pipe'] });
  const paths = (readdirSync(folder, { recursive: true }) as string[]).filter((path) => path.endsWith('.html'));
  pages = paths.map((path) => ({ path, html: readFileSync(join(folder, path), 'utf8') }));
}, 120_000);

const text = () => pages.map(({ html }) => html).join('\n');

test('the guide, the clauses and the API are there', () => {
  expect(existsSync(join(folder, 'index.html'))).toBe(true);
  const all = text();
  for (const name of ['CompletionPort', 'Operation', 'FileHandle', 'TcpListener', 'TcpSocket', 'createServer', 'getManySync']) {
    expect(all, name).toContain(name);
  }
  expect(all).toContain('Writing a program around a completion port');
  for (const { id } of clauses) expect(all, id).toContain(id);
});

test('no link leads to nowhere', () => {
  const broken: string[] = [];
  for (const { path, html } of pages) {
    for (const [, link] of html.matchAll(/(?:href|src)="([^"]*)"/g)) {
      // An empty link is the page itself.
      if (link === undefined || link === '' || /^(#|data:|mailto:|https?:)/.test(link)) continue;
      const target = normalize(join(folder, dirname(path), decodeURIComponent(link.replace(/[?#].*$/, ''))));
      if (!existsSync(target) || (statSync(target).isDirectory() && !existsSync(join(target, 'index.html')))) {
        broken.push(`${path}: ${link}`);
      }
    }
  }
  expect(broken).toEqual([]);
});

test('nothing is fetched from the network', () => {
  const fetched: string[] = [];
  for (const { path, html } of pages) {
    for (const [tag] of html.matchAll(/<(?:script|link|img|iframe|source)\b[^>]*>/g)) {
      if (/(?:href|src)="(?:https?:)?\/\//.test(tag)) fetched.push(`${path}: ${tag}`);
    }
  }
  for (const name of (readdirSync(folder, { recursive: true }) as string[]).filter((path) => path.endsWith('.css'))) {
    const css = readFileSync(join(folder, name), 'utf8');
    if (/url\(\s*['"]?(?:https?:)?\/\//.test(css) || /@import/.test(css)) fetched.push(name);
  }
  expect(fetched).toEqual([]);
});
