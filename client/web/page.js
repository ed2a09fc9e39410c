/** The page: takes images in every way there is, and remembers what is under way. */

import { Card } from "./card.js";
import { Upres } from "./upres.js";

const KEPT = "upres.jobs";
const MOST_KEPT = 12;

const upres = new Upres(location.origin);
const form = document.querySelector("#new");
const files = document.querySelector("#files");
const trouble = document.querySelector("#trouble");
const cards = [];

function add(entry) {
  const hooks = {
    keep,
    drop: () => { cards.splice(cards.indexOf(card), 1); keep(); },
    news: (text) => { document.querySelector("#news").textContent = text; },
    refused,
  };
  const card = new Card(upres, entry, hooks);
  cards.push(card);
  document.querySelector("#jobs").prepend(card.element);
  card.run();
}

function submit(image) {
  trouble.hidden = true;
  const options = { model: form.model.value, format: form.format.value };
  const factor = Number(form.factor.value);
  if (typeof image !== "string") add({ file: image, name: image.name || "pasted image", factor, options });
  else add({ address: image, name: decodeURIComponent(new URL(image).pathname.split("/").pop()) || image, factor, options });
}

function submitAll(list) {
  const images = [...list].filter((file) => file.size);
  if (images.length) images.forEach(submit);
  else complain("There is no file in that. Choose an image, or give its address.");
}

function complain(text) {
  trouble.textContent = text;
  trouble.hidden = false;
}

/** An API key is asked for once it turns out that one is needed. */
function refused({ code, message }) {
  if (code !== "unauthorized") return;
  document.querySelector("#access").hidden = false;
  form.key.focus();
  complain(message);
}

/** What is needed to go on after a reload; files are not kept, the server has them. */
function keep() {
  const entries = cards.filter((card) => card.entry.job).slice(-MOST_KEPT)
    .map(({ entry: { name, factor, options, address, job, thumb, size } }) => ({ name, factor, options, address, job, thumb, size }));
  try {
    localStorage.setItem(KEPT, JSON.stringify(entries));
  } catch { // full, or forbidden: then a reload forgets
    localStorage.removeItem(KEPT);
  }
}

function kept() {
  try {
    return JSON.parse(localStorage.getItem(KEPT)) ?? [];
  } catch {
    return [];
  }
}

async function listModels() {
  const models = await upres.models().catch(() => []);
  for (const model of models) {
    const option = new Option(model.default ? `${model.name} (default)` : model.name, model.name);
    option.title = model.description;
    option.dataset.factors = model.factors.join();
    if (model.default) form.model.options[0].remove();
    form.model.add(option, model.default ? 0 : undefined);
  }
  form.model.selectedIndex = 0;
  offerFactors();
}

/** A model may not make every factor. */
function offerFactors() {
  const factors = form.model.selectedOptions[0]?.dataset.factors?.split(",");
  for (const radio of form.factor) radio.disabled = Boolean(factors) && !factors.includes(radio.value);
  const chosen = [...form.factor].find((radio) => radio.checked && !radio.disabled);
  if (!chosen) [...form.factor].find((radio) => !radio.disabled).checked = true;
}

form.onsubmit = (event) => {
  event.preventDefault();
  if (!form.url.value) return complain("Give the address of an image, or choose a file.");
  submit(form.url.value);
  form.url.value = "";
};
form.model.onchange = offerFactors;
form.key.onchange = () => {
  upres.key = form.key.value.trim();
  trouble.hidden = true;
  listModels();
};
files.onchange = () => {
  submitAll(files.files);
  files.value = "";
};
document.addEventListener("paste", ({ clipboardData, target }) => {
  if (clipboardData.files.length) return submitAll(clipboardData.files);
  const text = clipboardData.getData("text").trim();
  if (!target.matches("input") && /^https?:\/\/\S+$/.test(text)) submit(text);
});
for (const [name, inside] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", inside);
  });
}
document.addEventListener("drop", ({ dataTransfer }) => {
  const address = dataTransfer.getData("text/uri-list");
  if (dataTransfer.files.length) submitAll(dataTransfer.files);
  else if (/^https?:/.test(address)) submit(address);
});

kept().forEach(add);
listModels();
