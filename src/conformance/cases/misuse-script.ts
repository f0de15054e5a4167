// The script of ERR-03/order's child: random public calls on random objects with random values, in whatever state those are by then. It
// is a process of its own, so that a crash or a hang is a failed case. Plain JavaScript. Not a family: it exports no cases.

export function anyOrder(path: string, folder: string, seed: number, calls: number, eventLoops: readonly string[]): string {
  return `
  let seed = ${seed};
  const random = () => { seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0; return seed / 2 ** 32; };
  const int = (n) => Math.floor(random() * n);
  const pick = (list) => list[int(list.length)];
  const wrong = [];
  const say = (what) => { if (wrong.length < 8) wrong.push(what); };
  const thrownBack = new Error('thrown by a callback');
  process.on('uncaughtException', (error) => { if (error !== thrownBack) say('uncaught: ' + error?.stack); });
  process.on('unhandledRejection', () => {}); // of gets and iterators that nobody waits for
  process.on('warning', () => {});
  process.chdir(${JSON.stringify(folder)});
  const detached = new Uint8Array(8);
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  const trap = new Proxy({}, { get() { throw thrownBack; }, has() { throw thrownBack; }, ownKeys() { throw thrownBack; } });
  const controller = new AbortController();
  const listening = TcpListener.listenSync({ port: 0 });
  const address = { host: '127.0.0.1', port: listening.address.port };
  const views = () => pick([new Uint8Array(int(100)), new Uint8Array(new SharedArrayBuffer(int(100))), Buffer.alloc(10), new DataView(new ArrayBuffer(8)),
    detached, new Float64Array(3), new Uint8Array(200000)]);
  const ports = [], handles = [], operations = [];
  const options = () => {
    const made = {};
    for (const [name, values] of Object.entries({ position: [0, 3, 100, -1, 2 ** 40], offset: [0, 1, 5, 1e9], length: [0, 1, 4, 1e9, '1'], timeout: [0, 1, 5, NaN, Infinity],
      signal: [controller.signal, AbortSignal.abort(), {}, new AbortController().signal], id: [0, 1, 2 ** 53 - 1, -1], how: ['read', 'write', 'both', 'x'],
      key: [0, 1, 2 ** 53 - 1, 0.5], mode: [0o600, -1], reset: [true, false, 1] }))
      if (random() < 0.3) made[name] = pick(values);
    return made;
  };
  const any = () => pick([
    () => undefined, () => null, () => int(100), () => pick([-1, 0.5, NaN, Infinity, 2 ** 31, 2 ** 53]), () => pick(['', 'r', 'text', '127.0.0.1']), views, views, views,
    () => [views(), views()], () => [5], options, options, options, options, () => pick(operations), () => pick(operations), () => pick(handles), () => pick(handles),
    () => pick(ports), () => address, () => () => {}, () => () => { throw thrownBack; }, () => trap, () => Symbol('s'), () => 5n, () => ${JSON.stringify(path)}, () => true,
  ])();
  const addPort = () => ports.push(createPort({ maxOperations: pick([1, 4, 64, 1024]), arenaBytes: pick([0, 65536, 2 ** 20]), ringEntries: pick([8, 64]),
    eventLoop: pick(${JSON.stringify(eventLoops)}) }));
  const addHandle = () => {
    const made = pick([() => FileHandle.openSync(${JSON.stringify(path)}, 'r+'), () => TcpSocket.openSync(), () => TcpListener.listenSync({ port: 0 })])();
    handles.push(made);
    const port = pick(ports);
    if (random() < 0.8 && !port.isClosed) port.associate(made, int(5));
  };
  addPort(); addPort(); addHandle(); addHandle();
  for (let i = 0; i < 10; i++) operations.push(new Operation(i, { id: i }));
  const namesOf = (object) => {
    const names = [];
    for (let at = Object.getPrototypeOf(object); at !== null && at !== Object.prototype; at = Object.getPrototypeOf(at))
      for (const name of Reflect.ownKeys(at)) if (name !== 'constructor') names.push(name);
    return names;
  };
  let threw = 0, returned = 0;
  const keep = (result) => {
    if (result === null || typeof result !== 'object') return;
    if (result instanceof Operation) { if (operations.length < 200) operations.push(result); else operations[int(200)] = result; }
    else if (result instanceof Promise) result.then(keep, () => {});
    else if (Array.isArray(result)) result.forEach(keep);
    else if ('bytesTransferred' in result && typeof result.result?.close === 'function') {
      if (handles.length < 60) handles.push(result.result); else result.result.close();
    } else if (typeof result.next === 'function') { result.next().then(keep, () => {}); if (random() < 0.5) result.return(); }
    else if (typeof result.stop === 'function' && random() < 0.7) result.stop();
  };
  for (let i = 0; i < ${calls}; i++) {
    if (i % 61 === 0 && ports.length < 6) addPort();
    if (i % 11 === 0 && handles.length < 40) addHandle();
    const object = pick(pick([ports, handles, handles, handles, operations]));
    const name = pick(namesOf(object));
    const args = Array.from({ length: int(4) }, any);
    if ((name === 'close' || name === Symbol.dispose) && random() < 0.85) continue;
    // A wait in this thread that nothing would end is no misuse: it gets a limit.
    if (name === 'getSync') args[0] = pick([0, 0.1, 1, -1, 'x', null]);
    if (name === 'getManySync') { args[0] = pick([1, 5, 1000, 0, null]); args[1] = pick([0, 0.1, 1, -1, 'x']); }
    try {
      const descriptor = (() => { for (let at = object; at !== null; at = Object.getPrototypeOf(at)) { const own = Reflect.getOwnPropertyDescriptor(at, name); if (own) return own; } })();
      if (descriptor.set !== undefined && random() < 0.3) object[name] = any();
      else if (typeof descriptor.value === 'function') keep(Reflect.apply(descriptor.value, object, args));
      else void object[name];
      returned++;
    } catch (error) {
      threw++;
      if (error === thrownBack) continue;
      if (!(error instanceof Error)) say(String(name) + ' threw ' + typeof error);
      else if (typeof error.code !== 'string') say(String(name) + '(' + args.map((each) => typeof each) + ') threw without a code: ' + error.stack);
    }
    if (i % 40 === 0) await new Promise((resolve) => setImmediate(resolve));
    if (i % 700 === 0) globalThis.gc();
    if (ports.length > 4 && i % 97 === 0) { const [port] = ports.splice(int(ports.length), 1); port.close(); }
    if (handles.length > 30 && i % 5 === 0) { const [handle] = handles.splice(int(handles.length), 1); handle.close(); }
  }
  for (const handle of handles) handle.close();
  const limit = setTimeout(() => { say('a port is not closed after 5 s'); finish(); }, 5000);
  for (const port of ports) { port.close(); await port.closed; }
  clearTimeout(limit);
  const own = createPort();
  const file = FileHandle.openSync(${JSON.stringify(path)}, 'r');
  own.associate(file, 1);
  file.size();
  if (own.getSync(3000)?.error !== null) say('an ordinary operation afterwards');
  finish();
  function finish() { console.log(JSON.stringify({ wrong, threw, returned })); process.exit(0); }
  `;
}
