// The address carries the state of a view, so that a link shows the same: `#/sensor?sensor=a&span=3600`.

const VIEWS = ["fleet", "sensor", "anomalies", "pipeline"];

/** `{ view, parameters }` of an address; the fleet where it is none of ours. */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { view: VIEWS.includes(path) ? path : "fleet", parameters: new URLSearchParams(query) };
}

/** The address of a view; empty parameters are left out. */
export function link(view, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

export function sensorLink(sensor, metric, time) {
  const around = Number.isFinite(time) ? { from: time - 20 * 60_000, to: time + 10 * 60_000, at: time } : {};
  return link("sensor", { sensor, metric, ...around });
}

/** Goes there; `replace` for what is no step back. */
export function go(address, replace = false) {
  if (address === location.hash) return;
  if (!replace) {
    location.hash = address;
    return;
  }
  history.replaceState(null, "", address);
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}
