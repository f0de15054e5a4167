// The files of one folder as HTTP sees them: which file a target means, its type and entity tag, and what conditions and
// ranges make of it. A target never leads out of the folder: every segment is a plain name, and what the names and symbolic
// links on the way lead to is looked up and has to lie inside.

import { realpath, stat } from 'node:fs/promises';
import { extname, join, sep } from 'node:path';
import { httpDate, listsTag, parseDate, parseRange, RequestError } from './http.mjs';

const types = {
  '.css': 'text/css; charset=utf-8',
  '.csv': 'text/csv; charset=utf-8',
  '.gif': 'image/gif',
  '.html': 'text/html; charset=utf-8',
  '.ico': 'image/x-icon',
  '.jpeg': 'image/jpeg',
  '.jpg': 'image/jpeg',
  '.js': 'text/javascript; charset=utf-8',
  '.json': 'application/json',
  '.map': 'application/json',
  '.md': 'text/markdown; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.mp3': 'audio/mpeg',
  '.mp4': 'video/mp4',
  '.pdf': 'application/pdf',
  '.png': 'image/png',
  '.svg': 'image/svg+xml',
  '.ts': 'text/plain; charset=utf-8',
  '.txt': 'text/plain; charset=utf-8',
  '.wasm': 'application/wasm',
  '.webp': 'image/webp',
  '.woff2': 'font/woff2',
  '.xml': 'application/xml',
  '.zip': 'application/zip',
};

export const typeOf = (path) => types[extname(path).toLowerCase()] ?? 'application/octet-stream';

/**
 * Splits a request's target into decoded names.
 * @param {string} target `/a/b?query`, or the absolute form that proxies use
 * @returns {{segments: string[], folder: boolean, query: string}} folder: the target ends in a slash
 */
export function parseTarget(target) {
  const path = /^https?:\/\/[^/?#]*/i.test(target) ? target.replace(/^https?:\/\/[^/?#]*/i, '') || '/' : target;
  if (!path.startsWith('/')) throw new RequestError(400, 'not a path');
  const [, encoded, query] = /^([^?#]*)(\?[^#]*)?/.exec(path);
  let segments;
  try {
    segments = encoded.split('/').map(decodeURIComponent);
  } catch {
    throw new RequestError(400, 'a path that is not percent-encoded UTF-8');
  }
  const folder = segments.at(-1) === '';
  // A run of slashes is one: a redirect that began with two would lead to another host.
  segments = segments.filter((segment) => segment !== '');
  for (const segment of segments) {
    const plain =
      segment !== '.' && segment !== '..' && !segment.includes('/') && !segment.includes(sep) && !segment.includes('\0');
    if (!plain) throw new RequestError(404, 'not a name');
  }
  return { segments, folder, query: query ?? '' };
}

/** The target of a path's segments, encoded again. */
export const encodeSegments = (segments, folder) =>
  `/${segments.map(encodeURIComponent).join('/')}${folder && segments.length > 0 ? '/' : ''}`;

/**
 * What a path inside the folder is.
 * @param {string} root the folder, its own links resolved already
 * @returns {Promise<{path: string, stat: import('node:fs').BigIntStats}>} the path with every link resolved
 */
export async function lookUp(root, segments) {
  const path = await realpath(join(root, ...segments));
  if (path !== root && !path.startsWith(root === sep ? sep : root + sep)) throw new RequestError(404, 'outside the folder');
  return { path, stat: await stat(path, { bigint: true }) };
}

/** A strong entity tag: another one as soon as the file's content can be another. */
export const tagOf = (entry, size) => `"${entry.ino.toString(36)}-${size.toString(36)}-${entry.mtimeNs.toString(36)}"`;

/**
 * The status and fields of a response for a file, and the part of it to send, after the request's conditions (RFC 9110, 13.2.2)
 * and range.
 * @returns {{status: number, fields: Record<string, string | number>, start: number, end: number}}
 */
export function answerForFile({ method, fields: asked }, { path, stat: entry, size }) {
  const tag = tagOf(entry, size);
  const modified = Math.floor(Number(entry.mtimeMs) / 1000) * 1000;
  const fields = { 'Last-Modified': httpDate(modified), ETag: tag, 'Cache-Control': 'no-cache' };

  const match = asked.get('if-match');
  const unmodified = parseDate(asked.get('if-unmodified-since'));
  if (match !== undefined ? !listsTag(match, tag, false) : unmodified !== undefined && modified > unmodified) {
    return { status: 412, fields: { ...fields, 'Content-Length': 0 }, start: 0, end: 0 };
  }
  const noneMatch = asked.get('if-none-match');
  const since = parseDate(asked.get('if-modified-since'));
  if (noneMatch !== undefined ? listsTag(noneMatch, tag, true) : since !== undefined && modified <= since) {
    return { status: 304, fields, start: 0, end: 0 };
  }

  Object.assign(fields, { 'Content-Type': typeOf(path), 'Accept-Ranges': 'bytes' });
  const ifRange = asked.get('if-range');
  const current = ifRange === undefined || ifRange === tag || parseDate(ifRange) === modified;
  const range = method === 'GET' && current && asked.has('range') ? parseRange(asked.get('range'), size) : null;
  if (range === 'none') {
    return { status: 416, fields: { ...fields, 'Content-Range': `bytes */${size}`, 'Content-Length': 0 }, start: 0, end: 0 };
  }
  if (range !== null) {
    fields['Content-Range'] = `bytes ${range.start}-${range.end - 1}/${size}`;
    fields['Content-Length'] = range.end - range.start;
    return { status: 206, fields, ...range };
  }
  fields['Content-Length'] = size;
  return { status: 200, fields, start: 0, end: size };
}

/** The status for a failure of the file system. */
export function statusOf(error) {
  if (error instanceof RequestError) return error.status;
  switch (error.code) {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ENAMETOOLONG':
    case 'ELOOP':
    case 'ERR_NOT_A_FILE':
      return 404;
    case 'EACCES':
    case 'EPERM':
      return 403;
    case 'EMFILE':
    case 'ENFILE':
    case 'ENOMEM':
      return 503;
    default:
      return 500;
  }
}
