/** The models of the server in words: which one makes the next images, with what strength, and how a choice is called. */

const FIRST = 4; // models that are shown at once; the others are behind «More models»
const WORDS = ["faithful", "mostly faithful", "between faithful and sharp", "mostly sharp", "sharp"];

/** Return the models that enlarge by this factor, the default one first. */
export function enlarging(models, factor = 1.5) {
  const able = models.filter(({ factors }) => Math.max(...factors) >= factor);
  return able.sort((one, other) => Number(other.default) - Number(one.default)); // stable: then by name
}

/** What a model with a strength is called; undefined strength: it cannot be chosen. */
export function inWords({ model, strength }) {
  if (typeof strength !== "number") return model;
  return strength === 0 ? `${model}, faithful` : strength === 1 ? `${model}, sharp` : `${model} at ${strength}`;
}

export class ModelChoice {
  #form;
  #models = new Map();
  #onChange;

  /** form: has the elements below; onChange() is called when another model is chosen. */
  constructor(form, onChange) {
    [this.#form, this.#onChange] = [form, onChange];
    this.#knob.oninput = () => this.#say();
  }

  /** Offer these models. The choice stays, if it is among them; else it is the default. */
  offer(models) {
    if (!models.length) return;
    const before = this.chosen.model;
    this.#models = new Map(models.map((model) => [model.name, model]));
    const checked = this.#models.has(before) ? before : models[0].name;
    const rows = models.map((model) => this.#row(model, checked));
    const [few, more] = this.#form.querySelectorAll(".models");
    few.replaceChildren(...rows.slice(0, FIRST));
    more.replaceChildren(...rows.slice(FIRST));
    more.closest("details").hidden = rows.length <= FIRST;
    if (checked !== before) this.#choose();
  }

  /** { model, strength }: the model is empty while none is known, the strength undefined where there is none to choose. */
  get chosen() {
    const model = new FormData(this.#form).get("model") ?? "";
    const chooses = typeof this.#models.get(model)?.strength === "number";
    return { model, strength: chooses ? Number(this.#knob.value) : undefined };
  }

  /** The largest factor that the chosen model makes. */
  get mostFactor() {
    return Math.max(...(this.#models.get(this.chosen.model)?.factors ?? [Infinity]));
  }

  get #knob() {
    return this.#form.querySelector("#knob");
  }

  #row(model, checked) {
    const row = this.#form.querySelector("#model").content.firstElementChild.cloneNode(true);
    const radio = row.querySelector("input");
    Object.assign(radio, { value: model.name, checked: model.name === checked, onchange: () => this.#choose() });
    row.querySelector("b").textContent = model.name;
    row.querySelector(".default").hidden = !model.default;
    row.querySelector(".about").textContent = model.description;
    return row;
  }

  #choose() {
    const { strength } = this.#models.get(this.chosen.model) ?? {};
    this.#form.querySelector("#strength").hidden = typeof strength !== "number";
    if (typeof strength === "number") this.#knob.value = strength;
    this.#say();
    this.#onChange();
  }

  /** The strength in a number and in words. */
  #say() {
    const value = Number(this.#knob.value);
    const word = WORDS[value === 0 ? 0 : value === 1 ? 4 : value < 0.4 ? 1 : value > 0.6 ? 3 : 2];
    const normal = value === this.#models.get(this.chosen.model)?.strength ? " (default)" : "";
    this.#knob.ariaValueText = this.#form.querySelector("#value").textContent = `${value} · ${word}${normal}`;
  }
}
