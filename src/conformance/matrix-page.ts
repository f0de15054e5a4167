// The matrix as one page for a browser: cases as rows, reports as columns, and with what each report was made. The page brings all that it
// needs with it, follows the reader's light or dark scheme, and can be read without its script, which only hides rows.

import {
  type Column,
  conditions,
  countCases,
  type Matrix,
  osText,
  type Remark,
  remarkOf,
  remarks,
  runtimeText,
  verdicts,
} from './matrix.js';
import type { Verdict } from './types.js';

const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

/** Plain words with `code` in them. */
const words = (text: string): string => escapeHtml(text).replace(/`([^`]*)`/g, '<code>$1</code>');

const signs: Readonly<Record<Verdict, { sign: string; name: string; of: string }>> = {
  pass: { sign: '✓', name: 'pass', of: 'showed the rule' },
  fail: { sign: '✗', name: 'fail', of: "didn't, or a gate outlived its cause" },
  gated: { sign: '◐', name: 'gated', of: 'a known difference, with its reason and source' },
  unable: { sign: '?', name: 'unable', of: 'the machine lacked something' },
  'n/a': { sign: '–', name: 'na', of: "of a facility that the backend doesn't have" },
};

/** What the table of clauses needs beside its reports' columns, the width of a column, and the page's greatest width; rem. */
const besideColumns = 32;
const columnWidth = 5.5;
const pageWidth = 90;

/** A heading that stays needs the page itself to scroll. Where so many columns are too wide for that, the table scrolls, in a frame of its own. */
function frame(columns: number): string {
  const needed = besideColumns + columnWidth * columns;
  const rule = '.wide { overflow: auto; max-height: 96vh; }';
  return needed > pageWidth ? rule : `@media (max-width: ${needed}rem) { ${rule} }`;
}

const style = (columns: number) => `
:root { color-scheme: light dark; --back: #fcfcfb; --raised: #f2f3f1; --line: #d5d9d4; --text: #1d2420; --aside: #5b665f; --link: #0b6b4f;
  --pass: #0b6b4f; --pass-back: #e3f2ec; --fail: #9d1c1c; --fail-back: #fbe0de; --gated: #7a5200; --gated-back: #fbeecb;
  --unable: #7a3b00; --unable-back: #fde3cf; }
@media (prefers-color-scheme: dark) { :root { --back: #151a18; --raised: #1d2421; --line: #3a4640; --text: #e6ebe7; --aside: #9fada5;
  --link: #6fd3ae; --pass: #6fd3ae; --pass-back: #17322a; --fail: #ff9c94; --fail-back: #4a1c1a; --gated: #f2c766; --gated-back: #3d3113;
  --unable: #ffb27a; --unable-back: #43290f; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: ${pageWidth}rem; padding: 1.5rem; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { letter-spacing: -0.01em; margin: 0 0 0.5rem; }
h2 { margin: 2rem 0 0.5rem; }
p { max-width: 50rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 0.5rem; text-align: left; vertical-align: top; }
.reports th, .reports td:not([colspan]), .remarks td:nth-child(-n + 2) { white-space: nowrap; }
.remarks { width: 100%; }
.remarks td:nth-child(3) { min-width: 14rem; }
.remarks td:last-child { min-width: 20rem; width: 50%; }
.remarks td, #matrix .why td { overflow-wrap: anywhere; }
.number, .reports thead .number { text-align: right; font-variant-numeric: tabular-nums; }
.aside, .aside td { color: var(--aside); }
code { font-size: 0.9em; overflow-wrap: anywhere; }
#matrix { width: 100%; }
#matrix thead th { position: sticky; top: 0; background: var(--back); vertical-align: bottom; font-size: 0.85rem; z-index: 1;
  box-shadow: 0 1px var(--line); }
#matrix .cell { text-align: center; min-width: 4.2rem; padding: 0.3rem; border-left: 2px solid var(--back); }
#matrix .rule { min-width: 14rem; width: 100%; }
#matrix .family th { font-size: 1.1rem; padding-top: 1.5rem; border-bottom-width: 2px; }
#matrix .clause th, #matrix .clause td { background: var(--raised); font-weight: 600; }
#matrix .case td:first-child { padding-left: 1.2rem; min-width: 15rem; overflow-wrap: anywhere; }
#matrix .why td { border-bottom: 0; padding-left: 1.2rem; font-size: 0.88rem; color: var(--aside); }
.pass { color: var(--pass); } .fail { color: var(--fail); } .gated { color: var(--gated); } .unable { color: var(--unable); }
.na, .missing { color: var(--aside); }
td.pass, tr.clause td.pass { background: var(--pass-back) !important; }
td.fail, tr.clause td.fail { background: var(--fail-back) !important; font-weight: 700; }
td.gated, tr.clause td.gated { background: var(--gated-back) !important; }
td.unable, tr.clause td.unable { background: var(--unable-back) !important; }
.controls { display: flex; flex-wrap: wrap; gap: 1rem; align-items: center; margin: 1rem 0; }
input[type='search'] { font: inherit; padding: 0.3rem 0.6rem; border: 1px solid var(--line); border-radius: 6px;
  background: var(--raised); color: var(--text); }
${frame(columns)}
@media (max-width: 60rem) {
  body { padding: 1rem; }
  .wide { overflow-x: auto; max-height: none; }
  #matrix thead th { position: static; box-shadow: none; }
  #matrix .case td:first-child { min-width: 9rem; }
  #matrix .cell { min-width: 3.2rem; font-size: 0.85rem; }
}
.hidden, .no-cases .case, .no-cases .why, .no-passes .plain { display: none; }
`;

const script = `
const table = document.getElementById('matrix');
const search = document.getElementById('search');
document.querySelector('.controls').hidden = false;
for (const [id, name] of [['cases', 'no-cases'], ['passes', 'no-passes']]) {
  const box = document.getElementById(id);
  const apply = () => table.classList.toggle(name, !box.checked);
  box.addEventListener('change', apply);
  apply();
}
search.addEventListener('input', () => {
  const wanted = search.value.trim().toLowerCase();
  for (const body of table.tBodies) {
    body.classList.toggle('hidden', wanted !== '' && !body.textContent.toLowerCase().includes(wanted));
  }
});
`;

/** The worst verdict of a clause's cases colours its cell. */
function clauseCell(column: Column, ids: readonly string[]): string {
  const counts = countCases(column, ids);
  const worst = (['fail', 'unable', 'gated', 'pass', 'n/a'] as const).find((verdict) => counts.has(verdict));
  const label = escapeHtml(column.label);
  if (worst === undefined) return `<td class="cell missing" title="${label}: not run"></td>`;
  const text = verdicts
    .filter((verdict) => counts.has(verdict))
    .map((verdict) => (counts.size === 1 ? signs[verdict].sign : `${counts.get(verdict)}\u00a0${signs[verdict].sign}`))
    .join(' ');
  const said = [...counts].map(([verdict, count]) => `${count} ${verdict === 'missing' ? 'not run' : verdict}`).join(', ');
  const title = counts.size === 1 && worst === 'pass' ? '' : ` title="${label}: ${said}"`;
  return `<td class="cell ${signs[worst].name}"${title}>${text}</td>`;
}

function caseCell(column: Column, id: string): string {
  const label = escapeHtml(column.label);
  const verdict = column.results.get(id)?.verdict;
  if (verdict === undefined) return `<td class="cell missing" title="${label}: not run"></td>`;
  const title = verdict === 'pass' ? '' : ` title="${label}: ${verdict}"`;
  return `<td class="cell ${signs[verdict].name}"${title}>${signs[verdict].sign}</td>`;
}

const sourceOf = ({ source }: Pick<Remark, 'source'>): string => (source === null ? '' : ` <em>Source: ${words(source)}</em>`);

/** Under a case: what each report that doesn't pass it says, once where several say the same. */
function whyRows(matrix: Matrix, id: string): string[] {
  const said = new Map<string, string[]>();
  for (const column of matrix.columns) {
    const remark = remarkOf(matrix, column, id);
    if (remark === null) continue;
    const { name } = signs[remark.verdict];
    const text = `<span class="${name}">${remark.verdict}</span>: ${words(remark.text)}${sourceOf(remark)}`;
    said.set(text, [...(said.get(text) ?? []), column.label]);
  }
  return [...said].map(
    ([text, labels]) =>
      `<tr class="why"><td colspan="${matrix.columns.length + 2}">${escapeHtml(labels.join('; '))}: ${text}</td></tr>`,
  );
}

/** `titles`: of the cases, as this version of the suite has them. */
export function htmlPage(matrix: Matrix, titles: ReadonlyMap<string, string>): string {
  const { columns } = matrix;
  const head = columns.map(({ label, partial }) => {
    const note = partial === null ? '' : `<br><span class="unable" title="${escapeHtml(partial)}">partial</span>`;
    return `<th scope="col" class="cell">${escapeHtml(label)}${note}</th>`;
  });
  const reports = columns.map(({ label, summary, partial }) => {
    const { totals, runtime, os, seed, scale, started, suite, backend } = summary;
    const features = Object.entries(backend.features);
    const without = features.filter(([, on]) => !on).map(([name]) => name);
    const notes = [
      ...(partial === null ? [] : [`<strong class="unable">partial</strong>: ${words(partial)}`]),
      ...conditions(summary).map(words),
      ...(without.length === 0 ? [] : [`without ${words(without.join(', '))}`]),
    ];
    const cells = [
      `<th scope="row">${escapeHtml(label)}</th>`,
      ...verdicts.map((verdict) => {
        const count = totals[verdict];
        return `<td class="number ${count === 0 ? 'missing' : signs[verdict].name}">${count}</td>`;
      }),
      `<td>${escapeHtml(suite)}</td>`,
      `<td title="${escapeHtml(runtimeText(summary))}">${escapeHtml(`${runtime.name} ${runtime.version}`)}</td>`,
      `<td title="${escapeHtml(osText(summary))}">${escapeHtml(`${os.platform} ${os.release} ${os.arch}`)}</td>`,
      `<td class="number">${seed}</td>`,
      `<td class="number">${scale}</td>`,
      `<td>${escapeHtml(started.replace('T', ' ').replace(/\.\d+Z$/, ' UTC'))}</td>`,
    ];
    const note =
      notes.length === 0 ? '' : `<tr class="aside"><td></td><td colspan="${cells.length - 1}">${notes.join('; ')}</td></tr>`;
    return `<tr>${cells.join('')}</tr>${note}`;
  });

  const rows = matrix.families.flatMap(({ title, clauses }) => [
    `<tbody><tr class="family"><th colspan="${columns.length + 2}">${escapeHtml(title)}</th></tr></tbody>`,
    ...clauses.map(({ id, text, cases }) => {
      const plain = cases.every((name) => columns.every((column) => column.results.get(name)?.verdict === 'pass'));
      const clause = [
        `<tr class="clause"><th scope="row">${escapeHtml(id)}</th><td class="rule">${words(text)}</td>`,
        ...columns.map((column) => clauseCell(column, cases)),
        '</tr>',
      ].join('');
      const own = cases.flatMap((name) => {
        const cells = columns.map((column) => caseCell(column, name)).join('');
        const rule = words(titles.get(name) ?? 'no case of this version');
        return [
          `<tr class="case"><td>${escapeHtml(name)}</td><td class="rule">${rule}</td>${cells}</tr>`,
          ...whyRows(matrix, name),
        ];
      });
      return `<tbody${plain ? ' class="plain"' : ''}>${clause}\n${own.join('\n')}</tbody>`;
    }),
  ]);

  const others = remarks(matrix).map((remark) => {
    const where = remark.columns.length === columns.length ? 'all' : remark.columns.join('; ');
    return [
      `<tr><td class="${signs[remark.verdict].name}">${remark.verdict}</td><td>${escapeHtml(where)}</td>`,
      `<td>${escapeHtml(remark.cases.join(', '))}</td><td>${words(remark.text)}${sourceOf(remark)}</td></tr>`,
    ].join('');
  });
  const legend = verdicts.map(
    (verdict) => `<span class="${signs[verdict].name}">${signs[verdict].sign}</span> ${verdict}: ${signs[verdict].of}`,
  );
  const measures = ['suite', 'runtime', 'system', 'seed', 'scale', 'started'];
  const figures = ['seed', 'scale'];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>completion-port: what each backend passes</title>
<style>${style(columns.length)}</style>
</head>
<body>
<h1>What each backend passes</h1>
<p>The conformance suite of completion-port, made by <code>completion-port conformance --matrix</code> out of the reports below.
${legend.join('; ')}; an empty cell was not run.</p>
<h2>Reports</h2>
<div class="scroll"><table class="reports">
<thead><tr><th></th>${verdicts.map((verdict) => `<th class="number">${verdict}</th>`).join('')}${measures.map((name) => `<th${figures.includes(name) ? ' class="number"' : ''}>${name}</th>`).join('')}</tr></thead>
<tbody>
${reports.join('\n')}
</tbody></table></div>
<h2>What is not a plain pass</h2>
${others.length === 0 ? '<p>Nothing.</p>' : `<div class="scroll"><table class="remarks"><thead><tr><th>verdict</th><th>reports</th><th>cases</th><th>reason</th></tr></thead><tbody>\n${others.join('\n')}\n</tbody></table></div>`}
<h2>Clause by clause</h2>
<div class="controls" hidden>
<input type="search" id="search" placeholder="CANCEL, close, …" aria-label="Only clauses with these words">
<label><input type="checkbox" id="passes" checked> clauses that pass everywhere</label>
<label><input type="checkbox" id="cases"> each case</label>
</div>
<div class="wide"><table id="matrix">
<thead><tr><th scope="col">clause</th><th scope="col">rule</th>${head.join('')}</tr></thead>
${rows.join('\n')}
</table></div>
<script>${script}</script>
</body>
</html>
`;
}
