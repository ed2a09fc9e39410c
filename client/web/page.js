/** The page: takes images by file dialog, drop, paste or URL, and remembers its jobs. */

import { Card } from "./card.js";
import { ModelChoice, enlarging } from "./models.js";
import { storeJobs, storedJobs } from "./stored_jobs.js";
import { Upres } from "./upres.js";

const upres = new Upres(location.origin);
const form = document.querySelector("#new");
const files = document.querySelector("#files");
const trouble = document.querySelector("#trouble");
const cards = [];
const gone = new Set();
const choice = new ModelChoice(form, offerSizes);
let stored = true;

function add(entry) {
  const hooks = {
    keep,
    forget: (job) => { gone.add(job.job_id); },
    drop: () => {
      cards.splice(cards.indexOf(card), 1);
      gone.add(entry.job?.job_id);
      keep();
    },
    news: (text) => { document.querySelector("#news").textContent = text; },
    complain,
    refused,
    chosen: () => choice.chosen,
  };
  const card = new Card(upres, entry, hooks);
  cards.push(card);
  document.querySelector("#jobs").prepend(card.element);
  return card;
}

/** Add files and URLs. The first one is shown on top and submitted first. */
function submit(images) {
  trouble.hidden = true;
  const options = { ...choice.chosen, format: form.format.value };
  const wanted = wantedSize();
  if (!wanted) return;
  const entries = images.map((image) => typeof image === "string"
    ? { address: image, name: nameOf(image), ...wanted, options }
    : { file: image, name: image.name || "pasted image", ...wanted, options });
  entries.reverse().map(add).reverse().forEach((card) => card.run());
}

/** The factor, or the width and height, that is chosen; null if it says nothing valid, and then the user is told. */
function wantedSize() {
  if (form.factor.value !== "size") return { factor: Number(form.factor.value) };
  const wrong = [form.width, form.height].find((input) => !input.validity.valid);
  if (!wrong && (form.width.value || form.height.value)) {
    return { width: Number(form.width.value) || undefined, height: Number(form.height.value) || undefined };
  }
  (wrong ?? form.width).focus();
  complain("Give the width or the height of the result in whole pixels.");
  return null;
}

function submitAll(list) {
  const images = [...list].filter((file) => file.size);
  if (images.length) submit(images);
  else complain("There is no file in that. Choose an image, or give its address.");
}

/** Take a sample photo as if its file had been chosen. */
async function takeSample({ target }) {
  const image = target.closest("button").querySelector("img");
  try {
    const answer = await fetch(image.src);
    if (!answer.ok) throw new Error(`The server answered ${answer.status}.`);
    const photo = await answer.blob();
    submit([new File([photo], nameOf(image.src), { type: photo.type })]);
  } catch {
    complain("The sample photo could not be loaded. Check the connection and try again.");
  }
}

function nameOf(address) {
  const last = new URL(address).pathname.split("/").pop();
  try {
    return decodeURIComponent(last) || address;
  } catch {
    return last;
  }
}

function complain(text) {
  trouble.textContent = text;
  trouble.hidden = false;
}

/** Ask for an API key after the server has refused a request without one. */
function refused({ code }) {
  if (code !== "unauthorized") return;
  document.querySelector("#access").hidden = false;
  if (!form.key.value) form.key.focus();
  complain(form.key.value ? "The server does not know this API key." : "This server needs an API key.");
}

function useKey() {
  const key = form.key.value.trim();
  if (key === upres.key) return;
  upres.key = key;
  trouble.hidden = true;
  listModels();
  cards.filter((card) => card.unauthorized).forEach((card) => card.again());
}

/** Store what is needed to continue after a reload, for this tab and others. Files are on the server. */
function keep() {
  const mine = cards.filter((card) => card.entry.job).map(({ entry: { file, ...rest } }) => rest);
  const known = new Set([...gone, ...mine.map((entry) => entry.job.job_id)]);
  stored = storeJobs([...storedJobs().filter((entry) => !known.has(entry.job.job_id)), ...mine]);
}

async function listModels() {
  choice.offer(enlarging(await upres.models().catch(() => [])));
}

/** Disable the factors that the chosen model cannot make, and show the fields of a size if one is wanted. */
function offerSizes() {
  for (const radio of form.factor) radio.disabled = Number(radio.value) > choice.mostFactor;
  const chosen = [...form.factor].find((radio) => radio.checked && !radio.disabled);
  if (!chosen) [...form.factor].find((radio) => !radio.disabled).checked = true;
  const pixels = document.querySelector("#pixels");
  pixels.hidden = pixels.disabled = form.factor.value !== "size";
}

form.onsubmit = (event) => {
  event.preventDefault();
  if (document.activeElement === form.key) return useKey();
  if (!form.url.value) return complain("Give the address of an image, or choose a file.");
  submit([form.url.value]);
  form.url.value = "";
};
for (const radio of form.factor) radio.onchange = offerSizes;
offerSizes(); // a reload may keep the choice
form.key.onchange = useKey;
for (const sample of document.querySelectorAll("#samples button")) sample.onclick = takeSample;
files.onchange = () => {
  submitAll(files.files);
  files.value = "";
};
document.addEventListener("paste", ({ clipboardData, target }) => {
  if (clipboardData.files.length) return submitAll(clipboardData.files);
  const text = clipboardData.getData("text").trim();
  if (!target.matches("input") && /^https?:\/\/\S+$/.test(text)) submit([text]);
});
for (const [name, inside] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", inside);
  });
}
document.addEventListener("drop", ({ dataTransfer }) => {
  const links = dataTransfer.getData("text/uri-list").split(/\r?\n/).filter((line) => /^https?:/.test(line));
  if (links.length && !dataTransfer.files.length) submit(links);
  else submitAll(dataTransfer.files);
});
addEventListener("beforeunload", (event) => { // what is not uploaded, or cannot be stored, would be lost
  if (cards.some((card) => card.sending || !(stored || card.entry.ended))) event.preventDefault();
});

storedJobs().map(add).forEach((card) => card.run());
listModels();
