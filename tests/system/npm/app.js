/** The package in an application of React. It records its renders, events and streams for the test. */

import { Activity, createElement as h, StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { Upres } from "upres";
import { useUpres } from "upres/react";

const upres = new Upres(new URLSearchParams(location.search).get("server"));
Object.assign(window, { streams: [], views: [], events: [] });
window.EventSource = class extends EventSource { constructor(url) { super(url); streams.push(this); } };

function Enlarged({ json }) {
  const options = { client: upres, onEvent: (event) => events.push(event.type) };
  const { cancel, ...view } = useUpres(JSON.parse(json), options);
  views.push(view);
  const { status, percent, result, error } = view;
  return h("section", null, h("output", null, status), h("progress", { max: 100, value: percent }),
    h("button", { onClick: cancel }, "Cancel"), error && h("code", null, error.code),
    result && h("img", { src: result.sr_image_url }));
}

function App() {
  const [json, setJson] = useState("null");
  const [mode, setMode] = useState("visible");
  window.show = setMode; // "visible", "hidden" by React with its state kept, or "gone"
  window.submit = async (image) => setJson(JSON.stringify(await upres.submit(image, { factor: 2 })));
  return h("main", null, h("input", { type: "file", onChange: ({ target }) => submit(target.files[0]) }),
    mode !== "gone" && h(Activity, { mode }, h(Enlarged, { json })));
}

createRoot(document.querySelector("div")).render(h(StrictMode, null, h(App)));
