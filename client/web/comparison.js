/** Enlarges the image of a finished card again, by other models or strengths, and shows the results beside the first. */

import { enlarging, inWords } from "./models.js";
import { Part } from "./part.js";

const MOST = 2; // images beside the first result
const BEFORE = "before";

export class Comparison {
  #upres;
  #card;
  #hooks;
  #offered = []; // what can be chosen now
  #parts = [];
  #hidden = new Set([BEFORE]); // what the user does not want to see beside the others

  /**
   * card: { entry, element, viewer, result, image() }, of which image() is what can be submitted again, or undefined;
   * hooks: see card.js. Parts that are stored in the entry are followed to their end.
   */
  constructor(upres, card, hooks) {
    [this.#upres, this.#card, this.#hooks] = [upres, card, hooks];
    const [button, form] = [this.#find(".compare"), this.#find(".choose")];
    button.hidden = !card.image();
    button.ariaLabel = `Compare ${card.entry.name} with other models`;
    button.onclick = () => this.#open(form.hidden);
    form.onsubmit = (event) => {
      event.preventDefault();
      this.#start([...form.querySelectorAll(":checked")].map(({ value }) => this.#offered[value]));
    };
    form.onchange = () => this.#limit();
    this.#follow((card.entry.parts ?? []).filter(({ job }) => job));
  }

  /** Whether the page still has to tell the server about a part. */
  get sending() {
    return this.#parts.some((part) => part.sending);
  }

  /** Give up what is not done yet. */
  close() {
    this.#parts.forEach((part) => part.close());
  }

  get #own() {
    const { model, strength } = this.#card.result;
    return { model, strength };
  }

  #find(selector) {
    return this.#card.element.querySelector(selector);
  }

  /** Open or close the form. The focus goes into it, or back to its button. */
  async #open(wanted) {
    const [button, form] = [this.#find(".compare"), this.#find(".choose")];
    const open = wanted && await this.#offer();
    form.hidden = !open;
    button.ariaExpanded = String(open);
    ((open && form.querySelector(":checked")) || button).focus();
  }

  /** Offer what the server has now. Returns false if it does not tell. */
  async #offer() {
    try {
      this.#list(enlarging(await this.#upres.models(), this.#card.result.upscale_factor));
      return true;
    } catch (error) {
      this.#hooks.complain(`The models were not listed: ${error.message}`);
      this.#hooks.refused(error);
      return false;
    }
  }

  /** Make a checkbox for each variant. Those of the model of the first result come first and are checked, else one is. */
  #list(models) {
    const others = variants(models, this.#hooks.chosen()).filter((one) => inWords(one) !== inWords(this.#own));
    const same = others.filter(({ model }) => model === this.#own.model);
    this.#offered = [...same, ...others.filter((one) => !same.includes(one))];
    const checked = this.#offered.slice(0, Math.min(MOST, same.length || 1));
    const boxes = this.#offered.map((variant, index) => box(inWords(variant), index, checked.includes(variant)));
    this.#find(".variants").replaceChildren(...boxes);
    this.#find(".hint").textContent = boxes.length ? `Choose one or two to see beside ${inWords(this.#own)}.`
      : "This server has no other model for this image.";
    this.#limit();
  }

  #limit() {
    const boxes = [...this.#find(".variants").querySelectorAll("input")];
    const count = boxes.filter(({ checked }) => checked).length;
    for (const one of boxes) one.disabled = !one.checked && count >= MOST;
    this.#find(".start").disabled = !count;
  }

  /** Compare with these; parts that were made already stay. */
  #start(chosen) {
    this.#open(false);
    const made = new Map(this.#parts.filter((part) => part.image).map((part) => [part.name, part.entry]));
    const names = chosen.map(inWords);
    this.#parts.filter(({ name }) => !made.has(name) || !names.includes(name)).forEach((part) => part.close());
    this.#follow(chosen.map((one) => made.get(inWords(one)) ?? one));
  }

  /** Show parts in place of those before, submit those without a job, and follow the jobs. */
  #follow(entries) {
    const { entry } = this.#card;
    entry.parts = entries;
    const submit = ({ model, strength }, options) => {
      const { factor, width, height } = entry;
      return this.#upres.submit(this.#card.image(), { ...entry.options, factor, width, height, model, strength, ...options });
    };
    const hooks = { ...this.#hooks, submit, ended: () => this.#arrange() };
    this.#parts = entries.map((one) => new Part(this.#upres, one, entry.name, hooks));
    this.#find(".parts").hidden = !entries.length;
    this.#find(".parts").replaceChildren(...this.#parts.map((part) => part.element));
    this.#arrange();
    this.#parts.forEach((part) => part.run());
    this.#hooks.keep();
  }

  /** Show what is there: before and after, or the results of the same image from faithful to sharp. */
  #arrange() {
    const { viewer, element } = this.#card;
    const [before, after] = [this.#find(".before"), this.#find(".after")];
    const parts = this.#parts.filter((part) => part.image);
    for (const layer of element.querySelectorAll(".layers .part")) if (!parts.some(({ image }) => image === layer)) layer.remove();
    viewer.layers.append(...parts.map(({ image }) => image).filter((image) => !image.isConnected));
    this.#find(".shown").hidden = !parts.length;
    if (!parts.length) return viewer.show([{ image: before, label: BEFORE }, { image: after, label: "after" }]);
    const all = [{ ...this.#own, image: after }, ...parts.map(({ entry, image }) => ({ ...entry, image }))];
    const models = all.map(({ model }) => model);
    all.sort((a, b) => models.indexOf(a.model) - models.indexOf(b.model) || (a.strength ?? 0) - (b.strength ?? 0));
    this.#choice([{ image: before, label: BEFORE }, ...all.map((one) => ({ image: one.image, label: inWords(one) }))]);
  }

  /** Let the user choose which of the images are shown; at least two are. */
  #choice(images) {
    const list = this.#find(".shown div");
    const focused = list.contains(document.activeElement) && document.activeElement.value;
    if (images.filter(({ label }) => !this.#hidden.has(label)).length < 2) this.#hidden = new Set([BEFORE]);
    list.replaceChildren(...images.map(({ label }) => box(label, label, !this.#hidden.has(label))));
    const boxes = [...list.querySelectorAll("input")];
    const show = () => {
      const shown = images.filter((_, index) => boxes[index].checked);
      this.#hidden = new Set(boxes.filter(({ checked }) => !checked).map(({ value }) => value));
      for (const one of boxes) one.disabled = one.checked && shown.length <= 2;
      this.#card.viewer.show(shown);
    };
    list.onchange = show;
    show();
    boxes.find(({ value }) => value === focused)?.focus();
  }
}

/** What an image can be compared with: each model, those with a strength as faithful, by default and sharp; and the choice above. */
function variants(models, chosen) {
  const all = models.flatMap(({ name, strength }) => typeof strength === "number"
    ? [...new Set([0, strength, 1])].map((one) => ({ model: name, strength: one }))
    : [{ model: name }]);
  const known = models.some(({ name }) => name === chosen.model) && !all.some((one) => inWords(one) === inWords(chosen));
  return known ? [...all, chosen] : all;
}

function box(text, value, checked) {
  const label = document.createElement("label");
  label.append(Object.assign(document.createElement("input"), { type: "checkbox", value, checked }), text);
  return label;
}
