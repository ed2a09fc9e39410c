/** One image on the page: sent, waiting, in the works with its finished tiles in place, done or failed. */

import { compare } from "./compare.js";

const LOOK_MS = 700; // between two looks at finished tiles
const POSITION_MS = 3000;
const STAGES = { fetch: "Fetching", decode: "Reading", upscale: "Enlarging", encode: "Encoding", store: "Storing" };

export class Card {
  #upres;
  #hooks;
  #giveUp = new AbortController();
  #seen = 0;
  #looking = false;
  #lookedAt = 0;
  #attempt = 0;
  #waits = null;

  /**
   * entry: { name, factor, options, file or address, job once it was submitted, thumb, size };
   * hooks: keep() when the entry has changed, drop() when it is removed, news(text), refused(error).
   */
  constructor(upres, entry, hooks) {
    this.#upres = upres;
    this.#hooks = hooks;
    this.entry = entry;
    this.element = document.querySelector("#card").content.firstElementChild.cloneNode(true);
    this.#find("h2").textContent = entry.name;
    this.#find("progress").setAttribute("aria-label", `Progress of ${entry.name}`);
    this.#find(".cancel").onclick = () => this.#cancel();
    this.#find(".remove").onclick = () => this.#remove();
    this.#find(".again").onclick = () => this.#again();
    this.#showInput();
  }

  /** Send it if that was not done yet, and follow it to its end. */
  async run() {
    const { signal } = this.#giveUp;
    try {
      if (!this.entry.job) {
        this.#say("Sending…");
        const onUpload = (sent, total) => this.#say(`Sending, ${Math.round((100 * sent) / total)} %`, (5 * sent) / total);
        const options = { ...this.entry.options, factor: this.entry.factor, preview: true, onUpload, signal };
        this.entry.job = await this.#upres.submit(this.entry.file ?? this.entry.address, options);
        this.#hooks.keep();
      }
      const onConnection = (there) => there || this.#say("The connection is lost; trying again…");
      this.#done(await this.#upres.subscribe(this.entry.job, (event) => this.#hear(event), { onConnection, signal }));
    } catch (error) {
      this.#fail(error);
    } finally {
      clearInterval(this.#waits);
      this.#waits = null;
    }
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
    if ((event.attempt ?? this.#attempt) !== this.#attempt) this.#beginAgain(event.attempt);
    if (event.type === "queued") this.#queue(event.position);
    else if (event.type === "requeued") this.#say("Waiting for another worker; what is done is kept");
    else if (event.type === "started") this.#say(`Started on ${event.device}`, 0);
    else if (event.type === "progress") this.#progress(event);
  }

  #progress(event) {
    const parts = [STAGES[event.stage] ?? "Starting"];
    if (event.tiles_total && event.stage === "upscale") parts.push(`tile ${event.tiles_done} of ${event.tiles_total}`);
    if (event.eta_seconds) parts.push(`${inWords(event.eta_seconds)} left`);
    if (event.notice) parts.push(event.notice);
    this.#say(parts.join(" · "), event.percent);
    if (event.tiles_done) this.#look();
  }

  #queue(position) {
    this.#say(position ? `Queued, ${position} ahead` : "Queued, next in line");
    this.#waits ??= setInterval(async () => {
      const now = await this.#upres.status(this.entry.job).catch(() => null);
      if (this.#waits && now?.status === "queued") this.#queue(now.position);
    }, POSITION_MS);
  }

  #beginAgain(attempt) {
    this.#attempt = attempt;
    this.#seen = 0;
    const canvas = this.#find(".tiles");
    canvas.width = canvas.width; // empties it
  }

  /** Fetch the tiles that were finished since, now and then, and put them where they belong. */
  async #look() {
    if (this.#looking) return;
    this.#looking = true;
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, this.#lookedAt + LOOK_MS - Date.now())));
    this.#lookedAt = Date.now();
    const attempt = this.#attempt;
    const tiles = await this.#upres.preview(this.entry.job, this.#seen).catch(() => []);
    this.#looking = false;
    if (attempt !== this.#attempt) return;
    this.#seen += tiles.length;
    tiles.forEach((tile) => this.#draw(tile));
  }

  #draw(tile) {
    const canvas = this.#find(".tiles");
    if (canvas.width !== tile.of_width || canvas.height !== tile.of_height) {
      Object.assign(canvas, { width: tile.of_width, height: tile.of_height });
      this.#shape(tile.of_width, tile.of_height);
    }
    const image = new Image();
    image.onload = () => {
      canvas.getContext("2d").drawImage(image, tile.x, tile.y);
      canvas.dataset.tiles = Number(canvas.dataset.tiles ?? 0) + 1;
    };
    image.src = tile.image;
  }

  /** What came in, as far as the browser can show it, in the shape of what goes out. */
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
    const factor = this.entry.factor;
    this.#find(".size").textContent = `${width}×${height} → ${width * factor}×${height * factor}`;
    this.#shape(width, height);
  }

  #shape(width, height) {
    const viewer = this.#find(".viewer");
    viewer.style.aspectRatio = `${width} / ${height}`;
    viewer.style.maxWidth = `${Math.max(16, (80 * width) / height)}vh`;
    viewer.hidden = false;
  }

  async #done(result) {
    this.#say("Loading the result…", 100);
    const [before, after] = [this.#find(".before"), this.#find(".after")];
    this.#shapeAs(result.width / this.entry.factor, result.height / this.entry.factor);
    if (!this.entry.file || !before.naturalWidth) before.src = result.original_image_url;
    after.src = result.sr_image_url;
    try {
      await after.decode();
    } catch {
      this.#fail(new Error("The result cannot be shown: its link works for an hour. Submit the image again."));
      return;
    }
    const seconds = Object.values(result.seconds).reduce((sum, one) => sum + one, 0);
    for (const name of [".after", ".edge", ".tag.left", ".tag.right", ".controls", ".done", ".remove"]) this.#find(name).hidden = false;
    for (const name of [".tiles", ".cancel", "progress"]) this.#find(name).hidden = true;
    after.alt = `${this.entry.name}, enlarged`;
    before.alt = `${this.entry.name}, before`;
    this.element.classList.remove("working");
    compare(this.element, result.width);
    this.#say(`${result.width} × ${result.height} in ${inWords(seconds)} by ${result.model} on ${result.device}`, 100);
    const link = this.#find(".download");
    Object.assign(link, { href: result.sr_image_url, download: result.file_name, target: "_blank" });
    link.onclick = (event) => save(event, result);
    this.#find(".copy").onclick = ({ target }) => copy(result.sr_image_url, target);
    this.#find("dl").replaceChildren(...Object.entries(result.seconds).map(([stage, took]) => {
      const row = document.createElement("div");
      row.append(Object.assign(document.createElement("dt"), { textContent: STAGES[stage] ?? stage }));
      row.append(Object.assign(document.createElement("dd"), { textContent: `${took.toFixed(2)} s` }));
      return row;
    }));
    this.#hooks.news(`${this.entry.name} is done: ${result.width} by ${result.height} pixels`);
  }

  #fail(error) {
    const cancelled = error.code === "cancelled" || this.#giveUp.signal.aborted;
    this.element.classList.remove("working");
    this.element.classList.add("failed");
    this.#say(cancelled ? "Cancelled." : error.message, 0);
    this.#find(".cancel").hidden = true;
    this.#find(".remove").hidden = false;
    const mayHelp = cancelled || error.retryable !== false || error.code === "unauthorized";
    this.#find(".again").hidden = !(mayHelp && (this.entry.file ?? this.entry.address));
    this.#hooks.news(`${this.entry.name}: ${cancelled ? "cancelled" : error.message}`);
    this.#hooks.refused(error);
  }

  async #cancel() {
    if (!this.entry.job) return this.#giveUp.abort(new Error("Cancelled."));
    await this.#upres.cancel(this.entry.job).catch((error) => this.#fail(error));
  }

  #remove() {
    this.#giveUp.abort(new Error("Removed."));
    this.element.remove();
    this.#hooks.drop();
  }

  #again() {
    this.element.classList.replace("failed", "working");
    this.#giveUp = new AbortController();
    this.entry.job = undefined;
    this.#beginAgain(0);
    this.#find(".cancel").hidden = false;
    for (const name of [".remove", ".again"]) this.#find(name).hidden = true;
    this.run();
  }
}

function inWords(seconds) {
  if (seconds >= 90) return `${Math.round(seconds / 60)} min`;
  return seconds >= 10 ? `${Math.round(seconds)} s` : `${seconds.toFixed(1)} s`;
}

/** A small copy of an image as a data: URL, to be seen again after a reload. */
function small(image) {
  const scale = Math.min(1, 480 / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, image.naturalWidth * scale);
  canvas.height = Math.max(1, image.naturalHeight * scale);
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.7);
}

/** Under its own name, also where the store would only show it; a store that lets no page read does name it. */
async function save(event, { sr_image_url, file_name }) {
  event.preventDefault();
  try {
    const answer = await fetch(sr_image_url, { cache: "no-store" }); // the cache may hold it as unreadable
    const href = URL.createObjectURL(await answer.blob());
    Object.assign(document.createElement("a"), { href, download: file_name }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  } catch {
    open(sr_image_url, "_blank", "noopener");
  }
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no permission, or no https
    const field = Object.assign(document.createElement("textarea"), { value: text });
    button.after(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy link"), 1500);
}
