// The scripts of the SEC cases' children: what calls the native module directly runs in a process of its own, so that a crash is a
// failed case. Each ends with one line of JSON. Plain JavaScript, because a child can't import TypeScript. Not a family.

import type { Context } from '../types.js';

/** The URL of the package's own loader of the native module, for children. */
export const nativeUrl = new URL('../../native.js', import.meta.url).href;

/** Says `unable` where what is under test doesn't offer its native module, and gives what every script of this file begins with. */
export async function prelude(t: Context): Promise<string> {
  await t.native();
  return `
  import * as fs from 'node:fs';
  const { native } = await import(${JSON.stringify(nativeUrl)});
  let seed = ${t.random.int(2 ** 32)};
  const random = () => { seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0; return seed / 2 ** 32; };
  const int = (n) => Math.floor(random() * n);
  const pick = (list) => list[int(list.length)];
  const wrong = [];
  const say = (what) => { if (wrong.length < 8) wrong.push(what); };
  const { controlBytes, entryBytes, maxSubmissions, maxCompletions } = native.abi;
  const blockBytes = controlBytes + (maxSubmissions + maxCompletions) * entryBytes;
  function makePort(options = {}) {
    const control = new SharedArrayBuffer(blockBytes);
    const arena = new SharedArrayBuffer(options.arenaBytes ?? 1048576);
    const port = native.createPort(new Uint8Array(control), new Uint8Array(arena), { backend, maxOperations: 1024, ringEntries: 64,
      concurrency: 1, inverted: false, disable: '', ...options });
    if (port.error !== undefined) throw new Error('createPort: ' + port.error.reason);
    return { port, arena: new Uint8Array(arena), u8: new Uint8Array(control), u32: new Uint32Array(control), i32: new Int32Array(control),
      f64: new Float64Array(control) };
  }
  const place = (id) => [id % 2 ** 20, Math.floor(id / 2 ** 20)];
  /** A connected pair that has no port yet. */
  function pair() {
    const own = createPort();
    const listener = TcpListener.listenSync({ port: 0 });
    const second = TcpListener.listenSync({ port: 0 });
    own.associate(listener, 1); own.associate(second, 1);
    listener.accept(); second.accept();
    const sockets = [];
    const clients = [listener, second].map((each) => {
      const socket = TcpSocket.openSync();
      own.associate(socket, 1);
      socket.connect({ host: '127.0.0.1', port: each.address.port });
      return socket;
    });
    for (let got = 0; got < 4; ) for (const packet of own.getManySync(4, 2000)) { got++; if (packet.kind === 'accept') sockets.push(packet.result); }
    globalThis.kept ??= [];
    globalThis.kept.push(own, listener, second, ...clients, ...sockets);
    return sockets;
  }
  const finish = (more = {}) => { console.log(JSON.stringify({ wrong, ...more })); process.exit(0); };
  `;
}

/**
 * Batches of good reads beside hostile entries, on one native port. The good ones use a read-only file and memory of their own, which
 * no hostile entry names: whatever those do, each good one must end well, once, with its bytes. `narrow`: generations wrap at 16.
 */
export function hostileEntries(path: string, victim: string, rounds: number, narrow: boolean): string {
  return `
  const content = fs.readFileSync(${JSON.stringify(path)});
  const { port, arena, u32, i32, f64, u8 } = makePort();
  arena.fill(0xa5);
  const canary = new Uint8Array(new SharedArrayBuffer(65536)).fill(0x5a);
  const mine = new Uint8Array(new SharedArrayBuffer(100 * 64));
  const memory = port.registerMemory(mine);
  if (memory <= 0) say('registerMemory: ' + memory);
  const openNow = (path, flags) => { const id = native.openFile(path, flags, 0); if (id < 0) throw new Error('openFile ' + id); return place(id); };
  const good = openNow(${JSON.stringify(path)}, fs.constants.O_RDONLY);
  const bad = openNow(${JSON.stringify(victim)}, fs.constants.O_RDWR);
  const [left, right] = pair();
  const listener = TcpListener.listenSync({ port: 0 });
  globalThis.kept.push(listener);
  const handles = [bad, place(left.id), place(right.id), place(listener.id)];
  for (const [index, generation] of [good, ...handles]) if (port.associate(index, generation, 7) !== 0) say('associate');
  const generations = new Map();
  const generation = (slot) => generations.get(slot) ?? 1;
  const outstanding = new Map();
  const numbers = [0, 1, -1, -0, 0.5, NaN, Infinity, -Infinity, 2 ** 31, 2 ** 32, 2 ** 32 + 1, 2 ** 53, 2 ** 53 + 2, 2 ** 63, 2 ** 64, 1e308, 5e-324,
    1048576, 1048575, 1048577, 1048576 - 64, 2 ** 31 - 4096, 2 ** 31 - 4095, -1048576];
  const words = [0, 1, 2, 3, 255, 256, 1023, 1024, 65535, 65536, 2 ** 20 - 1, 2 ** 20, 2 ** 24, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 2, 2 ** 32 - 1];
  const vectored = [3, 4, 11, 14, 16];
  const write = (at, e) => {
    const byte = controlBytes + at * entryBytes;
    u8[byte] = e.opcode; u8[byte + 1] = e.flags; u8[byte + 2] = e.segments; u8[byte + 3] = e.segments >> 8;
    u32[(byte >> 2) + 1] = e.slot; u32[(byte >> 2) + 2] = e.generation; u32[(byte >> 2) + 3] = e.handle; u32[(byte >> 2) + 4] = e.handleGeneration;
    u32[(byte >> 2) + 5] = e.memory;
    [e.offset, e.length, e.position, e.timeout, e.id].forEach((value, index) => { f64[(byte >> 3) + 3 + index] = value; });
  };
  const goodEntry = (slot) => {
    const position = int(content.length - 64);
    mine.fill(0, slot * 64, slot * 64 + 64);
    outstanding.set(slot, { position });
    return { opcode: 1, flags: 0, segments: 0, slot, generation: generation(slot), handle: good[0], handleGeneration: good[1], memory, offset: slot * 64,
      length: 64, position, timeout: Infinity, id: slot };
  };
  const hostileEntry = (mayTakeMore) => {
    const slot = random() < 0.7 ? 200 + int(300) : pick([1024, 1025, 65536, 2 ** 31, 2 ** 32 - 1]);
    const [handle, handleGeneration] = pick(handles);
    const e = { opcode: 1 + int(15), flags: 0, segments: 0, slot, generation: generation(slot), handle, handleGeneration, memory: 0, offset: int(1000) * 64,
      length: int(5000), position: int(5000), timeout: Infinity, id: 3 };
    const changes = 1 + int(4);
    for (let i = 0; i < changes; i++) {
      switch (int(11)) {
        case 0: e.opcode = int(256); break;
        case 1: e.flags = int(256); break;
        case 2: e.segments = pick([1, 3, 4, 5, 1024, 1025, 65535]); break;
        case 3: e.generation = pick(words); break;
        case 4: e.handle = pick(words); break;
        case 5: e.handleGeneration = pick(words); break;
        case 6: e.memory = pick([2 ** 32 - 1, 2 ** 32 - 2, 4242, 2 ** 31, 65536, 0]); break;
        case 7: e.offset = pick(numbers); break;
        case 8: e.length = pick(numbers); break;
        case 9: e.position = pick(numbers); break;
        case 10: { e.timeout = pick(numbers); e.id = pick(numbers); e.flags |= 2; }
      }
    }
    if (!mayTakeMore && vectored.includes(e.opcode)) e.opcode = 12;
    return e;
  };
  let goodEnds = 0, hostileEnds = 0, failures = 0, goodStarts = 0;
  const collect = () => {
    const count = u32[6];
    if (count > maxCompletions) return say('completions ' + count);
    for (let at = 0; at < count; at++) {
      const byte = controlBytes + (maxSubmissions + at) * entryBytes;
      const slot = u32[(byte >> 2) + 1], status = i32[(byte >> 2) + 3], bytes = f64[(byte >> 3) + 4];
      if (u8[byte] === 0) { if (f64[(byte >> 3) + 3] !== 99) say('a post with key ' + f64[(byte >> 3) + 3]); continue; }
      if (slot >= 1024) { say('a completion of slot ' + slot); continue; }
      generations.set(slot, u32[(byte >> 2) + 2]);
      if (status < 0 || status >= native.errors.length) say('status ' + status);
      const known = outstanding.get(slot);
      if (slot < 100) {
        if (known === undefined) { say('a second completion of slot ' + slot); continue; }
        outstanding.delete(slot);
        goodEnds++;
        if (status !== 0 || bytes !== 64) say('a good read ended with ' + native.errors[status]?.code + ', ' + bytes + ' bytes');
        else if (Buffer.compare(mine.subarray(slot * 64, slot * 64 + 64), content.subarray(known.position, known.position + 64)) !== 0) say('a good read has other bytes');
      } else {
        hostileEnds++;
        if (status !== 0) failures++;
        if (!(bytes >= 0 && bytes <= 2 ** 31)) say('a hostile entry moved ' + bytes + ' bytes');
        // What it opened is closed again.
        if (status === 0 && (u8[byte] === 10 || u8[byte] === 9)) native.closeHandle(...place(f64[(byte >> 3) + 7]), false);
      }
    }
  };
  const enter = (submit, flags = 6) => {
    u32[0] = submit; u32[1] = 0; u32[4] = pick([512, 1, 64, 511]); u32[5] = flags; f64[1] = pick(numbers);
    port.enter();
    collect();
  };
  for (let round = 0; round < ${rounds}; round++) {
    const entries = [];
    const free = [];
    for (let slot = 0; slot < 100 && free.length < 8; slot++) if (!outstanding.has(slot)) free.push(slot);
    const goods = free.map(goodEntry);
    goodStarts += goods.length;
    const hostiles = Array.from({ length: int(24) }, () => hostileEntry(round % 2 === 0));
    if (round % 2 === 0) entries.push(...goods, ...hostiles); else entries.push(...hostiles, ...goods);
    entries.forEach((entry, at) => write(at, entry));
    // Now and then the count lies, too: what lies behind is old entries, or noise, and beyond 1,024 nothing. Where generations wrap at
    // 16 an old entry may be a good one again, so there it is noise only.
    const lie = random() < 0.1;
    if (lie && (${narrow} || random() < 0.5)) {
      for (let at = (controlBytes + entries.length * entryBytes) >> 2; at < (controlBytes + maxSubmissions * entryBytes) >> 2; at++) u32[at] = int(2 ** 32);
    }
    enter(lie ? pick([entries.length + 5, 1024, 1025, 2 ** 31, 2 ** 32 - 1]) : entries.length, pick([6, 6, 6, 2, 4, 255 & ~1]));
    for (const [field, value] of [[1, pick(words)], [4, pick(words)], [5, pick(words) & ~8]]) if (random() < 0.02) {
      u32[0] = 0; u32[1] = 0; u32[4] = 512; u32[5] = 6; f64[1] = 0;
      if (field !== 1) u32[field] = value;
      port.enter();
      collect();
    }
    if (random() < 0.05) { f64[8] = 99; f64[9] = 1; f64[10] = 2; u32[22] = 2 ** 32 - 1; port.post(); }
  }
  const end = performance.now() + 4000;
  while ([...outstanding.keys()].some((slot) => slot < 100) && performance.now() < end) enter(0);
  if (goodEnds !== goodStarts) say(goodEnds + ' of ' + goodStarts + ' good reads ended');
  if (u32[12] === 0) say('no entry was refused');
  if (failures === 0) say('no hostile entry failed');
  for (const [index, generation] of handles) port.cancelHandle(index, generation, 1);
  for (let i = 0; i < 50; i++) enter(0);
  if (!canary.every((byte) => byte === 0x5a)) say('other shared memory was written to');
  await new Promise((resolve) => { port.close(resolve); });
  finish({ goodEnds, hostileEnds, failures, rejected: u32[12] });
  `;
}

/** Every function of the module and of a port, with any arguments, in any order, also after the close. */
export function anyCalls(path: string, calls: number): string {
  return `
  process.on('uncaughtException', (error) => { if (error !== given && error !== thrownBack) say('uncaught: ' + String(error)); });
  process.on('unhandledRejection', () => {});
  const given = new Error('given to fatalException');
  const thrownBack = new Error('thrown by a callback'); // an uncaught exception, as out of any callback
  const detached = new Uint8Array(64);
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  const trap = new Proxy({}, { get() { throw new Error('trap'); }, has() { throw new Error('trap'); }, ownKeys() { throw new Error('trap'); } });
  const values = [undefined, null, true, false, 0, 1, -1, 2, 3, 4, 6, 24, 64, 0.5, NaN, Infinity, -Infinity, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 53), 1e308, '', 'io_uring',
    '127.0.0.1', '::1%lo', '\\0', 'x'.repeat(100000), '\\ud800', Symbol('s'), 10n, () => {}, () => { throw thrownBack; }, {}, [], trap,
    new Uint8Array(0), new Uint8Array(24), new Uint8Array(23), new Uint8Array(blockBytes), new Uint8Array(new SharedArrayBuffer(blockBytes)),
    new Uint8Array(new SharedArrayBuffer(65536)), new Uint8Array(new SharedArrayBuffer(100), 1), new Float64Array(100), new DataView(new ArrayBuffer(64)),
    detached, new ArrayBuffer(64), new SharedArrayBuffer(65536), Buffer.from('/tmp'), ${JSON.stringify(path)}, new Date(), /x/, Object.create(null), given,
    { backend, maxOperations: 64, ringEntries: 8, concurrency: 1, inverted: false, disable: '' }];
  const live = [];
  const addPort = () => {
    const made = makePort({ maxOperations: 64, ringEntries: 8, arenaBytes: 65536 });
    // A post is there, so that an enter that is told to wait has something to find.
    made.f64[8] = 1; made.u32[22] = 2 ** 32 - 1; made.port.post();
    live.push({ ...made, closed: false });
  };
  addPort();
  let threw = 0, returned = 0;
  const functions = Object.keys(native).filter((name) => typeof native[name] === 'function');
  for (let i = 0; i < ${calls}; i++) {
    if (i % 97 === 0 && live.length < 12) addPort();
    const target = pick(live);
    const useModule = random() < 0.4;
    const object = useModule ? native : target.port;
    const name = pick(useModule ? functions : Object.keys(target.port).filter((each) => typeof target.port[each] === 'function'));
    const args = Array.from({ length: int(11) }, () => pick(values));
    if (name === 'close' && random() < 0.8) continue;
    // It looks at each handle of the process, and these calls leave thousands.
    if (name === 'countProcess' && process.platform === 'win32' && random() < 0.98) continue;
    if (name === 'fatalException') { native.fatalException(given); continue; }
    if (name === 'enter') {
      // Any counts and flags, but no wait that only another thread could end.
      const { u32, f64 } = target;
      u32[0] = pick([0, 0, 1, 5, 2000]); u32[1] = int(2); u32[4] = pick([0, 1, 512, 513, 2 ** 32 - 1]); u32[5] = int(16); f64[1] = pick([0, 1, -1, 0.5]);
    }
    try {
      const result = random() < 0.05 ? Reflect.construct(object[name], args) : Reflect.apply(object[name], pick([object, null, undefined, {}, 5]), args);
      returned++;
      if (name === 'createPort' && result?.error === undefined && typeof result?.close === 'function') result.close(() => {});
      if (name === 'closeHandle' && result > 0) say('closeHandle gave ' + result);
    } catch (error) {
      threw++;
      if (!(error instanceof Error)) say(name + ' threw ' + typeof error);
    }
    if (name === 'close') target.closed = true;
    if (i % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
    if (i % 500 === 0) globalThis.gc();
    if (live.length > 8 && i % 13 === 0) live.splice(int(live.length), 1);
  }
  if (threw === 0 || returned === 0) say('calls that threw ' + threw + ', returned ' + returned);
  // The process is well: an ordinary port works.
  const own = createPort();
  const file = FileHandle.openSync(${JSON.stringify(path)}, 'r');
  own.associate(file, 1);
  file.size();
  const packet = own.getSync(3000);
  if (packet?.result !== fs.statSync(${JSON.stringify(path)}).size) say('an ordinary operation afterwards');
  finish({ threw, returned });
  `;
}
