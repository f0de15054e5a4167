// `completion-port bench` from the outside, as small as it can be made, and the arithmetic of its rounds. How fast anything is, is no
// question here: only that what is reported was measured, and that what wasn't is said.

import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { workloadNames } from '../dist/bench/names.js';
import { parsePsTime } from '../dist/bench/processes.js';
import { judge, ratiosOf, summary } from '../dist/bench/rounds.js';
import type { BenchReport } from '../dist/bench/types.js';

const root = fileURLToPath(new URL('../', import.meta.url));
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'completion-port-test-'));
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));

/** Compiling liburing and the C programs on a busy machine is part of the first run. */
const limitMs = 180_000;

interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

function bench(
  args: readonly string[],
  onOutput: (text: string, kill: (signal: NodeJS.Signals) => void) => void = () => {},
  env: Readonly<Record<string, string>> = {},
): Promise<Result> {
  const child = spawn(process.execPath, [path.join(root, 'dist/cli/main.js'), 'bench', ...args], {
    cwd: folder,
    env: { ...process.env, TMPDIR: folder, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    onOutput(stdout, (signal) => child.kill(signal));
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, stdout, stderr }));
  });
}

const read = (file: string): BenchReport => JSON.parse(fs.readFileSync(path.join(folder, file), 'utf8')) as BenchReport;

/** What a benchmark measures and loads: this package's examples and programs for it, the C programs. */
const programs = ['bench', 'examples', 'build/bench'].map((name) => path.join(root, name, path.sep));

/** Processes that run such a program and were left behind; with `parent`, those that it has. */
function subjects(parent = 1): string[] {
  const lines = execFileSync('ps', ['-eo', 'ppid=,args='], { encoding: 'utf8' }).split('\n');
  return lines.filter((line) => Number.parseInt(line, 10) === parent && programs.some((folder) => line.includes(folder)));
}

describe('wrong use is one line that names the right one, and exit code 2', () => {
  test.each([
    [['--qiuck'], '--quick'],
    [['--workload', 'tcp-ecko'], 'did you mean tcp-echo?'],
    [['--workload'], '--workload NAME,…'],
    [['--against', 'node:ent'], 'did you mean node:net?'],
    [['--backend', 'uring'], 'did you mean io_uring?'],
    [['--rounds', '0'], 'from 1 to 100'],
    [['--rounds', '1.5'], 'from 1 to 100'],
    [['--quick', '--short'], 'not both'],
    [['--only', '('], '--only'],
    [['--quick', '--only', 'no such subject'], 'leave nothing to measure'],
    [['--json', 'no/such/folder/x.json'], "can't write"],
    [['now'], "'now'"],
  ])('%j', async (args, hint) => {
    const { code, stdout, stderr } = await bench(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(stderr).toContain(hint);
  });
});

describe('rounds', () => {
  test('ratios are taken round by round', () => {
    expect(ratiosOf([2, 30, 4], [1, 10, 4])).toEqual([2, 3, 1]);
    expect(ratiosOf([2, 30, 4], [1, 10])).toEqual([2, 3]);
  });

  test('median and quartiles', () => {
    expect(summary([4, 1, 3, 2, 5])).toEqual({ low: 2, median: 3, high: 4 });
  });

  test('a ratio whose quartiles lie within 15 % of its median is given, with minimum and maximum', () => {
    expect(judge([1.0, 0.9, 1.1, 0.95, 1.05])).toEqual({ cpu: { min: 0.9, median: 1, max: 1.1 }, reason: null });
  });

  test('one whose spread makes it meaningless is refused, with the reason', () => {
    const { cpu, reason } = judge([1, 0.5, 2, 0.6, 1.9]);
    expect(cpu).toBeNull();
    expect(reason).toMatch(/quartiles \(0\.60 to 1\.90\).*90 %.*median \(1\.00\)/);
  });

  test('nothing to divide is no ratio', () => {
    expect(judge([]).cpu).toBeNull();
    expect(judge([Number.NaN, Number.POSITIVE_INFINITY]).cpu).toBeNull();
  });

  test.each([
    ['0:00.25', 0.25e9],
    ['1:02.50', 62.5e9],
    ['01:02:03', 3723e9],
    ['2-01:00:00', 176_400e9],
  ])('ps says %s', (text, ns) => {
    expect(parsePsTime(text)).toBe(ns);
  });
});

test(
  '--list names workloads, their parameters and subjects, and what is absent with the reason',
  async () => {
    const { code, stdout } = await bench(['--list'], undefined, { PATH: '/usr/bin:/bin' });
    expect(code).toBe(0);
    expect(stdout).toMatch(/^tcp-echo connections=8000 bytes=64 completion-port dispatch$/m);
    expect(stdout).toMatch(/^tcp-echo connections=1 bytes=65536 node:net$/m);
    expect(stdout).toMatch(/^file-read bytes=4096 order=random depth=64 direct=false C io_uring$/m);
    expect(stdout).toMatch(/^absent bun: no bun in PATH$/m);
    expect(stdout).toMatch(/^absent completion-port on kqueue: .+$/m);
  },
  limitMs,
);

test(
  'a run reports what it measured, in the fixed format',
  async () => {
    const { code, stdout, stderr } = await bench([
      ...['--quick', '--json', 'report.json', '--html', 'report.html'],
      ...['--against', 'node:net,fs.read,fs.writeSync,postMessage,C io_uring,empty module'],
    ]);
    expect(code, stderr + stdout).toBe(0);
    expect(stdout).not.toContain('\u001b');
    const report = read('report.json');
    expect(Object.keys(report)).toEqual(
      expect.arrayContaining(['version', 'started', 'os', 'cpu', 'runtime', 'rounds', 'results', 'ratios', 'absent']),
    );
    expect(report).toMatchObject({ rounds: 3, quick: true, interrupted: false, runtime: { version: process.versions.node } });
    expect(new Set(report.results.map(({ workload }) => workload))).toEqual(new Set(workloadNames));
    for (const { workload, bytesPerConnection } of report.results) {
      expect(typeof bytesPerConnection, workload).toBe(workload === 'idle' ? 'number' : 'object');
    }
    for (const result of report.results) {
      const { min, median, max } = result.cpuUsPerOp;
      expect(min).toBeGreaterThan(0);
      expect(min <= median && median <= max, JSON.stringify(result)).toBe(true);
      expect(result.operations).toBeGreaterThan(0);
      expect(stdout).toContain(`${result.subject} ${result.variant}`.trim());
    }
    const echo = report.results.filter(({ workload }) => workload === 'tcp-echo');
    expect(echo.map(({ subject, variant }) => `${subject} ${variant}`.trim())).toEqual(
      expect.arrayContaining([
        'completion-port dispatch',
        'completion-port inverted',
        'completion-port block',
        'node:net',
        'C io_uring',
      ]),
    );
    for (const { latencyUs } of echo) expect(latencyUs?.p99).toBeGreaterThanOrEqual(latencyUs?.p50 ?? Number.NaN);
    for (const ratio of report.ratios) {
      expect(ratio.coarse).toBe(true);
      if (ratio.cpu === null) expect(ratio.reason).not.toBe(null);
      else expect(ratio.cpu.median).toBeGreaterThan(0);
    }
    expect(report.ratios.map(({ against }) => against)).toContain('node:net');
    expect(report.absent.map(({ subject }) => subject)).toContain('completion-port on kqueue');
    expect(fs.readFileSync(path.join(folder, 'report.html'), 'utf8')).toContain('"workload":"tcp-connect"');
    expect(fs.readdirSync(folder).sort()).toEqual(['report.html', 'report.json']);
    expect(subjects()).toEqual([]);
  },
  limitMs,
);

test(
  'without a C compiler the client is the package, and the C programs are listed as absent',
  async () => {
    const args = ['--quick', '--workload', 'tcp-echo', '--only', 'dispatch|node:net', '--json', 'no-cc.json'];
    const { code, stdout, stderr } = await bench(args, undefined, { CC: '/no/such/compiler' });
    expect(code, stderr + stdout).toBe(0);
    const report = read('no-cc.json');
    expect(report.client).toContain('tcp_client.mjs');
    expect(report.absent).toContainEqual({ subject: 'C io_uring', reason: expect.stringContaining('no C compiler') });
    expect(report.results.length).toBeGreaterThanOrEqual(2);
  },
  limitMs,
);

test(
  'Ctrl-C prints and writes what is done, and leaves nothing behind',
  async () => {
    let sent = false;
    const args = ['--rounds', '2', '--workload', 'cancel,startup', '--against', 'empty module', '--json', 'part.json'];
    const { code, stdout } = await bench([...args, '--backend', 'io_uring'], (text, kill) => {
      if (sent || !text.includes('cancel batch=64')) return;
      sent = true;
      kill('SIGINT');
    });
    expect(code).toBe(130);
    expect(stdout).toContain('interrupted');
    const report = read('part.json');
    expect(report.interrupted).toBe(true);
    expect(report.results.map(({ workload }) => workload)).toContain('cancel');
    expect(subjects()).toEqual([]);
    expect(fs.readdirSync(folder).filter((name) => !/\.(json|html)$/.test(name))).toEqual([]);
  },
  limitMs,
);

test.each(['SIGINT', 'SIGQUIT'] as const)(
  'a %s in the middle of a run ends what runs',
  async (signal) => {
    const args = ['bench', '--quick', '--workload', 'tcp-echo', '--only', 'connections=64 ', '--backend', 'io_uring'];
    const child = spawn(process.execPath, [path.join(root, 'dist/cli/main.js'), ...args], { cwd: folder, stdio: 'ignore' });
    const ended = once(child, 'close') as Promise<[number | null]>;
    while (subjects(child.pid).length === 0 && child.exitCode === null) await sleep(20);
    child.kill(signal);
    const [code] = await ended;
    expect(code).toBe(signal === 'SIGINT' ? 130 : 131);
    expect(subjects()).toEqual([]);
  },
  limitMs,
);

test.skipIf(process.platform !== 'linux' || spawnSync('setpriv', ['--pdeathsig', 'KILL', 'true']).status !== 0)(
  'a SIGKILL in the middle of a run leaves no server behind',
  async () => {
    const args = ['bench', '--quick', '--workload', 'tcp-echo', '--only', 'connections=64 ', '--backend', 'io_uring'];
    const child = spawn(process.execPath, [path.join(root, 'dist/cli/main.js'), ...args], { cwd: folder, stdio: 'ignore' });
    const ended = once(child, 'close');
    while (subjects(child.pid).length === 0 && child.exitCode === null) await sleep(20);
    const before = subjects(child.pid);
    child.kill('SIGKILL');
    await ended;
    expect(before.length).toBeGreaterThan(0);
    const until = performance.now() + 5000;
    while (subjects().length > 0 && performance.now() < until) await sleep(20);
    expect(subjects()).toEqual([]);
  },
  limitMs,
);

test('compare refuses what is no report in one line, exit code 2', async () => {
  const whole = JSON.parse(fs.readFileSync(path.join(root, 'test/fixtures/bench-report.json'), 'utf8')) as BenchReport;
  const [result, ratio] = [whole.results[0], whole.ratios[0]];
  for (const wrong of [
    null,
    {},
    { ...whole, os: null },
    { ...whole, runtime: {} },
    { ...whole, results: [1] },
    { ...whole, results: [{ ...result, params: undefined }] },
    { ...whole, results: [{ ...result, cpuUsPerOp: null }] },
    { ...whole, ratios: [{ ...ratio, cpu: {} }] },
    { ...whole, absent: [null] },
  ]) {
    fs.writeFileSync(path.join(folder, 'wrong.json'), JSON.stringify(wrong));
    const { code, stdout, stderr } = await bench(['compare', 'wrong.json']);
    expect({ code, stdout, stderr }, JSON.stringify(wrong)?.slice(0, 80)).toEqual({
      code: 2,
      stdout: '',
      stderr: "completion-port bench compare: wrong.json: not a report of 'completion-port bench --json'\n",
    });
  }
  fs.rmSync(path.join(folder, 'wrong.json'));
  fs.writeFileSync(path.join(folder, 'right.json'), JSON.stringify({ ...whole, more: 1 }));
  expect(await bench(['compare', 'right.json'])).toMatchObject({ code: 0, stderr: '' });
});

test('a look at whether a report can be written leaves a link to nothing as it is', async () => {
  const link = path.join(folder, 'link.json');
  fs.symlinkSync('elsewhere.json', link);
  const { code } = await bench(['--json', 'link.json', '--backend', 'kqueue']);
  expect(code).toBe(1);
  expect(fs.readlinkSync(link)).toBe('elsewhere.json');
  for (const name of ['link.json', 'elsewhere.json']) fs.rmSync(path.join(folder, name), { force: true });
});

test('a backend that is not here is said in one line, exit code 1', async () => {
  const { code, stdout, stderr } = await bench(['--backend', 'kqueue', '--quick']);
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  expect(stderr).toMatch(/kqueue/);
});
