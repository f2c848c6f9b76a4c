// One sensor: its values as a band of one-minute smallest, mean and largest, its anomalies, its gaps, how good its data is.

import { h, setAttribute, setText } from "./dom.js";
import { go, link, sensorLink } from "./address.js";
import { iso, moment, percent, plural, siteName, value, whole, words } from "./format.js";
import { bandChart, describeBand } from "./charts.js";
import { anomalyTable } from "./anomalies.js";
import { ask, live } from "./live.js";
import { sensorSearch } from "./sensor-search.js";

const SPANS = [[900, "15 min"], [3600, "1 h"], [21600, "6 h"], [86400, "24 h"], [604800, "7 d"]];
const USUAL_SPAN = 3600;
const AGAIN_AFTER = 5_000;

/** The range that an address asks for: fixed, or the last so many seconds, which follows the clock. */
function rangeOf(parameters) {
  const [from, to] = ["from", "to"].map((name) => Number(parameters.get(name)));
  if (from > 0 && to > from) return { from, to, span: null };
  const span = Number(parameters.get("span")) || USUAL_SPAN;
  // The open window is shown too.
  const now = Date.now();
  return { from: now - span * 1000, to: now, span };
}

function quality(list, answer) {
  const { quality: sums, columns } = answer;
  const missing = Math.max(0, sums.windows_expected - sums.windows);
  const rows = [
    ["Events", whole(sums.events)],
    ["Anomalies", whole(sums.flags)],
    ["Bad quality", `${whole(sums.bad)} (${percent(sums.bad, sums.events)})`],
    ["Came late", `${whole(sums.late)} (${percent(sums.late, sums.events)})`],
    ["Minutes with data", `${whole(sums.windows)} of ${whole(sums.windows_expected)}`],
    ["Gaps", missing === 0 ? "none" : plural(missing, "minute without data", "minutes without data")],
    ["A point is", plural(columns.step_ms / 60_000, "minute", "minutes")],
  ];
  list.replaceChildren(...rows.map(([name, text]) => h("div", null, h("dt", null, name), h("dd", null, text))));
}

/** The chart's numbers as a table, made when somebody opens it. */
function valueTable(answer) {
  const { columns } = answer;
  const head = h("tr", null, h("th", { scope: "col" }, "From"), ...["Min", "Mean", "Max", "Events", "Anomalies", "Bad"].map((text) => h("th", { scope: "col", class: "number" }, text)));
  const rows = columns.mean.map((mean, index) => {
    const at = columns.from_ms + index * columns.step_ms;
    const when = h("th", { scope: "row", title: iso(at) }, moment(at));
    if (mean === null) return h("tr", { class: "gap" }, when, h("td", { colspan: "6" }, "no data"));
    const numbers = [value(columns.min[index]), value(mean), value(columns.max[index]), whole(columns.events[index]), whole(columns.flags[index]), whole(columns.bad[index])];
    return h("tr", null, when, numbers.map((text) => h("td", { class: "number" }, text)));
  });
  return h("table", null, h("caption", { class: "visually-hidden" }, "The values of the chart"), h("thead", null, head), h("tbody", null, rows.reverse()));
}

export function sensorView(root, first) {
  let parameters = first;
  let answer = null;
  let request = null;
  let timer = 0;
  const search = sensorSearch((sensor) => go(link("sensor", { sensor, span: parameters.get("span") })));
  const title = h("h1", null, "Sensors");
  const place = h("p", { class: "subtitle" });
  const metrics = h("div", { class: "segmented", role: "group", "aria-label": "Metric" });
  const spans = h("div", { class: "segmented", role: "group", "aria-label": "Range" },
    SPANS.map(([span, text]) => h("button", { type: "button", "data-span": span, onclick: () => show({ span, from: null, to: null, at: null }) }, text)));
  const message = h("p", { class: "empty", role: "status" });
  const readout = h("p", { class: "readout", "aria-hidden": "true" });
  const chartBox = h("div", { class: "chart", role: "img" });
  const shownRange = h("p", { class: "hint" });
  const facts = h("dl", { class: "facts" });
  const tableBox = h("div", { class: "table-box tall" });
  const details = h("details", { class: "as-table", ontoggle: () => fillTable() }, h("summary", null, "The values as a table"), tableBox);
  const anomalies = anomalyTable({ withSensor: false });
  const anomaliesNote = h("p", { class: "hint" });
  const anomalyPanel = h("section", { class: "panel" }, h("h2", null, "Anomalies in this range"), anomalies.element, anomaliesNote);
  const content = h("div", { class: "sensor" },
    h("div", { class: "toolbar" }, metrics, spans),
    h("div", { class: "columns wide-left" },
      h("div", { class: "stack" },
        h("section", { class: "panel" }, h("div", { class: "panel-head" }, h("h2", null, "Values"), readout), chartBox, shownRange, details),
        anomalyPanel),
      h("section", { class: "panel" }, h("h2", null, "Data quality"), facts)));
  const suggestions = h("section", { class: "panel suggestions" }, h("h2", null, "Some to begin with"), h("ul", { class: "plain" }));
  root.append(h("div", { class: "title-row" }, h("div", null, title, place), search.element), message, suggestions, content);
  const chart = bandChart(chartBox, 320, (from, to) => show({ from: Math.round(from * 1000), to: Math.round(to * 1000), span: null, at: null }), readAt);

  /** Goes on with some parameters changed. */
  function show(changes) {
    const next = Object.fromEntries(parameters);
    go(link("sensor", { ...next, ...changes }));
  }

  function readAt(index, data) {
    if (index == null || data[2]?.[index] == null) {
      setText(readout, "");
      return;
    }
    setText(readout, `${moment(data[0][index] * 1000)}  min ${value(data[1][index])}  mean ${value(data[2][index])}  max ${value(data[3][index])}`);
  }

  async function load() {
    clearTimeout(timer);
    request?.abort();
    request = new AbortController();
    const sensor = parameters.get("sensor");
    if (!sensor) {
      answer = null;
      showNothing("");
      return;
    }
    const range = rangeOf(parameters);
    try {
      const asked = { sensor, metric: parameters.get("metric"), from: Math.floor(range.from), to: Math.ceil(range.to) };
      answer = await ask("series", asked, request.signal);
      showAnswer(range);
    } catch (error) {
      if (error.name === "AbortError") return;
      // What is on the screen stays: it is still true.
      if (answer?.sensor !== sensor || error.status === 404) showNothing(error.message);
      else setText(message, error.message);
    }
    if (range.span !== null) timer = setTimeout(load, AGAIN_AFTER);
  }

  function showNothing(text) {
    const sensor = parameters.get("sensor");
    setText(title, sensor ?? "Sensors");
    setText(place, sensor ? "" : "Search for one, or follow an anomaly to it.");
    setText(message, text);
    content.hidden = true;
    suggest();
  }

  function suggest() {
    const worst = live.fleet?.worst ?? [];
    suggestions.hidden = !content.hidden || worst.length === 0;
    suggestions.lastElementChild.replaceChildren(...worst.slice(0, 8).map((one) =>
      h("li", null, h("a", { href: sensorLink(one.sensor, one.metric, one.time_ms) }, one.sensor), ` ${siteName(one.site)}, ${plural(one.flags, "anomaly", "anomalies")}`)));
  }

  function showAnswer(range) {
    content.hidden = false;
    suggestions.hidden = true;
    setText(message, "");
    setText(title, answer.sensor);
    document.title = `${answer.sensor} · Kappa`;
    setText(place, `${siteName(answer.site)} · last seen ${moment(Math.max(...answer.metrics.map((metric) => metric.last_ms)))}`);
    metrics.replaceChildren(...answer.metrics.map(({ metric }) =>
      h("button", { type: "button", "aria-pressed": metric === answer.metric, onclick: () => show({ metric }) }, words(metric.toLowerCase()))));
    for (const button of spans.children) setAttribute(button, "aria-pressed", Number(button.dataset.span) === range.span);
    const { columns } = answer;
    const times = columns.mean.map((_, index) => (columns.from_ms + index * columns.step_ms) / 1000);
    const marks = answer.anomalies.filter((anomaly) => anomaly.value !== null).toReversed();
    // Two marks at one time would be two columns at one place.
    const unique = new Map(marks.map((anomaly) => [anomaly.time_ms / 1000, anomaly.value]));
    const joined = window.uPlot.join([[times, columns.min, columns.mean, columns.max], [[...unique.keys()], [...unique.values()]]]);
    chart.mark(Number(parameters.get("at")) || null);
    chart.chart.setData(joined, false);
    chart.chart.setScale("x", { min: columns.from_ms / 1000, max: columns.to_ms / 1000 });
    setAttribute(chartBox, "aria-label", describeBand(columns, answer.anomalies.length));
    const isEmpty = columns.mean.every((mean) => mean === null);
    setText(shownRange, isEmpty ? `No data from ${moment(columns.from_ms)} to ${moment(columns.to_ms)}.`
      : `${moment(columns.from_ms)} to ${moment(columns.to_ms)}. The band goes from the smallest to the largest value, the line is the mean, ◆ is an anomaly, a break is a gap. Drag to zoom.`);
    quality(facts, answer);
    anomalies.show(answer.anomalies);
    setText(anomaliesNote, answer.anomalies_truncated ? `The newest ${answer.anomalies.length}; there are more.` : "");
    fillTable();
  }

  function fillTable() {
    if (details.open && answer) tableBox.replaceChildren(valueTable(answer));
    else tableBox.replaceChildren();
  }

  load();
  return {
    address(next) {
      parameters = next;
      load();
    },
    update(what) {
      if (what === "fleet" && content.hidden) suggest();
    },
    recolour() {
      chart.remake();
      if (answer) showAnswer(rangeOf(parameters));
    },
    close() {
      clearTimeout(timer);
      request?.abort();
      chart.close();
    },
  };
}
