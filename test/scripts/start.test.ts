// Description: `npm start` serves the project's pages whatever the state of port 8080, keeps standard output for the server, and
// ends cleanly.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import * as http from 'node:http';
import * as net from 'node:net';
import * as path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** It may have to build and to make the pages first. */
const startLimitMs = 5 * 60_000;

const atEnd: (() => void)[] = [];
afterEach(() => {
  for (const action of atEnd.splice(0)) action();
});

function start(args: string[]) {
  const child = spawn(process.execPath, [path.join(root, 'scripts/start.mjs'), ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  atEnd.push(() => child.kill('SIGKILL'));
  const output = { stdout: '', stderr: '' };
  child.stderr.on('data', (data: Buffer) => {
    output.stderr += data.toString();
  });
  const listening = new Promise<number>((resolve, reject) => {
    child.stdout.on('data', (data: Buffer) => {
      output.stdout += data.toString();
      const match = /^listening on 127\.0\.0\.1:(\d+)\n/.exec(output.stdout);
      if (match) resolve(Number(match[1]));
    });
    child.on('close', (code) => reject(new Error(`ended with ${code}: ${output.stderr}`)));
  });
  return { child, output, listening };
}

async function page(port: number): Promise<string> {
  const [response] = (await once(http.get({ port, path: '/', agent: false }), 'response')) as [http.IncomingMessage];
  expect(response.statusCode).toBe(200);
  let text = '';
  for await (const chunk of response.setEncoding('utf8')) text += chunk;
  return text;
}

it(
  'takes another port if 8080 is taken, says so, and serves the pages there',
  async () => {
    const holder = net.createServer();
    atEnd.push(() => holder.close());
    holder.listen(8080, '127.0.0.1');
    // Somebody else may have it already: that will do as well.
    await new Promise((resolve) => holder.once('listening', resolve).once('error', resolve));
    const { child, output, listening } = start([]);
    const port = await listening;
    expect(port).not.toBe(8080);
    expect(output.stderr).toContain('port 8080 is taken');
    expect(await page(port)).toContain('<html');
    child.kill('SIGTERM');
    expect(await once(child, 'close')).toEqual([0, null]);
    expect(output.stdout).toMatch(/^listening on [^\n]*\n$/);
  },
  startLimitMs,
);

it(
  'passes --port on, and a wrong option is answered by the server with exit code 2',
  async () => {
    const good = start(['--port', '0']);
    expect(await page(await good.listening)).toContain('completion-port');
    good.child.kill('SIGTERM');
    expect(await once(good.child, 'close')).toEqual([0, null]);

    const wrong = start(['--prot', '1']);
    const refused = wrong.listening.catch((error: Error) => error.message);
    expect(await once(wrong.child, 'close')).toEqual([2, null]);
    expect(await refused).toContain('--prot');
  },
  startLimitMs,
);
