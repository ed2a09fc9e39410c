/** One of several results that are compared: its job, its line in the list, and its image when it is there. */

import { load, save } from "./files.js";
import { inWords } from "./models.js";
import { followJob } from "./stored_jobs.js";

export class Part {
  #upres;
  #of;
  #hooks;
  #giveUp = new AbortController();
  #over = false;
  #closed = false;
  sending = false;
  image = null; // when it can be shown

  /**
   * entry: { model, strength, job (after it was submitted), ended }; of: name of the image; hooks: those of a card, and
   * submit(entry, options) → the job, ended() after the end.
   */
  constructor(upres, entry, of, hooks) {
    [this.#upres, this.entry, this.#of, this.#hooks] = [upres, entry, of, hooks];
    this.name = inWords(entry);
    this.element = document.querySelector("#part").content.firstElementChild.cloneNode(true);
    this.#find("b").textContent = this.name;
    Object.assign(this.#find(".cancel"), { onclick: () => this.#cancel(), ariaLabel: `Cancel ${this.name} of ${of}` });
  }

  /** Submit it if that was not done yet, and follow its job to the end. */
  async run() {
    const { signal } = this.#giveUp;
    try {
      await this.#done(await followJob(this.#upres, this.entry, {
        submit: () => this.#submit(signal),
        keep: this.#hooks.keep,
        onEvent: (event) => this.#hear(event),
        say: (text) => this.#say(text),
        signal,
      }));
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#over = true;
    }
    if (this.#closed) return;
    const focused = this.element.contains(document.activeElement);
    this.#find(".cancel").hidden = true;
    if (focused && !this.element.contains(document.activeElement)) this.element.focus();
    this.#hooks.ended();
  }

  async #submit(signal) {
    this.#say("Sending…");
    this.sending = true;
    return this.#hooks.submit(this.entry, { signal }).finally(() => { this.sending = false; });
  }

  /** Nobody wants to see it any more: cancel its job, if it runs. */
  close() {
    this.#closed = true;
    this.#giveUp.abort(new Error("Closed."));
    if (this.entry.job && !this.#over) this.#upres.cancel(this.entry.job).catch(() => {}); // it ends by itself, too
  }

  #find(selector) {
    return this.element.querySelector(selector);
  }

  #say(text) {
    this.#find(".told").textContent = text;
  }

  #hear({ type, position, percent }) {
    if (type === "queued") this.#say(position ? `Queued, ${position} ahead` : "Queued, next in line");
    else if (type === "requeued") this.#say("Waiting for another worker; what is done is kept");
    else if (type === "progress") this.#say(`Enlarging, ${Math.round(percent)} %`);
  }

  async #done(result) {
    this.#say("Loading the result…");
    const link = this.#upres.link(this.entry.job);
    const image = Object.assign(new Image(), { className: "part", alt: `${this.#of}, enlarged by ${this.name}` });
    const shown = await load(image, result.sr_image_url, link);
    if (shown) this.image = image;
    this.#say(shown ? "Done" : "Done, but it does not load; download it.");
    Object.assign(this.#find("a"), { href: link, target: "_blank", hidden: false, ariaLabel: `Download ${this.name} of ${this.#of}` });
    this.#find("a").onclick = (event) => save(event, result.file_name);
    this.#end("is done");
  }

  #fail(error) {
    if (this.#closed) return;
    const why = error.code === "cancelled" ? "Cancelled." : error.message;
    this.#say(why);
    this.element.classList.add("failed");
    this.#end(why);
    this.#hooks.refused(error);
  }

  /** Tell it once, not again after a reload. */
  #end(how) {
    if (!this.entry.ended) this.#hooks.news(`${this.name} of ${this.#of}: ${how}`);
    this.entry.ended = true;
    this.#hooks.keep();
  }

  async #cancel() {
    if (!this.entry.job) return this.#giveUp.abort(Object.assign(new Error("Cancelled."), { code: "cancelled" }));
    const button = this.#find(".cancel");
    button.disabled = true;
    try {
      await this.#upres.cancel(this.entry.job);
    } catch (error) {
      this.#hooks.complain(`${this.name} of ${this.#of} was not cancelled: ${error.message}`);
      this.#hooks.refused(error);
    }
    button.disabled = false;
  }
}
