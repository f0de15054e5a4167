// Reads a command's options. Wrong use becomes one line that names the right one, and exit code 2.

import { parseArgs } from 'node:util';

export interface OptionSpec {
  /** `boolean`: a switch. Otherwise what the value is called in messages (`NAME`, `FILE`). */
  readonly value: 'boolean' | (string & {});
  readonly short?: string;
}

/** Wrong use: its message is the line to print. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export interface Parsed {
  readonly values: Readonly<Record<string, string | true>>;
  readonly positionals: readonly string[];
}

/** `--help` is known to every command. Options may be given once; the order of options and positionals is free. */
export function parseOptions(command: string, argv: readonly string[], specs: Readonly<Record<string, OptionSpec>>): Parsed {
  const all: Record<string, OptionSpec> = { ...specs, help: { value: 'boolean', short: 'h' } };
  const { tokens, positionals } = parseArgs({
    args: [...argv],
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries(
      Object.entries(all).map(([name, spec]) => [
        name,
        {
          type: spec.value === 'boolean' ? ('boolean' as const) : ('string' as const),
          ...(spec.short === undefined ? {} : { short: spec.short }),
        },
      ]),
    ),
  });
  const values: Record<string, string | true> = {};
  for (const token of tokens) {
    if (token.kind !== 'option') continue;
    const spec = Object.hasOwn(all, token.name) ? all[token.name] : undefined;
    if (spec === undefined) {
      const right = nearest(token.name, Object.keys(all));
      throw new UsageError(
        `${command}: unknown option ${token.rawName}; ${right === null ? `see ${command} --help` : `did you mean --${right}?`}`,
      );
    }
    if (Object.hasOwn(values, token.name)) throw new UsageError(`${command}: --${token.name} is given twice`);
    if (spec.value === 'boolean') {
      if (token.value !== undefined) throw new UsageError(`${command}: --${token.name} takes no value`);
      values[token.name] = true;
    } else {
      // An option that follows isn't the value, unless it is joined by '='.
      if (token.value === undefined || token.value === '' || (!token.inlineValue && token.value.startsWith('--'))) {
        throw new UsageError(`${command}: --${token.name} needs a value: --${token.name} ${spec.value}`);
      }
      values[token.name] = token.value;
    }
  }
  return { values, positionals };
}

export function noPositionals(command: string, positionals: readonly string[]): void {
  if (positionals.length > 0) throw new UsageError(`${command}: unexpected argument '${positionals[0]}'; see ${command} --help`);
}

/** The entry that is most like `word`, or null where none is near. */
export function nearest(word: string, list: readonly string[]): string | null {
  let best: string | null = null;
  let bestDistance = Math.max(2, Math.ceil(word.length / 2)) + 1;
  for (const entry of list) {
    const far = entry.startsWith(word) && word.length > 1 ? 1 : distance(word, entry);
    if (far < bestDistance) {
      best = entry;
      bestDistance = far;
    }
  }
  return best;
}

/** Levenshtein's edit distance. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const above = row;
    row = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (above[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      row.push(Math.min(change, (above[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1));
    }
  }
  return row[b.length] ?? 0;
}

// ---- The terminal

export interface Paint {
  red(text: string): string;
  green(text: string): string;
  yellow(text: string): string;
  dim(text: string): string;
  bold(text: string): string;
}

/** Colour on a terminal, unless NO_COLOR is set to anything (https://no-color.org). */
export function paintFor(stream: { readonly isTTY?: boolean }): Paint {
  const { NO_COLOR } = process.env;
  const coloured = stream.isTTY === true && (NO_COLOR === undefined || NO_COLOR === '');
  const with_ = (code: string) => (text: string) => (coloured ? `\u001b[${code}m${text}\u001b[0m` : text);
  return { red: with_('31'), green: with_('32'), yellow: with_('33'), dim: with_('2'), bold: with_('1') };
}
