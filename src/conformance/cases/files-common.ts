// What the file cases share: the plain and the vectored form of reading and writing, and a read that is checked to the byte.
// Not a family: it exports no cases.

import type { Context, FileHandle, Operation, Port } from '../types.js';
import { type BufferKind, makeBuffer, moved, untouched } from './buffers.js';

/** Plain or vectored: both give the same bytes in the same places. */
export interface Form {
  read(file: FileHandle, view: Uint8Array, position: number): Operation;
  write(file: FileHandle, view: Uint8Array, position?: number): Operation;
}

/** Three parts of a view, of which the second is the largest; shorter ones where there is too little. */
export function inParts(view: Uint8Array): Uint8Array[] {
  const first = Math.min(3, view.length);
  const second = Math.max(first, view.length - 1);
  return [view.subarray(0, first), view.subarray(first, second), view.subarray(second)];
}

export const forms: { readonly plain: Form; readonly vectored: Form } = {
  plain: {
    read: (file, view, position) => file.read(view, { position }),
    write: (file, view, position) => file.write(view, { position }),
  },
  vectored: {
    read: (file, view, position) => file.readv(inParts(view), { position }),
    write: (file, view, position) => file.writev(inParts(view), { position }),
  },
};

/** A read of `length` bytes at `position` gives exactly `expected`, and changes nothing but those bytes. */
export function checkRead(
  t: Context,
  port: Port,
  form: Form,
  file: FileHandle,
  kind: BufferKind,
  position: number,
  length: number,
  expected: Uint8Array,
): void {
  const what = `reading ${length} bytes at ${position}`;
  const around = 8;
  const whole = makeBuffer(port, kind, length + 2 * around);
  const view = whole.subarray(around, around + length);
  moved(t, port, form.read(file, view, position), expected.length, what);
  t.sameBytes(view.subarray(0, expected.length), expected, what);
  untouched(t, whole.subarray(0, around), `${what}, before the buffer`);
  untouched(t, whole.subarray(around + expected.length), `${what}, behind what was read`);
  if (kind === 'arena') port.release(whole);
}
