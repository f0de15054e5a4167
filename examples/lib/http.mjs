// HTTP/1.1 as far as a file server needs it (RFC 9110, RFC 9112): the head of a request out of bytes, the head of a
// response into them. Strict where leniency has helped attackers: no bare line feeds, no folded lines, no blank before a
// colon, one Host. It knows nothing of sockets or files.

export const statusTexts = {
  200: 'OK',
  206: 'Partial Content',
  301: 'Moved Permanently',
  304: 'Not Modified',
  400: 'Bad Request',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  412: 'Precondition Failed',
  414: 'URI Too Long',
  416: 'Range Not Satisfiable',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  503: 'Service Unavailable',
  505: 'HTTP Version Not Supported',
};

const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** Field values: printable, blanks, and bytes above ASCII; nothing that could end a line. */
const FIELD_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;
const TARGET = /^[\x21-\x7e\x80-\xff]+$/;
const CR = 13;
const LF = 10;
const MAX_TARGET = 8192;

/** A request that gets an error as its answer; the connection ends after it. */
export class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * Where the head of the request that begins at the start of `bytes` ends, behind its empty line; -1: it isn't whole yet.
 * @param {Buffer} bytes all that has come
 * @param {number} from how many of them were searched before
 */
export function endOfHead(bytes, from) {
  for (let at = bytes.indexOf(LF, from); at >= 0; at = bytes.indexOf(LF, at + 1)) {
    if (at === 0 || bytes[at - 1] !== CR) throw new RequestError(400, 'a line feed without its carriage return');
    if (at >= 3 && bytes[at - 2] === LF) return at + 1;
  }
  return -1;
}

/** How many bytes of empty lines stand before a request: some clients send one behind a body (RFC 9112, 2.2). */
export function blankLines(bytes) {
  let at = 0;
  while (bytes[at] === CR && bytes[at + 1] === LF) at += 2;
  return at;
}

/**
 * Reads a whole head.
 * @param {string} head its bytes as latin1, with the empty line
 * @returns {{method: string, target: string, version: string, fields: Map<string, string>, keepAlive: boolean, hasBody: boolean}}
 */
export function parseHead(head) {
  const lines = head.slice(0, -4).split('\r\n');
  const parts = lines[0].split(' ');
  const [method, target, version] = parts;
  if (parts.length !== 3 || !TOKEN.test(method) || !TARGET.test(target)) throw new RequestError(400, 'not a request line');
  if (!/^HTTP\/\d\.\d$/.test(version)) throw new RequestError(400, 'not a request line');
  if (version !== 'HTTP/1.1' && version !== 'HTTP/1.0') throw new RequestError(505, 'HTTP/1.1 and HTTP/1.0 are spoken here');
  if (target.length > MAX_TARGET) throw new RequestError(414, `a target of more than ${MAX_TARGET} bytes`);

  const fields = new Map();
  for (let index = 1; index < lines.length; index++) {
    const line = lines[index];
    const colon = line.indexOf(':');
    const name = line.slice(0, Math.max(colon, 0)).toLowerCase();
    const value = line.slice(colon + 1).replace(/^[\t ]+|[\t ]+$/g, '');
    if (!TOKEN.test(name) || !FIELD_VALUE.test(value)) throw new RequestError(400, 'not a header field');
    if (!fields.has(name)) fields.set(name, value);
    else if (name === 'host' || name === 'content-length') throw new RequestError(400, `${name} is given twice`);
    else fields.set(name, `${fields.get(name)}, ${value}`);
  }
  if (version === 'HTTP/1.1' && !fields.has('host')) throw new RequestError(400, 'Host is missing');

  const length = fields.get('content-length');
  if (length !== undefined && !/^\d+$/.test(length)) throw new RequestError(400, 'not a Content-Length');
  if (length !== undefined && fields.has('transfer-encoding'))
    throw new RequestError(400, 'Content-Length and Transfer-Encoding');
  const connection = (fields.get('connection') ?? '').toLowerCase().split(/[\t ]*,[\t ]*/);
  return {
    method,
    target,
    version,
    fields,
    keepAlive: !connection.includes('close') && (version === 'HTTP/1.1' || connection.includes('keep-alive')),
    hasBody: fields.has('transfer-encoding') || (length !== undefined && Number(length) > 0),
  };
}

/** The head of a response. Values that come from outside are encoded by who puts them in (Location) or are numbers. */
export function formatHead(status, fields) {
  let text = `HTTP/1.1 ${status} ${statusTexts[status]}\r\nDate: ${httpDate(Date.now())}\r\n`;
  for (const [name, value] of Object.entries(fields)) text += `${name}: ${value}\r\n`;
  return `${text}\r\n`;
}

let dateSecond = -1;
let dateText = '';

/** A time (ms) as HTTP writes it, e.g. `Tue, 15 Nov 1994 08:12:31 GMT`; the last one is remembered. */
export function httpDate(time) {
  const second = Math.floor(time / 1000);
  if (second !== dateSecond) {
    dateSecond = second;
    dateText = new Date(second * 1000).toUTCString();
  }
  return dateText;
}

/** An HTTP date as ms; undefined where it isn't one, and the field that had it is ignored. */
export function parseDate(text) {
  if (text === undefined) return undefined;
  const time = Date.parse(text);
  return /GMT$|\d{4}$/.test(text) && !Number.isNaN(time) ? time : undefined;
}

/** Whether a list of entity tags (`If-Match`, `If-None-Match`) has this one; `weakly`: W/ makes no difference. */
export function listsTag(list, tag, weakly) {
  if (list.trim() === '*') return true;
  for (const [whole, weak, opaque] of list.matchAll(/(W\/)?("[\x21\x23-\x7e\x80-\xff]*")/g)) {
    if (whole === tag || (weakly && weak !== undefined && opaque === tag)) return true;
  }
  return false;
}

/**
 * One range of a file of `size` bytes.
 * @param {string} text the value of `Range`
 * @returns {{start: number, end: number} | 'none' | null} end is exclusive; 'none': beyond the file; null: the whole file is
 *   to be sent, because this is no byte range, or more than one
 */
export function parseRange(text, size) {
  const match = /^bytes=[\t ]*(\d*)-(\d*)[\t ]*$/i.exec(text);
  if (match === null || (match[1] === '' && match[2] === '')) return null;
  if (match[1] === '') {
    const length = Math.min(Number(match[2]), size);
    return length === 0 ? 'none' : { start: size - length, end: size };
  }
  const start = Number(match[1]);
  const last = match[2] === '' ? Number.POSITIVE_INFINITY : Number(match[2]);
  if (last < start) return null;
  return start >= size ? 'none' : { start, end: Math.min(last + 1, size) };
}
