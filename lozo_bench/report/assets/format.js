// Numbers and words as people write them.

const STATES = ["finished", "running", "stopped", "failed"];

function plural(number, noun) {
  return `${grouped(number)} ${noun}${number === 1 ? "" : "s"}`;
}

function grouped(number) {
  return Number(number).toLocaleString("en-US", { maximumFractionDigits: 2 });
}

/** 12,345,678 is 12.3M: for axes and costs. */
function shortNumber(number) {
  const size = Math.abs(number);
  for (const [unit, name] of [[1e18, "E"], [1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (size >= unit) return `${+(number / (unit === 1e4 ? 1e3 : unit)).toPrecision(3)}${name}`;
  }
  return grouped(+number.toPrecision(4));
}

/** 3,725 seconds are 1 h 2 min. */
function duration(seconds) {
  if (seconds === undefined || seconds === null) return "";
  if (seconds < 60) return `${+seconds.toPrecision(3)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 100 ? `${hours} h ${minutes % 60} min` : `${grouped(hours)} h`;
}

function bytes(number) {
  if (!number) return "";
  return number >= 2 ** 30 ? `${(number / 2 ** 30).toFixed(2)} GiB` : `${Math.round(number / 2 ** 20)} MiB`;
}

function gpuHours(hours) {
  return !hours ? "" : +hours.toPrecision(3) < 0.01 ? "< 0.01" : grouped(+hours.toPrecision(3));
}

function metric(value) {
  return value === undefined || value === null ? "" : Number(value).toFixed(4);
}

/** What a cell of a table is sorted by: the number that it begins with, or its text. */
function sortKey(text) {
  const number = parseFloat(String(text).replaceAll(",", "").replace("\u2212", "-"));
  return Number.isNaN(number) ? String(text).toLowerCase() : number;
}

/** "1 failed" and such, with a mark whose form differs too. */
function pill(state) {
  return h("span", { class: `state ${state}` }, state);
}
