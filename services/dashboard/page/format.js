// Numbers and times for people. Times are local; the title of an element has them in UTC.

const grouped = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });
const NOTHING = "–";

export function whole(number) {
  return Number.isFinite(number) ? grouped.format(number) : NOTHING;
}

/** Few digits for a large tile: 51.2k, 1.24M. */
export function short(number) {
  if (!Number.isFinite(number)) return NOTHING;
  for (const [limit, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(number) >= limit * 9.9995) return `${(number / limit).toFixed(1)}${unit}`;
    if (Math.abs(number) >= limit && limit > 1e3) return `${(number / limit).toFixed(2)}${unit}`;
  }
  return grouped.format(number);
}

/** A measured value: five significant digits. */
export function value(number) {
  if (!Number.isFinite(number)) return NOTHING;
  if (number !== 0 && (Math.abs(number) >= 1e7 || Math.abs(number) < 1e-4)) return number.toExponential(3);
  return Number(number.toPrecision(5)).toLocaleString("en-US", { maximumFractionDigits: 6 });
}

export function score(number) {
  return Number.isFinite(number) ? number.toFixed(1) : NOTHING;
}

export function percent(part, whole) {
  if (!whole) return NOTHING;
  const share = (100 * part) / whole;
  if (share === 0) return "0 %";
  return share < 0.01 ? "< 0.01 %" : `${share.toFixed(share < 10 ? 2 : 1)} %`;
}

export function bytes(number) {
  if (!Number.isFinite(number)) return NOTHING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let index = 0;
  while (number >= 1024 && index < units.length - 1) {
    number /= 1024;
    index += 1;
  }
  return `${index === 0 ? number : number.toFixed(number < 10 ? 1 : 0)} ${units[index]}`;
}

export function seconds(number) {
  if (!Number.isFinite(number)) return NOTHING;
  if (number < 10) return `${number.toFixed(1)} s`;
  if (number < 120) return `${Math.round(number)} s`;
  if (number < 7200) return `${Math.round(number / 60)} min`;
  if (number < 172800) return `${Math.round(number / 3600)} h`;
  return `${Math.round(number / 86400)} d`;
}

export function time(milliseconds) {
  return Number.isFinite(milliseconds) ? clock.format(milliseconds) : NOTHING;
}

/** With the day, where it is not today. */
export function moment(milliseconds) {
  if (!Number.isFinite(milliseconds)) return NOTHING;
  const isToday = new Date(milliseconds).toDateString() === new Date().toDateString();
  return isToday ? time(milliseconds) : `${day.format(milliseconds)}, ${time(milliseconds)}`;
}

export function iso(milliseconds) {
  return Number.isFinite(milliseconds) ? new Date(milliseconds).toISOString() : "";
}

export function siteName(site) {
  return site === "" ? "no site" : site;
}

/** `unknown_schema_id` as a person would write it. */
export function words(name) {
  return name.replaceAll("_", " ");
}

export function plural(count, one, many) {
  return `${whole(count)} ${count === 1 ? one : many}`;
}
