// Charts: small curves as SVG, large ones by uPlot. Each has a text that says what it shows.

import { h, svg } from "./dom.js";
import { time, value } from "./format.js";

const { uPlot } = window;
const WIDTH = 120;
const HEIGHT = 32;

/** A colour of the style sheet as it is now, resolved for the theme: a canvas knows no variables. */
function colour(name) {
  const probe = h("span", { hidden: true, style: { color: `var(--${name})` } });
  document.body.append(probe);
  const resolved = getComputedStyle(probe).color;
  probe.remove();
  return resolved;
}

/** A small curve without axes, which adorns a number: hidden from screen readers, which have the number. */
export function sparkline() {
  const area = svg("path", { class: "spark-area" });
  const line = svg("path", { class: "spark-line" });
  const shape = { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" };
  const element = svg("svg", shape, area, line);
  return {
    element,
    /** `values` from old to new, null where there is none. */
    show(values) {
      const known = values.filter((number) => number !== null);
      const top = Math.max(...known, 1e-9);
      const bottom = Math.min(0, ...known);
      const x = (index) => ((index * WIDTH) / Math.max(values.length - 1, 1)).toFixed(1);
      const y = (number) => (HEIGHT - 2 - ((number - bottom) / (top - bottom || 1)) * (HEIGHT - 4)).toFixed(1);
      let path = "";
      let filled = "";
      let start = null;
      values.forEach((number, index) => {
        if (number !== null) {
          path += `${start === null ? "M" : "L"}${x(index)} ${y(number)}`;
          start ??= index;
        }
        const isLast = index === values.length - 1;
        if (start !== null && (number === null || isLast)) {
          const end = number === null ? index - 1 : index;
          const run = values.slice(start, end + 1).map((each, offset) => `L${x(start + offset)} ${y(each)}`).join("");
          filled += `M${x(start)} ${HEIGHT}${run}L${x(end)} ${HEIGHT}Z`;
          start = null;
        }
      });
      line.setAttribute("d", path);
      area.setAttribute("d", filled);
    },
  };
}

function axes(numbers = value) {
  const axis = { stroke: colour("muted"), grid: { stroke: colour("grid"), width: 1 }, ticks: { show: false }, font: "12px Inter, system-ui, sans-serif" };
  // Wide enough for its longest number.
  const size = (_, labels) => Math.max(44, 7.5 * Math.max(0, ...(labels ?? []).map((label) => label.length)) + 16);
  return [
    { ...axis, space: 70 },
    { ...axis, size, values: (_, splits) => splits.map((split) => numbers(split)) },
  ];
}

/** Keeps a chart as wide as its place. */
function follow(element, make) {
  let chart = make(Math.max(element.clientWidth, 200));
  const observer = new ResizeObserver(() => {
    const width = Math.floor(element.clientWidth);
    if (width > 0 && width !== chart.width) chart.setSize({ width, height: chart.height });
  });
  observer.observe(element);
  return {
    get chart() {
      return chart;
    },
    remake() {
      const { data } = chart;
      chart.destroy();
      chart = make(Math.max(element.clientWidth, 200));
      chart.setData(data);
    },
    close() {
      observer.disconnect();
      chart.destroy();
    },
  };
}

const CLOCK = [
  [3600 * 24 * 2, "{D} {MMM}", null, null, null, null, null, null, 1],
  [3600, "{HH}:{mm}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1],
  [60, "{HH}:{mm}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1],
  [1, "{HH}:{mm}:{ss}", "\n{D} {MMM}", null, "\n{D} {MMM}", null, null, null, 1],
];

/** Events a second, minute by minute, as an area. */
export function areaChart(element, height) {
  const make = (width) => {
    const [x, y] = axes((number) => (number >= 10_000 ? `${number / 1000}k` : number.toLocaleString("en-US")));
    return new uPlot({
      width,
      height,
      padding: [12, 24, 0, 0],
      legend: { show: false },
      cursor: { show: false },
      scales: { y: { range: (_, __, max) => [0, Math.max(max * 1.15, 1)] } },
      axes: [{ ...x, values: CLOCK }, y],
      series: [{}, { stroke: colour("accent"), width: 2, fill: colour("accent-soft"), points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }) }],
    }, [[], []], element);
  };
  return follow(element, make);
}

/** A band from the smallest to the largest value, the mean, and marks at anomalies. `zoomed(from, to)` in seconds. */
export function bandChart(element, height, zoomed, readout) {
  let marked = null;
  const mark = {
    hooks: {
      draw: (chart) => {
        if (marked === null) return;
        const x = chart.valToPos(marked / 1000, "x", true);
        if (x < chart.bbox.left || x > chart.bbox.left + chart.bbox.width) return;
        const { ctx } = chart;
        ctx.save();
        ctx.strokeStyle = colour("alert");
        ctx.setLineDash([4, 4]);
        ctx.beginPath();
        ctx.moveTo(x, chart.bbox.top);
        ctx.lineTo(x, chart.bbox.top + chart.bbox.height);
        ctx.stroke();
        ctx.restore();
      },
    },
  };
  const make = (width) => {
    const [x, y] = axes();
    const edge = { stroke: colour("band-edge"), width: 1, points: { show: false }, spanGaps: false };
    return new uPlot({
      width,
      height,
      padding: [12, 24, 0, 0],
      legend: { show: false },
      cursor: { drag: { x: true, y: false, setScale: false }, points: { show: false }, focus: { prox: -1 } },
      axes: [{ ...x, values: CLOCK }, y],
      bands: [{ series: [3, 1], fill: colour("band") }],
      series: [
        {},
        { ...edge, label: "min" },
        { label: "mean", stroke: colour("accent"), width: 2, spanGaps: false, points: { show: true, filter: lonely, size: 5 } },
        { ...edge, label: "max" },
        { label: "anomaly", stroke: colour("alert"), paths: () => null, points: { show: true, size: 9, width: 2, stroke: colour("alert"), fill: colour("surface"), paths: diamonds } },
      ],
      plugins: [mark],
      hooks: {
        setSelect: [(chart) => {
          if (chart.select.width < 4) return;
          const from = chart.posToVal(chart.select.left, "x");
          zoomed(from, chart.posToVal(chart.select.left + chart.select.width, "x"));
          chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        }],
        setCursor: [(chart) => readout(chart.cursor.idx, chart.data)],
      },
    }, [[], [], [], [], []], element);
  };
  const kept = follow(element, make);
  return Object.assign(kept, {
    mark(time) {
      marked = time;
    },
  });
}

/** A value between two gaps has no line: a point shows it. */
function lonely(chart, index) {
  const alone = [];
  const values = chart.data[index];
  // Times of anomalies alone are undefined: neither a value nor a gap.
  const neighbour = (at, step) => {
    do at += step; while (values[at] === undefined && at >= 0 && at < values.length);
    return values[at] ?? null;
  };
  values.forEach((number, at) => {
    if (number != null && neighbour(at, -1) === null && neighbour(at, 1) === null) alone.push(at);
  });
  return alone;
}

/** Anomalies are diamonds: told by shape, not by colour alone. */
function diamonds(chart, seriesIndex, from, to) {
  const path = new Path2D();
  const size = 6 * devicePixelRatio;
  const [times, values] = [chart.data[0], chart.data[seriesIndex]];
  for (let at = from; at <= to; at += 1) {
    if (values[at] == null) continue;
    const [x, y] = [chart.valToPos(times[at], "x", true), chart.valToPos(values[at], "y", true)];
    path.moveTo(x, y - size);
    path.lineTo(x + size, y);
    path.lineTo(x, y + size);
    path.lineTo(x - size, y);
    path.closePath();
  }
  return { stroke: path, fill: path, clip: null, flags: 3 };
}

/** What a band chart shows, in a sentence. */
export function describeBand(columns, anomalies) {
  const lowest = Math.min(...columns.min.filter((number) => number !== null));
  const highest = Math.max(...columns.max.filter((number) => number !== null));
  if (!Number.isFinite(lowest)) return "No values in this range.";
  const range = `from ${time(columns.from_ms)} to ${time(columns.to_ms)}`;
  return `Values ${range}: lowest ${value(lowest)}, highest ${value(highest)}, ${anomalies} flagged as anomalies.`;
}
