// Description: what a user gets. The package is packed, installed into an empty folder with scripts off, its addon is built by
// its own command out of the tarball, and then the commands and a program run there; a consumer is type-checked. The list of
// files is held against one in the repository: a file that joins or leaves the package is a decision, not an accident.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import * as fs from 'node:fs';
import * as os from 'node:os';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const here = path.join(root, 'test/package');
const exec = promisify(execFile);

/** Compiling everything from nothing on a small, busy machine. */
const buildLimitMs = 10 * 60_000;

let folder: string;
let app: string;
let files: string[];

interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

async function run(command: string, args: string[], options: { cwd?: string; env?: NodeJS.ProcessEnv } = {}): Promise<Outcome> {
  try {
    const { stdout, stderr } = await exec(command, args, { cwd: options.cwd ?? app, env: { ...process.env, ...options.env } });
    return { code: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout, stderr } = error as Outcome;
    return { code, stdout, stderr };
  }
}

const command = (...args: string[]) => run(path.join(app, 'node_modules/.bin/completion-port'), args);

beforeAll(async () => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'completion-port-tarball-'));
  app = path.join(folder, 'app');
  fs.mkdirSync(app);
  // Without prepack: it would compile dist/ anew under the other tests that use it. `npm test` has just built it.
  const packed = await run('npm', ['pack', '--json', '--ignore-scripts', '--pack-destination', folder], { cwd: root });
  expect(packed.code, packed.stderr).toBe(0);
  // npm 12 answers with an object by package name, older ones with a list.
  const answer = JSON.parse(packed.stdout) as Record<string, { filename: string; files: { path: string }[] }>;
  const [tarball] = Object.values(answer);
  if (tarball === undefined) throw new Error('npm pack named no tarball');
  files = tarball.files.map((file) => file.path).sort();
  fs.writeFileSync(path.join(app, 'package.json'), '{ "name": "app", "private": true, "type": "module" }\n');
  const archive = path.join(folder, path.basename(tarball.filename));
  const installed = await run('npm', ['install', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', archive]);
  expect(installed.code, installed.stderr).toBe(0);
}, buildLimitMs);

afterAll(() => {
  fs.rmSync(folder, { recursive: true, force: true });
});

describe('the tarball', () => {
  it('holds exactly the files that the list names', async () => {
    await expect(`${files.join('\n')}\n`).toMatchFileSnapshot(path.join(here, 'files.txt'));
  });

  it('has no script that would have to run at installation', () => {
    const manifest = JSON.parse(fs.readFileSync(path.join(app, 'node_modules/completion-port/package.json'), 'utf8')) as {
      scripts?: Record<string, string>;
    };
    for (const name of ['preinstall', 'install', 'postinstall', 'prepare']) expect(manifest.scripts).not.toHaveProperty(name);
  });

  it('says before the build that the addon is missing, and which command mends it', async () => {
    const program = await run(process.execPath, ['--input-type=module', '-e', "await import('completion-port')"]);
    expect(program.code).toBe(1);
    expect(program.stderr).toContain('ERR_NO_NATIVE');
    expect(program.stderr).toContain('npx completion-port build');
  });

  it('names what is missing where there is no compiler', async () => {
    const bin = path.join(folder, 'bin');
    fs.mkdirSync(bin);
    fs.symlinkSync(process.execPath, path.join(bin, 'node'));
    const { code, stderr } = await run(process.execPath, ['node_modules/completion-port/dist/cli/main.js', 'build'], {
      env: { PATH: bin, CC: '', CXX: '' },
    });
    expect(code).toBe(1);
    expect(stderr).toContain('apt-get install cmake gcc g++ make');
  });

  it('answers a wrong option of build with one line and exit code 2', async () => {
    const { code, stderr } = await command('build', '--forse');
    expect(code).toBe(2);
    expect(stderr).toMatch(/^[^\n]*--force[^\n]*\n$/);
  });
});

describe.sequential('an installed package', () => {
  it(
    'builds its addon, leaving nothing but it',
    async () => {
      const temporary = path.join(folder, 'tmp');
      fs.mkdirSync(temporary);
      const { code, stderr } = await run(path.join(app, 'node_modules/.bin/completion-port'), ['build'], {
        env: { TMPDIR: temporary },
      });
      expect(code, stderr).toBe(0);
      const output = path.join(app, 'node_modules/completion-port/build', `${process.platform}-${process.arch}`);
      expect(fs.readdirSync(output)).toEqual(['completion_port.node']);
      expect(fs.readdirSync(temporary)).toEqual([]);
    },
    buildLimitMs,
  );

  it('does not build twice', async () => {
    const { code, stderr } = await command('build');
    expect(code, stderr).toBe(0);
    expect(stderr).toContain('there already');
  });

  it('leaves nothing behind when it is interrupted, and the addon as it was', async () => {
    const temporary = path.join(folder, 'tmp-interrupted');
    fs.mkdirSync(temporary);
    const output = path.join(app, 'node_modules/completion-port/build', `${process.platform}-${process.arch}`);
    const before = fs.statSync(path.join(output, 'completion_port.node')).mtimeMs;
    const main = path.join(app, 'node_modules/completion-port/dist/cli/main.js');
    const child = spawn(process.execPath, [main, 'build', '--force'], {
      env: { ...process.env, TMPDIR: temporary },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    child.stderr.on('data', (data: Buffer) => {
      if (data.includes('compiling')) child.kill('SIGTERM');
    });
    const [, signal] = (await once(child, 'close')) as [number | null, string | null];
    expect(signal).toBe('SIGTERM');
    expect(fs.readdirSync(temporary)).toEqual([]);
    expect(fs.readdirSync(output)).toEqual(['completion_port.node']);
    expect(fs.statSync(path.join(output, 'completion_port.node')).mtimeMs).toBe(before);
  }, 120_000);

  it('exports nothing of its own but the two entry points of Node-API', async () => {
    const addon = path.join(
      app,
      'node_modules/completion-port/build',
      `${process.platform}-${process.arch}`,
      'completion_port.node',
    );
    const { code, stdout } = await run('nm', ['-D', '--defined-only', addon]);
    expect(code).toBe(0);
    const names = stdout
      .trim()
      .split('\n')
      .map((line) => line.split(' ').at(-1));
    expect(names.sort()).toEqual(['napi_register_module_v1', 'node_api_module_get_api_version_v1']);
    const undefinedNames = (await run('nm', ['-D', '--undefined-only', addon])).stdout;
    expect(undefinedNames).not.toMatch(/\bU (uv_|_ZN2v8|io_uring_)/);
  });

  it('examines the machine', async () => {
    const { code, stdout, stderr } = await command('doctor', '--json');
    expect(code, stderr).toBe(0);
    const report = JSON.parse(stdout) as { version: string; selected: string };
    expect(report.selected).toBe('io_uring');
    expect(report.version).toBe(
      (JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8')) as { version: string }).version,
    );
  });

  it('runs a program', async () => {
    fs.writeFileSync(
      path.join(app, 'program.mjs'),
      `import { CompletionPort, FileHandle } from 'completion-port';
import { Server } from 'completion-port/net';
import { read } from 'completion-port/promises';
const port = CompletionPort.create();
const file = FileHandle.openSync(new URL(import.meta.url).pathname, 'r');
port.associate(file, 7);
file.read(port.allocate(64), { position: 0 });
const packet = port.getSync(10_000);
console.log(packet.kind, packet.key, packet.bytesTransferred, typeof Server, typeof read);
file.close();
port.close();
`,
    );
    const { code, stdout, stderr } = await run(process.execPath, ['program.mjs']);
    expect(code, stderr).toBe(0);
    expect(stdout).toBe('read 7 64 function function\n');
  });

  it(
    'measures itself, with the C programs compiled out of the tarball, and writes the page',
    async () => {
      const only = '(completion-port (dispatch|net|post)|node:net|C io_uring|postMessage)$';
      const options = ['--quick', '--workload', 'tcp-echo,file-read,post', '--only', only];
      const { code, stdout, stderr } = await command('bench', ...options, '--json', 'report.json', '--html', 'report.html');
      expect(code, stdout + stderr).toBe(0);
      const { results, client } = JSON.parse(fs.readFileSync(path.join(app, 'report.json'), 'utf8')) as {
        results: { workload: string; subject: string }[];
        client: string;
      };
      expect(client).toContain('echo_client.c');
      expect(new Set(results.map(({ workload }) => workload))).toEqual(new Set(['tcp-echo', 'file-read', 'post']));
      expect(results.map(({ subject }) => subject)).toContain('C io_uring');
      expect(fs.readFileSync(path.join(app, 'report.html'), 'utf8')).toContain('Chart.js');
    },
    buildLimitMs,
  );

  it.each(['node16', 'bundler'] as const)(
    'type-checks in a consumer with moduleResolution %s',
    async (resolution) => {
      fs.copyFileSync(path.join(here, 'consumer/consumer.ts'), path.join(app, 'consumer.ts'));
      // Node's own types are what the package's declarations rest on; a consumer has them as a dependency.
      fs.mkdirSync(path.join(app, 'node_modules/@types'), { recursive: true });
      for (const name of ['@types/node', 'undici-types']) {
        const link = path.join(app, 'node_modules', name);
        if (!fs.existsSync(link)) fs.symlinkSync(path.join(root, 'node_modules', name), link);
      }
      const config = path.join(app, `tsconfig.${resolution}.json`);
      fs.writeFileSync(
        config,
        JSON.stringify({
          compilerOptions: {
            strict: true,
            noEmit: true,
            target: 'es2023',
            lib: ['es2023', 'esnext.disposable'],
            module: resolution === 'node16' ? 'node16' : 'esnext',
            moduleResolution: resolution,
            types: ['node'],
            // Our declarations are part of what is tested.
            skipLibCheck: false,
          },
          files: ['consumer.ts'],
        }),
      );
      const { code, stdout } = await run(process.execPath, [path.join(root, 'node_modules/typescript/bin/tsc'), '-p', config]);
      expect(stdout).toBe('');
      expect(code).toBe(0);
    },
    120_000,
  );
});
