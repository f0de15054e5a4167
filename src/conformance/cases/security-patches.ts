// SEC-02's patches of the language, and the run of ordinary operations under each. A patch lies (about lengths, places, buffers) or
// listens (notes what it is called with). Under none may an operation touch memory that isn't its own, take the process down, or hand
// the port's private memory to the script. Not a family: it exports no cases.

/** JavaScript that patches. `lie(object, name, make)` replaces a getter or method; `listen(object, …names)` notes calls. */
export const patches: Readonly<Record<string, string>> = {
  'typed-array-lengths': `
    lie(TypedArray.prototype, 'byteLength', () => () => 2 ** 40);
    lie(TypedArray.prototype, 'length', () => () => 2 ** 31);
  `,
  'typed-array-places': `
    lie(TypedArray.prototype, 'byteOffset', () => () => 4096);
    lie(TypedArray.prototype, 'buffer', () => () => decoy);
  `,
  'negative-lengths': `
    lie(TypedArray.prototype, 'byteLength', () => () => -1);
    lie(TypedArray.prototype, 'byteOffset', () => () => NaN);
    lie(DataView.prototype, 'byteLength', () => () => -1);
    lie(DataView.prototype, 'byteOffset', () => () => Infinity);
  `,
  'data-view': `
    lie(DataView.prototype, 'byteLength', () => () => 2 ** 40);
    lie(DataView.prototype, 'byteOffset', () => () => 2 ** 33);
    lie(DataView.prototype, 'buffer', () => () => decoy);
  `,
  'array-buffers': `
    lie(ArrayBuffer.prototype, 'byteLength', () => () => 2 ** 40);
    lie(SharedArrayBuffer.prototype, 'byteLength', () => () => 2 ** 40);
    lie(ArrayBuffer, 'isView', () => () => true);
  `,
  tags: `
    lie(TypedArray.prototype, Symbol.toStringTag, () => () => 'Uint8Array');
    Object.defineProperty(ArrayBuffer.prototype, Symbol.toStringTag, { get: () => 'SharedArrayBuffer' });
    Object.defineProperty(Object.prototype, Symbol.toStringTag, { get: () => 'Uint8Array', configurable: true });
  `,
  'typed-array-methods': `
    listen(TypedArray.prototype, 'set', 'subarray', 'slice', 'fill', 'indexOf', 'copyWithin', 'at', 'values');
    listen(Uint8Array, 'from', 'of');
  `,
  constructors: `
    for (const name of ['Uint8Array', 'Uint32Array', 'Int32Array', 'Float64Array', 'SharedArrayBuffer', 'DataView', 'Map', 'Set', 'WeakMap']) {
      const Original = globalThis[name];
      globalThis[name] = new Proxy(Original, { construct(target, args, self) { note(args); return Reflect.construct(target, args, self === globalThis[name] ? target : self); } });
    }
  `,
  species: `
    Object.defineProperty(TypedArray, Symbol.species, { get() { return class extends Array { constructor(...args) { super(); note(args); } }; }, configurable: true });
    Object.defineProperty(Uint8Array, Symbol.species, { get() { return Float64Array; }, configurable: true });
    Object.defineProperty(Array, Symbol.species, { get() { throw new Error('species'); }, configurable: true });
    Object.defineProperty(Promise, Symbol.species, { get() { throw new Error('species'); }, configurable: true });
  `,
  iterators: `
    Array.prototype[Symbol.iterator] = function () { note([this]); throw new Error('iterator'); };
    TypedArray.prototype[Symbol.iterator] = function () { note([this]); throw new Error('iterator'); };
    Map.prototype[Symbol.iterator] = function () { note([this]); throw new Error('iterator'); };
    Set.prototype[Symbol.iterator] = function () { note([this]); throw new Error('iterator'); };
  `,
  'array-methods': `listen(Array.prototype, 'push', 'pop', 'shift', 'unshift', 'splice', 'slice', 'map', 'forEach', 'filter', 'indexOf', 'concat', 'fill', 'join');`,
  'array-accessors': `
    for (const index of [0, 1, 2, 5, 100]) Object.defineProperty(Array.prototype, index, { get() { return undefined; }, set(value) { note([this, value]);
      Object.defineProperty(this, index, { value, writable: true, configurable: true, enumerable: true }); }, configurable: true });
  `,
  functions: `
    listen(Function.prototype, 'call', 'apply', 'bind');
    listen(Reflect, 'apply', 'construct', 'get', 'ownKeys');
  `,
  maps: `
    listen(Map.prototype, 'get', 'set', 'has', 'delete', 'forEach');
    listen(Set.prototype, 'add', 'delete', 'has');
    listen(WeakMap.prototype, 'get', 'set', 'has');
  `,
  'maps-that-lie': `
    Map.prototype.get = () => ({ id: 0, uses: 0, byteLength: 2 ** 40, buffer: decoy, offset: 0 });
    WeakMap.prototype.get = () => ({ first: null });
    Map.prototype.has = () => true;
  `,
  numbers: `
    for (const name of ['isSafeInteger', 'isInteger', 'isFinite', 'isNaN']) Number[name] = () => true;
    for (const name of ['min', 'max', 'floor', 'ceil', 'clz32', 'round', 'trunc', 'log2']) Math[name] = () => 2 ** 40;
    Number.MAX_SAFE_INTEGER_ = 0;
  `,
  promises: `
    listen(Promise.prototype, 'then', 'catch', 'finally');
    globalThis.Promise = class extends Promise { constructor(run) { super((resolve, reject) => { note([resolve, reject]); run(resolve, reject); }); } };
    globalThis.queueMicrotask = () => {};
  `,
  'object-prototype': `
    for (const name of ['native', 'arena', 'slot', 'engine', 'buffer', 'memoryId', 'bytes', 'block', 'registration', 'index', 'generation', 'next', 'nextFree', 'error',
      'key', 'handle', 'kind', 'view', 'views'])
      Object.defineProperty(Object.prototype, name, { get() { return undefined; }, set(value) { note([this, value]);
        Object.defineProperty(this, name, { value, writable: true, configurable: true, enumerable: true }); }, configurable: true });
  `,
  signals: `
    lie(AbortSignal.prototype, 'aborted', () => () => { throw new Error('aborted'); });
    listen(EventTarget.prototype, 'addEventListener', 'removeEventListener');
  `,
  symbols: `
    Object.defineProperty(Object.prototype, Symbol.toPrimitive, { get() { throw new Error('toPrimitive'); }, configurable: true });
    for (const Class of [Uint8Array, Array, Promise, Error, URL, AbortSignal, SharedArrayBuffer, Map])
      Object.defineProperty(Class, Symbol.hasInstance, { value: () => true, configurable: true });
  `,
};

/** The script of a child that patches, and then works: every kind of buffer and a handful of operations, three times over. */
export function patchedRun(path: string, patch: string): string {
  return `
  import { readFileSync, writeSync } from 'node:fs';
  const content = readFileSync(${JSON.stringify(path)});
  const own = new Set(), wrong = [], noted = [];
  // Everything that this script itself needs, from before the patches.
  const { apply, defineProperty: define, getOwnPropertyDescriptor: describe, getPrototypeOf, construct, ownKeys } = Reflect;
  const TypedArray = getPrototypeOf(Uint8Array);
  const NoteArray = Array, U8 = Uint8Array, SAB = SharedArrayBuffer, AB = ArrayBuffer, DV = DataView, stringify = JSON.stringify;
  const lengthOf = describe(TypedArray.prototype, 'byteLength').get, bufferOf = describe(TypedArray.prototype, 'buffer').get;
  const isView = ArrayBuffer.isView, sharedLength = describe(SharedArrayBuffer.prototype, 'byteLength').get;
  const bufferOfData = describe(DataView.prototype, 'buffer').get, tagOf = describe(TypedArray.prototype, Symbol.toStringTag).get;
  const hasOwn = (set, value) => apply(has, set, [value]), has = Set.prototype.has, add = Set.prototype.add;
  const mine = (buffer) => { apply(add, own, [buffer]); return buffer; };
  const decoy = mine(new AB(65536));
  let patching = true, noting = 0;
  const inner = ['enter', 'registerMemory', 'arenaAllocate'];
  const say = (what) => { define(wrong, wrong.length, { value: what, writable: true, enumerable: true, configurable: true }); };
  /** A value that a patched function got to see: is it memory, or the inside of the port? */
  function look(value) {
    if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return;
    let buffer = null;
    if (apply(isView, null, [value])) buffer = apply(tagOf, value, []) === undefined ? apply(bufferOfData, value, []) : apply(bufferOf, value, []);
    else { try { apply(sharedLength, value, []); buffer = value; } catch {} }
    if (buffer !== null) {
      let shared = true;
      try { apply(sharedLength, buffer, []); } catch { shared = false; }
      if (shared && !hasOwn(own, buffer)) say('a patched function got shared memory of ' + apply(sharedLength, buffer, []) + ' bytes that isn’t the script’s');
      return;
    }
    for (let i = 0; i < inner.length; i++) {
      const property = describe(value, inner[i]);
      if (property !== undefined && typeof property.value === 'function') say('a patched function got the native port');
    }
  }
  function note(values) {
    if (patching || noting > 0) return;
    noting++;
    for (let i = 0; i < values.length; i++) look(values[i]);
    noting--;
  }
  function lie(object, name, make) {
    const old = describe(object, name);
    const replacement = make(old);
    define(object, name, old.get === undefined ? { ...old, value: replacement } : { ...old, get: replacement });
  }
  function listen(object, ...names) {
    for (let i = 0; i < names.length; i++) {
      const old = describe(object, names[i]);
      if (old === undefined) continue;
      const { value } = old;
      define(object, names[i], { ...old, value: function (...args) { note([this]); note(args); return apply(value, this, args); } });
    }
  }
  const port = createPort();
  mine(port.arena);
  const file = FileHandle.openSync(${JSON.stringify(path)}, 'r');
  port.associate(file, 1);
  const listener = TcpListener.listenSync({ port: 0 });
  port.associate(listener, 2);
  const a = TcpSocket.openSync();
  port.associate(a, 3);
  a.connect({ host: '127.0.0.1', port: listener.address.port });
  listener.accept();
  let b;
  for (let got = 0; got < 2; ) for (const packet of port.getManySync(2, 2000)) { got++; if (packet.kind === 'accept') b = packet.result; }
  port.associate(b, 4);
  /** A view whose own properties lie. */
  const lying = (buffer) => {
    const view = new U8(buffer, 32, 32);
    for (const [name, value] of [['byteLength', 2 ** 40], ['length', 2 ** 40], ['byteOffset', 0], ['buffer', decoy], ['constructor', SAB]]) define(view, name, { value });
    return view;
  };
  const makers = [
    () => { const buffer = mine(new AB(96)); return [buffer, new U8(buffer, 32, 32)]; },
    () => { const buffer = mine(new SAB(96)); return [buffer, new U8(buffer, 32, 32)]; },
    () => { const buffer = mine(new SAB(96)); return [buffer, new DV(buffer, 32, 32)]; },
    () => { const buffer = mine(new AB(96)); return [buffer, new DV(buffer, 32, 32)]; },
    () => { const block = port.allocate(96); return [null, block, block]; },
    () => { const buffer = mine(new AB(96)); return [buffer, lying(buffer)]; },
  ];
  const { exit } = process;
  const next = () => port.getSync(3000);
  let rounds = 0;
  const sum = [];
  const finish = () => { writeSync(1, stringify({ wrong, rounds }) + '\\n'); exit(0); };
  const controller = new AbortController();
  const codes = ['ERR_INVALID_ARG_TYPE', 'ERR_INVALID_ARG_VALUE', 'ERR_OUT_OF_RANGE', 'ERR_BUFFER_DETACHED', 'ENOBUFS'];
  /** A start may be refused under a patch, with a proper error or the patch's own, but then nothing is started. */
  const attempt = (start) => {
    const before = port.inFlight;
    try { start(); return true; } catch (error) {
      if (port.inFlight !== before) say('a start threw and left ' + port.inFlight + ' operations in flight');
      return false;
    }
  };
  // The views are made before the language is patched: what they are is beyond doubt.
  const prepared = [];
  for (let round = 0; round < 3; round++) for (let i = 0; i < makers.length; i++) prepared.push(makers[i]());
  {${patch}}
  patching = false;
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < makers.length; i++) {
      const { 0: buffer, 1: view, 2: block } = prepared[round * makers.length + i];
      const position = round * 100 + i;
      if (attempt(() => file.read(view, { position, length: 32 }))) {
        const packet = next();
        if (packet === null) { say('a packet is missing'); break; }
        if (packet.error !== null || packet.bytesTransferred !== 32) {
          if (packet.error === null || packet.bytesTransferred !== 0) say('a read of 32 bytes: ' + packet.bytesTransferred + ' ' + packet.error?.code);
        } else {
          const bytes = buffer === null ? view : new U8(buffer, 32, 32);
          noting++;
          for (let j = 0; j < 32; j++) if (bytes[j] !== content[position + j]) { say('byte ' + j + ' of a read into view ' + i); break; }
          if (buffer !== null) {
            const all = new U8(buffer, 0, 96);
            for (let j = 0; j < 96; j++) if ((j < 32 || j >= 64) && all[j] !== 0) { say('memory around view ' + i + ' was written to'); break; }
          }
          noting--;
        }
      }
      // More than there is must be refused, whatever the language says of the view now; or moves no more than there is.
      if (block === undefined && attempt(() => file.read(view, { position: 0, offset: 16, length: 4096 }))) {
        say('a read beyond view ' + i + ' was started');
        next();
      }
      if (attempt(() => a.send(view, { length: 32 }))) {
        const sent = next();
        if (sent === null || sent.bytesTransferred > 32) say('a send of 32 bytes: ' + sent?.bytesTransferred);
        const target = new U8(64);
        if (sent !== null && sent.bytesTransferred > 0 && attempt(() => b.recv(target, { offset: 0, length: 64 }))) {
          const packet = next();
          if (packet === null || packet.bytesTransferred > 32) say('a recv of what was sent: ' + packet?.bytesTransferred);
        }
      }
    }
    if (attempt(() => a.recv(new U8(8), { signal: controller.signal, timeout: 1 }))) next();
    try { port.post(5, 6); if (next()?.key !== 5) say('a post'); } catch (error) { say('post threw ' + error); }
    try { port.release(port.allocate(64)); } catch (error) { if (typeof error?.code !== 'string') sum.length = 0; }
    rounds++;
  }
  // A promise, where the patch leaves promises alone: it settles, or the child is over all the same.
  port.post(1);
  setTimeout(finish, 100);
  try { port.get({ timeout: 50 }).then(finish, finish); } catch { finish(); }
  `;
}
