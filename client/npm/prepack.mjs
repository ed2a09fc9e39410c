/** The library has one source, which the server serves: this brings it here for `npm pack`. postpack removes it. */

import { copyFileSync } from "node:fs";

for (const path of ["../web/upres.js", "../web/requests.js", "../../LICENSE"]) {
  copyFileSync(new URL(path, import.meta.url), new URL(path.split("/").pop(), import.meta.url));
}
