/** Types of upres.js. The fields of jobs, events and results are the server's: /openapi.json describes them too. */

/** Any number from 1 to 8, rounded to four decimals. */
export type Factor = number;
export type Fit = "inside" | "exact";
export type WantedFormat = "auto" | OutputFormat;
export type WantedDepth = "auto" | 8 | 16;
export type OutputFormat = "png" | "jpeg" | "webp" | "avif" | "jxl" | "tiff" | "gif";
export type Stage = "fetch" | "decode" | "upscale" | "encode" | "store";
export type Status = "queued" | "running" | "succeeded" | "failed" | "cancelled";

/** The error of all methods. `message` is for users and says what to do. */
export class UpresError extends Error {
  constructor(message: string, options?: { code?: string; status?: number; retryable?: boolean });
  /** Stable: one of the server's codes, or "server_unreachable", "http_error", "unreadable", "cancelled". */
  code: string;
  /** HTTP status; 0 if there was no response. */
  status: number;
  /** Whether a retry may succeed. */
  retryable: boolean;
}

/** An upres server. */
export class Upres {
  /** `base`: the URL of the server, such as "https://upres.example.org". */
  constructor(base: string, options?: UpresOptions);
  /** The API key; empty for none. */
  key: string;
  /** Submit a File, a Blob, the URL of an image, or what `upload` resolved to. Resolves to the job. */
  submit(image: Blob | string | URL | Upload, options?: SubmitOptions): Promise<Job>;
  /** Upload a File or a Blob to the store: several jobs for one image then need one upload. */
  upload(file: Blob, options?: Pick<SubmitOptions, "onUpload" | "onWait" | "signal">): Promise<Upload>;
  /**
   * Receive a job's events up to the last one. Resolves to its result. `id` is empty for a PolledState.
   *
   * Rejects with an UpresError when the job fails or is cancelled. Rejects also with what onEvent throws, and with the
   * signal's reason; neither ends the job.
   */
  subscribe(job: Job, onEvent?: (event: JobEvent, id: string) => void, options?: SubscribeOptions): Promise<Result>;
  /** Cancel a job. Resolves to its state; a job that has ended keeps its state. */
  cancel(job: Job, options?: CallOptions): Promise<Snapshot>;
  /** Resolves to the current state of a job. */
  status(job: Job, options?: CallOptions): Promise<Snapshot>;
  /** Resolves to the finished tiles, without the first `after`, of a running job that was submitted with `preview`. */
  preview(job: Job, after?: number, options?: CallOptions): Promise<PreviewTile[]>;
  /** Returns the URL of a finished job's image; "original" is a bicubic enlargement of the input. */
  link(job: Job, which?: "result" | "original"): string;
  /** Resolves to the models of the server. */
  models(options?: CallOptions): Promise<Model[]>;
  /** Resolves to the expected result for an image of this size. */
  estimate(image: EstimateRequest, options?: CallOptions): Promise<Estimate>;
}

export interface UpresOptions {
  /** An API key. It is sent to this server only. Do not put one into a page that other people can open. */
  key?: string;
}

export interface CallOptions {
  /** Aborts the request. */
  signal?: AbortSignal;
}

export interface SubmitOptions extends CallOptions {
  /** Enlargement per side; default: 4. Not together with width or height. With 1 the size stays, by models such as denoisers. */
  factor?: Factor;
  /** Size of the result in pixels instead of a factor; without one of them it follows from the image. */
  width?: number;
  height?: number;
  /** "inside", the default: keep the image's proportions within width and height; "exact": stretch to both. */
  fit?: Fit;
  /** Default: the server's. */
  model?: string;
  /** A version or a label of the model; default: stable. */
  version?: string;
  /** From 0 (faithful) to 1, rounded to tenths, for models that have a strength. Default: the model's. */
  strength?: number;
  /** A model with factor 1, such as a denoiser or a JPEG cleaner, that is applied before. */
  firstModel?: string;
  /** Default: "auto". JPEG, WebP, animated GIF and TIFF with pages stay, AVIF becomes WebP, all others become PNG. */
  format?: WantedFormat;
  /** Bits per sample of the result. Default: "auto", those of the image where the format allows it. 16 needs PNG, TIFF or JPEG XL. */
  depth?: WantedDepth;
  /** 1 to 100, of a JPEG, WebP, AVIF or JPEG XL result. Default: 95 for JPEG, 85 for AVIF, 90 for the others. */
  quality?: number;
  /** Whether pixels are stored exactly; "auto" then is PNG instead of JPEG. Default: only of PNG, TIFF, lossless WebP. */
  lossless?: boolean;
  /** What the result keeps of EXIF, XMP, IPTC and texts; "keep": all but places. Default: "strip". */
  metadata?: "strip" | "keep" | "keep-all";
  /** Whether finished tiles can be fetched with `preview`. */
  preview?: boolean;
  /** Whether the result is the average of the eight orientations of the image: slightly better, in 8 times the time. */
  ensemble?: boolean;
  /** What is enlarged of an animation (GIF, WebP, PNG), or of the pages of a TIFF. Default: "all". */
  frames?: "all" | "first";
  /** When the bicubic enlargement is made: at the first request for it ("lazy", the default), or with the result. */
  original?: "lazy" | "eager";
  /** URL that receives a POST with the outcome of the job (Standard Webhooks). */
  webhook?: string;
  /** Called during the upload of a file of more than 0.7 MB, with bytes. */
  onUpload?: (sent: number, total: number) => void;
  /** Called before a retry, with the delay. */
  onWait?: (milliseconds: number) => void;
}

/** An uploaded image. `submit` takes it as often as wanted, for two weeks. */
export interface Upload {
  /** Key of the image in the store. */
  image_key: string;
  /** Name of the file, after which the result is named. */
  image_name?: string;
}

export interface SubscribeOptions {
  /** Id of an event; only later events are received. */
  after?: string;
  /** Called with false when the connection is lost, and with true when it is open again. */
  onConnection?: (connected: boolean) => void;
  /** Closes the stream; the job continues. */
  signal?: AbortSignal;
}

/** A submitted job. It is a JSON object: store it to continue after a reload, or pass it to another page. */
export interface Job {
  job_id: string;
  /** "queued"; for a repeated submission the current status of its job. */
  status: Status;
  /** Redis pub/sub channel with the job's events. */
  channel: string;
  events_url: string;
  status_url: string;
}

/** What onEvent receives, distinguished by `type`. The name `Event` is a type of browsers. */
export type JobEvent = Queued | Started | Progress | Requeued | Succeeded | Failed | Cancelled | PolledState;

interface EventBase {
  job_id: string;
  /** Time of the event: ISO 8601, UTC. */
  at: string;
}

/** The job was accepted and waits. */
export interface Queued extends EventBase {
  type: "queued";
  /** Absent if a size was wanted instead. */
  upscale_factor?: number;
  model: string;
  model_version: string;
  /** As requested. */
  output_format: string;
  /** Number of jobs ahead of this one at the time of the event. */
  position: number;
  /** Time at which the job fails if it has not ended. */
  deadline: string;
  /** Id of the API key that submitted the job. */
  owner?: string;
}

/** A worker took the job. */
export interface Started extends EventBase {
  type: "started";
  /** Name of the worker process. */
  worker: string;
  /** Product name of the GPU or CPU. */
  device: string;
  model: string;
  model_version: string;
  model_digest: string;
  /** 1 for the first attempt; it grows when a worker dies. */
  attempt: number;
  /** Seconds from submission to this event. */
  waited_seconds: number;
}

/** The job entered a stage or finished a tile. */
export interface Progress extends EventBase {
  type: "progress";
  stage: Stage;
  tiles_done: number;
  /** 0 until the size of the image is known. */
  tiles_total: number;
  /** Number of the frame or page, from 1, that is enlarged now; absent for still images. */
  frame?: number;
  /** Number of frames or pages of the result; absent for still images. */
  frames?: number;
  /** Progress of the whole job, 0 to 100; it does not decrease within an attempt. */
  percent: number;
  /** Expected seconds until the end, if known. */
  eta_seconds?: number;
  /** Something unusual, in a sentence for users. */
  notice?: string;
}

/** The job waits again. Its next attempt continues at the last checkpoint. */
export interface Requeued extends EventBase {
  type: "requeued";
  reason: "worker_lost" | "worker_stopping" | "worker_unwell" | "worker_outdated" | "device_lost" | "identical_job";
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

/** The state of a job without a stream, which is polled every two seconds. It is not an event and has no id. */
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

/** The state of a job. */
export interface Snapshot {
  job_id: string;
  /** The last three are final. */
  status: Status;
  /** If a size was wanted instead, absent until the job has succeeded. */
  upscale_factor?: number;
  model: string;
  model_version: string;
  /** As requested. */
  output_format: string;
  submitted_at: string;
  updated_at: string;
  /** Time at which the job fails if it has not ended. */
  deadline: string;
  /** Jobs ahead of this one while it is queued. */
  position?: number;
  worker?: string;
  device?: string;
  attempt: number;
  stage?: Stage;
  tiles_done: number;
  tiles_total: number;
  frame?: number;
  frames?: number;
  percent: number;
  eta_seconds?: number;
  /** Present if the job has succeeded. */
  result?: Result;
  /** Present if the job has failed. */
  failure?: Failure;
}

/** The images of a finished job, and how they were made. */
export interface Result {
  /** URL of the enlarged image, valid for an hour; `link` returns one that works longer. */
  sr_image_url: string;
  sr_image_uri: string;
  /** URL of the bicubic enlargement, for comparison; the first request makes it if `original` is "lazy". */
  original_image_url: string;
  original_image_uri: string;
  original: "lazy" | "eager";
  /** If a size was wanted instead: that of the width, with four decimals. */
  upscale_factor: number;
  /** Of both images, in pixels. */
  width: number;
  height: number;
  format: OutputFormat;
  /** Bits per sample of both images. */
  depth: 8 | 16;
  /** Name under which a browser saves the enlarged image. */
  file_name: string;
  model: string;
  model_version: string;
  model_digest: string;
  /** From 0 to 1; absent when the model's strength cannot be chosen. */
  strength?: number;
  /** The model that was applied before, if there was one. */
  first_model?: string;
  first_model_version?: string;
  first_model_digest?: string;
  device: string;
  /** Seconds per stage. */
  seconds: Partial<Record<Stage, number>>;
  /** What is wrong with the image file although it could be shown. */
  notices: string[];
  /** Whether it is the average of the eight orientations of the image. */
  ensemble: boolean;
  /** Number of frames or pages of both images; their size is that of the first. */
  frames: number;
}

/** A finished tile of a running job, reduced in size. All numbers are in pixels of the whole preview. */
export interface PreviewTile {
  of_width: number;
  of_height: number;
  x: number;
  y: number;
  width: number;
  height: number;
  /** JPEG as a data: URL. */
  image: string;
}

export interface Model {
  /** Value for the option `model`. */
  name: string;
  /** Whether requests without a model use it. */
  default: boolean;
  description: string;
  /** SPDX identifier. */
  licence: string;
  factors: number[];
  /** Default strength, from 0 to 1; absent when it cannot be chosen. */
  strength?: number;
  /** Label → version. */
  labels: Record<string, string>;
  jobs_url: string;
}

export interface EstimateRequest {
  /** Size of the image in pixels. */
  width: number;
  height: number;
  /** Size of the file in bytes. */
  bytes?: number;
  upscale_factor?: Factor;
  /** Size of the result in pixels, instead of upscale_factor. */
  output_width?: number;
  output_height?: number;
  fit?: Fit;
  model?: string;
  model_version?: string;
  /** From 0 to 1; rounded to tenths. */
  strength?: number;
  first_model?: string;
  output_format?: WantedFormat;
  output_depth?: WantedDepth;
  metadata?: "strip" | "keep" | "keep-all";
  ensemble?: boolean;
  quality?: number;
  lossless?: boolean;
  frames?: "all" | "first";
  /** Number of frames of an animation, or of pages. Default: 1. */
  frame_count?: number;
}

export interface Estimate {
  /** Whether the server would accept a job. */
  accepted: boolean;
  /** Error code, if not. */
  code?: string;
  /** The reason, if not, in a sentence for users. */
  detail?: string;
  /** Size of the result in pixels. */
  width: number;
  height: number;
  tiles: number;
  model: string;
  model_version: string;
  /** Expected seconds from start to end; absent if there were no jobs recently. */
  seconds?: number;
  /** Number of waiting jobs. */
  waiting: number;
  /** Number of jobs that all workers can run at the same time. */
  slots: number;
}
