// What the reader has chosen. It outlives a refresh of the data.

let data = JSON.parse(document.getElementById("data").textContent);

const state = {
  sorts: {}, // of tables, by id: {column, down}
  filters: {}, // of tables of runs, by id: {text, state}
  charts: {}, // by id: {group, shown, axis, hidden, range}
  open: {}, // of details, by id
};

/** Returns what was chosen at a place, or else the default, which becomes the choice. */
function chosen(kind, id, otherwise) {
  return (state[kind][id] ??= otherwise);
}

/** Details that stay open when the data are refreshed. */
function details(id, summary, ...children) {
  return h("details", {
    id, open: state.open[id], ontoggle: (event) => { state.open[id] = event.target.open; },
  }, h("summary", {}, summary), ...children);
}

function sweepLink(sweep) {
  return `#sweep/${encodeURIComponent(sweep.name)}`;
}

function runLink(run) {
  return `#run/${encodeURIComponent(run.folder)}`;
}

function runsOf(sweep) {
  return sweep.runs.map((number) => data.runs[number]);
}

function sweepOf(run) {
  const number = data.runs.indexOf(run);
  return data.sweeps.find((sweep) => sweep.runs.includes(number));
}

/** What a run is called on its page and in lists. */
function nameOf(run) {
  return [run.method, run.label].filter(Boolean).join(" ");
}

function theirMetric(run, set) {
  const values = Object.values((run.metrics || {})[set] || {});
  return values.length ? values[0] : undefined;
}

function metricName(run) {
  return Object.keys((run.metrics || {}).test || {})[0] || "";
}
