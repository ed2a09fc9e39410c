/** The React hook of upres: it follows a job (docs/web.md). */

import { useCallback, useEffect, useRef, useState } from "react";
import { Upres } from "./upres.js";

const NOT_RUNNING = { stage: null, etaSeconds: null };
const NOTHING_DONE = { ...NOT_RUNNING, percent: 0, tilesDone: 0, tilesTotal: 0 };
const NO_JOB = { ...NOTHING_DONE, status: null, result: null, error: null, connected: true };
const SUBMITTED = { ...NO_JOB, status: "queued" };
const keyless = new Upres(""); // a job has its own URLs; only the API key of a client is used

export function useUpres(job, { client = keyless, onEvent } = {}) {
  const address = job?.events_url; // identifies the job: each render may parse a new object
  const [state, setState] = useState({});
  const resume = useRef({});
  const listener = useRef(onEvent);
  useEffect(() => { listener.current = onEvent; });
  useEffect(() => {
    if (!address) return undefined;
    if (resume.current.address !== address) resume.current = { address, id: "" };
    const controller = new AbortController();
    const update = (change) => controller.signal.aborted || setState((previous) => (
      { address, view: { ...(previous.address === address ? previous.view : SUBMITTED), ...change } }
    ));
    follow(client, job, update, listener, resume.current, controller.signal);
    return () => controller.abort();
  }, [address, client.key]);
  const cancel = useCallback(async () => { if (job) await client.cancel(job); }, [address, client.key]);
  const view = state.address === address ? state.view : SUBMITTED;
  return { ...(address ? view : NO_JOB), cancel };
}

/**
 * Follow a job to its end, or until the signal aborts. `update` receives what changes.
 *
 * It starts after the event `resume.id`: React may run an effect again, and `onEvent` must not get an event twice.
 */
async function follow(client, job, update, listener, resume, signal) {
  const receive = (event, id) => {
    if (id) resume.id = id;
    update({ connected: true, error: null, ...changeOf(event) });
    notify(listener.current, event, id);
  };
  try {
    const onConnection = (connected) => update({ connected });
    const result = await client.subscribe(job, receive, { after: resume.id, onConnection, signal });
    update({ ...NOT_RUNNING, status: "succeeded", percent: 100, result });
  } catch (error) {
    const cancelled = error.code === "cancelled";
    update({ ...NOT_RUNNING, ...(cancelled ? { status: "cancelled" } : { status: "failed", error }) });
  }
}

/** What an event changes. The end of a job is not taken from its event: `subscribe` knows it even without one. */
function changeOf(event) {
  if (event.type === "queued" || event.type === "requeued") return { ...NOT_RUNNING, status: "queued" };
  if (event.type === "started") return { ...NOTHING_DONE, status: "running" };
  if (event.type !== "progress") return {};
  const { percent, stage = null, eta_seconds: etaSeconds = null } = event;
  return { status: "running", percent, stage, etaSeconds, tilesDone: event.tiles_done, tilesTotal: event.tiles_total };
}

/** An error in a listener does not stop the following, as an error in an event handler does not stop React. */
function notify(listener, event, id) {
  try {
    listener?.(event, id);
  } catch (error) {
    reportError(error);
  }
}
