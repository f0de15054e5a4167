/**
 * Finding a peer: names become addresses through node:dns, and addresses are tried one after the other until one answers. What
 * comes out is a connected TcpSocket or one error; the stream around it never sees the attempts that failed, only their events.
 */
import dns from 'node:dns';
import { getDefaultAutoSelectFamily, getDefaultAutoSelectFamilyAttemptTimeout, isIP } from 'node:net';
import { type OperationKind, SettledOperation } from '../operation.js';
import { TcpSocket } from '../tcp.js';
import { validatePort } from './arguments.js';
import type { Blocks } from './blocks.js';
import { attemptsError, codedError, endpointError, invalidType, isPortFailure, type PortFailure } from './errors.js';

export type LookupFunction = (
  hostname: string,
  options: dns.LookupOptions,
  callback: (error: NodeJS.ErrnoException | null, address: string | dns.LookupAddress[], family?: number) => void,
) => void;

/** Where to connect to, as node:net's connect() takes it. */
export interface TcpConnectOptions {
  port: number | string;
  /** Name or literal address; 'localhost' if absent. */
  host?: string | undefined;
  localAddress?: string | undefined;
  localPort?: number | undefined;
  family?: number | string | undefined;
  hints?: number | undefined;
  /** In place of dns.lookup. */
  lookup?: LookupFunction | undefined;
  /** Try all of a name's addresses, of both families. Node's own default applies. */
  autoSelectFamily?: boolean | undefined;
  /** How long an address may take to answer before the next is tried, in ms (from 10 up). */
  autoSelectFamilyAttemptTimeout?: number | undefined;
}

/** The socket's side of a connect. */
export interface Connector {
  /** True while the socket still wants to be connected. */
  readonly wanted: () => boolean;
  readonly emit: (event: string, ...values: unknown[]) => void;
  readonly touched: () => void;
  readonly connected: (handle: TcpSocket) => void;
  readonly failed: (error: Error) => void;
  /** `host:port` of the addresses tried, when there are several. */
  readonly attempted: (addresses: string[]) => void;
}

interface Address {
  address: string;
  family: 4 | 6;
}

interface Plan {
  blocks: Blocks;
  port: number;
  host: string;
  localAddress: string | undefined;
  localPort: number | undefined;
  attemptMs: number;
}

class ConnectOperation extends SettledOperation {
  constructor(readonly done: (failure: PortFailure | null) => void) {
    super();
  }

  override settle(_kind: OperationKind, _bytes: number, error: PortFailure | null): void {
    this.done(error);
  }
}

/** Checks the options (throws at once on misuse) and returns the function that begins. */
export function prepareConnect(blocks: Blocks, options: TcpConnectOptions, connector: Connector): Connecting {
  const { localAddress, localPort } = options;
  const host = options.host ?? 'localhost';
  if (typeof host !== 'string') {
    throw invalidType('options.host', 'of type string', host);
  }
  if (localAddress !== undefined && localAddress !== null && isIP(localAddress) === 0) {
    throw codedError('ERR_INVALID_IP_ADDRESS', `Invalid IP address: ${String(localAddress)}`, TypeError);
  }
  if (localPort !== undefined && localPort !== null && typeof localPort !== 'number') {
    throw invalidType('options.localPort', 'of type number', localPort);
  }
  if (options.lookup !== undefined && options.lookup !== null && typeof options.lookup !== 'function') {
    throw invalidType('options.lookup', 'of type function', options.lookup);
  }
  if (options.autoSelectFamily !== undefined && typeof options.autoSelectFamily !== 'boolean') {
    throw invalidType('options.autoSelectFamily', 'of type boolean', options.autoSelectFamily);
  }
  const attemptMs = options.autoSelectFamilyAttemptTimeout;
  if (attemptMs !== undefined && !(Number.isInteger(attemptMs) && attemptMs >= 1)) {
    throw codedError(
      'ERR_OUT_OF_RANGE',
      `The value of "options.autoSelectFamilyAttemptTimeout" is out of range. It must be an integer >= 1. Received ${String(attemptMs)}`,
      RangeError,
    );
  }
  const plan: Plan = {
    blocks,
    port: validatePort(options.port),
    host: host === '' ? 'localhost' : host,
    localAddress: localAddress || undefined,
    localPort: localPort || undefined,
    attemptMs: Math.max(10, attemptMs ?? getDefaultAutoSelectFamilyAttemptTimeout()),
  };
  return new Connecting(plan, options, connector);
}

/** One connect, from the name to the connected socket. */
export class Connecting {
  readonly #plan: Plan;
  readonly #options: TcpConnectOptions;
  readonly #connector: Connector;
  #handle: TcpSocket | undefined;
  #operation: ConnectOperation | undefined;
  #referenced = true;

  constructor(plan: Plan, options: TcpConnectOptions, connector: Connector) {
    this.#plan = plan;
    this.#options = options;
    this.#connector = connector;
  }

  /** Whether this connect keeps the process alive. */
  set referenced(on: boolean) {
    this.#referenced = on;
    this.#operation?.setReferenced(on);
  }

  start(): void {
    const { host } = this.#plan;
    const family = isIP(host);
    if (family === 0) {
      this.#lookup();
      return;
    }
    // A tick later, so that the caller's listeners are there whatever comes out.
    process.nextTick(() => {
      if (this.#connector.wanted()) {
        this.#tryOne({ address: host, family: family as 4 | 6 });
      }
    });
  }

  /** Ends the attempt that is under way. Nothing is called back any more. */
  abort(): void {
    this.#handle?.close();
    this.#handle = undefined;
  }

  #lookup(): void {
    const { host, localAddress } = this.#plan;
    const family = familyNumber(this.#options.family);
    const hints = this.#options.hints ?? 0;
    const options: dns.LookupOptions = {
      family,
      hints: hints === 0 && family === 0 && process.platform !== 'win32' ? dns.ADDRCONFIG : hints,
    };
    const lookup = this.#options.lookup ?? (dns.lookup as LookupFunction);
    const all = family === 0 && localAddress === undefined && (this.#options.autoSelectFamily ?? getDefaultAutoSelectFamily());
    if (all) {
      options.all = true;
    }
    lookup(host, options, (error, found, foundFamily) => {
      if (all) {
        this.#foundAll(error, found);
      } else {
        this.#foundOne(error, found as string, foundFamily);
      }
    });
  }

  #foundOne(error: Error | null, address: string, family: number | undefined): void {
    const { host } = this.#plan;
    this.#connector.emit('lookup', error, address, family, host);
    if (!this.#connector.wanted()) {
      return;
    }
    if (error) {
      this.#failSoon(error);
    } else if (isIP(address) === 0) {
      this.#failSoon(codedError('ERR_INVALID_IP_ADDRESS', `Invalid IP address: ${address}`, TypeError));
    } else if (family !== 4 && family !== 6) {
      this.#failSoon(invalidFamily(family, host, this.#plan.port));
    } else {
      this.#connector.touched();
      this.#tryOne({ address, family });
    }
  }

  #foundAll(error: Error | null, found: string | dns.LookupAddress[]): void {
    const { host, port } = this.#plan;
    if (!this.#connector.wanted()) {
      return;
    }
    if (error) {
      this.#connector.emit('lookup', error, undefined, undefined, host);
      this.#failSoon(error);
      return;
    }
    // A lookup of the user's own may ignore `all` and give one address.
    const list = typeof found === 'string' ? [{ address: found, family: isIP(found) }] : found;
    for (const entry of list) {
      this.#connector.emit('lookup', null, entry.address, entry.family, host);
      if (!this.#connector.wanted()) {
        return;
      }
    }
    const addresses = interleaveFamilies(list);
    const first = list[0];
    if (addresses.length === 0) {
      const wrongAddress = first === undefined || isIP(first.address) === 0;
      this.#failSoon(
        wrongAddress
          ? codedError('ERR_INVALID_IP_ADDRESS', `Invalid IP address: ${String(first?.address)}`, TypeError)
          : invalidFamily(first.family, host, port),
      );
      return;
    }
    this.#connector.touched();
    if (addresses.length === 1) {
      this.#tryOne(addresses[0]!);
    } else {
      this.#tryNext(addresses, 0, [], []);
    }
  }

  #failSoon(error: Error): void {
    // connect() may still be running: its caller's listeners come first.
    process.nextTick(() => {
      if (this.#connector.wanted()) {
        this.#connector.failed(error);
      }
    });
  }

  #tryOne(address: Address): void {
    this.#attempt(address, 0, (error) => {
      this.#connector.emit('connectionAttemptFailed', address.address, this.#plan.port, address.family, error);
      this.#connector.failed(error);
    });
  }

  /** Addresses in turn: each has `attemptMs`, the last one as long as the system gives it. */
  #tryNext(addresses: Address[], index: number, errors: Error[], attempted: string[]): void {
    const address = addresses[index];
    if (address === undefined) {
      this.#connector.failed(attemptsError(errors));
      return;
    }
    const { port, attemptMs } = this.#plan;
    attempted.push(`${address.address}:${port}`);
    this.#connector.attempted(attempted);
    const last = index === addresses.length - 1;
    this.#attempt(address, last ? 0 : attemptMs, (error, timedOut) => {
      errors.push(error);
      this.#connector.emit(
        timedOut ? 'connectionAttemptTimeout' : 'connectionAttemptFailed',
        address.address,
        port,
        address.family,
        ...(timedOut ? [] : [error]),
      );
      if (this.#connector.wanted()) {
        this.#tryNext(addresses, index + 1, errors, attempted);
      }
    });
  }

  #attempt({ address, family }: Address, timeoutMs: number, failed: (error: Error, timedOut: boolean) => void): void {
    const { blocks, port, localAddress, localPort } = this.#plan;
    const bind = localAddress !== undefined || localPort !== undefined;
    const local = { address: localAddress ?? (family === 6 ? '::' : '0.0.0.0'), port: localPort ?? 0 };
    let handle: TcpSocket;
    try {
      handle = TcpSocket.openSync({
        family: family === 6 ? 'IPv6' : 'IPv4',
        ...(bind ? { localAddress: local.address, localPort: local.port } : {}),
      });
    } catch (error) {
      if (!isPortFailure(error)) {
        throw error;
      }
      failed(
        bind ? endpointError('bind', error, local.address, local.port) : endpointError('connect', error, address, port),
        false,
      );
      return;
    }
    this.#handle = handle;
    this.#connector.emit('connectionAttempt', address, port, family);
    if (this.#handle !== handle) {
      // A listener destroyed the socket.
      return;
    }
    const fail = (failure: PortFailure) => {
      this.#handle = undefined;
      handle.close();
      const timedOut = failure.code === 'ETIMEDOUT' && timeoutMs > 0;
      failed(
        endpointError(
          'connect',
          failure,
          address,
          port,
          localAddress !== undefined && localPort !== undefined ? local : undefined,
        ),
        timedOut,
      );
    };
    const operation = new ConnectOperation((failure) => {
      if (this.#handle !== handle) {
        // Aborted: the handle is closed, and nobody waits.
        return;
      }
      if (failure !== null) {
        fail(failure);
        return;
      }
      this.#handle = undefined;
      this.#connector.connected(handle);
    });
    if (timeoutMs > 0) {
      operation.timeout = timeoutMs;
    }
    operation.setReferenced(this.#referenced);
    this.#operation = operation;
    try {
      blocks.port.associate(handle, 0);
      handle.connect({ host: address, port }, operation);
    } catch (error) {
      if (!isPortFailure(error)) {
        throw error;
      }
      fail(error);
    }
  }
}

function familyNumber(family: number | string | undefined): 0 | 4 | 6 {
  switch (family) {
    case 4:
    case 'IPv4':
      return 4;
    case 6:
    case 'IPv6':
      return 6;
    default:
      return 0;
  }
}

function invalidFamily(family: number | undefined, host: string, port: number): Error {
  return codedError('ERR_INVALID_ADDRESS_FAMILY', `Invalid address family: ${String(family)} ${host}:${port}`, RangeError);
}

/** Valid addresses without repetition, the families taking turns, beginning with that of the first. */
function interleaveFamilies(found: readonly dns.LookupAddress[]): Address[] {
  const valid = new Map<string, Address>();
  for (const { address, family } of found) {
    if ((family === 4 || family === 6) && isIP(address) !== 0) {
      valid.set(address, { address, family });
    }
  }
  const all = [...valid.values()];
  const preferred = all.filter((entry) => entry.family === all[0]!.family);
  const others = all.filter((entry) => entry.family !== all[0]!.family);
  const result: Address[] = [];
  for (let i = 0; i < Math.max(preferred.length, others.length); i++) {
    for (const list of [preferred, others]) {
      const entry = list[i];
      if (entry !== undefined) {
        result.push(entry);
      }
    }
  }
  return result;
}
