// The search for a sensor: a combobox with a list of what was found, for mouse, keys and screen readers.

import { h, newId, setAttribute, setText } from "./dom.js";
import { siteName } from "./format.js";
import { ask } from "./live.js";

const WAIT = 150;

/** `chosen(sensor)` is called with the id. */
export function sensorSearch(chosen) {
  const listId = newId("found");
  const input = h("input", {
    id: "search", type: "search", role: "combobox", autocomplete: "off", spellcheck: "false", maxlength: "200",
    placeholder: "Sensor id, or a part of it", "aria-label": "Search for a sensor", "aria-expanded": "false",
    "aria-controls": listId, "aria-autocomplete": "list",
  });
  const list = h("ul", { id: listId, role: "listbox", class: "found", "aria-label": "Sensors found", hidden: true });
  const note = h("p", { class: "visually-hidden", role: "status" });
  let options = [];
  let active = -1;
  let timer = 0;
  let request = null;

  function close() {
    list.hidden = true;
    active = -1;
    setAttribute(input, "aria-expanded", "false");
    setAttribute(input, "aria-activedescendant", null);
  }

  function choose(sensor) {
    close();
    input.value = "";
    chosen(sensor);
  }

  function activate(index) {
    active = (index + options.length) % options.length;
    options.forEach((option, at) => setAttribute(option, "aria-selected", at === active));
    setAttribute(input, "aria-activedescendant", options[active].id);
    options[active].scrollIntoView({ block: "nearest" });
  }

  function show(found) {
    options = found.sensors.map(({ sensor, site }, index) => {
      const option = h("li", { id: `${listId}-${index}`, role: "option", "aria-selected": "false" }, h("span", { class: "found-sensor" }, sensor), h("span", { class: "found-site" }, siteName(site)));
      option.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        choose(sensor);
      });
      return option;
    });
    const rest = found.truncated ? [h("li", { class: "found-note", role: "presentation" }, "and more: type on")] : [];
    const none = options.length === 0 ? [h("li", { class: "found-note", role: "presentation" }, "No sensor has this in its id.")] : [];
    list.replaceChildren(...options, ...rest, ...none);
    list.hidden = false;
    active = -1;
    setAttribute(input, "aria-expanded", options.length > 0);
    setText(note, `${options.length}${found.truncated ? " or more" : ""} found`);
  }

  async function search() {
    request?.abort();
    request = new AbortController();
    try {
      show(await ask("sensors", { q: input.value.trim() }, request.signal));
    } catch (error) {
      if (error.name === "AbortError") return;
      list.replaceChildren(h("li", { class: "found-note", role: "presentation" }, error.message));
      list.hidden = false;
    }
  }

  function later() {
    clearTimeout(timer);
    timer = setTimeout(search, WAIT);
  }

  input.addEventListener("input", later);
  input.addEventListener("focus", later);
  input.addEventListener("blur", () => {
    clearTimeout(timer);
    close();
  });
  input.addEventListener("keydown", (event) => {
    const isOpen = !list.hidden && options.length > 0;
    if (event.key === "Escape") close();
    if (event.key === "Enter") {
      const picked = isOpen && active >= 0 ? options[active].firstElementChild.textContent : input.value.trim();
      if (picked !== "") choose(picked);
    }
    if (isOpen && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
      event.preventDefault();
      activate(active + (event.key === "ArrowDown" ? 1 : active < 0 ? 0 : -1));
    }
  });
  return { element: h("div", { class: "search" }, input, list, note), input };
}
