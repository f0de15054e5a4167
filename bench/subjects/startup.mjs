// From the start of the process to the first packet: prints the CPU time and the time that it took, and ends.
//
// node bench/subjects/startup.mjs port|empty

if (process.argv[2] === 'port') {
  const { CompletionPort } = await import('completion-port');
  const port = CompletionPort.create();
  port.post(1);
  if (port.getSync().key !== 1) throw new Error('not the packet of the post');
}
const elapsedMs = performance.now(); // since the process began
const { user, system } = process.cpuUsage();
console.log(JSON.stringify({ operations: 1, seconds: elapsedMs / 1000, cpuNs: (user + system) * 1000, elapsedMs }));
process.exit(0);
