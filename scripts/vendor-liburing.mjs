// Brings liburing 2.9 to native/linux/liburing, unmodified, from the source packages of Debian trixie (a stable suite
// keeps its sources). What makes it trustworthy is the pinned SHA-256 of the original tarball, not the way it came.
//
//   node scripts/vendor-liburing.mjs               through apt, out of the machine's own mirror
//   node scripts/vendor-liburing.mjs --from FILE   the tarball from disk, with the same check
//
// apt is given a source list, lists, cache and status of its own in a temporary folder: the machine's are not touched.

import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { $ } from 'zx';
import { Failure, runMain, say } from './lib/log.mjs';
import { liburingFolder } from './lib/paths.mjs';

const suite = 'trixie';
const version = '2.9';
const tarballName = `liburing_${version}.orig.tar.gz`;
const sha256 = '57e9b36e4ac1e46b8e0351dfb1694dc59638fc25e384b4ba36d87b800b16db1a';
/** Written last, so that it stands only in a complete folder. */
const markName = '.vendored';

const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
const fetchTimeout = '180s';

const usage = `usage: node scripts/vendor-liburing.mjs [--from FILE] [--into DIR]

Brings liburing ${version} to native/linux/liburing. Does nothing if it is there.
  --from FILE   take ${tarballName} from disk instead of a Debian mirror
  --into DIR    unpack somewhere else
  --keep FILE   leave the checked tarball there too, for machines without a mirror
examples:
  node scripts/vendor-liburing.mjs
  node scripts/vendor-liburing.mjs --from ~/${tarballName}
  node scripts/vendor-liburing.mjs --into /tmp/liburing --keep ~/${tarballName}
`;

/** Whether the folder holds just this version already. */
export function isVendored(folder = liburingFolder) {
  const mark = join(folder, markName);
  return existsSync(mark) && readFileSync(mark, 'utf8').trim() === sha256;
}

/** Suites of the main archive; security, updates and third parties have others. */
const archiveSuites = [
  'bullseye',
  'bookworm',
  'trixie',
  'forky',
  'sid',
  'oldoldstable',
  'oldstable',
  'stable',
  'testing',
  'unstable',
];

/**
 * The Debian mirrors in apt's own configuration, deb822 files and one-line lists alike, in their order: what has a suite of
 * the main archive and the component main. A third party may look like that too, so each is tried.
 */
export function mirrorsOf(files) {
  const mirrors = [];
  const add = (uri, suites, components) => {
    const isArchive = components.includes('main') && suites.some((name) => archiveSuites.includes(name));
    if (isArchive && !mirrors.includes(uri)) mirrors.push(uri);
  };
  for (const { name, text } of files) {
    const lines = text.split('\n').filter((line) => !/^\s*#/.test(line));
    if (name.endsWith('.sources')) {
      for (const stanza of lines.join('\n').split(/\n\s*\n/)) {
        const field = (key) =>
          new RegExp(`^${key}:[ \\t]*(.*(?:\\n[ \\t].*)*)`, 'im').exec(stanza)?.[1].trim().split(/\s+/) ?? [];
        if (field('Enabled')[0]?.toLowerCase() === 'no') continue;
        for (const uri of field('URIs')) add(uri, field('Suites'), field('Components'));
      }
    } else {
      for (const line of lines) {
        const match = /^\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)/.exec(line);
        if (match) add(match[1], [match[2]], match[3].split(/\s+/));
      }
    }
  }
  return mirrors;
}

function aptSourceFiles(folder = '/etc/apt') {
  const parts = join(folder, 'sources.list.d');
  const names = existsSync(parts) ? readdirSync(parts).filter((name) => /\.(list|sources)$/.test(name)) : [];
  return [join(folder, 'sources.list'), ...names.sort().map((name) => join(parts, name))]
    .filter((name) => existsSync(name))
    .map((name) => ({ name, text: readFileSync(name, 'utf8') }));
}

const byHand = `get ${tarballName} of the source package liburing ${version} of Debian ${suite} by other means and run
  node scripts/vendor-liburing.mjs --from PATH/TO/${tarballName}`;

async function fetchWithApt(scratch) {
  const mirrors = mirrorsOf(aptSourceFiles());
  if (mirrors.length === 0) {
    throw new Failure(`no Debian mirror in this machine's apt sources to fetch liburing ${version} from;\n${byHand}`);
  }
  const problems = [];
  for (const [index, mirror] of mirrors.entries()) {
    const folder = join(scratch, String(index));
    const problem = await fetchFrom(mirror, folder);
    if (problem === null) return join(folder, tarballName);
    problems.push(`${mirror}: ${problem}`);
  }
  throw new Failure(`liburing ${version} could not be fetched:\n${problems.join('\n')}\n${byHand}`);
}

/** Lets apt bring the tarball into `folder`. Resolves to null, or to what went wrong. */
async function fetchFrom(mirror, folder) {
  const parts = join(folder, 'sources.list.d');
  for (const name of [parts, join(folder, 'state/lists/partial'), join(folder, 'cache/archives/partial')]) {
    mkdirSync(name, { recursive: true });
  }
  const signed = existsSync(keyring) ? `Signed-By: ${keyring}\n` : '';
  writeFileSync(
    join(parts, 'liburing.sources'),
    `Types: deb-src\nURIs: ${mirror}\nSuites: ${suite}\nComponents: main\n${signed}`,
  );
  writeFileSync(join(folder, 'status'), '');
  const options = [
    'Dir::Etc::sourcelist=/dev/null',
    `Dir::Etc::sourceparts=${parts}`,
    `Dir::State=${join(folder, 'state')}`,
    `Dir::State::status=${join(folder, 'status')}`,
    `Dir::Cache=${join(folder, 'cache')}`,
    // The temporary folder is ours alone; the user _apt could not write there.
    'APT::Sandbox::User=',
    'Acquire::Languages=none',
    'Acquire::Retries=3',
    // A list that could not be fetched is a failure here, not a warning.
    'APT::Update::Error-Mode=any',
  ].flatMap((option) => ['-o', option]);
  const apt = $({ cwd: folder, timeout: fetchTimeout, quiet: true, nothrow: true, stdio: ['ignore', 'pipe', 'pipe'] });
  for (const command of [['update'], ['source', '--download-only', '--only-source', '--tar-only', `liburing=${version}-1`]]) {
    const result = await apt`apt-get ${options} ${command}`;
    if (result.exitCode !== 0) return `apt-get ${command[0]} failed: ${(result.stderr || result.stdout).trim()}`;
  }
  return existsSync(join(folder, tarballName)) ? null : `apt-get brought no ${tarballName}`;
}

/** Makes `folder` hold liburing. Returns false if it did already. */
export async function vendorLiburing({ from, into = liburingFolder, keep } = {}) {
  if (isVendored(into)) return false;
  mkdirSync(dirname(into), { recursive: true });
  const scratch = mkdtempSync(join(realpathSync(tmpdir()), 'completion-port-liburing-'));
  // Beside its place, so that the last step is a rename within one file system.
  const unpacked = mkdtempSync(`${into}.new-`);
  chmodSync(unpacked, 0o755); // a temporary folder is its owner's alone
  const cleanUp = () => {
    for (const path of [scratch, unpacked]) rmSync(path, { recursive: true, force: true });
  };
  const stop = (signal) => {
    cleanUp();
    process.kill(process.pid, signal);
  };
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  try {
    if (from !== undefined && !existsSync(from)) throw new Failure(`${from} does not exist`);
    if (from === undefined) say(`fetching liburing ${version} from Debian ${suite}`);
    const file = from === undefined ? await fetchWithApt(scratch) : resolve(from);
    const found = createHash('sha256').update(readFileSync(file)).digest('hex');
    if (found !== sha256) {
      throw new Failure(
        `${file} is not the original liburing ${version}: its SHA-256 is\n  ${found}, expected\n  ${sha256}\n` +
          `It was not unpacked. Delete it (a broken download or a changed archive) and ${byHand}`,
      );
    }
    const quiet = $({ quiet: true, stdio: ['ignore', 'pipe', 'pipe'] });
    await quiet`tar --extract --gzip --no-same-owner --strip-components=1 --file ${file} --directory ${unpacked}`;
    if (keep !== undefined) copyFileSync(file, keep);
    writeFileSync(join(unpacked, markName), `${sha256}\n`);
    rmSync(into, { recursive: true, force: true });
    renameSync(unpacked, into);
    say(`liburing ${version} is in ${into}`);
    return true;
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
    cleanUp();
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  await runMain(async () => {
    let values;
    try {
      values = parseArgs({
        options: { from: { type: 'string' }, into: { type: 'string' }, keep: { type: 'string' }, help: { type: 'boolean' } },
      }).values;
    } catch (error) {
      throw new Failure(`${error.message}\n${usage}`, 2);
    }
    if (values.help) {
      process.stdout.write(usage);
      return;
    }
    const did = await vendorLiburing({ from: values.from, into: values.into && resolve(values.into), keep: values.keep });
    if (!did) say(`liburing ${version} is there already`);
  });
}
