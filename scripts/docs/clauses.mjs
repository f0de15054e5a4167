// The list of clauses as a page in Markdown, out of the suite's own data.

/** Markdown's own characters in a clause's text; code spans stay as they are. */
const escapeMarkdown = (text) =>
  text
    .split(/(`[^`]*`)/)
    .map((part) => (part.startsWith('`') ? part : part.replace(/[\\*_[\]<>|]/g, '\\$&')))
    .join('');

/**
 * @param {readonly {title: string, clauses: readonly {id: string, text: string, windows?: string}[]}[]} families
 * @returns {string} the page
 */
export function clausesPage(families) {
  const count = families.reduce((sum, family) => sum + family.clauses.length, 0);
  const lines = [
    '---',
    'title: Clauses',
    '---',
    '',
    '# What a completion port does',
    '',
    `The ${count} clauses that \`completion-port conformance\` checks, case by case, on every backend. Each is what documented`,
    'Windows behaviour says; *Windows:* is the raw outcome there, where it has a number of its own. The suite runs on your',
    'own machine with `npx completion-port conformance`, and one clause of it with `--filter`.',
    '',
  ];
  for (const { title, clauses } of families) {
    lines.push(`## ${title}`, '', '| clause | |', '| --- | --- |');
    for (const { id, text, windows } of clauses) {
      const raw = windows === undefined ? '' : ` *Windows: ${escapeMarkdown(windows)}*`;
      lines.push(`| **${id}** | ${escapeMarkdown(text)}${raw} |`);
    }
    lines.push('');
  }
  return lines.join('\n');
}
