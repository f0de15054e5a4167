// The pages that the file server makes itself: a folder's list, an error, the port's figures. Names come from a file system
// and are escaped, in text and in links.

import { readdir } from 'node:fs/promises';
import { statusTexts } from './http.mjs';

const STYLE = `:root{color-scheme:light dark;--line:#8884}body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.3rem;overflow-wrap:anywhere}ul{list-style:none;padding:0}li{border-top:1px solid var(--line)}
li a{display:block;padding:.25rem 0;text-decoration:none;overflow-wrap:anywhere}table{border-collapse:collapse}
td{padding:.2rem 1.5rem .2rem 0;border-top:1px solid var(--line)}td+td{text-align:right;font-variant-numeric:tabular-nums}
footer{margin-top:2rem;opacity:.7;font-size:.9rem}`;

export const escapeHtml = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.codePointAt(0)};`);

const page = (title, body) => `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escapeHtml(title)}</title><style>${STYLE}</style></head>
<body><h1>${escapeHtml(title)}</h1>
${body}
</body></html>
`;

export const errorPage = (status, why) =>
  page(`${status} ${statusTexts[status]}`, why === undefined ? '' : `<p>${escapeHtml(why)}</p>`);

/** The list of a folder's entries. `path`: where it really is; `shown`: its path in the address, decoded. */
export async function folderPage(path, shown) {
  const entries = (await readdir(path, { withFileTypes: true }))
    .map((entry) => ({ name: entry.name, folder: entry.isDirectory() }))
    // A name that isn't UTF-8 can't be asked for either.
    .filter(({ name }) => !name.includes('\ufffd'))
    .sort((a, b) => Number(b.folder) - Number(a.folder) || (a.name < b.name ? -1 : 1));
  const items = entries.map(({ name, folder }) => {
    const slash = folder ? '/' : '';
    return `<li><a href="./${encodeURIComponent(name)}${slash}">${escapeHtml(name)}${slash}</a></li>`;
  });
  const up = shown === '/' ? [] : ['<li><a href="../">../</a></li>'];
  return page(
    shown,
    `<ul>\n${[...up, ...items].join('\n')}\n</ul>\n<footer><a href="/-/port">the port behind this server</a></footer>`,
  );
}

/** Live figures: the page asks for /-/port.json once a second and shows what changed. */
export const portPage = () =>
  page(
    'The port behind this server',
    `<p>Backend <b id="backend">…</b>. Sockets and files complete through one port; these are its figures, once a second.</p>
<table><tbody id="figures"></tbody></table>
<footer><a href="/-/port.json">as JSON</a></footer>
<script>
const rows = new Map();
let last = null;
async function look() {
  try {
    const { backend, stats } = await (await fetch('/-/port.json', { cache: 'no-store' })).json();
    document.getElementById('backend').textContent = backend;
    for (const [name, value] of Object.entries(stats)) {
      if (!rows.has(name)) {
        const row = document.getElementById('figures').insertRow();
        row.insertCell().textContent = name;
        rows.set(name, [row.insertCell(), row.insertCell()]);
      }
      const [now, change] = rows.get(name);
      now.textContent = value.toLocaleString('en');
      const difference = last === null || typeof value !== 'number' ? 0 : value - last[name];
      change.textContent = difference === 0 ? '' : (difference > 0 ? '+' : '') + difference.toLocaleString('en');
    }
    last = stats;
  } finally {
    setTimeout(look, 1000);
  }
}
look();
</script>`,
  );
