// The pipeline: how fast, how far behind, how fresh; what it depends on; what it refused, with samples.

import { h, reconcile, setAttribute, setText } from "./dom.js";
import { bytes, iso, moment, percent, plural, seconds, short, time, whole, words } from "./format.js";
import { freshCurve, freshness, tile } from "./fleet.js";
import { ask, live } from "./live.js";

const SAMPLES_EVERY = 3_000;
const STATES = { running: "good", starting: "watch", restoring: "watch", adopting: "watch", waiting_for_schema: "watch", backpressure: "watch", stopped_loudly: "alert", revoked: "watch" };
const SIGNS = { good: "●", watch: "▲", alert: "■", unknown: "○" };

function badge(health, text) {
  return h("span", { class: "badge", "data-health": health }, h("span", { class: "sign", "aria-hidden": "true" }, SIGNS[health]), h("span", null, text));
}

function setBadge(element, health, text) {
  setAttribute(element, "data-health", health);
  setText(element.firstElementChild, SIGNS[health]);
  setText(element.lastElementChild, text);
}

function dependencyHealth(dependency) {
  if (dependency.ok === null) return ["unknown", "not asked yet"];
  if (dependency.ok) return ["good", dependency.failures > 0 ? `answers; ${plural(dependency.failures, "failure", "failures")} before` : "answers"];
  return ["alert", `failing for ${seconds(dependency.failing_for_seconds)}`];
}

function partitionRow() {
  const number = () => h("td", { class: "number" });
  return h("tr", null, h("th", { scope: "row", class: "number" }), h("td", null, badge("unknown", "")), number(), number(), number(), number(), number(), number());
}

function showPartition(row, { partition, now }) {
  const [number, state, position, lag, behind, watermark, segment, series] = row.children;
  setText(number, partition.partition);
  setBadge(state.firstElementChild, STATES[partition.state] ?? "unknown", words(partition.state));
  setAttribute(state, "title", partition.last_error);
  setText(position, whole(partition.position));
  setText(lag, whole(partition.lag_records));
  setText(behind, seconds(partition.lag_seconds));
  setText(watermark, Number.isFinite(partition.watermark_ms) ? `${time(partition.watermark_ms)} (${seconds(Math.max(0, (now - partition.watermark_ms) / 1000))})` : "–");
  setText(segment, partition.segment_age_seconds === null ? "–" : `${seconds(partition.segment_age_seconds)}, ${bytes(partition.segment_bytes)}`);
  setText(series, whole(partition.series));
}

/** One pipeline: a panel with its dependencies and partitions. */
function pipelinePanel() {
  const title = h("h2");
  const state = badge("unknown", "");
  const facts = h("dl", { class: "facts inline" });
  const dependencies = h("ul", { class: "dependencies" });
  const body = h("tbody");
  const head = (text) => h("th", { scope: "col", class: "number" }, text);
  const table = h("table", null, h("caption", { class: "visually-hidden" }, "Partitions"),
    h("thead", null, h("tr", null, head("Partition"), h("th", { scope: "col" }, "State"), head("Position"), head("Lag, records"), head("Lag"), head("Watermark (age)"), head("Open segment"), head("Series"))), body);
  const why = h("p", { class: "error" });
  const panel = h("section", { class: "panel" }, h("div", { class: "panel-head" }, title, state), why, facts, h("h3", null, "Depends on"), dependencies, h("h3", null, "Partitions"), h("div", { class: "table-box" }, table));

  panel.show = (pipeline, now) => {
    const { status } = pipeline;
    setText(title, status ? `${status.topic} · ${pipeline.name}` : pipeline.name);
    panel.classList.toggle("away", status === null);
    setText(why, pipeline.error ?? status.not_ready_because.join("; "));
    why.hidden = why.textContent === "";
    if (!status) {
      setBadge(state, "alert", "does not answer");
      return;
    }
    setBadge(state, status.ready ? "good" : "watch", status.ready ? "ready" : "not ready");
    const { totals, memory } = status;
    const rows = [
      ["Rate", `${whole(pipeline.rate ?? NaN)} events/s`],
      ["Accepted", whole(totals.events)],
      ["Read", bytes(totals.bytes_in)],
      ["Came late", whole(totals.late_events)],
      ["Archived", `${plural(totals.archive_files, "segment", "segments")}, ${bytes(totals.archive_bytes)}`],
      ["Memory", `${bytes(memory.used_bytes)} of ${bytes(memory.budget_bytes)}`],
      ["Up", seconds(status.uptime_seconds)],
      ["Version", status.version],
    ];
    reconcile(facts, rows, ([name]) => name, ([name]) => h("div", null, h("dt", null, name), h("dd")), (element, [, text]) => setText(element.lastElementChild, text));
    reconcile(dependencies, status.dependencies, (each) => each.dependency,
      (each) => h("li", null, h("strong", null, words(each.dependency)), badge("unknown", ""), h("span", { class: "hint" })),
      (element, each) => {
        setBadge(element.children[1], ...dependencyHealth(each));
        setText(element.children[2], each.ok ? "" : each.last_error ?? "");
      });
    reconcile(body, status.partitions.map((partition) => ({ partition, now })), ({ partition }) => partition.partition, partitionRow, showPartition);
  };
  return panel;
}

/** `00 00 00 07 2a`, and the text beside it. */
function hexadecimal(text) {
  if (text === null) return "null";
  if (text === "") return "empty";
  const bytesOf = text.match(/../g);
  const letters = bytesOf.map((byte) => {
    const code = parseInt(byte, 16);
    return code >= 0x20 && code < 0x7f ? String.fromCharCode(code) : "·";
  });
  return `${bytesOf.join(" ")}   ${letters.join("")}`;
}

function sampleElement(sample) {
  const cut = sample.value_hex !== null && sample.value_hex.length / 2 < sample.value_bytes ? " …" : "";
  return h("li", null,
    h("p", { class: "sample-where" }, `partition ${sample.partition}, offset ${sample.offset}, `, h("time", { datetime: iso(sample.timestamp_ms) }, moment(sample.timestamp_ms)),
      sample.schema_id === null ? "" : `, schema ${sample.schema_id}`, `, ${bytes(sample.value_bytes)}`),
    h("p", null, sample.detail),
    h("pre", { tabindex: "0", "aria-label": "First bytes of the value" }, hexadecimal(sample.value_hex) + cut));
}

function reasonElement({ reason }) {
  const count = h("span", { class: "number" });
  const bar = h("span", { class: "bar", "aria-hidden": "true" });
  const samples = h("ul", { class: "samples" });
  return h("li", null, h("details", null, h("summary", null, h("span", { class: "reason" }, words(reason)), h("span", { class: "bar-box" }, bar), count), samples));
}

function showReason(element, { count, share, samples }) {
  const [summary, list] = element.firstElementChild.children;
  setText(summary.children[2], whole(count));
  summary.children[1].firstElementChild.style.setProperty("width", `${share * 100}%`);
  if (samples.length === 0) {
    list.replaceChildren(h("li", { class: "hint" }, "No sample is kept."));
    list.reconciled = undefined;
    return;
  }
  if (list.firstElementChild?.classList.contains("hint")) list.replaceChildren();
  reconcile(list, samples, (sample) => `${sample.partition}/${sample.offset}`, sampleElement, () => {});
}

export function pipelineView(root) {
  const tiles = {
    rate: tile("Events a second", "Accepted by all pipelines, averaged over five seconds; the curve is of five minutes"),
    lag: tile("Lag", "How long ago the newest processed record of the partition that is farthest behind was written to the log"),
    fresh: tile("Freshness", "From the newest event that ClickHouse shows to now: the whole way from the sensor to this page"),
    dead: tile("Dead letters", "Refused records since the pipelines started"),
  };
  const panels = h("div", { class: "stack" });
  const reasons = h("ul", { class: "reasons" });
  const none = h("p", { class: "empty", hidden: true }, "No record was refused.");
  const deadPanel = h("section", { class: "panel" }, h("div", { class: "panel-head" }, h("h2", null, "Dead letters by reason"), h("p", { class: "hint" }, "Open one to see its newest samples.")), none, reasons);
  const away = h("p", { class: "empty", hidden: true }, "No pipeline is configured (--pipeline).");
  root.append(h("h1", { class: "visually-hidden" }, "The pipeline"), h("div", { class: "tiles" }, Object.values(tiles).map((each) => each.element)), away,
    h("div", { class: "columns wide-left" }, panels, deadPanel));
  let samples = [];
  const lags = [];
  const refusals = [];
  let refusedBefore = null;

  async function loadSamples() {
    try {
      samples = (await ask("dead-letters", {})).flatMap((pipeline) => pipeline.samples);
      showDeadLetters();
    } catch {
      // The next time, or the banner says it.
    }
  }

  function showDeadLetters() {
    if (!live.pulse) return;
    const counts = new Map();
    for (const { status } of live.pulse?.pipelines ?? []) {
      for (const [reason, count] of Object.entries(status?.totals.dead_letters_by_reason ?? {})) counts.set(reason, (counts.get(reason) ?? 0) + count);
    }
    const most = Math.max(...counts.values(), 1);
    const rows = [...counts].sort((left, right) => right[1] - left[1] || left[0].localeCompare(right[0])).map(([reason, count]) =>
      ({ reason, count, share: count / most, samples: samples.filter((sample) => sample.reason === reason) }));
    reconcile(reasons, rows, ({ reason }) => reason, reasonElement, showReason);
    none.hidden = rows.length > 0;
  }

  function show() {
    const { pulse } = live;
    if (!pulse) return;
    away.hidden = pulse.pipelines.length > 0;
    const statuses = pulse.pipelines.map((pipeline) => pipeline.status).filter(Boolean);
    const partitions = statuses.flatMap((status) => status.partitions);
    tiles.rate.show(short(pulse.rate ?? NaN), plural(statuses.length, "pipeline", "pipelines"), pulse.rate_history);
    const lag = partitions.length === 0 ? NaN : Math.max(...partitions.map((partition) => partition.lag_seconds ?? 0));
    lags.push(Number.isFinite(lag) ? lag : null);
    if (lags.length > 300) lags.shift();
    tiles.lag.show(seconds(lag), `${whole(partitions.reduce((sum, partition) => sum + (partition.lag_records ?? 0), 0))} records in ${plural(partitions.length, "partition", "partitions")}`, lags);
    tiles.lag.state(lag > 60 ? "alert" : lag > 10 ? "watch" : null);
    const fresh = freshness();
    tiles.fresh.show(fresh === null ? "–" : seconds(fresh), "from sensor to this page", freshCurve());
    tiles.fresh.state(fresh === null ? null : fresh > 60 ? "alert" : fresh > 10 ? "watch" : null);
    const total = (pick) => statuses.reduce((sum, status) => sum + pick(status.totals), 0);
    const dead = total((totals) => totals.dead_letters);
    if (refusedBefore !== null) refusals.push(Math.max(0, dead - refusedBefore));
    if (refusals.length > 300) refusals.shift();
    refusedBefore = dead;
    tiles.dead.show(whole(dead), `${percent(dead, dead + total((totals) => totals.events))} of records`, refusals);
    reconcile(panels, pulse.pipelines, (pipeline) => pipeline.name, pipelinePanel, (panel, pipeline) => panel.show(pipeline, pulse.now_ms));
    showDeadLetters();
  }

  show();
  loadSamples();
  const timer = setInterval(loadSamples, SAMPLES_EVERY);
  return {
    address() {},
    update(what) {
      if (what === "pulse") show();
    },
    close() {
      clearInterval(timer);
    },
  };
}
