// The frame around the views: which one is shown, whether what it shows is fresh, colours, keys.

import { h, reconcile, setAttribute, setText } from "./dom.js";
import { go, link, parse } from "./address.js";
import { moment, seconds, time } from "./format.js";
import { connect, live, subscribe } from "./live.js";
import { fleetView } from "./fleet.js";
import { sensorView } from "./sensor.js";
import { anomaliesView } from "./anomalies.js";
import { pipelineView } from "./pipeline.js";

const VIEWS = {
  fleet: { title: "Fleet", make: fleetView },
  sensor: { title: "Sensors", make: sensorView },
  anomalies: { title: "Anomalies", make: anomaliesView },
  pipeline: { title: "Pipeline", make: pipelineView },
};
const CONNECTION = { connecting: "Connecting", live: "Live", stale: "Stale", disconnected: "Disconnected" };
const THEMES = {
  auto: { label: "Colours: as the system", sign: "◐" },
  light: { label: "Colours: light", sign: "○" },
  dark: { label: "Colours: dark", sign: "●" },
};

const root = document.getElementById("view");
let current = null;

function show() {
  const { view, parameters } = parse(location.hash);
  document.title = `${VIEWS[view].title} · Kappa`;
  for (const tab of document.querySelectorAll("#tabs a")) {
    setAttribute(tab, "aria-current", tab.dataset.view === view ? "page" : null);
  }
  if (current?.name === view) {
    current.view.address(parameters);
    return;
  }
  const isFirst = current === null;
  current?.view.close();
  root.replaceChildren();
  current = { name: view, view: VIEWS[view].make(root, parameters) };
  window.scrollTo(0, 0);
  if (!isFirst && !root.contains(document.activeElement)) root.focus({ preventScroll: true });
}

function banners() {
  const found = [];
  const answering = live.fleet?.click_house;
  if (live.state === "disconnected" || live.state === "stale") {
    const since = live.at ? ` What is shown is from ${moment(live.at)}.` : "";
    found.push({ key: "server", text: `The server of this page does not answer; trying again.${since}` });
  } else if (answering && !answering.ok) {
    const since = answering.failing_since_ms ? ` since ${moment(answering.failing_since_ms)}` : "";
    const shown = answering.as_of_ms ? ` Fleet and anomalies are shown as of ${moment(answering.as_of_ms)}.` : "";
    found.push({ key: "clickhouse", text: `ClickHouse gives no answer${since}.${shown}`, detail: answering.error });
  }
  if (live.state === "live") {
    for (const pipeline of live.pulse?.pipelines ?? []) {
      if (pipeline.error === null) continue;
      found.push({ key: pipeline.name, text: `The pipeline at ${pipeline.name} does not answer.`, detail: pipeline.error });
    }
  }
  return found;
}

function showState() {
  const isBehind = live.state === "live" && live.fleet && !live.fleet.click_house.ok;
  const connection = document.getElementById("connection");
  setAttribute(connection, "data-state", isBehind ? "stale" : live.state);
  setText(document.getElementById("connection-text"), isBehind ? "ClickHouse away" : CONNECTION[live.state]);
  const found = banners();
  const make = () => h("p", { class: "banner" }, h("strong"), h("span", { class: "banner-detail" }));
  reconcile(document.getElementById("banners"), found, (banner) => banner.key, make, (element, banner) => {
    setText(element.children[0], banner.text);
    setText(element.children[1], banner.detail ?? "");
  });
  // Read out when it changes, which is seldom, never with each frame.
  setText(document.getElementById("announcer"), found.map((banner) => banner.text).join(" "));
  const answering = live.fleet?.click_house;
  const asOf = answering?.as_of_ms ? `ClickHouse as of ${time(answering.as_of_ms)}, in ${seconds(answering.took_ms / 1000)}` : "";
  setText(document.getElementById("foot"), asOf);
}

function setTheme(theme) {
  const button = document.getElementById("theme");
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  setAttribute(button, "aria-label", THEMES[theme].label);
  setAttribute(button, "title", THEMES[theme].label);
  setText(button, THEMES[theme].sign);
  current?.view.recolour?.();
}

function storedTheme() {
  const stored = localStorage.getItem("theme");
  return stored in THEMES ? stored : "auto";
}

function nextTheme() {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(storedTheme()) + 1) % names.length];
  localStorage.setItem("theme", next);
  setTheme(next);
}

function onKey(event) {
  const isTyping = event.target.closest("input, select, textarea") !== null;
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const view = Object.keys(VIEWS)["1234".indexOf(event.key)];
  if (view !== undefined) go(link(view));
  if (event.key === "/") {
    event.preventDefault();
    if (current.name !== "sensor") go(link("sensor"));
    setTimeout(() => document.getElementById("search")?.focus(), 0);
  }
}

setTheme(storedTheme());
document.getElementById("theme").addEventListener("click", nextTheme);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => current?.view.recolour?.());
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  root.focus();
});
document.addEventListener("keydown", onKey);
window.addEventListener("hashchange", show);
subscribe((what) => {
  if (what !== "pulse") showState();
  current?.view.update(what);
});
show();
connect();
