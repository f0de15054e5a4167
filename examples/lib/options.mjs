// What every example shares: its command line, the port it makes from it, and how it ends on SIGTERM and SIGINT. A wrong
// option is answered with one line that names the right one, and exit code 2.

import { basename } from 'node:path';
import { parseArgs } from 'node:util';
import { CompletionPort, TcpListener } from 'completion-port';

const common = {
  host: { type: 'string', default: '127.0.0.1' },
  port: { type: 'string', default: '0' },
  backend: { type: 'string', default: 'auto' },
  'event-loop': { type: 'string', default: 'plain' },
  help: { type: 'boolean', default: false },
};

const commonHelp = `  --host ADDRESS             address to listen on (127.0.0.1)
  --port N                   port to listen on; 0, the default: any free one
  --backend NAME             auto (default), io_uring, …: see \`completion-port doctor\`
  --event-loop plain|inverted  who waits: Node's event loop (plain), or the port for both (inverted)
  --help                     this text`;

const program = basename(process.argv[1]);

/** Ends the program as wrong use: one line, exit code 2. */
export function usage(message) {
  console.error(`${program}: ${message}`);
  process.exit(2);
}

/**
 * Reads the command line.
 * @param {Record<string, object>} own the example's own options, as `util.parseArgs` takes them, with `choices` or a `range`
 * @param {string} help what comes before the common options in --help
 * @param {string[]} positionals names of the arguments that aren't options
 */
export function readOptions(own, help, positionals = []) {
  const options = { ...common, ...own };
  let values;
  let rest;
  try {
    ({ values, positionals: rest } = parseArgs({ options, allowPositionals: true }));
  } catch (error) {
    if (error.code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION') {
      const given = /'(-[^' ]*)/.exec(error.message)?.[1] ?? '';
      usage(
        `there is no option ${given}; known are ${Object.keys(options)
          .map((name) => `--${name}`)
          .join(', ')}`,
      );
    }
    usage(`${error.message.split('\n')[0]} (see --help)`);
  }
  if (values.help) {
    console.log(`${help}\n${commonHelp}`);
    process.exit(0);
  }
  if (rest.length > positionals.length) usage(`'${rest[positionals.length]}' is one argument too many (see --help)`);
  for (const [name, { choices, range }] of Object.entries(own)) {
    if (choices && !choices.includes(values[name])) usage(`--${name} takes ${choices.join(' or ')}, not '${values[name]}'`);
    if (range) values[name] = wholeNumber(name, values[name], ...range);
  }
  values.port = wholeNumber('port', values.port, 0, 65_535);
  if (!['plain', 'inverted'].includes(values['event-loop'])) {
    usage(`--event-loop takes plain or inverted, not '${values['event-loop']}'`);
  }
  return { ...values, positionals: rest };
}

function wholeNumber(name, text, low, high) {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < low || value > high)
    usage(`--${name} takes a whole number from ${low} to ${high}, not '${text}'`);
  return value;
}

/** Makes the port that the options ask for; where that can't be, says why and ends with exit code 2. */
export function createPort({ backend, 'event-loop': eventLoop }, options = {}) {
  try {
    return CompletionPort.create({ ...options, backend, eventLoop });
  } catch (error) {
    usage(error.message);
  }
}

/** Listens where the options say; an address that can't be had ends the program with one line and exit code 1. */
export function listen({ host, port }, backlog, reusePort = false) {
  try {
    return TcpListener.listenSync({ host, port, backlog, reusePort });
  } catch (error) {
    console.error(`${program}: can't listen on ${host}:${port}: ${error.message}`);
    process.exit(1);
  }
}

/** Runs `end` once, on the first SIGTERM or SIGINT; a second one ends the process at once. */
export function onEnd(end) {
  const once = (signal) => {
    process.off('SIGTERM', once);
    process.off('SIGINT', once);
    end(signal);
  };
  process.on('SIGTERM', once);
  process.on('SIGINT', once);
}

/** The first line of standard output, the same in every example. */
export function printAddress({ address, family, port }) {
  console.log(`listening on ${family === 'IPv6' ? `[${address}]` : address}:${port}`);
}
