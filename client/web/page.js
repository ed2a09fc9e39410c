const form = document.querySelector("form");
const button = document.querySelector("button");
const bar = document.querySelector("progress");
const state = document.querySelector("#state");
const images = document.querySelector("#images");

const base64 = (file) => new Promise((resolve, reject) => {
  const reader = new FileReader();
  reader.onload = () => resolve(reader.result.split(",")[1]);
  reader.onerror = () => reject(reader.error);
  reader.readAsDataURL(file);
});

async function submit() {
  const file = form.file.files[0];
  if (!file && !form.url.value) throw new Error("Choose a photo, or give its address.");
  const image = file
    ? { image_base64: await base64(file), image_name: file.name }
    : { image_url: form.url.value };
  const response = await fetch("/v1/jobs", {
    method: "POST",
    headers: { "Content-Type": "application/json", ...authorization(), "Idempotency-Key": [...crypto.getRandomValues(new Uint32Array(4))].join("-") },
    body: JSON.stringify({ ...image, upscale_factor: Number(form.factor.value) }),
  });
  const answer = await response.json();
  if (response.status === 401) document.querySelector("#access").hidden = false;
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

const authorization = () => (form.key.value ? { Authorization: `Bearer ${form.key.value}` } : {});

const follow = (job) => new Promise((resolve, reject) => {
  const source = new EventSource(job.events_url);
  const end = (settle, value) => { source.close(); settle(value); };
  source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) end(reject, new Error("The server does not know this job any more; try again."));
  };
  source.onmessage = ({ data }) => {
    const event = JSON.parse(data);
    if (event.type === "succeeded") end(resolve, event.result);
    else if (event.type === "failed") end(reject, new Error(event.message));
    else if (event.type === "cancelled") end(reject, new Error("The job was cancelled."));
    else show(event);
  };
});

function show(event) {
  bar.value = event.percent ?? 0;
  state.textContent = {
    queued: () => `Queued, ${event.position} ahead`,
    requeued: () => "Waiting again",
    started: () => `Taken by ${event.device}`,
    progress: () => [
      event.stage,
      event.tiles_total ? `tile ${event.tiles_done} of ${event.tiles_total}` : "",
      event.eta_seconds ? `${Math.ceil(event.eta_seconds)} s left` : "",
    ].filter(Boolean).join(" · "),
  }[event.type]();
}

form.file.onchange = () => { form.url.value = ""; };
form.url.oninput = () => { form.file.value = ""; };

form.onsubmit = async (submitted) => {
  submitted.preventDefault();
  button.disabled = true;
  images.hidden = true;
  bar.hidden = false;
  bar.removeAttribute("value");
  state.textContent = "Sending…";
  try {
    const result = await follow(await submit());
    bar.value = 100;
    const seconds = Object.values(result.seconds).reduce((a, b) => a + b, 0);
    state.textContent = `${result.width} × ${result.height} in ${seconds.toFixed(1)} s on ${result.device}`;
    document.querySelector("#before").src = result.original_image_url;
    document.querySelector("#after").src = document.querySelector("#download").href = result.sr_image_url;
    images.hidden = false;
  } catch (error) {
    bar.hidden = true;
    state.textContent = error.message;
  }
  button.disabled = false;
};
