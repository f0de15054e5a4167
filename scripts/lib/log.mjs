// Lines for people, on standard error: standard output belongs to what a script was asked for.

import { ProcessOutput } from 'zx';

const colour = process.stderr.isTTY && !process.env.NO_COLOR;

/** One line about what a script is doing now. */
export function say(text) {
  process.stderr.write(colour ? `\x1b[36m${text}\x1b[0m\n` : `${text}\n`);
}

/** Ends the script with one paragraph that says what is wrong and what to do. */
export class Failure extends Error {
  constructor(message, exitCode = 1) {
    super(message);
    this.exitCode = exitCode;
  }
}

/**
 * Runs a script's main function. A `Failure` is printed as its message alone, a failed command of zx by its exit code
 * (its output has been seen already), everything else with its stack, because it is a defect of the script.
 */
export async function runMain(main) {
  try {
    const code = await main();
    process.exitCode = typeof code === 'number' ? code : 0;
  } catch (error) {
    if (error instanceof Failure) {
      process.stderr.write(`${error.message}\n`);
      process.exitCode = error.exitCode;
    } else if (error instanceof ProcessOutput) {
      const how = error.signal ? `ended by ${error.signal}` : `exit code ${error.exitCode}`;
      process.stderr.write(`failed (${how})${error.stderr ? `:\n${error.stderr}` : ''}\n`);
      process.exitCode = error.exitCode || 1;
    } else {
      process.stderr.write(`${error?.stack ?? error}\n`);
      process.exitCode = 1;
    }
  }
}
