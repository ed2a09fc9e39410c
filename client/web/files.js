/** Thumbnails, loading and saving of images, and copying of links. */

/** Make a thumbnail of an image as a data: URL, to show it again after a reload. */
export function small(image) {
  const scale = Math.min(1, 480 / Math.max(image.naturalWidth, image.naturalHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, image.naturalWidth * scale);
  canvas.height = Math.max(1, image.naturalHeight * scale);
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.7);
}

/**
 * Load a result, from its presigned URL or, if that does not work, by the link. Returns whether the browser can show it.
 * The page may read the pixels if the first way works: it asks for them (CORS), which a store may not allow.
 */
export async function load(image, url, link) {
  image.removeAttribute("src"); // else the browser would load the image before again, in the other way
  image.crossOrigin = "anonymous";
  image.src = url;
  return image.decode().catch(() => { // presigned URLs expire after an hour; links make new ones
    image.removeAttribute("src");
    image.removeAttribute("crossorigin");
    image.src = link;
    return image.decode();
  }).then(() => true, () => false);
}

/** Save a result under its own name. If the page may not read from the store (no CORS), open the link instead. */
export async function save(event, name) {
  const link = event.currentTarget;
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  if (link.ariaBusy === "true") return;
  Object.assign(link, { ariaBusy: "true", textContent: "Downloading…" });
  try {
    const answer = await fetch(link.href, { cache: "no-store" }); // the cache may hold a response without CORS headers
    if (!answer.ok) throw new Error(`The store answered ${answer.status}.`);
    const href = URL.createObjectURL(await answer.blob());
    Object.assign(document.createElement("a"), { href, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(href), 60_000);
  } catch {
    open(link.href, "_blank", "noopener");
  }
  Object.assign(link, { ariaBusy: "false", textContent: "Download" });
}

/** Copy a text to the clipboard; the button confirms it. */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no permission or no https
    const field = Object.assign(document.createElement("textarea"), { value: text });
    button.after(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy link"), 1500);
}
