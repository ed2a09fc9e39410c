/** One image on the page: uploading, queued, running (with its finished tiles drawn in place), finished or failed. */

import { Comparison } from "./comparison.js";
import { detailedSpot } from "./detail.js";
import { copy, load, save, small } from "./files.js";
import { inWords } from "./models.js";
import { resultSize } from "./size.js";
import { followJob } from "./stored_jobs.js";
import { Tiles } from "./tiles.js";
import { Viewer } from "./viewer.js";

const POSITION_MS = 3000;
const ORIGINAL_MS = 2000; // a result is shown after that even if its original is still being made
const STAGES = { fetch: "Fetching", decode: "Reading", upscale: "Enlarging", encode: "Encoding", store: "Storing" };

const NAMES = { avif: "AVIF", jxl: "JPEG XL", tiff: "TIFF" }; // formats that not every browser shows

export class Card {
  #upres;
  #hooks;
  #giveUp = new AbortController();
  #tiles;
  #sending = false;
  #comparison = null; // with other models; there is one when the result is shown
  #waits = null;
  #wide = 0; // width of the result in pixels, as soon as it is known
  #result = null; // its [width, height], when it is there

  /**
   * entry: { name, factor (or width and height) of the result, options, file or address, image (after the upload), job
   * (after it was submitted), thumb, size, ended, spot (the middle of the first view), parts (see comparison.js) };
   * hooks: keep() is called when the entry has changed, forget(job), drop() when it is removed, news(text),
   * complain(text), refused(error), chosen() → the model and the strength for new images.
   */
  constructor(upres, entry, hooks) {
    this.#upres = upres;
    this.#hooks = hooks;
    this.entry = entry;
    this.element = document.querySelector("#card").content.firstElementChild.cloneNode(true);
    this.element.ariaLabel = entry.name;
    Object.assign(this.#find("h2"), { textContent: entry.name, title: entry.name, tabIndex: -1 });
    this.#find("progress").ariaLabel = `Progress of ${entry.name}`;
    const buttons = { cancel: () => this.#cancel(), remove: () => this.#remove(), again: () => this.again() };
    for (const [name, onclick] of Object.entries(buttons)) {
      const button = this.#find(`.${name}`);
      Object.assign(button, { onclick, ariaLabel: `${button.textContent} ${entry.name}` });
    }
    const preview = (seen) => this.#upres.preview(this.entry.job, seen);
    this.#tiles = new Tiles(this.#find(".tiles"), preview, (width, height) => this.#shape(width, height));
    this.#showInput();
  }

  /** Whether closing the page now would lose something. */
  get sending() {
    return this.#sending || Boolean(this.#comparison?.sending);
  }

  /** Submit it if that was not done yet, and follow the job to its end. */
  async run() {
    const { signal } = this.#giveUp;
    try {
      await this.#done(await followJob(this.#upres, this.entry, {
        submit: () => this.#submit(signal).finally(() => { this.#sending = false; }),
        keep: this.#hooks.keep,
        onEvent: (event) => this.#hear(event),
        say: (text) => this.#say(text),
        signal,
      }));
    } catch (error) {
      this.#fail(error);
    } finally {
      clearInterval(this.#waits);
      this.#waits = null;
      this.element.classList.remove("queued");
    }
  }

  async #submit(signal) {
    this.#sending = true;
    this.#say("Sending…");
    const onWait = (wait) => this.#say(`The server asks to wait ${time(wait / 1000)}`);
    const onUpload = (sent, total) => this.#say(`Sending, ${Math.round((100 * sent) / total)} %`, (5 * sent) / total);
    const { file, factor, width, height } = this.entry;
    if (file) this.entry.image = await this.#upres.upload(file, { onUpload, onWait, signal }).catch((error) => {
      if (error.code !== "server_unreachable") throw error; // this browser may reach the server, but not the store
    });
    const options = { ...this.entry.options, factor, width, height, preview: true, onUpload, onWait, signal };
    return this.#upres.submit(this.#image(), options);
  }

  /** What can be submitted (again): the uploaded file, so that one upload suffices for all jobs; undefined if nothing. */
  #image() {
    return this.entry.image ?? this.entry.file ?? this.entry.address;
  }

  #find(selector) {
    return this.element.querySelector(selector);
  }

  #say(text, percent) {
    this.#find(".state").textContent = text;
    const bar = this.#find("progress");
    if (percent === undefined) bar.removeAttribute("value");
    else bar.value = percent;
  }

  #hear(event) {
    if (event.type !== "queued") {
      clearInterval(this.#waits);
      this.#waits = null;
    }
    this.element.classList.toggle("queued", event.type === "queued");
    if (event.attempt) this.#tiles.begin(event.attempt);
    if (event.type === "queued") this.#queue(event.position, event.at);
    else if (event.type === "requeued") this.#say("Waiting for another worker; what is done is kept");
    else if (event.type === "started") this.#say(`Started on ${event.device}`, 0);
    else if (event.type === "progress") this.#progress(event);
  }

  #progress(event) {
    const parts = [STAGES[event.stage] ?? "Starting"];
    if (event.frame && event.stage === "upscale") parts.push(`frame ${event.frame} of ${event.frames}`);
    if (event.tiles_total && event.stage === "upscale") parts.push(`tile ${event.tiles_done} of ${event.tiles_total}`);
    if (event.eta_seconds) parts.push(`${time(event.eta_seconds)} left`);
    if (event.notice) parts.push(event.notice);
    this.#say(parts.join(" · "), event.percent);
    if (event.tiles_done) this.#tiles.look();
  }

  /** The `queued` event has the position at submission; the current position has to be requested. */
  #queue(position, streamed) {
    this.#say(position ? `Queued, ${position} ahead` : "Queued, next in line");
    if (streamed) this.#waits ??= setInterval(async () => {
      const now = await this.#upres.status(this.entry.job).catch(() => null);
      if (this.#waits && now?.status === "queued") this.#queue(now.position, false);
    }, POSITION_MS);
  }

  /** The input, if the browser can show it, in the shape of the result. */
  #showInput() {
    const { file, address, thumb, size } = this.entry;
    const before = this.#find(".before");
    if (size) this.#shapeAs(...size);
    before.onload = () => {
      if (!this.entry.size) {
        this.entry.size = [before.naturalWidth, before.naturalHeight];
        this.#shapeAs(...this.entry.size);
      }
      if (file && !this.entry.thumb) {
        this.entry.thumb = small(before);
        this.#hooks.keep();
      }
      this.#find(".viewer").hidden = false;
    };
    before.onerror = () => before.removeAttribute("src");
    before.src = file ? URL.createObjectURL(file) : thumb ?? address ?? "";
  }

  #shapeAs(width, height) {
    const result = this.#result ?? resultSize([width, height], this.entry);
    this.#find(".size").textContent = `${width}×${height} → ${result.join("×")}`;
    [this.#wide] = result;
    this.#shape(width, height);
  }

  /** Give the viewer the shape of the result, and at most its size: it is never shown larger than 100 % at first. */
  #shape(width, height) {
    const viewer = this.#find(".viewer");
    viewer.style.aspectRatio = `${width} / ${height}`;
    const full = this.#wide ? `, max(16rem, ${this.#wide / devicePixelRatio}px)` : "";
    viewer.style.maxWidth = `min(${(80 * width) / height}vh${full})`;
    viewer.hidden = false;
  }

  async #done(result) {
    this.#say("Loading the result…", 100);
    const [before, after] = [this.#find(".before"), this.#find(".after")];
    this.#result = [result.width, result.height];
    this.entry.size ??= this.#result.map((side) => Math.round(side / result.upscale_factor));
    this.#shapeAs(...this.entry.size);
    before.onload = before.onerror = null; // the next image is not the input
    const foreign = !this.entry.file || !before.naturalWidth;
    const links = ["original", "result"].map((which) => this.#upres.link(this.entry.job, which));
    const original = foreign && load(before, result.original_image_url, links[0]); // a worker may have to make it first
    const shown = await load(after, result.sr_image_url, links[1]);
    if (original) {
      original.then((made) => made || (before.src = this.entry.thumb ?? this.entry.address ?? ""));
      await Promise.race([original, new Promise((done) => setTimeout(done, ORIGINAL_MS))]);
    }
    this.element.classList.remove("working", "failed");
    this.#offer(result);
    const seconds = Object.values(result.seconds).reduce((sum, one) => sum + one, 0);
    const took = seconds >= 0.1 ? ` in ${time(seconds)}` : "";
    const summary = `${result.width} × ${result.height}${took} by ${inWords(result)} on ${result.device}`;
    this.#say(shown ? summary : `${summary}. This browser cannot show ${NAMES[result.format] ?? "it"}; download it.`, 100);
    if (!shown) { // the finished tiles stay, over the input
      if (foreign) before.src = this.entry.thumb ?? this.entry.address ?? "";
      return;
    }
    this.#find(".controls").hidden = false;
    after.alt = `${this.entry.name}, enlarged`;
    before.alt = `${this.entry.name}, before`;
    this.#view(result, [after, before]);
  }

  /** Show the result at 100 %, at the place with most to see, and let the user compare it. */
  #view(result, images) {
    const viewer = new Viewer(this.element, result.width);
    const { entry, element } = this;
    this.#comparison = new Comparison(this.#upres, { entry, element, viewer, result, image: () => this.#image() }, this.#hooks);
    for (const image of images) entry.spot ??= image.naturalWidth ? detailedSpot(image, viewer.visible / 2) : null;
    viewer.lookAt(entry.spot ?? [0.5, 0.5]);
    this.#hooks.keep();
  }

  /** The buttons of a result, also of one that the browser cannot show. */
  #offer(result) {
    this.#replace([".cancel", ".again", "progress"], [".done", ".remove"]);
    if (!this.entry.ended) this.#hooks.news(`${this.entry.name} is done: ${result.width} by ${result.height} pixels`);
    this.entry.ended = true;
    this.#hooks.keep();
    const [link, name] = [this.#find(".download"), this.entry.name];
    Object.assign(link, { href: this.#upres.link(this.entry.job), target: "_blank", ariaLabel: `Download ${name}` });
    link.onclick = (event) => save(event, result.file_name);
    this.#find(".copy").onclick = ({ target }) => copy(link.href, target);
    this.#find("dl").replaceChildren(...Object.entries(result.seconds).map(([stage, took]) => {
      const row = document.createElement("div");
      row.append(Object.assign(document.createElement("dt"), { textContent: STAGES[stage] ?? stage }));
      row.append(Object.assign(document.createElement("dd"), { textContent: `${took.toFixed(2)} s` }));
      return row;
    }));
  }

  /** Hide some elements and show others. If a hidden one had the focus, a shown one gets it. */
  #replace(hidden, visible) {
    const had = this.element.contains(document.activeElement);
    for (const name of hidden) this.#find(name).hidden = true;
    for (const name of visible) this.#find(name).hidden = false;
    const lost = document.activeElement.hidden || document.activeElement === document.body;
    if (had && lost) this.#find(".again:not([hidden]), .remove:not([hidden]), .cancel")?.focus();
  }

  #fail(error) {
    const cancelled = error.code === "cancelled" || this.#giveUp.signal.aborted;
    this.element.classList.remove("working");
    this.element.classList.add("failed");
    this.unauthorized = error.code === "unauthorized";
    const why = cancelled ? "Cancelled." : this.unauthorized ? "This server needs an API key; enter it above." : error.message;
    this.#say(why, 0);
    const mayHelp = cancelled || error.retryable !== false || this.unauthorized;
    const again = mayHelp && this.#image() ? [".again"] : [];
    this.#replace([".cancel"], [".remove", ...again]);
    this.entry.ended = true;
    this.#hooks.keep();
    this.#hooks.news(`${this.entry.name}: ${why}`);
    this.#hooks.refused(error);
  }

  /** Cancel the job. If that fails it continues. */
  async #cancel() {
    if (!this.entry.job) return this.#giveUp.abort(new Error("Cancelled."));
    const button = this.#find(".cancel");
    button.disabled = true;
    try {
      await this.#upres.cancel(this.entry.job);
    } catch (error) {
      this.#hooks.complain(`${this.entry.name} was not cancelled: ${error.message}`);
      this.#hooks.refused(error);
    }
    button.disabled = false;
  }

  #remove() {
    this.#giveUp.abort(new Error("Removed."));
    this.#comparison?.close();
    const next = this.element.nextElementSibling ?? this.element.previousElementSibling;
    this.element.remove();
    URL.revokeObjectURL(this.#find(".before").src);
    (next?.querySelector("h2") ?? document.querySelector("#files")).focus();
    this.#hooks.drop();
  }

  /** Submit it again. */
  again() {
    this.element.classList.replace("failed", "working");
    this.#giveUp = new AbortController();
    this.unauthorized = this.entry.ended = false;
    if (this.entry.job) this.#hooks.forget(this.entry.job);
    this.entry.job = undefined;
    if (this.entry.file) this.entry.image = undefined; // the upload may be gone
    this.#tiles.begin(0);
    this.#replace([".remove", ".again"], [".cancel"]);
    this.run();
  }
}

function time(seconds) {
  if (seconds >= 90) return `${Math.round(seconds / 60)} min`;
  return seconds >= 10 ? `${Math.round(seconds)} s` : `${seconds.toFixed(1)} s`;
}
