// The event stream: the newest frames, and whether they are still coming.

const STALE_AFTER = 6_000;
const HIDDEN_PATIENCE = 5_000;
const LONGEST_PAUSE = 10_000;

/** The newest frames; null before the first. `at` is when one came, by this clock. */
export const live = { pulse: null, fleet: null, at: 0, state: "connecting" };

const listeners = new Set();
let source = null;
let pause = 500;
let retry = 0;
let hiddenTimer = 0;

/** Calls `listener(what)` after each frame ("pulse", "fleet") and change of state ("state"); gives a way to end that. */
export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function tell(what) {
  for (const listener of listeners) listener(what);
}

function setState(state) {
  if (live.state === state) return;
  live.state = state;
  tell("state");
}

function take(kind, text) {
  live[kind] = JSON.parse(text);
  live.at = Date.now();
  pause = 500;
  setState("live");
  tell(kind);
}

function open() {
  clearTimeout(retry);
  source?.close();
  source = new EventSource("/api/events");
  for (const kind of ["pulse", "fleet"]) source.addEventListener(kind, (event) => take(kind, event.data));
  source.onerror = () => {
    // The browser gives up for good after some answers, and tries too eagerly after others: we do it ourselves.
    source.close();
    setState("disconnected");
    retry = setTimeout(open, pause);
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  };
}

function onVisibility() {
  clearTimeout(hiddenTimer);
  if (!document.hidden) {
    if (source.readyState === EventSource.CLOSED) open();
    return;
  }
  // Nobody looks: the place is for somebody who does. Besides, a browser opens six connections to a server, in all tabs.
  hiddenTimer = setTimeout(pauseStream, HIDDEN_PATIENCE);
}

function pauseStream() {
  clearTimeout(retry);
  source.close();
  setState("connecting");
}

/** Begins. */
export function connect() {
  open();
  document.addEventListener("visibilitychange", onVisibility);
  // A page that is left may be kept for the way back, with its connection open.
  window.addEventListener("pagehide", pauseStream);
  window.addEventListener("pageshow", onVisibility);
  setInterval(() => {
    if (live.state === "live" && Date.now() - live.at > STALE_AFTER) setState("stale");
    tell("clock");
  }, 1_000);
}

/** Asks for an answer made for us alone. Throws an `Error` with the server's sentence. */
export async function ask(path, parameters, signal) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  let response;
  try {
    response = await fetch(`/api/${path}${query ? `?${query}` : ""}`, { signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server of this page does not answer.");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer !== null) return answer;
  const failure = new Error(answer?.error ?? `The server answers ${response.status}.`);
  failure.status = response.status;
  throw failure;
}
