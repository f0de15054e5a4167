// Reads what a check needs to know of a 64-bit Mach-O file: its kind, for which macOS it is, and its symbols. Names and numbers are those of
// macOS's <mach-o/loader.h> and <mach-o/nlist.h>.

import { readFileSync } from 'node:fs';

const magic64 = 0xfeedfacf;
const cpus = { 16777228: 'arm64', 16777223: 'x86_64' }; // CPU_ARCH_ABI64 (0x1000000) and 12 or 7
const fileTypes = { 2: 'MH_EXECUTE', 6: 'MH_DYLIB', 8: 'MH_BUNDLE' };
const [symtab, loadDylib, versionMin, buildVersion] = [0x2, 0xc, 0x24, 0x32];
const [nExternal, nType, nUndefined, nDebug, nWeakDefinition] = [0x01, 0x0e, 0x00, 0xe0, 0x0080];

const dotted = (number) => `${number >>> 16}.${(number >>> 8) & 0xff}`;

/** `{ cpu, fileType, minos, libraries, exported, imported, weak }`; throws where the file is none of the kind. */
export function readMachO(file) {
  const bytes = readFileSync(file);
  const text = (from) => bytes.toString('latin1', from, bytes.indexOf(0, from));
  if (bytes.length < 32 || bytes.readUInt32LE(0) !== magic64) throw new Error(`${file} is no 64-bit Mach-O file`);
  const result = {
    cpu: cpus[bytes.readUInt32LE(4)] ?? 'unknown',
    fileType: fileTypes[bytes.readUInt32LE(12)] ?? `${bytes.readUInt32LE(12)}`,
    minos: null,
    libraries: [],
    exported: [],
    imported: [],
    weak: [],
  };
  let at = 32;
  for (let left = bytes.readUInt32LE(16); left > 0; left--) {
    const command = bytes.readUInt32LE(at);
    if (command === buildVersion) result.minos = dotted(bytes.readUInt32LE(at + 12));
    if (command === versionMin) result.minos = dotted(bytes.readUInt32LE(at + 8));
    if (command === loadDylib) result.libraries.push(text(at + bytes.readUInt32LE(at + 8)));
    if (command === symtab) {
      const [symbols, count, strings] = [8, 12, 16].map((offset) => bytes.readUInt32LE(at + offset));
      for (let i = 0; i < count; i++) {
        const entry = symbols + i * 16;
        const [type, described] = [bytes[entry + 4], bytes.readUInt16LE(entry + 6)];
        if ((type & nDebug) !== 0 || (type & nExternal) === 0) continue;
        const name = text(strings + bytes.readUInt32LE(entry));
        if ((type & nType) === nUndefined) result.imported.push(name);
        else (described & nWeakDefinition ? result.weak : result.exported).push(name);
      }
    }
    at += bytes.readUInt32LE(at + 4);
  }
  return result;
}
