// Runs a command in the foreground for a script: its output is passed on, a signal to the script reaches it, and a limit
// ends it, so that a hanging test fails instead of the whole machine's time running out.

import { spawn } from 'node:child_process';
import { root } from './paths.mjs';

/** How long a command that was told to end may take to do so. */
const graceMs = 10_000;

/**
 * Resolves to `{ code, reason, tail }`: `reason` is null after exit code 0, otherwise it says in words how the command
 * ended. `tail` is the end of its standard output, for a closing line to be read from.
 */
export function run(command, args, { cwd = root, env = {}, limitMs, stdout = process.stdout, stderr = null } = {}) {
  return new Promise((resolve, reject) => {
    // A process group of its own, so that a limit or a signal ends what the command started, too.
    const child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', stderr === null ? 'inherit' : 'pipe'],
      detached: true,
    });
    let tail = '';
    let timedOut = false;
    const timers = [];
    const kill = (signal) => {
      try {
        process.kill(-child.pid, signal);
      } catch (error) {
        if (error.code !== 'ESRCH') throw error; // the group is gone already
      }
    };
    const stop = () => {
      kill('SIGTERM');
      timers.push(setTimeout(kill, graceMs, 'SIGKILL'));
    };
    const onSignal = (signal) => {
      stop();
      child.once('close', () => process.kill(process.pid, signal));
    };
    process.once('SIGINT', onSignal);
    process.once('SIGTERM', onSignal);
    timers.push(
      setTimeout(() => {
        timedOut = true;
        stop();
      }, limitMs),
    );
    child.stdout.on('data', (data) => {
      stdout.write(data);
      tail = (tail + data).slice(-8192);
    });
    child.stderr?.on('data', (data) => stderr.write(data));
    child.on('error', reject);
    child.on('close', (code, signal) => {
      for (const timer of timers) clearTimeout(timer);
      process.off('SIGINT', onSignal);
      process.off('SIGTERM', onSignal);
      let reason = null;
      if (timedOut) reason = `not done after ${limitMs / 1000} s`;
      else if (signal) reason = `ended by ${signal}`;
      else if (code !== 0) reason = `exit code ${code}`;
      resolve({ code, reason, tail });
    });
  });
}
