/** `node js_caller.mjs UPRES_JS URL COUNT IMAGE…`: uses the upres.js of a release; prints how the jobs ended. */

import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [path, url, count, ...images] = process.argv.slice(2);
const { Upres } = await import(pathToFileURL(path));
const upres = new Upres(url);
const ends = {};
for (let number = 0; number < count; number++) {
  const image = new Blob([await readFile(images[number % images.length])], { type: "image/png" });
  const job = await upres.submit(image, { factor: 2 });
  if (number % 4 === 3) await upres.cancel(job);
  const types = [];
  const end = await upres.subscribe(job, (event) => types.push(event.type)).then(
    (result) => (result.width === 128 && result.height === 96 ? "succeeded" : `${result.width}×${result.height}`),
    (error) => error.code,
  );
  ends[end] = (ends[end] ?? 0) + 1;
}
if (!(await upres.models()).length) throw new Error("no models");
console.log(JSON.stringify(ends));
process.exit(0);
