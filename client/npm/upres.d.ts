/** Types of upres.js. The fields of jobs, events and results are the server's: /openapi.json describes them too. */

export type Factor = 2 | 4 | 8;
export type WantedFormat = "auto" | "png" | "jpeg" | "webp";
export type OutputFormat = "png" | "jpeg" | "webp";
export type Stage = "fetch" | "decode" | "upscale" | "encode" | "store";
export type Status = "queued" | "running" | "succeeded" | "failed" | "cancelled";

/** The error of all methods. `message` is for people and says what to do. */
export class UpresError extends Error {
  constructor(message: string, options?: { code?: string; status?: number; retryable?: boolean });
  /** Stable: one of the server's codes, or "server_unreachable", "http_error", "unreadable", "cancelled". */
  code: string;
  /** HTTP status; 0 where the error is not an answer. */
  status: number;
  /** Whether the same may succeed later. */
  retryable: boolean;
}

/** An upres server. */
export class Upres {
  /** `base`: the server's address, such as "https://upres.example.org". */
  constructor(base: string, options?: UpresOptions);
  /** The API key; empty for none. */
  key: string;
  /** Submit a File, a Blob, or the address of an image. */
  submit(image: Blob | string | URL, options?: SubmitOptions): Promise<Job>;
  /**
   * Receive a job's events up to the last → its result. `id` is empty for a PolledState.
   *
   * Rejects with an UpresError when the job fails or is cancelled. Rejects also with what onEvent throws, and with the
   * signal's reason; neither ends the job.
   */
  subscribe(job: Job, onEvent?: (event: JobEvent, id: string) => void, options?: SubscribeOptions): Promise<Result>;
  /** Cancel a job → the job after that; one that has ended stays as it is. */
  cancel(job: Job, options?: CallOptions): Promise<Snapshot>;
  /** A job now. */
  status(job: Job, options?: CallOptions): Promise<Snapshot>;
  /** The finished tiles of a running job that was submitted with `preview`, without the first `after` of them. */
  preview(job: Job, after?: number, options?: CallOptions): Promise<PreviewTile[]>;
  /** An address of a finished job's image; "original" is its bicubic enlargement. */
  link(job: Job, which?: "result" | "original"): string;
  models(options?: CallOptions): Promise<Model[]>;
  /** What would become of an image of this size. */
  estimate(image: EstimateRequest, options?: CallOptions): Promise<Estimate>;
}

export interface UpresOptions {
  /** An API key. Do not put one into a page that others can open. */
  key?: string;
}

export interface CallOptions {
  /** Aborts the request. */
  signal?: AbortSignal;
}

export interface SubmitOptions extends CallOptions {
  /** Enlargement per side; default: 4. */
  factor?: Factor;
  /** Default: the server's. */
  model?: string;
  /** A version or a label of the model; default: stable. */
  version?: string;
  /** Default: "auto", as the input. */
  format?: WantedFormat;
  /** Whether finished tiles can be fetched with `preview`. */
  preview?: boolean;
  /** An address that receives how the job ended. */
  webhook?: string;
  /** Receives how many bytes of a file over 4 MB are uploaded. */
  onUpload?: (sent: number, total: number) => void;
  /** Receives how long the server asks to wait before the next attempt. */
  onWait?: (milliseconds: number) => void;
}

export interface SubscribeOptions {
  /** Id of an event; only later events are received. */
  after?: string;
  /** Receives false when the connection is lost, and true when it is there again. */
  onConnection?: (connected: boolean) => void;
  /** Stops the events; the job goes on. */
  signal?: AbortSignal;
}

/** A submitted job. It is plain JSON: store it to go on after a reload, or pass it to another page. */
export interface Job {
  job_id: string;
  /** "queued", or how far the job was when a submission was repeated. */
  status: Status;
  /** Redis pub/sub channel with the job's events. */
  channel: string;
  events_url: string;
  status_url: string;
}

/** What onEvent receives; `type` says which it is. Not called `Event`, because browsers have a type of that name. */
export type JobEvent = Queued | Started | Progress | Requeued | Succeeded | Failed | Cancelled | PolledState;

interface EventBase {
  job_id: string;
  /** When it happened, as ISO 8601 in UTC. */
  at: string;
}

/** The job was accepted and waits. */
export interface Queued extends EventBase {
  type: "queued";
  upscale_factor: number;
  model: string;
  model_version: string;
  /** As requested. */
  output_format: string;
  /** Jobs ahead of this one at that moment. */
  position: number;
  /** When the job fails unless it has ended. */
  deadline: string;
  /** Id of the API key that it was submitted with. */
  owner?: string;
}

/** A worker took the job. */
export interface Started extends EventBase {
  type: "started";
  /** Name of the worker process. */
  worker: string;
  /** Name of the processor. */
  device: string;
  model: string;
  model_version: string;
  model_digest: string;
  /** 1 for the first; more when an earlier worker died. */
  attempt: number;
  /** Seconds from submission to now. */
  waited_seconds: number;
}

/** The job entered a stage or finished a tile. */
export interface Progress extends EventBase {
  type: "progress";
  stage: Stage;
  tiles_done: number;
  /** 0 until the size is known. */
  tiles_total: number;
  /** Share of the whole job, 0 to 100; never falls in an attempt. */
  percent: number;
  /** Expected seconds to the end, once known. */
  eta_seconds?: number;
  /** Something unusual, in a sentence for people. */
  notice?: string;
}

/** The job waits again, and goes on where its last checkpoint is. */
export interface Requeued extends EventBase {
  type: "requeued";
  reason: "worker_lost" | "worker_stopping" | "device_lost" | "identical_job";
}

/** The job is done. */
export interface Succeeded extends EventBase {
  type: "succeeded";
  result: Result;
}

/** The job ended without a result. */
export interface Failed extends EventBase, Failure {
  type: "failed";
}

/** The job was cancelled on request. */
export interface Cancelled extends EventBase {
  type: "cancelled";
}

/** The state of a job that has no stream yet, asked for every two seconds. It is not an event, and has no id. */
export interface PolledState extends Snapshot {
  type: "queued" | "progress";
  at?: undefined;
}

/** Why a job failed. */
export interface Failure {
  code: string;
  message: string;
  retryable: boolean;
}

/** A job at one moment. */
export interface Snapshot {
  job_id: string;
  /** The last three are final. */
  status: Status;
  upscale_factor: number;
  model: string;
  model_version: string;
  /** As requested. */
  output_format: string;
  submitted_at: string;
  updated_at: string;
  /** When the job fails unless it has ended. */
  deadline: string;
  /** Jobs ahead of this one while it is queued. */
  position?: number;
  worker?: string;
  device?: string;
  attempt: number;
  stage?: Stage;
  tiles_done: number;
  tiles_total: number;
  percent: number;
  eta_seconds?: number;
  /** Once succeeded. */
  result?: Result;
  /** Once failed. */
  failure?: Failure;
}

/** Where the images of a finished job lie, and how they were made. */
export interface Result {
  /** Link to the enlarged image, valid for an hour; `link` makes others. */
  sr_image_url: string;
  sr_image_uri: string;
  /** Link to the bicubic enlargement, to compare. */
  original_image_url: string;
  original_image_uri: string;
  upscale_factor: number;
  /** Of both images, in pixels. */
  width: number;
  height: number;
  format: OutputFormat;
  /** Under this name the link saves the enlarged image. */
  file_name: string;
  model: string;
  model_version: string;
  model_digest: string;
  device: string;
  /** Seconds per stage. */
  seconds: Partial<Record<Stage, number>>;
}

/** A finished piece of a result, small; in pixels of the preview. */
export interface PreviewTile {
  of_width: number;
  of_height: number;
  x: number;
  y: number;
  width: number;
  height: number;
  /** As a data: URL. */
  image: string;
}

export interface Model {
  /** For the option `model`. */
  name: string;
  /** Whether a request that names no model gets it. */
  default: boolean;
  description: string;
  /** SPDX identifier. */
  licence: string;
  factors: number[];
  /** Label → version. */
  labels: Record<string, string>;
  jobs_url: string;
}

export interface EstimateRequest {
  /** Of the image, in pixels. */
  width: number;
  height: number;
  /** Size of the file. */
  bytes?: number;
  upscale_factor?: Factor;
  model?: string;
  model_version?: string;
  output_format?: WantedFormat;
}

export interface Estimate {
  /** Whether the server would accept a job. */
  accepted: boolean;
  /** Why not. */
  code?: string;
  /** Why not, in a sentence for people. */
  detail?: string;
  /** Of the result, in pixels. */
  width: number;
  height: number;
  tiles: number;
  model: string;
  model_version: string;
  /** Expected seconds from start to end; absent when there were no jobs lately. */
  seconds?: number;
  /** Jobs that wait now. */
  waiting: number;
  /** Jobs that the workers run at the same time. */
  slots: number;
}
