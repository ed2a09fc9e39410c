/** Requests to an upres server and to its object store: their fields, retries, time limits, and what an answer means. */

export const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const RETRY_STATUSES = new Set([429, 502, 503, 504]);
const MAX_WAIT_MS = 60_000;
const ANSWER_MS = 60_000; // for an answer; a body gets more
const BODY_BYTES_PER_MS = 10; // of the slowest upload

export class UpresError extends Error {
  constructor(message, { code = "server_unreachable", status = 0, retryable = true } = {}) {
    super(message);
    Object.assign(this, { name: "UpresError", code, status, retryable });
  }
}

/** Request until an answer is final. `isExpected` tells an answer of upres from that of another program. */
export async function request(method, url, isExpected, { key, body, headers, onWait = () => {}, signal } = {}) {
  // upres never redirects these requests, and a key must not follow a redirect: older browsers send it to any host.
  const redirect = key ? "manual" : "follow";
  const sent = { method, headers: allHeaders(headers, body, key), body: body && JSON.stringify(body), redirect };
  for (let attempt = 0; ; attempt++) {
    const last = method === "GET" || attempt === RETRY_MS.length;
    const response = await answered(url, sent, signal);
    if (!response) {
      if (last) throw new UpresError("The server does not answer. Check the connection and try again.");
      await pause(RETRY_MS[attempt], signal);
      continue;
    }
    if (response.ok && isExpected(response.body)) return response.body;
    const asked = retryAfter(response);
    if (last || !RETRY_STATUSES.has(response.status) || asked > MAX_WAIT_MS) throw problem(response);
    const wait = Math.max(RETRY_MS[attempt], asked);
    onWait(wait);
    await pause(wait, signal);
  }
}

function allHeaders(given, body, apiKey) {
  const json = body ? { "Content-Type": "application/json" } : {};
  const key = apiKey ? { Authorization: `Bearer ${apiKey.trim()}` } : {};
  try {
    return new Headers({ ...given, ...json, ...key });
  } catch {
    const text = "The API key has a character that no API key has, perhaps a quotation mark; copy it again.";
    throw new UpresError(text, { code: "unauthorized", retryable: false });
  }
}

/** An object from JSON; an empty one if the text is anything else. */
export function fromJson(text) {
  try {
    return Object(JSON.parse(text) ?? {});
  } catch {
    return {};
  }
}

/** The whole response to a request, with its body from JSON; undefined if none came in time. Rejects when aborted. */
async function answered(url, sent, signal) {
  signal?.throwIfAborted();
  const controller = new AbortController();
  const stop = () => controller.abort();
  const timer = setTimeout(stop, ANSWER_MS + (sent.body ?? "").length / BODY_BYTES_PER_MS);
  signal?.addEventListener("abort", stop);
  try {
    const response = await fetch(url, { ...sent, signal: controller.signal });
    const { ok, status, headers } = response;
    return { ok, status, headers, body: fromJson(await response.text()) };
  } catch {
    signal?.throwIfAborted();
    return undefined;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

/** The error in a response (RFC 9457). */
function problem(response) {
  const { status, body: { code, detail, retryable } } = response;
  if (!response.ok && code && typeof detail === "string") return new UpresError(detail, { code, status, retryable });
  return strange(response);
}

/** The error for a response of a proxy or another server, not of upres. */
export function strange({ status }) {
  const answer = status || "with a redirect"; // a browser hides the status of a redirect that is not followed
  const text = `The server answered ${answer}, and not as upres does. Try again later.`;
  return new UpresError(text, { code: "http_error", status, retryable: RETRY_STATUSES.has(status) });
}

/** Milliseconds of the Retry-After header (RFC 9110, 10.2.3). */
function retryAfter(response) {
  const value = response.headers.get("Retry-After") ?? "";
  return Number(value) * 1000 || Date.parse(value) - Date.now() || 0;
}

/** PUT a file. Only XMLHttpRequest reports the progress of an upload; Node.js and service workers do not have it. */
export async function put(url, blob, onUpload, signal) {
  signal?.throwIfAborted(); // between two requests nothing else notices it
  const send = typeof XMLHttpRequest === "undefined" ? putByFetch : putByXhr;
  const stored = await send(url, blob, onUpload, signal);
  if (!stored) throw new UpresError("The upload broke off. Check the connection and try again.");
}

async function putByFetch(url, blob, onUpload, signal) {
  const response = await fetch(url, { method: "PUT", body: blob, signal }).catch(() => signal?.throwIfAborted());
  if (response?.ok) onUpload(blob.size, blob.size);
  return response?.ok;
}

function putByXhr(url, blob, onUpload, signal) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const stop = () => request.abort();
    request.open("PUT", url);
    request.upload.onprogress = ({ loaded, total }) => onUpload(loaded, total);
    request.onload = () => resolve(request.status >= 200 && request.status < 300);
    request.onerror = () => resolve(false);
    request.onabort = () => reject(signal.reason);
    request.onloadend = () => signal?.removeEventListener("abort", stop);
    signal?.addEventListener("abort", stop);
    request.send(blob);
  });
}

export function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => (clearTimeout(timer), reject(signal.reason));
    const timer = setTimeout(() => (signal?.removeEventListener("abort", stop), resolve()), milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Throw unless it is a File or Blob that can be sent. */
export function checkFile(image) {
  if (!(image instanceof Blob)) throw unreadable();
  if (!image.size) throw new UpresError("The file is empty.", { code: "not_an_image", retryable: false });
}

/** The field with the name of a file, if it has one. */
export const nameOf = ({ name }) => (name ? { image_name: name } : {});

export async function base64(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer().catch(() => { throw unreadable(); }));
  const pieces = [];
  for (let at = 0; at < bytes.length; at += 32_768) { // as many arguments as every engine allows
    pieces.push(String.fromCharCode(...bytes.subarray(at, at + 32_768)));
  }
  return btoa(pieces.join(""));
}

/** The fields of a size; what is undefined is not sent. */
export function sizeOf({ factor, width, height, fit }) {
  const wanted = factor ?? (width || height ? undefined : 4);
  return { upscale_factor: wanted, output_width: width, output_height: height, fit };
}

function unreadable() {
  return new UpresError("The file cannot be read; choose it again.", { code: "unreadable", retryable: false });
}
