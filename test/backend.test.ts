// Which backend a port gets: want of descriptors is an error whatever else is there, never a reason to take another backend, and nothing is
// left behind by a port that couldn't be made. What a denied or masked io_uring makes of `auto` is the conformance suite's (PORT-05 to PORT-07).

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { CompletionPort } from 'completion-port';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../', import.meta.url));

const script = `
import { closeSync, openSync, readdirSync } from 'node:fs';
import { CompletionPort } from ${JSON.stringify(new URL('../dist/index.js', import.meta.url).href)};
const create = async (options) => {
  try {
    const port = CompletionPort.create(options);
    const name = port.backend.name;
    port.close();
    await port.closed;
    return name;
  } catch (error) {
    return error.code;
  }
};
const kinds = [{}, { shared: true }, { backend: 'epoll' }, { backend: 'epoll', shared: true }];
for (const options of kinds) await create(options); // what a process opens once
const seen = {};
const fillers = [];
try {
  for (;;) fillers.push(openSync('/dev/null'));
} catch (error) {
  if (error.code !== 'EMFILE') throw error;
}
for (let free = 0; free <= 8; free++) {
  for (const options of kinds) (seen[JSON.stringify(options)] ??= []).push(await create(options));
  closeSync(fillers.pop());
}
// Each attempt left as many as it found: those that are free now can all be taken, and no more.
let left = 0;
const again = [];
try {
  for (;;) again.push(openSync('/dev/null'));
} catch {
  left = again.length;
}
console.log(JSON.stringify({ seen, left }));
`;

test.each([
  ['io_uring', []],
  ['epoll', [`${root}build/test/deny_uring`, 'EPERM']],
])('without descriptors a port on %s is EMFILE, with enough it is made', (auto, before) => {
  const [command, ...args] = [
    ...['prlimit', '--nofile=200:200'],
    ...before,
    ...[process.execPath, '--input-type=module', '-e', script],
  ] as [string, ...string[]];
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', timeout: 20_000 });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const { seen, left } = JSON.parse(stdout) as { seen: Record<string, string[]>; left: number };
  expect(left).toBe(9);
  for (const [options, outcomes] of Object.entries(seen)) {
    const name = options.includes('epoll') ? 'epoll' : auto;
    const enough = outcomes.indexOf(name);
    expect(enough, `${options}: ${outcomes}`).toBeGreaterThan(0);
    expect(outcomes, options).toEqual(outcomes.map((_, index) => (index < enough ? 'EMFILE' : name)));
  }
});

test('a port says why it has no better backend, and only then', async () => {
  for (const backend of ['auto', 'epoll'] as const) {
    const port = CompletionPort.create({ backend });
    expect(port.backend.fallbackReason).toBe(undefined);
    port.close();
    await port.closed;
  }
});
