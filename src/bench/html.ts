// One self-contained page out of one report or several: the script and the style that the build has put beside this file, and the
// reports as data. Its Content-Security-Policy forbids it the network.

import * as fs from 'node:fs';
import type { BenchReport } from './types.js';

export interface NamedReport {
  /** How the machine is called, where there are several. */
  readonly name: string;
  readonly report: BenchReport;
}

const asset = (name: string): string => fs.readFileSync(new URL(`./page/${name}`, import.meta.url), 'utf8');

const escapeText = (text: string): string => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');

/** Nothing in it can end a script element, or begin a comment in one. */
const escapeData = (data: unknown): string => JSON.stringify(data).replace(/</g, '\\u003c');
const escapeScript = (code: string): string => code.replace(/<\/(script)/gi, '<\\/$1').replace(/<!--/g, '<\\!--');

export function pageOf(reports: readonly NamedReport[]): string {
  const title =
    reports.length === 1 ? 'completion-port bench' : `completion-port bench: ${reports.map(({ name }) => name).join(', ')}`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>${escapeText(title)}</title>
<style>
${asset('page.css')}</style>
</head>
<body>
<header>
<h1>${escapeText(title)}</h1>
<p>CPU time of the subject an operation, all its threads. A bar is the median over the rounds, the line across it goes from the
smallest to the largest; ratios are taken round by round, and refused where their quartiles lie more than 15 % from the median.</p>
<div id="machines"></div>
</header>
<main></main>
<script type="application/json" id="data">${escapeData(reports)}</script>
<script type="module">
${escapeScript(asset('page.js'))}</script>
</body>
</html>
`;
}
