// The `completion-port` command from the outside: help, wrong use, exit codes, forms of output and interruption.

import { type ChildProcess, spawn } from 'node:child_process';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';

const root = fileURLToPath(new URL('../', import.meta.url));
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'completion-port-test-'));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

const toy = path.join(root, 'test/conformance/fixtures/toy-port.mjs');

interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

function start(args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
  return spawn(process.execPath, [path.join(root, 'dist/cli/main.js'), ...args], {
    cwd: folder,
    env: { ...process.env, CI: '', TMPDIR: folder, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
}

function finish(child: ChildProcess): Promise<Result> {
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, stdout, stderr }));
  });
}

const command = (args: readonly string[], env?: Readonly<Record<string, string>>): Promise<Result> => finish(start(args, env));

describe('help and version', () => {
  test.each([
    [['--help']],
    [['doctor', '--help']],
    [['conformance', '--help']],
    [['conformance', '-h', '--tap']],
    [['bench', '--help']],
    [['build', '--help']],
  ])('%j prints a text with examples and ends with 0', async (args) => {
    const { code, stdout, stderr } = await command(args);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^Usage: completion-port/);
    expect(stdout).toMatch(/Examples?:/);
    expect(stderr).toBe('');
  });

  test('--version is that of package.json', async () => {
    const { version } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as { version: string };
    expect(await command(['--version'])).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
  });

  test('no command at all is wrong use, and shows the help', async () => {
    const { code, stderr } = await command([]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^Usage:/);
  });
});

describe('wrong use is one line that names the right one, and exit code 2', () => {
  test.each([
    [['docter'], 'doctor'],
    [['--verison'], '--version'],
    [['frobnicate'], 'doctor, conformance, bench, build'],
    [['doctor', '--jsno'], '--json'],
    [['doctor', 'now'], "'now'"],
    [['doctor', '--json=yes'], 'takes no value'],
    [['conformance', '--fliter', 'x'], '--filter'],
    [['conformance', '--filter'], '--filter REGEXP'],
    [['conformance', '--filter', '--list'], '--filter REGEXP'],
    [['conformance', '--filter', '('], 'regular expression'],
    [['conformance', '--filter', '^NOTHING-99'], 'matches no case'],
    [['conformance', '--backend', 'uring'], 'io_uring, epoll, kqueue, iocp'],
    [['conformance', '--repeat', '0'], 'from 1 on'],
    [['conformance', '--repeat', '1.5'], 'from 1 on'],
    [['conformance', '--scale', 'big'], 'above 0'],
    [['conformance', '--seed', '-1'], '0 to 4294967295'],
    [['conformance', '--seed', '1', '--seed', '2'], 'twice'],
    [['conformance', '--json', 'no/such/folder/x.json'], 'no folder'],
    [['conformance', '--adapter', 'absent.mjs'], 'no file'],
  ])('%j', async (args, hint) => {
    const { code, stdout, stderr } = await command(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(stderr).toContain(hint);
  });
});

describe('doctor', () => {
  test('names the backends, the selected one and its features', async () => {
    const { code, stdout } = await command(['doctor']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^io_uring +available/m);
    expect(stdout).toMatch(/A new port uses io_uring/);
    expect(stdout).not.toContain('\u001b');
  });

  test('--json has the fixed shape', async () => {
    const { code, stdout } = await command(['doctor', '--json']);
    expect(code).toBe(0);
    const report = JSON.parse(stdout) as Record<string, unknown> & { backends: Record<string, unknown>[] };
    expect(Object.keys(report)).toEqual(['version', 'runtime', 'os', 'selected', 'fallbackReason', 'backends']);
    expect(report).toMatchObject({
      runtime: { name: 'node', version: process.versions.node },
      os: { platform: process.platform, arch: process.arch },
      selected: 'io_uring',
      fallbackReason: null,
    });
    const uring = report.backends.find((entry) => entry.name === 'io_uring');
    expect(Object.keys(uring ?? {})).toEqual(['name', 'available', 'reason', 'features']);
    expect(uring).toMatchObject({ available: true, reason: null });
  });

  test('what is switched off is fallen back from, with the reason', async () => {
    const { code, stdout } = await command(['doctor', '--json'], { COMPLETION_PORT_DISABLE: 'io_uring' });
    expect(code).toBe(0);
    const report = JSON.parse(stdout) as { selected: string; fallbackReason: string };
    expect(report.selected).toBe('epoll');
    expect(report.fallbackReason).toMatch(/io_uring.+COMPLETION_PORT_DISABLE/);
  });

  test.each(['EPERM', 'ENOSYS'])(
    'in a container that answers io_uring with %s it takes epoll and says what to do',
    async (error) => {
      const denied = (...args: string[]): Promise<Result> =>
        finish(
          spawn(path.join(root, 'build/test/deny_uring'), [
            error,
            process.execPath,
            path.join(root, 'dist/cli/main.js'),
            ...args,
          ]),
        );
      const words = await denied('doctor');
      expect(words.code).toBe(0);
      expect(words.stdout).toMatch(/^io_uring +not available: .*seccomp/m);
      expect(words.stdout).toMatch(/^epoll +available/m);
      const prose = words.stdout.replace(/\s+/g, ' ');
      expect(prose).toContain('"names": ["io_uring_setup", "io_uring_enter", "io_uring_register"]');
      expect(prose).toMatch(/A new port uses epoll: io_uring can't be used here/);
      const report = JSON.parse((await denied('doctor', '--json')).stdout) as { selected: string; fallbackReason: string };
      expect(report.selected).toBe('epoll');
      expect(report.fallbackReason).toMatch(/seccomp/);
    },
  );

  test('where no backend works it says why and ends with 1', async () => {
    const masked = { COMPLETION_PORT_DISABLE: 'io_uring,epoll' };
    const words = await command(['doctor'], masked);
    expect(words.code).toBe(1);
    expect(words.stdout).toMatch(/io_uring +not available: .+/);
    const machine = await command(['doctor', '--json'], masked);
    expect(machine.code).toBe(1);
    const report = JSON.parse(machine.stdout) as {
      selected: string | null;
      fallbackReason: string;
      backends: { name: string; available: boolean }[];
    };
    expect(report.selected).toBe(null);
    expect(report.fallbackReason.length).toBeGreaterThan(10);
    expect(report.backends.find((entry) => entry.name === 'io_uring')?.available).toBe(false);
  });
});

describe('conformance', () => {
  test('--list prints each clause and its cases and runs nothing', async () => {
    const { code, stdout } = await command(['conformance', '--list']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^ {2}GET-01 {2}an empty port/m);
    expect(stdout).toMatch(/^ {2}CONC-01 .*\n {6}CONC-01\//m);
    const filtered = await command(['conformance', '--list', '--filter', '^GET-01']);
    expect(filtered.stdout).toMatch(/GET-01/);
    expect(filtered.stdout).not.toMatch(/POST-01/);
  });

  test('prints a line a case, writes the report and ends with 0', async () => {
    const file = path.join(folder, 'good.json');
    const { code, stdout, stderr } = await command([
      'conformance',
      '--filter',
      '^(GET-01|POST-06)',
      '--json',
      file,
      '--seed',
      '5',
    ]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^pass +GET-01/m);
    expect(stdout).not.toContain('\u001b');
    const report = JSON.parse(fs.readFileSync(file, 'utf8')) as Record<string, unknown>;
    expect(report).toMatchObject({ seed: 5, scale: 1, backend: { name: 'io_uring' }, totals: { fail: 0, unable: 0 } });
  });

  test('an unfiltered list of names isn’t touched by a partial run: its report goes to partial/', async () => {
    const name = `io_uring-node${process.versions.node.split('.')[0]}.json`;
    const partial = path.join(root, 'build/reports/partial', name);
    fs.rmSync(partial, { force: true });
    await command(['conformance', '--filter', '^GET-01/getSync$']);
    const report = JSON.parse(fs.readFileSync(partial, 'utf8')) as { cases: { id: string }[] };
    expect(report.cases.map((entry) => entry.id)).toEqual(['GET-01/getSync']);
  });

  test('--tap prints TAP; a failing port ends with 1; what an adapter lacks is skipped, and fails under CI', async () => {
    // The toy port takes any timeout and knows no I/O.
    const args = ['conformance', '--adapter', toy, '--tap', '--filter', '^(GET-01/getSync|EX-02/getMany|TCP-03/heap)'];
    const { code, stdout } = await command(args);
    expect(code).toBe(1);
    const plan = /^TAP version 14\n1\.\.(\d+)\n/.exec(stdout);
    expect(stdout.match(/^(not )?ok \d+ - /gm)).toHaveLength(Number(plan?.[1]));
    expect(stdout).toMatch(/^ok \d+ - GET-01\/getSync /m);
    expect(stdout).toMatch(/^not ok \d+ - EX-02.*\n {2}---\n {2}message: /m);
    expect(stdout).toMatch(/^ok \d+ - TCP-03.* # SKIP unable: the adapter doesn’t offer/m);
    const strict = await command(args, { CI: 'true' });
    expect(strict.stdout).toMatch(/^not ok \d+ - TCP-03/m);
  });

  test('a backend that isn’t here is refused with the reason', async () => {
    const { code, stdout, stderr } = await command(['conformance', '--backend', 'iocp', '--filter', '^GET-01']);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(/iocp.*I\/O completion ports are a facility of Windows/);
  });

  test('interrupted, it says what is done and leaves no process or file', async () => {
    const child = start(['conformance', '--filter', '^(GET|EX)-']);
    const ended = finish(child);
    await new Promise<void>((resolve) => {
      child.stdout?.on('data', (text: string) => {
        if (/^pass/m.test(text)) resolve();
      });
    });
    const group = hostsOf(child.pid ?? 0);
    expect(group).toHaveLength(1);
    child.kill('SIGINT');
    const { code, stderr } = await ended;
    expect(code).toBe(130);
    expect(stderr).toMatch(/^interrupted: \d+ of \d+ cases were done/m);
    expect(group.filter((pid) => fs.existsSync(`/proc/${pid}`))).toEqual([]);
    expect(fs.readdirSync(folder).filter((name) => name.startsWith('completion-port-'))).toEqual([]);
  });

  test('its reader goes away, as that of `… | head` does: it is interrupted, without a stack', async () => {
    const child = start(['conformance', '--filter', '^(GET|EX)-']);
    const ended = finish(child);
    child.stdout?.once('data', () => child.stdout?.destroy());
    const { code, stderr } = await ended;
    expect(code).toBe(130);
    expect(stderr).toMatch(/^interrupted: \d+ of \d+ cases were done/);
    expect(stderr).not.toMatch(/EPIPE|\n +at /);
  });
});

/** The processes whose parent is `pid`. */
function hostsOf(pid: number): number[] {
  return fs
    .readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((candidate) => {
      try {
        return Number(/^PPid:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${candidate}/status`, 'utf8'))?.[1]) === pid;
      } catch (error) {
        // It ended since the folder was read.
        if (['ENOENT', 'ESRCH'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
        throw error;
      }
    });
}
