/**
 * upres in the browser: one module, no dependencies, for any page (docs/web.md).
 *
 *   import { Upres } from "https://upres.example.org/web/upres.js";
 *   const upres = new Upres();                       // the server that this file came from
 *   const job = await upres.submit(file, { factor: 4 });
 *   const result = await upres.subscribe(job, (event) => console.log(event.type, event.percent));
 *   image.src = result.sr_image_url;
 *
 * A job is plain JSON: keep it in localStorage, and `subscribe` goes on after a reload. Whatever fails is an
 * UpresError with the server's stable `code` and a message for people.
 */

const INLINE_BYTES = 4_000_000; // Lambda takes bodies of 6 MB, and base64 makes a third more of them
const STREAMS = 3; // HTTP/1.1 browsers open six connections to a host, for all tabs together; other jobs are polled
const POLL_MS = 2000;
const MOST_WAIT_MS = 60_000;
const RETRY_MS = [500, 1000, 2000, 4000, 8000];
const LATER = new Set([429, 502, 503, 504]);
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

  /** A server by its address (default: where this file came from), and the API key for it, where one is needed. */
  constructor(base = ownServer(), { key = "" } = {}) {
    this.#base = base.replace(/\/+$/, "");
    this.key = key;
  }

  /**
   * Submit a File, a Blob, or the address of an image → the job.
   *
   * options: factor (2, 4, 8), model, version, format ("auto", "png", "jpeg", "webp"), preview, webhook;
   * onUpload(sent, total) while a file of more than 4 MB is uploaded; onWait(milliseconds) when the server asks to
   * wait; signal to give up.
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
   * Hear a job's events, from the first (or after the id `after`) to the last → its result.
   *
   * onEvent(event, id) hears each; connection losses are bridged, and told by onConnection(true or false). Of a job
   * that has to wait for a stream it hears states meanwhile, without an id. Rejects with the job's own code when it
   * fails or is cancelled, and with what onEvent throws; signal stops listening, and the job goes on.
   */
  async subscribe(job, onEvent = () => {}, { after = "", onConnection = () => {}, signal } = {}) {
    const seen = { id: after };
    for (let failures = 0, over = false; ; ) {
      signal?.throwIfAborted();
      const release = over ? () => {} : await this.#slot(); // what is over is told at once, and holds no connection
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

  /** Cancel a job → the job after that; one that has ended stays as it is. */
  cancel(job, { signal } = {}) {
    return this.#call("DELETE", job.status_url, { signal });
  }

  /** A job now. */
  status(job, { signal } = {}) {
    return this.#call("GET", this.#readable(job.status_url, job), { signal });
  }

  /** The finished tiles of a running job that was submitted with `preview`, without the first `after` of them. */
  async preview(job, after = 0, { signal } = {}) {
    return (await this.#call("GET", this.#readable(`${job.status_url}/preview`, job, { after }), { signal })).tiles;
  }

  /** An address of a finished job's image ("result", or "original" for the bicubic one), good for as long as it is kept. */
  link(job, which = "result") {
    return readable(`${job.status_url}/${which}`, job);
  }

  /** Which models there are. */
  async models({ signal } = {}) {
    return (await this.#call("GET", "/v1/models", { signal })).models;
  }

  /** What would become of an image of this size: { width, height, upscale_factor, … }. */
  estimate(image, { signal } = {}) {
    return this.#call("POST", "/v1/estimate", { body: image, signal });
  }

  /** One of the streams that all tabs together may have → what gives it back; null when all are taken. */
  async #slot() {
    for (let number = 0; number < STREAMS; number++) {
      const release = navigator.locks ? await lock(`upres.stream.${number}`) : this.#streams.has(number) ? null
        : (this.#streams.add(number), () => this.#streams.delete(number)); // without https, of this tab alone
      if (release) return release;
    }
    return null;
  }

  /** A key reads a job longer than its token does. */
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

  /** Until the job has ended → its last event; "away" when the connection is lost for good. */
  async #stream(job, onEvent, onConnection, seen, signal) {
    signal?.throwIfAborted(); // it may have been, while this waited for its turn
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
        if (source.readyState !== EventSource.CLOSED) return onConnection(false); // the browser comes back by itself
        // An answer that is no stream: the job has ended and all was seen, nobody knows it, or the server is not well.
        this.status(job, { signal }).then(
          (now) => end(resolve, ENDED.has(now.status) ? now : "away"),
          (error) => (error.retryable ? end(resolve, "away") : end(reject, error)),
        );
      };
    });
  }

  /** Ask how the job is, once → its last state if it has ended; "away" when nobody answers. */
  async #poll(job, onEvent, signal) {
    await pause(POLL_MS, signal);
    const now = await this.status(job, { signal }).catch((error) => {
      if (!error.retryable) throw error;
    });
    if (!now) return "away";
    if (ENDED.has(now.status)) return "over"; // a stream tells the events that were missed
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
      if (last || !LATER.has(response.status) || asked > MOST_WAIT_MS) throw await problem(response);
      const wait = Math.max(RETRY_MS[attempt], asked);
      onWait(wait);
      await pause(wait, signal);
    }
  }
}

/** The server that this file came from. Any server may serve a package or a bundle, so their addresses do not tell. */
function ownServer() {
  const [, server] = /^(https?:[^?#]+)\/web\/upres\.js(?:[?#]|$)/.exec(import.meta.url) ?? [];
  if (!server) throw new TypeError('Give the address of the server: new Upres("https://upres.example.org")');
  return server;
}

/** A lock that all tabs share → what gives it back; null when somebody has it. */
function lock(name) {
  return new Promise((resolve) => {
    const held = (mine) => (mine ? new Promise(resolve) : resolve(null));
    navigator.locks.request(name, { ifAvailable: true }, held).catch(() => resolve(null)); // a frame that may not
  });
}

/** An address with the token that reads this one job, where its events_url came with one. */
function readable(address, job, query = {}) {
  const url = new URL(address);
  const token = new URL(job.events_url).searchParams.get("token");
  if (token) url.searchParams.set("token", token);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  return url.href;
}

/** A last event or a last state → the result, or the error that the job ended with. */
function resultOf(ended) {
  if (ended.result) return ended.result;
  const { code, message, retryable } = ended.failure ?? ended;
  if (code) throw new UpresError(message, { code, retryable });
  throw new UpresError("The job was cancelled.", { code: "cancelled", retryable: false });
}

async function problem(response) {
  const told = await response.json().catch(() => null);
  const { status } = response;
  if (told?.code) return new UpresError(told.detail, { code: told.code, status, retryable: told.retryable });
  return strange(response);
}

/** Something that stands between, and is not upres. */
function strange({ status }) {
  const text = `The server answered ${status}, and not as upres does. Try again later.`;
  return new UpresError(text, { code: "http_error", status, retryable: LATER.has(status) });
}

/** Milliseconds that an answer asks to wait (RFC 9110, 10.2.3). */
function retryAfter(response) {
  const told = response.headers.get("Retry-After") ?? "";
  return Number(told) * 1000 || Date.parse(told) - Date.now() || 0;
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

/** PUT a file; only XMLHttpRequest tells how far an upload is. */
function put(url, blob, onUpload, signal) {
  return new Promise((resolve, reject) => {
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
    const stop = () => (clearTimeout(timer), reject(signal.reason));
    const timer = setTimeout(() => (signal?.removeEventListener("abort", stop), resolve()), milliseconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
