import { createElement, type ReactNode } from "react";
import { Upres, UpresError } from "upres";
import type {
  CallOptions, Cancelled, Estimate, EstimateRequest, Factor, Fit, Failed, Failure, Job, JobEvent, Model, OutputFormat,
  PolledState, PreviewTile, Progress, Queued, Requeued, Result, Snapshot, Stage, Started, Status, SubmitOptions,
  SubscribeOptions, Succeeded, Upload, UpresOptions, WantedDepth, WantedFormat,
} from "upres";
import { useUpres } from "upres/react";
import type { FollowedJob, Outcome, UseUpresOptions } from "upres/react";

const access: UpresOptions = { key: "upres_x" };
const server = new Upres("https://upres.example.org", access);
const calling: CallOptions = { signal: AbortSignal.timeout(1000) };
const fit: Fit = "inside";
const [factor, format, depth]: [Factor, WantedFormat, WantedDepth] = [2.5, "auto", 16];

function describe(event: JobEvent): string | number | undefined {
  switch (event.type) {
    case "queued": {
      const queued: Queued | PolledState = event;
      return queued.at === undefined ? queued.position : queued.position + 1;
    }
    case "started": { const started: Started = event; return started.device; }
    case "progress": { const progress: Progress | PolledState = event; return progress.percent; }
    case "requeued": { const requeued: Requeued = event; return requeued.reason; }
    case "succeeded": { const succeeded: Succeeded = event; return succeeded.result.width; }
    case "failed": { const failed: Failed = event; const failure: Failure = failed; return failure.code; }
    case "cancelled": { const cancelled: Cancelled = event; return cancelled.at; }
  }
}

export async function use(file: File): Promise<void> {
  const submission: SubmitOptions = { factor, fit, format, depth, onUpload: (sent, total) => sent / total, ...calling };
  const following: SubscribeOptions = { after: "0-0", onConnection: (connected) => !connected, ...calling };
  const uploaded: Upload = await server.upload(file, calling);
  const job: Job = await server.submit(uploaded, { ...submission, strength: 0.3 });
  const result: Result = await server.subscribe(job, (event, id) => console.log(describe(event), id.length), following);
  const [output, seconds]: [OutputFormat, number | undefined] = [result.format, result.seconds.upscale];
  const [now, status]: [Snapshot, Status] = [await server.status(job), (await server.cancel(job)).status];
  const tiles: PreviewTile[] = await server.preview(job, 1, calling);
  const models: Model[] = await server.models();
  const size: EstimateRequest = { width: 10, height: 10, output_width: 25, fit };
  const estimate: Estimate = await server.estimate(size);
  const error: unknown = await server.submit(new URL(server.link(job, "original"))).catch((reason: unknown) => reason);
  if (error instanceof UpresError && error.retryable) console.log(error.code, error.status);
  console.log(output, seconds, now.stage, status, tiles[0]?.x, models[0]?.factors, estimate.slots);
}

export function Enlarged({ job }: { job: Job | null }): ReactNode {
  const options: UseUpresOptions = { client: server, onEvent: (event) => describe(event) };
  const followed: FollowedJob = useUpres(job, options);
  const outcome: Outcome = followed;
  const stage: Stage | null = followed.stage;
  if (outcome.status === "succeeded") return createElement("img", { src: outcome.result.sr_image_url });
  if (outcome.status === "failed") return outcome.error.code;
  return createElement("button", { onClick: followed.cancel }, stage, followed.tilesDone, followed.etaSeconds);
}
