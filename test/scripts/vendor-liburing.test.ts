// Description: scripts/vendor-liburing.mjs brings exactly the pinned liburing or nothing, from a Debian mirror or from disk, and
// leaves the machine's apt state and its own scratch space as they were. Needs the mirror, as the first build does.

import { execFile } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const script = path.join(root, 'scripts/vendor-liburing.mjs');
const vendored = path.join(root, 'native/linux/liburing');
const exec = promisify(execFile);

interface Outcome {
  code: number;
  stderr: string;
}

/** Runs the script; `PATH` can be replaced, so that any use of apt or tar is seen. */
async function vendor(args: string[], PATH = process.env.PATH): Promise<Outcome> {
  try {
    const { stderr } = await exec(process.execPath, [script, ...args], { env: { ...process.env, PATH } });
    return { code: 0, stderr };
  } catch (error) {
    const { code, stderr } = error as { code: number; stderr: string };
    return { code, stderr };
  }
}

/** Names, sizes and times of a folder's entries. */
function listing(at: string): string[] {
  return fs.readdirSync(at).map((name) => {
    const { size, mtimeMs } = fs.statSync(path.join(at, name));
    return `${name} ${size} ${mtimeMs}`;
  });
}

let folder: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'vendor-liburing-test-'));
});
afterEach(() => {
  fs.rmSync(folder, { recursive: true, force: true });
});

describe('vendor-liburing', () => {
  it('does nothing where liburing is there already: no command is run, no file is touched', async () => {
    const into = path.join(folder, 'liburing');
    fs.mkdirSync(into);
    fs.copyFileSync(path.join(vendored, '.vendored'), path.join(into, '.vendored'));
    const before = fs.statSync(into).mtimeMs;
    const { code, stderr } = await vendor(['--into', into], '/nonexistent');
    expect(stderr).toContain('there already');
    expect(code).toBe(0);
    expect(fs.readdirSync(into)).toEqual(['.vendored']);
    expect(fs.statSync(into).mtimeMs).toBe(before);
    expect(fs.readdirSync(folder)).toEqual(['liburing']);
  });

  it('takes a folder without its mark, or with the mark of another tarball, for absent', async () => {
    const into = path.join(folder, 'liburing');
    fs.mkdirSync(into);
    fs.writeFileSync(path.join(into, '.vendored'), `${'0'.repeat(64)}\n`);
    const { code, stderr } = await vendor(['--into', into, '--from', path.join(folder, 'absent.tar.gz')]);
    expect(code).toBe(1);
    expect(stderr).toContain('absent.tar.gz does not exist');
  });

  it('fetches it without touching the state of apt, and --from gives the same from disk', async () => {
    const aptState = () => ['lists', 'lists/partial'].map((name) => listing(path.join('/var/lib/apt', name)));
    const before = aptState();
    const [fetched, unpacked, tarball] = ['fetched', 'unpacked', 'kept.tar.gz'].map((name) => path.join(folder, name));
    if (!fetched || !unpacked || !tarball) throw new Error('unreachable');
    const first = await vendor(['--into', fetched, '--keep', tarball]);
    expect(first.code, first.stderr).toBe(0);
    expect(aptState()).toEqual(before);
    // Only tar and gzip are in reach: nothing could be fetched.
    const bin = path.join(folder, 'bin');
    fs.mkdirSync(bin);
    for (const name of ['tar', 'gzip', 'bash', 'sh']) fs.symlinkSync(`/bin/${name}`, path.join(bin, name));
    const second = await vendor(['--from', tarball, '--into', unpacked], bin);
    expect(second.code, second.stderr).toBe(0);
    const differences = await exec('diff', ['--recursive', '--brief', fetched, unpacked]);
    expect(differences.stdout).toBe('');
    await exec('diff', ['--recursive', '--brief', vendored, unpacked]);
    expect(fs.readdirSync(folder).sort()).toEqual(['bin', 'fetched', 'kept.tar.gz', 'unpacked']);
  }, 240_000);

  it('stops at a wrong checksum, says both sums and what to do, and leaves nothing behind', async () => {
    const from = path.join(folder, 'liburing_2.9.orig.tar.gz');
    fs.writeFileSync(from, 'not the original');
    const into = path.join(folder, 'liburing');
    const { code, stderr } = await vendor(['--from', from, '--into', into]);
    expect(code).toBe(1);
    expect(stderr).toContain('57e9b36e4ac1e46b8e0351dfb1694dc59638fc25e384b4ba36d87b800b16db1a');
    expect(stderr).toMatch(/its SHA-256 is\s+[0-9a-f]{64}, expected/);
    expect(stderr).toContain('--from');
    expect(fs.readdirSync(folder)).toEqual(['liburing_2.9.orig.tar.gz']);
  });

  it('keeps what was vendored when another tarball is wrong', async () => {
    const into = path.join(folder, 'liburing');
    fs.mkdirSync(into);
    fs.writeFileSync(path.join(into, 'old'), '');
    const from = path.join(folder, 'wrong.tar.gz');
    fs.writeFileSync(from, 'wrong');
    const { code } = await vendor(['--from', from, '--into', into]);
    expect(code).toBe(1);
    expect(fs.readdirSync(into)).toEqual(['old']);
  });

  it('answers a wrong option with exit code 2 and its usage', async () => {
    const { code, stderr } = await vendor(['--form', 'x']);
    expect(code).toBe(2);
    expect(stderr).toContain('--from FILE');
  });

  it('the vendored folder is liburing 2.9 as released', () => {
    expect(fs.readFileSync(path.join(vendored, 'liburing.spec'), 'utf8')).toMatch(/^Version: 2\.9$/m);
    for (const generated of ['config-host.h', 'src/include/liburing/compat.h', 'src/include/liburing/io_uring_version.h']) {
      expect(fs.existsSync(path.join(vendored, generated)), generated).toBe(false);
    }
  });
});

describe("the mirrors out of apt's configuration", () => {
  type MirrorsOf = (files: { name: string; text: string }[]) => string[];
  const mirrorsOf = async (name: string, text: string): Promise<string[]> => {
    const module = (await import(script)) as { mirrorsOf: MirrorsOf };
    return module.mirrorsOf([{ name, text }]);
  };

  it('deb822: several URIs and stanzas, comments and continued lines', async () => {
    const text = `# a remark
Types: deb
URIs: http://mirror.example/debian
 http://second.example/debian/
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
`;
    expect(await mirrorsOf('debian.sources', text)).toEqual(['http://mirror.example/debian', 'http://second.example/debian/']);
  });

  it('deb822: a disabled stanza and a third party are left out', async () => {
    const text = `Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb
URIs: https://other.example/node_20.x
Suites: nodistro
Components: main

Types: deb
URIs: https://other.example/linux/debian
Suites: bookworm
Components: stable
`;
    expect(await mirrorsOf('x.sources', text)).toEqual([]);
  });

  it('one-line lists: with and without options', async () => {
    const text = `deb [arch=amd64 signed-by=/k.gpg] http://a.example/debian bookworm main
# deb http://commented.example/debian bookworm main
deb-src http://a.example/debian bookworm main
deb http://security.example/debian-security bookworm-security main
deb http://b.example/debian trixie main`;
    expect(await mirrorsOf('sources.list', text)).toEqual(['http://a.example/debian', 'http://b.example/debian']);
  });
});
