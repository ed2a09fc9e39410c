/**
 * upres in the browser, for any page, without dependencies (docs/web.md).
 *
 *   import { Upres } from "https://upres.example.org/web/upres.js";
 *   const upres = new Upres();                       // the server that this file came from
 *   const job = await upres.submit(file, { factor: 4 });
 *   const result = await upres.subscribe(job, (event) => console.log(event.type, event.percent));
 *   image.src = result.sr_image_url;
 *
 * A job is a JSON object: keep it in localStorage, and `subscribe` continues after a reload. Methods reject with an
 * UpresError, which has the server's stable `code` and a message for users. In workers and in Node.js 20 it works too;
 * where there is no EventSource, jobs are polled.
 */

import {
  base64, checkFile, fromJson, nameOf, pause, put, request, RETRY_MS, sizeOf, strange, UpresError,
} from "./requests.js";

export { UpresError };

const INLINE_BYTES = 700_000; // in base64 it is 0.93 MB: nginx takes bodies of 1 MB, unless it is told otherwise
const STREAMS = 3; // with HTTP/1.1 a browser opens six connections to a host, for all tabs; other jobs are polled
const POLL_MS = 2000;
const HIDDEN_MS = 20_000; // after that long the connection of a hidden page may be lost without an error
const STEADY_MS = 10_000; // a stream that lasted so long was no error of the server
const JOB_ID = /^[0-9a-f]{32}$/;
const ENDED = new Set(["succeeded", "failed", "cancelled"]);

export class Upres {
  #base;
  #streams = new Set();

  /** `base`: URL of the server, by default the one that served this file. `key`: an API key, if it needs one. */
  constructor(base = ownServer(), { key = "" } = {}) {
    if (!/^(https?:\/\/[^/]|\/|$)/.test(base)) throw new TypeError(`"${base}" is not the address of a server: begin it with https://`);
    this.#base = String(base).replace(/\/+$/, "");
    this.key = key;
  }

  /**
   * Submit a File, a Blob, the URL of an image, or what `upload` returned. Returns the job.
   *
   * Options: factor (any number from 1 to 8, by default 4), or width, height or both of the result in pixels, with fit
   * ("inside": keep the proportions; "exact": stretch); model, version, strength (0 to 1), firstModel, format ("auto", "png", "jpeg",
   * "webp", "avif", "jxl", "tiff", "gif"), depth ("auto", 8, 16), quality (1 to 100), lossless, metadata ("strip",
   * "keep", "keep-all"), preview, ensemble, frames ("all", "first"), original ("lazy", "eager"), webhook;
   * onUpload(sent, total) is called during the upload of a file of more than 0.7 MB; onWait(milliseconds) before a retry;
   * signal aborts.
   */
  async submit(image, options = {}) {
    const { model, version, format = "auto", depth, metadata, preview = false, webhook, onWait, signal } = options;
    const fields = { ...sizeOf(options), output_format: format, preview };
    for (const name of ["strength", "ensemble", "quality", "lossless", "frames", "original"]) if (options[name] !== undefined) fields[name] = options[name];
    if (model) fields.model = model;
    if (options.firstModel) fields.first_model = options.firstModel;
    if (version) fields.model_version = version;
    if (depth) fields.output_depth = depth;
    if (metadata) fields.metadata = metadata;
    if (webhook) fields.webhook_url = webhook;
    Object.assign(fields, await this.#imageFields(image, options));
    const headers = { "Idempotency-Key": [...crypto.getRandomValues(new Uint32Array(4))].join("-") };
    return this.#call("POST", "/v1/jobs", isJob, { body: fields, headers, onWait, signal });
  }

  /**
   * Upload a File or a Blob to the store. Returns { image_key, image_name }, which `submit` takes as often as wanted for
   * two weeks: several jobs for one image need one upload. onUpload, onWait, signal: see `submit`.
   */
  async upload(file, { onUpload = () => {}, onWait, signal } = {}) {
    checkFile(file);
    const link = await this.#call("POST", "/v1/uploads", isUpload, { body: { bytes: file.size }, onWait, signal });
    await put(link.upload_url, file, onUpload, signal);
    return { image_key: link.image_key, ...nameOf(file) };
  }

  /**
   * Receive a job's events, from the first one (or the one after the id `after`) to the last. Returns its result.
   *
   * onEvent(event, id) is called with each event. After a lost connection it reconnects and misses no event;
   * onConnection(true or false) is called at each change. While all streams are in use, here or at the server, the job
   * is polled: onEvent is then called with its state and an empty id. Without EventSource it is polled to its end.
   * Rejects with the job's error code when it fails or is cancelled, and with what onEvent throws. `signal` closes the
   * stream; the job continues.
   */
  async subscribe(job, onEvent = () => {}, { after = "", onConnection = () => {}, signal } = {}) {
    const seen = { id: after };
    for (let failures = 0, over = false; ; ) {
      signal?.throwIfAborted();
      const [begin, last] = [Date.now(), seen.id];
      const release = over ? () => {} : await this.#slot(); // an ended job's stream closes at once
      const ended = release
        ? await this.#stream(job, onEvent, onConnection, seen, signal).finally(release)
        : await this.#poll(job, onEvent, signal);
      if (seen.id !== last || Date.now() - begin > STEADY_MS) failures = 0;
      if (ended === "again") continue;
      if (ended === "over") over = true;
      else if (ended === "away" || ended === "refused") {
        onConnection(ended === "refused");
        const wait = RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)];
        await pause(wait * (0.5 + Math.random()), signal); // not all pages at the same moment
      } else {
        failures = 0;
        if (ended) return resultOf(ended);
      }
    }
  }

  /** Cancel a job. Returns its state; a job that has ended keeps its state. */
  async cancel(job, { signal } = {}) {
    return this.#call("DELETE", this.#address(job), isState, { signal });
  }

  /** Return the current state of a job. */
  async status(job, { signal } = {}) {
    return this.#call("GET", this.#address(job), isState, { signal });
  }

  /** Return the finished tiles, without the first `after`, of a running job that was submitted with `preview`. */
  async preview(job, after = 0, { signal } = {}) {
    const address = this.#address(job, "/preview", { after });
    return (await this.#call("GET", address, ({ tiles }) => Array.isArray(tiles), { signal })).tiles;
  }

  /** Return the URL of a finished job's image ("result", or "original": bicubic), valid until it is deleted. */
  link(job, which = "result") {
    return readable(`${job.status_url}/${which}`, job);
  }

  /** Return the models of the server. */
  async models({ signal } = {}) {
    return (await this.#call("GET", "/v1/models", ({ models }) => Array.isArray(models), { signal })).models;
  }

  /** Estimate the result for an image of a size: { width, height, upscale_factor, … }. */
  estimate(image, { signal } = {}) {
    return this.#call("POST", "/v1/estimate", ({ width }) => Number.isInteger(width), { body: image, signal });
  }

  /**
   * Take one of the STREAMS slots. All tabs share them, where the browser has Web Locks and allows them here. Returns a
   * function that releases it; null if none is free, or no streams can be opened.
   */
  async #slot() {
    if (typeof EventSource === "undefined") return null;
    for (let number = 0; number < STREAMS; number++) {
      const release = await lock(`upres.stream.${number}`).catch(() => this.#ownSlot(number));
      if (release) return release;
    }
    return null;
  }

  #ownSlot(number) {
    if (this.#streams.has(number)) return null;
    this.#streams.add(number);
    return () => this.#streams.delete(number);
  }

  /**
   * Where a job is asked for. With an API key: a path below #base, whatever addresses the job names, because it may have
   * been stored by somebody else, and the key is for this server only. Without a key: the job's own address and token.
   */
  #address(job, below = "", query = {}) {
    if (!this.key) return readable(job.status_url + below, job, query);
    if (!JOB_ID.test(job.job_id)) throw noJob();
    return `/v1/jobs/${job.job_id}${below}?${new URLSearchParams(query)}`;
  }

  async #imageFields(image, options) {
    if (typeof image === "string" || image instanceof URL) return { image_url: String(image) };
    if (typeof image?.image_key === "string") return { image_key: image.image_key, image_name: image.image_name };
    checkFile(image);
    if (image.size > INLINE_BYTES) return this.upload(image, options);
    return { image_base64: await base64(image), ...nameOf(image) };
  }

  /**
   * Read a stream until the job ends. Returns its last event; "away" if the connection was lost; "refused" if the server
   * has no place for a stream now, but tells the job's state; "again" if the page was hidden for long: phones, and
   * computers that sleep, drop the connections of such pages silently.
   */
  async #stream(job, onEvent, onConnection, seen, signal) {
    signal?.throwIfAborted(); // it may have been aborted while this waited for a slot
    const source = new EventSource(readable(job.events_url, job, seen.id ? { last_event_id: seen.id } : {}));
    return new Promise((resolve, reject) => {
      const page = globalThis.document; // workers have none
      const stop = () => end(reject, signal.reason);
      let hidden = Infinity;
      const wake = () => {
        if (!page.hidden && Date.now() - hidden > HIDDEN_MS) return end(resolve, "again");
        hidden = page.hidden ? Date.now() : Infinity;
      };
      const end = (settle, value) => {
        source.close();
        page?.removeEventListener("visibilitychange", wake);
        signal?.removeEventListener("abort", stop);
        settle(value);
      };
      page?.addEventListener("visibilitychange", wake);
      signal?.addEventListener("abort", stop);
      source.onopen = () => onConnection(true);
      source.onmessage = ({ data, lastEventId }) => {
        const event = fromJson(data);
        if (typeof event.type !== "string" || !isLinked(event)) return end(reject, strange({ status: 200 }));
        seen.id = lastEventId;
        try {
          onEvent(event, lastEventId);
        } catch (error) {
          return end(reject, error);
        }
        if (ENDED.has(event.type)) end(resolve, event);
      };
      source.onerror = () => {
        if (source.readyState !== EventSource.CLOSED) return end(resolve, "away"); // its own retries may be too fast
        // The response was no stream: all events were received already, too many streams are open, the job is unknown,
        // or the server failed.
        this.status(job, { signal }).then(
          (now) => {
            if (ENDED.has(now.status)) return end(resolve, now);
            tell(onEvent, now);
            end(resolve, "refused");
          },
          (error) => (error.retryable ? end(resolve, "away") : end(reject, error)),
        ).catch((error) => end(reject, error)); // of onEvent
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
    const ended = ENDED.has(now.status);
    if (ended && typeof EventSource !== "undefined") return "over"; // a stream sends the events that were missed
    tell(onEvent, now);
    return ended ? now : null;
  }

  /** Request a path of this server, with the API key; or another address, without it. */
  #call(method, address, isExpected, options) {
    const [url, key] = address.startsWith("/") ? [this.#base + address, this.key] : [address, ""];
    return request(method, url, isExpected, { key, ...options });
  }
}

/** The server that served this file. Packages and bundles are served by any server, so only /web/upres.js counts. */
function ownServer() {
  const [, server] = /^(https?:[^?#]+)\/web\/upres\.js(?:[?#]|$)/.exec(import.meta.url) ?? [];
  if (!server) throw new TypeError('Give the address of the server: new Upres("https://upres.example.org")');
  return server;
}

/** Take a lock that all tabs share. Returns a function that releases it; null if it is taken. Rejects without locks. */
function lock(name) {
  return new Promise((resolve, reject) => { // no locks without https, in Node.js, and in frames of other sites
    const held = (granted) => (granted ? new Promise(resolve) : resolve(null));
    navigator.locks.request(name, { ifAvailable: true }, held).catch(reject);
  });
}

/** Call onEvent with the state of a job, in place of an event. */
function tell(onEvent, now) {
  onEvent({ ...now, type: now.status === "running" ? "progress" : now.status }, "");
}

/** Add the job's read token to a URL, if its events_url has one. Throws when one of them is no http(s) URL. */
function readable(address, job, query = {}) {
  if (!isUrl(address) || !isUrl(job.events_url)) throw noJob();
  const url = new URL(address);
  const token = new URL(job.events_url).searchParams.get("token");
  if (token) url.searchParams.set("token", token);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  return url.href;
}

const isJob = ({ events_url, status_url }) => isUrl(events_url) && isUrl(status_url);
const isState = (state) => typeof state.status === "string" && isLinked(state);
const isLinked = ({ result }) => !result || (isUrl(result.sr_image_url) && isUrl(result.original_image_url));
const isUpload = ({ upload_url, image_key }) => isUrl(upload_url) && typeof image_key === "string";
const isUrl = (text) => /^https?:\/\/[^/]/.test(text);

/** Return the result in a last event or a last state; throw the error if the job has none. */
function resultOf(ended) {
  if (ended.result) return ended.result;
  const { code, message, retryable } = ended.failure ?? ended;
  if (code) throw new UpresError(message, { code, retryable });
  if ((ended.status ?? ended.type) !== "cancelled") throw strange({ status: 200 });
  throw new UpresError("The job was cancelled.", { code: "cancelled", retryable: false });
}

function noJob() {
  return new UpresError("This is not a job of upres; submit the image again.", { code: "no_job", retryable: false });
}
