// Up-to-date checks by content. Modification times lie after a checkout, and reading some hundred kilobytes costs less
// than starting a compiler, so a stamp holds one hash over all inputs. Of each output it holds when it was written: one that
// somebody else has replaced since is not up to date.

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { root, stampFolder } from './paths.mjs';

/** All files below the given files and folders, sorted; names in `skip` are not entered. */
export function filesBelow(paths, skip = []) {
  const files = [];
  const visit = (path) => {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat?.isDirectory()) {
      for (const name of readdirSync(path)) {
        if (!skip.includes(name)) visit(join(path, name));
      }
    } else if (stat) {
      files.push(path);
    }
  };
  for (const path of paths) visit(path);
  return files.sort();
}

/** A hash over names and contents of `files` and over `extra` (options, versions). */
export function fingerprint(files, extra = '') {
  const hash = createHash('sha256').update(`${process.version} ${extra}\n`);
  for (const file of files) {
    const content = readFileSync(file);
    hash.update(`${relative(root, file)} ${content.length}\n`).update(content);
  }
  return hash.digest('hex');
}

const stampFile = (name) => join(stampFolder, `${name}.json`);

const stateOf = (file) => {
  const stat = statSync(file, { throwIfNoEntry: false });
  return stat ? `${stat.size} ${stat.mtimeMs}` : 'absent';
};

/** Whether the stamp `name` was written for this fingerprint and everything that it lists is there as it was. */
export function isFresh(name, print) {
  const file = stampFile(name);
  if (!existsSync(file)) return false;
  const stamp = JSON.parse(readFileSync(file, 'utf8'));
  return stamp.print === print && Object.entries(stamp.outputs).every(([name, state]) => stateOf(join(root, name)) === state);
}

/** Notes that `outputs` were made from what `print` stands for. */
export function writeStamp(name, print, outputs) {
  const file = stampFile(name);
  mkdirSync(dirname(file), { recursive: true });
  const states = Object.fromEntries(outputs.map((output) => [relative(root, output), stateOf(output)]));
  writeFileSync(file, `${JSON.stringify({ print, outputs: states }, null, 2)}\n`);
}
