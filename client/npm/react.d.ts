/** Types of react.js. */

import type { Job, JobEvent, Result, Stage, Status, Upres, UpresError } from "./upres.js";

/**
 * Follow a job while the component is mounted. Without a job nothing happens, and `status` is null.
 *
 * The job may be another object in each render: jobs with the same `events_url` are one job.
 */
export function useUpres(job: Job | null | undefined, options?: UseUpresOptions): FollowedJob;

export interface UseUpresOptions {
  /** Only its API key is used. Following needs none; cancelling does, unless the server needs no keys. */
  client?: Upres;
  /** Called once for each event; it may be another function in each render. Its errors go to `reportError`. */
  onEvent?: (event: JobEvent, id: string) => void;
}

/** The state of a job; null for what is not known. */
export type FollowedJob = Outcome & {
  /** Share of the whole job, 0 to 100. */
  percent: number;
  stage: Stage | null;
  tilesDone: number;
  /** 0 until the size is known. */
  tilesTotal: number;
  /** Expected seconds to the end. */
  etaSeconds: number | null;
  /** False while the connection is lost; the hook reconnects. */
  connected: boolean;
  /** Cancel the job. Rejects with an UpresError if that fails. */
  cancel: () => Promise<void>;
};

/** "failed": the job failed or cannot be followed, and `error` says why. */
export type Outcome =
  | { status: Exclude<Status, "succeeded" | "failed"> | null; result: null; error: null }
  | { status: "succeeded"; result: Result; error: null }
  | { status: "failed"; result: null; error: UpresError };
