// node infra/chromium.mjs FOLDER: unpack the Chromium of npm's package @sparticuz/chromium (Linux x64), which was
// installed into FOLDER. It brings the libraries and a font that it needs, so nothing of the system is changed.
import { execFileSync } from "node:child_process";
import { createReadStream, createWriteStream, renameSync, unlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";

const folder = process.argv[2];
// The package's fonts.conf names folders of AWS Lambda. Without a font Chromium crashes at the first text.
writeFileSync(join(folder, "own-fonts.conf"), `<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <dir>${resolve(folder, "fonts")}</dir>
  <cachedir>${resolve(folder, "fonts-cache")}</cachedir>
</fontconfig>
`);
for (const name of ["al2023.tar", "fonts.tar", "swiftshader.tar", "chromium"]) {
  const packed = join(folder, "node_modules/@sparticuz/chromium/bin", `${name}.br`);
  const file = join(folder, `${name}.part`);
  await pipeline(createReadStream(packed), createBrotliDecompress(), createWriteStream(file, { mode: 0o755 }));
  if (name.endsWith(".tar")) {
    execFileSync("tar", ["-xf", file, "-C", folder]);
    unlinkSync(file);
  } else {
    renameSync(file, join(folder, name)); // make looks for this file, so it has to be complete
  }
}
