// The built-in functions that this package relies on, taken once when it is loaded. A script that patches a prototype later can
// neither lie to us about where a buffer lies and how long it is, nor run its code in the middle of ours. Internal code uses these
// and index loops; it never iterates (Symbol.iterator can be patched) and never reads `byteLength` and its like off a view.

type Getter<T> = (target: object) => T;

const { getOwnPropertyDescriptor, getPrototypeOf } = Object;
const { bind, call } = Function.prototype;

/** Turns a method into a function that takes its receiver as the first argument, without looking anything up when called. */
const uncurryThis = bind.bind(call) as <T, A extends unknown[], R>(
  method: (this: T, ...args: A) => R,
) => (self: T, ...args: A) => R;

function getter<T>(prototype: object, name: string | symbol): Getter<T> {
  const descriptor = getOwnPropertyDescriptor(prototype, name);
  if (descriptor?.get === undefined) throw new Error(`this runtime has no getter ${String(name)}`);
  return uncurryThis(descriptor.get as (this: object) => T);
}

const typedArrayPrototype = getPrototypeOf(Uint8Array.prototype) as Uint8Array;

export const ArrayIsArray = Array.isArray;
export const ArrayBufferIsView = ArrayBuffer.isView;
export const ArrayBufferPrototype: object = ArrayBuffer.prototype;
export const MathCeil = Math.ceil;
export const MathFloor = Math.floor;
export const MathMax = Math.max;
export const MathMin = Math.min;
export const NumberIsSafeInteger = Number.isSafeInteger as (value: unknown) => value is number;
export const ObjectHasOwn = Object.hasOwn;
export const ObjectGetPrototypeOf = getPrototypeOf as (value: object) => object | null;
/** Asks the promise for its `constructor`, which a script may have put a getter on: see settledPromise. */
export const PromiseThen = uncurryThis(Promise.prototype.then) as (
  promise: Promise<void>,
  fulfilled: () => void,
) => Promise<void>;
export const ObjectSetPrototypeOf = Object.setPrototypeOf as <T>(value: T, prototype: null) => T;
export const StringIncludes = uncurryThis(String.prototype.includes) as (text: string, part: string) => boolean;
export const StringSlice = uncurryThis(String.prototype.slice) as (text: string, from: number, to: number) => string;

/** 'Uint8Array' and so on; undefined for a DataView. */
export const TypedArrayTag = getter<string | undefined>(typedArrayPrototype, Symbol.toStringTag);
export const TypedArrayBuffer = getter<ArrayBufferLike>(typedArrayPrototype, 'buffer');
export const TypedArrayByteOffset = getter<number>(typedArrayPrototype, 'byteOffset');
/** 0 for a view whose buffer was detached, or shrunk so that the view lies outside it. */
export const TypedArrayByteLength = getter<number>(typedArrayPrototype, 'byteLength');
/** Throws on a detached or out-of-bounds view, even an empty one. */
export const TypedArrayIndexOf = uncurryThis(typedArrayPrototype.indexOf) as (view: object, value: number) => number;
export const Uint8ArraySet = uncurryThis(typedArrayPrototype.set) as (
  target: Uint8Array,
  source: Uint8Array,
  offset?: number,
) => void;
export const DataViewBuffer = getter<ArrayBufferLike>(DataView.prototype, 'buffer');
/** These two throw on a view whose buffer was detached or shrunk. */
export const DataViewByteOffset = getter<number>(DataView.prototype, 'byteOffset');
export const DataViewByteLength = getter<number>(DataView.prototype, 'byteLength');
export const SharedArrayBufferByteLength = getter<number>(SharedArrayBuffer.prototype, 'byteLength');

type Listen = (target: object, type: string, listener: () => void) => void;
export const EventTargetAdd = uncurryThis(EventTarget.prototype.addEventListener) as unknown as Listen;
export const EventTargetRemove = uncurryThis(EventTarget.prototype.removeEventListener) as unknown as Listen;

let signalAborted: Getter<boolean> | undefined;
let signalReason: Getter<unknown> | undefined;
/** These two throw for what is no AbortSignal. Node loads that class when it is first named, so it isn't named before it is needed. */
export function AbortSignalAborted(signal: object): boolean {
  signalAborted ??= getter<boolean>(AbortSignal.prototype, 'aborted');
  return signalAborted(signal);
}
export function AbortSignalReason(signal: object): unknown {
  signalReason ??= getter<unknown>(AbortSignal.prototype, 'reason');
  return signalReason(signal);
}

const mapPrototype = Map.prototype;
export const MapGet = uncurryThis(mapPrototype.get) as <K, V>(map: Map<K, V>, key: K) => V | undefined;
export const MapSet = uncurryThis(mapPrototype.set) as <K, V>(map: Map<K, V>, key: K, value: V) => void;
export const MapDelete = uncurryThis(mapPrototype.delete) as <K, V>(map: Map<K, V>, key: K) => boolean;
export const SetAdd = uncurryThis(Set.prototype.add) as <T>(set: Set<T>, value: T) => void;
export const SetDelete = uncurryThis(Set.prototype.delete) as <T>(set: Set<T>, value: T) => boolean;
export const WeakMapGet = uncurryThis(WeakMap.prototype.get) as <K extends WeakKey, V>(
  map: WeakMap<K, V>,
  key: K,
) => V | undefined;
export const WeakMapSet = uncurryThis(WeakMap.prototype.set) as <K extends WeakKey, V>(
  map: WeakMap<K, V>,
  key: K,
  value: V,
) => void;

export const NativePromise = Promise;
/**
 * A fulfilled promise for PromiseThen, without a prototype: no patch of Promise.prototype is met on the way. (A property of its own
 * would do the same, but V8 makes every then() in the process slower once any promise has a `constructor`.)
 */
export const settledPromise: Promise<void> = ObjectSetPrototypeOf(Promise.resolve(), null);
export const NativeUint8Array = Uint8Array;
export const NativeInt32Array = Int32Array;
export const NativeSharedArrayBuffer = SharedArrayBuffer;
export const { setImmediate, setTimeout, clearTimeout } = globalThis;
