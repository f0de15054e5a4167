// Children that run the test build (COMPLETION_PORT_BUILD=test): slot generations of 4 bits, handle generations of 6, and hooks that
// make an operation stall. Not a family: it exports no cases.

import type { ChildOptions, Context } from '../types.js';

/** Runs a child on the test build; its last line is JSON. The case is `unable` where there is no test build. */
export async function testBuild<T>(
  t: Context,
  code: string,
  env: Readonly<Record<string, string>> = {},
  options: ChildOptions = {},
): Promise<T> {
  const {
    code: status,
    signal,
    stdout,
    stderr,
  } = await t.child(code, {
    ...options,
    env: { ...options.env, COMPLETION_PORT_BUILD: 'test', ...env },
  });
  if (status !== 0) {
    if (stderr.includes('ERR_NO_NATIVE')) t.unable('the test build of the addon isn’t there (COMPLETION_PORT_BUILD=test)');
    t.fail(
      `the child ended with ${signal ?? `exit code ${status}`}; it printed ${JSON.stringify((stdout + stderr).slice(-1500))}`,
    );
  }
  const last = stdout.trim().split('\n').at(-1) ?? '';
  try {
    return JSON.parse(last) as T;
  } catch {
    return t.fail(`the child’s last line is no JSON: ${JSON.stringify(last.slice(0, 300))}; stderr: ${stderr.slice(-500)}`);
  }
}
