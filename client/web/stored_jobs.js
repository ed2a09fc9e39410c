/** The jobs of the page: in localStorage, with thumbnails as far as there is room, and to their end also after a reload. */

const KEY = "upres.jobs";
const MOST_ENDED = 200;
const MOST_THUMBNAILS = 60; // of at most 480 x 480 pixels: about half of the 5 MB that a site may store

/** Return the stored jobs, oldest first; none if the browser does not allow the page to store anything. */
export function storedJobs() {
  try {
    return JSON.parse(localStorage.getItem(KEY)).filter((entry) => entry.job.events_url);
  } catch {
    return [];
  }
}

const isOver = ({ ended, parts = [] }) => ended && parts.every((part) => part.ended);

/**
 * Store jobs, oldest first. Where room is short the oldest thumbnails are left out, and then the oldest jobs.
 * Returns whether all unfinished jobs are stored.
 */
export function storeJobs(jobs) {
  const ended = new Set(jobs.filter(isOver).slice(-MOST_ENDED));
  const wanted = jobs.filter((entry) => !isOver(entry) || ended.has(entry));
  for (let thumbnails = MOST_THUMBNAILS; thumbnails >= 1; thumbnails /= 2) {
    if (store(wanted, thumbnails)) return true;
  }
  for (let count = wanted.length; count >= 1; count /= 2) {
    const newest = wanted.slice(-count);
    if (store(newest, 0)) return wanted.every((entry) => isOver(entry) || newest.includes(entry));
  }
  return false;
}

function store(jobs, thumbnails) {
  const bare = jobs.length - thumbnails;
  const entries = jobs.map(({ thumb, ...entry }, index) => (index < bare ? entry : { ...entry, thumb }));
  try {
    localStorage.setItem(KEY, JSON.stringify(entries));
    return true;
  } catch { // it is full, or forbidden
    return false;
  }
}

/**
 * Submit the job of an entry unless it has one, perhaps of an earlier page, and follow it to its end. Returns its result;
 * rejects as `submit` and `subscribe` of upres do.
 *
 * submit() → the job; keep() is called when there is a new one; onEvent(event) and say(text) tell how it goes.
 */
export async function followJob(upres, entry, { submit, keep, onEvent, say, signal }) {
  if (!entry.job) {
    entry.job = await submit();
    keep();
  }
  const onConnection = (there) => there || say("The connection is lost; trying again…");
  return upres.subscribe(entry.job, onEvent, { onConnection, signal });
}
