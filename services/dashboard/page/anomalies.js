// Anomalies as they come, with filters; each leads to its sensor at that time.

import { h, reconcile, setAttribute, setText } from "./dom.js";
import { go, link, sensorLink } from "./address.js";
import { iso, moment, plural, score, siteName, value, words } from "./format.js";
import { ask, live } from "./live.js";

const KINDS = ["spike", "drift", "flatline"];
const SPANS = [[900, "15 minutes"], [3600, "1 hour"], [21600, "6 hours"], [86400, "24 hours"], [604800, "7 days"]];
const USUAL_SPAN = 3600;
const LISTED = 300;

const keyOf = (anomaly) => `${anomaly.partition}/${anomaly.offset}/${anomaly.sensor}`;

/** Length of a score's bar in pixels; the threshold is 6, and few are beyond 60. */
const reach = (number) => Math.round(Math.min(60, Math.max(3, number)));

/** A table of anomalies, newest first. */
export function anomalyTable({ withSensor }) {
  const body = h("tbody");
  const head = (text, isNumber) => h("th", { scope: "col", class: isNumber ? "number" : undefined }, text);
  const table = h("div", { class: "table-box" }, h("table", { class: "anomalies" },
    h("caption", { class: "visually-hidden" }, "Anomalies, newest first"),
    h("thead", null, h("tr", null, head("Time"), withSensor && head("Sensor"), withSensor && head("Site"), head("Metric"), head("Kind"), head("Value", true), head("Expected", true), head("Score", true))), body));
  const empty = h("p", { class: "empty" }, "No anomalies.");

  function make(anomaly) {
    const address = sensorLink(anomaly.sensor, anomaly.metric, anomaly.time_ms);
    const text = (content, isNumber) => h("td", { class: isNumber ? "number" : undefined }, content);
    const when = h("time", { datetime: iso(anomaly.time_ms), title: iso(anomaly.time_ms) }, moment(anomaly.time_ms));
    const bar = h("span", { class: "bar", style: { width: `${reach(anomaly.score)}px` }, "aria-hidden": "true" });
    return h("tr", { "data-kind": anomaly.kind },
      h("th", { scope: "row" }, withSensor ? when : h("a", { href: address }, when)),
      withSensor && text(h("a", { href: address }, anomaly.sensor)),
      withSensor && text(siteName(anomaly.site)),
      text(words(anomaly.metric.toLowerCase())),
      text(h("span", { class: "kind" }, words(anomaly.kind))),
      text(value(anomaly.value), true),
      text(value(anomaly.expected), true),
      h("td", { class: "number score" }, bar, h("span", null, score(anomaly.score))));
  }

  return {
    element: h("div", null, table, empty),
    show(anomalies, emptyText = "No anomalies in this range.") {
      reconcile(body, anomalies, keyOf, make, () => {});
      table.hidden = anomalies.length === 0;
      empty.hidden = anomalies.length > 0;
      setText(empty, emptyText);
    },
  };
}

function select(label, onchange) {
  const element = h("select", { onchange });
  return { field: h("label", { class: "field" }, h("span", null, label), element), element };
}

/** Sets the options, and keeps the chosen one even if it is no longer among them. */
function setOptions(element, options, chosen) {
  const all = [["", "any"], ...options];
  if (chosen !== "" && !all.some(([name]) => name === chosen)) all.push([chosen, chosen]);
  const wanted = JSON.stringify(all);
  if (element.dataset.options !== wanted) {
    element.dataset.options = wanted;
    element.replaceChildren(...all.map(([name, text]) => h("option", { value: name }, text)));
  }
  element.value = chosen;
}

export function anomaliesView(root, first) {
  let parameters = first;
  let found = [];
  let loaded = null;
  let paused = false;
  let request = null;
  const change = (name) => (event) => set({ [name]: event.target.value });
  const metric = select("Metric", change("metric"));
  const site = select("Site", change("site"));
  const kind = select("Kind", change("kind"));
  const span = select("Of the last", change("span"));
  const least = h("input", { type: "number", min: "0", max: "300", step: "1", inputmode: "decimal", onchange: change("min_score") });
  const pause = h("button", { type: "button", class: "button", onclick: () => setPaused(!paused) });
  const count = h("p", { class: "hint", role: "status" });
  const message = h("p", { class: "error", role: "alert", hidden: true });
  const table = anomalyTable({ withSensor: true });
  const reset = h("a", { class: "button quiet", href: link("anomalies") }, "Reset");
  root.append(h("div", { class: "title-row" }, h("div", null, h("h1", null, "Anomalies"), h("p", { class: "subtitle" }, "Flagged events, newest first. A spike has a score of 6 or more: one in a million. Drifts and flat lines are told by their course.")), pause),
    h("form", { class: "filters panel", "aria-label": "Filters", onsubmit: (event) => event.preventDefault() },
      metric.field, site.field, kind.field, h("label", { class: "field" }, h("span", null, "Score from"), least), span.field, reset),
    message, h("section", { class: "panel" }, table.element, count));

  const given = (name) => parameters.get(name) ?? "";
  const spanSeconds = () => Number(given("span")) || USUAL_SPAN;

  function set(changes) {
    go(link("anomalies", { ...Object.fromEntries(parameters), ...changes }));
  }

  function setPaused(value) {
    paused = value;
    setText(pause, paused ? "Go on" : "Pause");
    setAttribute(pause, "aria-pressed", paused);
    if (!paused) load();
  }

  function matches(anomaly) {
    return (!given("metric") || anomaly.metric === given("metric"))
      && (!given("site") || anomaly.site === given("site"))
      && (!given("kind") || anomaly.kind === given("kind"))
      && anomaly.score >= (Number(given("min_score")) || 0)
      && anomaly.time_ms >= Date.now() - spanSeconds() * 1000;
  }

  function showFilters() {
    const { metrics = [], sites = [] } = live.fleet ?? {};
    setOptions(metric.element, metrics.map((name) => [name, words(name.toLowerCase())]), given("metric"));
    setOptions(site.element, sites.filter((each) => each.site !== "").map((each) => [each.site, each.site]), given("site"));
    setOptions(kind.element, KINDS.map((name) => [name, name]), given("kind"));
    setOptions(span.element, SPANS.map(([seconds, text]) => [String(seconds), text]), String(spanSeconds()));
    span.element.querySelector('option[value=""]')?.remove();
    if (document.activeElement !== least) least.value = given("min_score");
  }

  function show() {
    const isFirst = loaded === null;
    table.show(found, isFirst ? "Loading …" : "No anomalies match.");
    if (isFirst) return;
    const more = loaded.truncated || found.length >= LISTED ? ", there are older ones" : "";
    setText(count, `${plural(found.length, "anomaly", "anomalies")}${more}.`);
  }

  async function load() {
    request?.abort();
    request = new AbortController();
    const now = Date.now();
    const filters = Object.fromEntries(["metric", "site", "kind", "min_score"].map((name) => [name, given(name)]));
    try {
      loaded = await ask("anomalies", { ...filters, from: now - spanSeconds() * 1000, limit: LISTED }, request.signal);
      found = loaded.anomalies;
      message.hidden = true;
      takeLive();
    } catch (error) {
      if (error.name === "AbortError") return;
      setText(message, error.message);
      message.hidden = false;
    }
    show();
  }

  /** Puts what has come since on top. */
  function takeLive() {
    if (paused || loaded === null) return;
    const known = new Set(found.map(keyOf));
    const fresh = (live.fleet?.anomalies ?? []).filter((anomaly) => !known.has(keyOf(anomaly)) && matches(anomaly));
    if (fresh.length === 0) return;
    found = [...fresh, ...found].sort((left, right) => right.time_ms - left.time_ms).slice(0, LISTED);
    show();
  }

  showFilters();
  setPaused(false);
  show();
  return {
    address(next) {
      parameters = next;
      loaded = null;
      found = [];
      showFilters();
      show();
      load();
    },
    update(what) {
      if (what !== "fleet") return;
      showFilters();
      // After an outage, or when the first question had no answer.
      if (!message.hidden && live.fleet.click_house.ok) load();
      else takeLive();
    },
    close() {
      request?.abort();
    },
  };
}
