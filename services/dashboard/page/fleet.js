// The fleet now: what it measures, how its sites do, which sensors are the oddest.

import { h, reconcile, setAttribute, setText } from "./dom.js";
import { link, sensorLink } from "./address.js";
import { percent, plural, score, seconds, short, siteName, time, whole, words } from "./format.js";
import { areaChart, sparkline } from "./charts.js";
import { live } from "./live.js";

export const HEALTH = {
  alert: { sign: "■", text: "Alert" },
  watch: { sign: "▲", text: "Watch" },
  good: { sign: "●", text: "Good" },
};
const ORDER = { health: byHealth, name: byName };
const FLAGS_OVER_MINUTES = 5;
const WAITING = "Waiting for the first numbers …";

function byName(left, right) {
  return left.site.localeCompare(right.site, "en", { numeric: true });
}

function byHealth(left, right) {
  const rank = (site) => Object.keys(HEALTH).indexOf(site.health);
  return rank(left) - rank(right) || right.flagged / (right.sensors || 1) - left.flagged / (left.sensors || 1) || byName(left, right);
}

/** A number, what it is, a note, and its curve. */
export function tile(title, hint) {
  const number = h("p", { class: "tile-number" }, "–");
  const note = h("p", { class: "tile-note" });
  const curve = sparkline();
  const element = h("section", { class: "tile", title: hint }, h("h2", null, title), number, note, curve.element);
  return {
    element,
    show(text, noteText, values) {
      setText(number, text);
      setText(note, noteText);
      setAttribute(curve.element, "hidden", values ? null : "");
      if (values) curve.show(values);
    },
    state(state) {
      setAttribute(element, "data-health", state);
    },
  };
}

/** How the sites divide into health, as one bar; the note beside it says it in numbers. */
function shareBar() {
  const parts = Object.keys(HEALTH).toReversed().map((health) => h("span", { "data-health": health }));
  const element = h("div", { class: "shares", "aria-hidden": "true" }, parts);
  return {
    element,
    show(counts) {
      for (const part of parts) {
        part.style.setProperty("flex", `${counts[part.dataset.health]} 0 0`);
        part.hidden = counts[part.dataset.health] === 0;
      }
    },
  };
}

/** Minutes from the first to the last, one after the other, null where there is none. The open one is left out: it grows. */
function series(fleet, pick) {
  const closed = fleet.minutes.filter((minute) => minute.time_ms + fleet.window_ms <= fleet.now_ms);
  if (closed.length === 0) return [];
  const byTime = new Map(closed.map((minute) => [minute.time_ms, pick(minute)]));
  const out = [];
  for (let at = closed[0].time_ms; at <= closed.at(-1).time_ms; at += fleet.window_ms) out.push(byTime.get(at) ?? null);
  return out;
}

export function eventsPerSecond(fleet) {
  return series(fleet, (minute) => (minute.events * 1000) / fleet.window_ms);
}

const FRESH_POINTS = 150;
const freshHistory = [];
let freshAt = 0;

/** The curve of freshness: a point for each answer of ClickHouse since the page was opened. */
export function freshCurve() {
  const asOf = live.fleet?.click_house.as_of_ms ?? 0;
  if (asOf !== freshAt) {
    freshAt = asOf;
    freshHistory.push(freshness());
    if (freshHistory.length > FRESH_POINTS) freshHistory.shift();
  }
  return freshHistory;
}

/** Seconds between the newest event that ClickHouse shows and the moment when it was asked. */
export function freshness() {
  const { fleet } = live;
  if (!fleet?.newest_ms || !fleet.click_house.as_of_ms) return null;
  const ageOfAnswer = fleet.click_house.ok ? 0 : fleet.now_ms - fleet.click_house.as_of_ms;
  return Math.max(0, (fleet.click_house.as_of_ms + ageOfAnswer - fleet.newest_ms) / 1000);
}

function siteTile(site) {
  const sign = h("span", { class: "sign", "aria-hidden": "true" });
  const name = h("span", { class: "site-name" });
  const facts = h("span", { class: "site-facts" });
  const element = h("a", { class: "site", href: link("anomalies", { site: site.site }) }, sign, name, facts);
  return h("li", null, element);
}

function showSite(item, site) {
  const [sign, name, facts] = item.firstElementChild.children;
  const { sign: shape, text } = HEALTH[site.health];
  setAttribute(item.firstElementChild, "data-health", site.health);
  setText(sign, shape);
  setText(name, siteName(site.site));
  const odd = [site.flagged > 0 && `${whole(site.flagged)} odd`, site.silent > 0 && `${whole(site.silent)} silent`].filter(Boolean);
  setText(facts, odd.length > 0 ? odd.join(", ") : `${whole(site.sensors)} sensors`);
  const sentence = `${siteName(site.site)}: ${text}. ${plural(site.sensors, "sensor", "sensors")}, ${whole(site.flagged)} with anomalies, `
    + `${whole(site.silent)} silent, ${percent(site.bad, site.events)} of events of bad quality, over the last three minutes`;
  setAttribute(item.firstElementChild, "aria-label", sentence);
  setAttribute(item.firstElementChild, "title", sentence);
}

function worstRow() {
  const cells = [h("a"), null, null, null, null, null];
  const row = h("tr", null, h("th", { scope: "row" }, cells[0]), h("td"), h("td", { class: "number" }), h("td", { class: "number" }), h("td"), h("td", { class: "number" }));
  return row;
}

function showWorst(row, worst) {
  const [name, site, flags, peak, last, at] = row.children;
  setText(name.firstElementChild, worst.sensor);
  setAttribute(name.firstElementChild, "href", sensorLink(worst.sensor, worst.metric, worst.time_ms));
  setText(site, siteName(worst.site));
  setText(flags, whole(worst.flags));
  setText(peak, score(worst.score));
  setText(last, `${words(worst.kind)}, ${words(worst.metric.toLowerCase())}`);
  setText(at, time(worst.time_ms));
}

export function fleetView(root) {
  const tiles = {
    rate: tile("Events a second", "Accepted by all pipelines, averaged over five seconds; the curve is of five minutes"),
    sensors: tile("Active sensors", "Sensors that reported within the last three minutes; the curve is of the last hour, minute by minute"),
    sites: tile("Sites", "Sites of these sensors, and how many of them are well"),
    flags: tile("Anomalies in 5 min", "Flagged events of the last five minutes; the curve is of the last hour"),
    fresh: tile("Freshness", "From the newest event that ClickHouse shows to now: the whole way from the sensor to this page"),
  };
  const shares = shareBar();
  tiles.sites.element.append(shares.element);
  const chartBox = h("div", { class: "chart", role: "img" });
  const chartPanel = h("section", { class: "panel" }, h("h2", null, "Events a second, last hour"), chartBox);
  let order = "health";
  const sites = h("ul", { class: "sites" });
  const orderButtons = Object.keys(ORDER).map((name) => h("button", { type: "button", onclick: () => setOrder(name) }, `by ${name}`));
  const legend = h("p", { class: "legend" }, ...Object.entries(HEALTH).map(([name, { sign, text }]) =>
    h("span", { "data-health": name }, h("span", { class: "sign", "aria-hidden": "true" }, sign), ` ${text}`)));
  const rule = h("p", { class: "hint" }, "Over three minutes. Watch: 8 % of sensors with an anomaly, 2 % of events of bad quality, or 5 % of sensors silent. Alert: 20 %, 10 %, 25 %.");
  const sitePanel = h("section", { class: "panel" },
    h("div", { class: "panel-head" }, h("h2", null, "Sites"), legend, h("div", { class: "segmented", role: "group", "aria-label": "Order of the sites" }, orderButtons)),
    sites, rule);
  const body = h("tbody");
  const empty = h("p", { class: "empty" }, WAITING);
  const table = h("div", { class: "table-box" }, h("table", null,
    h("caption", { class: "visually-hidden" }, "The sensors with the most anomalies in the last 15 minutes"),
    h("thead", null, h("tr", null, ...["Sensor", "Site"].map((text) => h("th", { scope: "col" }, text)),
      h("th", { scope: "col", class: "number" }, "Anomalies"), h("th", { scope: "col", class: "number" }, "Peak score"),
      h("th", { scope: "col" }, "Last"), h("th", { scope: "col", class: "number" }, "At"))), body));
  const worstPanel = h("section", { class: "panel" }, h("div", { class: "panel-head" }, h("h2", null, "Oddest sensors, 15 minutes")), table, empty);

  root.append(h("h1", { class: "visually-hidden" }, "The fleet now"), h("div", { class: "tiles" }, Object.values(tiles).map((each) => each.element)),
    h("div", { class: "columns" }, h("div", { class: "stack" }, chartPanel, worstPanel), sitePanel));
  const chart = areaChart(chartBox, 200);
  table.hidden = true;
  for (const panel of [chartPanel, sitePanel]) setAttribute(panel, "data-empty", WAITING);

  function setOrder(name) {
    order = name;
    showFleet();
  }

  function showPulse() {
    const { pulse } = live;
    const { minutes = [] } = live.fleet ?? {};
    if (pulse && pulse.rate !== null) {
      const answering = pulse.pipelines.filter((pipeline) => pipeline.error === null).length;
      tiles.rate.show(short(pulse.rate), plural(answering, "pipeline", "pipelines"), pulse.rate_history);
    } else if (live.fleet && minutes.length > 0) {
      const rates = eventsPerSecond(live.fleet);
      tiles.rate.show(rates.length ? short(rates.at(-1)) : "–", "last whole minute; no pipeline answers", rates);
    }
  }

  function showFleet() {
    const { fleet } = live;
    if (!fleet || fleet.click_house.as_of_ms === null) return;
    const sensors = fleet.sites.reduce((sum, site) => sum + site.sensors, 0);
    tiles.sensors.show(whole(sensors), plural(fleet.metrics.length, "metric", "metrics"), series(fleet, (minute) => minute.sensors));
    const counts = { alert: 0, watch: 0, good: 0 };
    const named = fleet.sites.filter((site) => site.site !== "");
    for (const site of named) counts[site.health] += 1;
    tiles.sites.show(whole(named.length), `${counts.good} good, ${counts.watch} to watch, ${counts.alert} alert`);
    shares.show(counts);
    tiles.sites.state(counts.alert ? "alert" : counts.watch ? "watch" : "good");
    const recent = fleet.minutes.filter((minute) => minute.time_ms > fleet.now_ms - FLAGS_OVER_MINUTES * 60_000);
    const sum = (pick) => recent.reduce((total, minute) => total + pick(minute), 0);
    const flags = sum((minute) => minute.anomalies);
    tiles.flags.show(whole(flags), `${percent(flags, sum((minute) => minute.events))} of events`, series(fleet, (minute) => minute.anomalies));
    const fresh = freshness();
    tiles.fresh.show(fresh === null ? "–" : seconds(fresh), "from sensor to this page", freshCurve());
    tiles.fresh.state(fresh === null ? null : fresh > 60 ? "alert" : fresh > 10 ? "watch" : null);

    const rates = eventsPerSecond(fleet);
    const first = fleet.minutes[0]?.time_ms ?? 0;
    chart.chart.setData([rates.map((_, index) => (first + index * fleet.window_ms) / 1000), rates]);
    const known = rates.filter((rate) => rate !== null);
    setAttribute(chartBox, "aria-label", known.length === 0 ? "No whole minute yet."
      : `Events a second over ${plural(known.length, "minute", "minutes")}: between ${whole(Math.min(...known))} and ${whole(Math.max(...known))}, last ${whole(known.at(-1))}.`);
    setAttribute(chartPanel, "data-empty", known.length < 2 ? "The first minutes are being measured." : null);

    orderButtons.forEach((button, index) => setAttribute(button, "aria-pressed", Object.keys(ORDER)[index] === order));
    reconcile(sites, fleet.sites.toSorted(ORDER[order]), (site) => site.site, siteTile, showSite);
    setAttribute(sitePanel, "data-empty", fleet.sites.length === 0 ? "No sensor has reported within the last three minutes." : null);
    reconcile(body, fleet.worst, (worst) => worst.sensor, worstRow, showWorst);
    setText(empty, "No anomalies in the last 15 minutes.");
    empty.hidden = fleet.worst.length > 0;
    table.hidden = fleet.worst.length === 0;
  }

  showPulse();
  showFleet();
  return {
    address() {},
    update(what) {
      if (what === "pulse") showPulse();
      if (what === "fleet") showFleet();
    },
    recolour() {
      chart.remake();
    },
    close() {
      chart.close();
    },
  };
}
