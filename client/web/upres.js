/**
 * upres in the browser: one module, no dependencies, for any page (docs/web.md).
 *
 *   import { Upres } from "https://upres.example.org/web/upres.js";
 *   const upres = new Upres();                       // the server that this file came from
 *   const job = await upres.submit(file, { factor: 4 });
 *   const result = await upres.subscribe(job, (event) => console.log(event.type, event.percent));
 *   image.src = result.sr_image_url;
 *
 * A job is a JSON object: keep it in localStorage, and `subscribe` continues after a reload. Methods reject with an
 * UpresError, which has the server's stable `code` and a message for users.
 */

const INLINE_BYTES = 4_000_000; // Lambda accepts bodies of up to 6 MB, and base64 makes a file a third larger
const STREAMS = 3; // with HTTP/1.1 a browser opens six connections to a host, for all tabs; other jobs are polled
const POLL_MS = 2000;
const MAX_WAIT_MS = 60_000;
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const RETRY_STATUSES = new Set([429, 502, 503, 504]);
const ENDED = new Set(["succeeded", "failed", "cancelled"]);

export class UpresError extends Error {
  constructor(message, { code = "server_unreachable", status = 0, retryable = true } = {}) {
    super(message);
    Object.assign(this, { name: "UpresError", code, status, retryable });
  }
}

export class Upres {
  #base;
  #streams = new Set();

  /** `base`: URL of the server, by default the one that served this file. `key`: an API key, if it needs one. */
  constructor(base = ownServer(), { key = "" } = {}) {
    this.#base = base.replace(/\/+$/, "");
    this.key = key;
  }

  /**
   * Submit a File, a Blob, or the URL of an image. Returns the job.
   *
   * Options: factor (2, 4, 8), model, version, format ("auto", "png", "jpeg", "webp"), preview, webhook;
   * onUpload(sent, total) is called during the upload of a file of more than 4 MB; onWait(milliseconds) before a retry;
   * signal aborts.
   */
  async submit(image, options = {}) {
    const { factor = 4, model, version, format = "auto", preview = false, webhook, onWait, signal } = options;
    const fields = { upscale_factor: factor, output_format: format, preview };
    if (model) fields.model = model;
    if (version) fields.model_version = version;
    if (webhook) fields.webhook_url = webhook;
    Object.assign(fields, await this.#imageFields(image, options));
    const headers = { "Idempotency-Key": [...crypto.getRandomValues(new Uint32Array(4))].join("-") };
    return this.#call("POST", "/v1/jobs", { body: fields, headers, onWait, signal });
  }

  /**
   * Receive a job's events, from the first one (or the one after the id `after`) to the last. Returns its result.
   *
   * onEvent(event, id) is called with each event. After a lost connection it reconnects and misses no event;
   * onConnection(true or false) is called at each change. While all streams are in use the job is polled: onEvent is
   * then called with its state and an empty id. Rejects with the job's error code when it fails or is cancelled, and
   * with what onEvent throws. `signal` closes the stream; the job continues.
   */
  async subscribe(job, onEvent = () => {}, { after = "", onConnection = () => {}, signal } = {}) {
    const seen = { id: after };
    for (let failures = 0, over = false; ; ) {
      signal?.throwIfAborted();
      const release = over ? () => {} : await this.#slot(); // an ended job's stream closes at once
      const ended = release
        ? await this.#stream(job, onEvent, onConnection, seen, signal).finally(release)
        : await this.#poll(job, onEvent, signal);
      if (ended === "over") over = true;
      else if (ended === "away") {
        onConnection(false);
        await pause(RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)], signal);
      } else {
        failures = 0;
        if (ended) return resultOf(ended);
      }
    }
  }

  /** Cancel a job. Returns its state; a job that has ended keeps its state. */
  cancel(job, { signal } = {}) {
    return this.#call("DELETE", job.status_url, { signal });
  }

  /** Return the current state of a job. */
  status(job, { signal } = {}) {
    return this.#call("GET", this.#readable(job.status_url, job), { signal });
  }

  /** Return the finished tiles, without the first `after`, of a running job that was submitted with `preview`. */
  async preview(job, after = 0, { signal } = {}) {
    return (await this.#call("GET", this.#readable(`${job.status_url}/preview`, job, { after }), { signal })).tiles;
  }

  /** Return the URL of a finished job's image ("result", or "original": bicubic), valid until it is deleted. */
  link(job, which = "result") {
    return readable(`${job.status_url}/${which}`, job);
  }

  /** Return the models of the server. */
  async models({ signal } = {}) {
    return (await this.#call("GET", "/v1/models", { signal })).models;
  }

  /** Estimate the result for an image of a size: { width, height, upscale_factor, … }. */
  estimate(image, { signal } = {}) {
    return this.#call("POST", "/v1/estimate", { body: image, signal });
  }

  /** Take one of the STREAMS slots, which all tabs share. Returns a function that releases it; null if none is free. */
  async #slot() {
    for (let number = 0; number < STREAMS; number++) {
      const release = navigator.locks ? await lock(`upres.stream.${number}`) : this.#streams.has(number) ? null
        : (this.#streams.add(number), () => this.#streams.delete(number)); // no locks without https
      if (release) return release;
    }
    return null;
  }

  /** With an API key leave out the job's token, because the key is valid for longer. */
  #readable(address, job, query) {
    return this.key ? readable(address, { events_url: address }, query) : readable(address, job, query);
  }

  async #imageFields(image, { onUpload = () => {}, signal }) {
    if (typeof image === "string" || image instanceof URL) return { image_url: String(image) };
    if (!(image instanceof Blob)) throw unreadable();
    const name = image.name ? { image_name: image.name } : {};
    if (image.size <= INLINE_BYTES) return { image_base64: await base64(image), ...name };
    const link = await this.#call("POST", "/v1/uploads", { body: { bytes: image.size }, signal });
    await put(link.upload_url, image, onUpload, signal);
    return { image_key: link.image_key, ...name };
  }

  /** Open a stream until the job ends. Returns its last event; "away" when the browser does not reconnect. */
  async #stream(job, onEvent, onConnection, seen, signal) {
    signal?.throwIfAborted(); // it may have been aborted while this waited for a slot
    const source = new EventSource(readable(job.events_url, job, seen.id ? { last_event_id: seen.id } : {}));
    return new Promise((resolve, reject) => {
      const stop = () => end(reject, signal.reason);
      const end = (settle, value) => {
        source.close();
        signal?.removeEventListener("abort", stop);
        settle(value);
      };
      signal?.addEventListener("abort", stop);
      source.onopen = () => onConnection(true);
      source.onmessage = ({ data, lastEventId }) => {
        const event = JSON.parse(data);
        seen.id = lastEventId;
        try {
          onEvent(event, lastEventId);
        } catch (error) {
          return end(reject, error);
        }
        if (ENDED.has(event.type)) end(resolve, event);
      };
      source.onerror = () => {
        if (source.readyState !== EventSource.CLOSED) return onConnection(false); // the browser reconnects
        // The response was no stream: all events were received already, the job is unknown, or the server failed.
        this.status(job, { signal }).then(
          (now) => end(resolve, ENDED.has(now.status) ? now : "away"),
          (error) => (error.retryable ? end(resolve, "away") : end(reject, error)),
        );
      };
    });
  }

  /** Ask for the state once. Returns "over" if the job has ended, "away" if the server does not answer, else null. */
  async #poll(job, onEvent, signal) {
    await pause(POLL_MS, signal);
    const now = await this.status(job, { signal }).catch((error) => {
      if (!error.retryable) throw error;
    });
    if (!now) return "away";
    if (ENDED.has(now.status)) return "over"; // a stream sends the events that were missed
    onEvent({ ...now, type: now.status === "queued" ? "queued" : "progress" }, "");
    return null;
  }

  async #call(method, path, { body, headers = {}, onWait = () => {}, signal } = {}) {
    const request = { method, signal, headers: { ...headers } };
    if (body) Object.assign(request, { body: JSON.stringify(body) });
    if (body) request.headers["Content-Type"] = "application/json";
    if (this.key) request.headers.Authorization = `Bearer ${this.key}`;
    const url = path.startsWith("/") ? this.#base + path : path;
    for (let attempt = 0; ; attempt++) {
      const last = method === "GET" || attempt === RETRY_MS.length;
      let response;
      try {
        response = await fetch(url, request);
      } catch (error) {
        if (signal?.aborted) throw error;
        if (last) throw new UpresError("The server does not answer. Check the connection and try again.");
        await pause(RETRY_MS[attempt], signal);
        continue;
      }
      if (response.ok) return response.json().catch(() => { throw strange(response); });
      const asked = retryAfter(response);
      if (last || !RETRY_STATUSES.has(response.status) || asked > MAX_WAIT_MS) throw await problem(response);
      const wait = Math.max(RETRY_MS[attempt], asked);
      onWait(wait);
      await pause(wait, signal);
    }
  }
}

/** The server that served this file. Packages and bundles are served by any server, so only /web/upres.js counts. */
function ownServer() {
  const [, server] = /^(https?:[^?#]+)\/web\/upres\.js(?:[?#]|$)/.exec(import.meta.url) ?? [];
  if (!server) throw new TypeError('Give the address of the server: new Upres("https://upres.example.org")');
  return server;
}

/** Take a lock that all tabs share. Returns a function that releases it; null if it is taken. */
function lock(name) {
  return new Promise((resolve) => {
    const held = (granted) => (granted ? new Promise(resolve) : resolve(null));
    navigator.locks.request(name, { ifAvailable: true }, held).catch(() => resolve(null)); // not allowed in this frame
  });
}

/** Add the job's read token to a URL, if its events_url has one. */
function readable(address, job, query = {}) {
  const url = new URL(address);
  const token = new URL(job.events_url).searchParams.get("token");
  if (token) url.searchParams.set("token", token);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  return url.href;
}

/** Return the result in a last event or a last state; throw the error if the job has none. */
function resultOf(ended) {
  if (ended.result) return ended.result;
  const { code, message, retryable } = ended.failure ?? ended;
  if (code) throw new UpresError(message, { code, retryable });
  throw new UpresError("The job was cancelled.", { code: "cancelled", retryable: false });
}

async function problem(response) {
  const body = await response.json().catch(() => null);
  const { status } = response;
  if (body?.code) return new UpresError(body.detail, { code: body.code, status, retryable: body.retryable });
  return strange(response);
}

/** The error for a response of a proxy or another server, not of upres. */
function strange({ status }) {
  const text = `The server answered ${status}, and not as upres does. Try again later.`;
  return new UpresError(text, { code: "http_error", status, retryable: RETRY_STATUSES.has(status) });
}

/** Milliseconds of the Retry-After header (RFC 9110, 10.2.3). */
function retryAfter(response) {
  const value = response.headers.get("Retry-After") ?? "";
  return Number(value) * 1000 || Date.parse(value) - Date.now() || 0;
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(unreadable());
    reader.readAsDataURL(blob);
  });
}

function unreadable() {
  return new UpresError("The file cannot be read; choose it again.", { code: "unreadable", retryable: false });
}

/** PUT a file. Only XMLHttpRequest reports the progress of an upload. */
function put(url, blob, onUpload, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted(); // between two requests nothing else notices it
    const request = new XMLHttpRequest();
    const fail = () => reject(new UpresError("The upload broke off. Check the connection and try again."));
    request.open("PUT", url);
    request.upload.onprogress = ({ loaded, total }) => onUpload(loaded, total);
    request.onload = () => (request.status < 300 ? resolve() : fail());
    request.onerror = fail;
    request.onabort = () => reject(signal.reason);
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    request.send(blob);
  });
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => (clearTimeout(timer), reject(signal.reason));
    const timer = setTimeout(() => (signal?.removeEventListener("abort", stop), resolve()), milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
