// The first page: all sweeps, and the runs that did not end well.

const LISTED = 5; // runs without a result, before one asks for more

function overview() {
  const unfinished = data.runs.filter((run) => run.state === "failed" || run.state === "stopped");
  return [
    h("h1", {}, data.root),
    totals(data.runs),
    data.sweeps.length ? h("section", {}, h("h2", {}, "Sweeps"), sweepTable()) : null,
    unfinished.length ? h("section", {}, h("h2", {}, "Runs without a result"), problems("all", unfinished)) : null,
  ];
}

/** The counts of runs by how they ended, and what they have cost together. */
function totals(runs) {
  const of = (state) => runs.filter((run) => run.state === state).length;
  const seconds = sum(runs, "seconds");
  const hours = sum(runs, "gpu_hours");
  const facts = [
    [grouped(runs.length), runs.length === 1 ? "run" : "runs", ""],
    ...STATES.filter(of).map((state) => [grouped(of(state)), state, state]),
    seconds ? [duration(seconds), "of running", ""] : null,
    hours ? [gpuHours(hours), "GPU-hours", ""] : null,
  ].filter(Boolean);
  return h("dl", { class: "facts" }, facts.map(([value, name, kind]) => h("div", { class: kind }, h("dt", {}, name), h("dd", {}, value))));
}

function sum(runs, cost) {
  return runs.reduce((total, run) => total + (run.cost[cost] || 0), 0);
}

function sweepTable() {
  const hours = data.runs.some((run) => run.cost.gpu_hours !== undefined);
  const columns = [
    { name: "sweep" }, { name: "runs", number: true }, { name: "how they ended" }, { name: "tasks", number: true },
    { name: "time", number: true }, ...(hours ? [{ name: "GPU-hours", number: true }] : []),
  ];
  const rows = data.sweeps.map((sweep) => {
    const runs = runsOf(sweep);
    const seconds = sum(runs, "seconds");
    return [
      { text: sweep.name, node: h("a", { href: sweepLink(sweep) }, sweep.name) },
      { text: runs.length }, { text: counted(sweep), node: bar(sweep), sort: (sweep.counts.finished || 0) / runs.length },
      { text: new Set(runs.map((run) => run.task)).size },
      { text: duration(seconds), sort: seconds },
      ...(hours ? [{ text: gpuHours(sum(runs, "gpu_hours")), sort: sum(runs, "gpu_hours") }] : []),
    ];
  });
  return sortable("sweeps", "All sweeps", columns, rows, { hideCaption: true });
}

function counted({ counts, waiting }) {
  const ended = STATES.filter((state) => counts[state]).map((state) => `${counts[state]} ${state}`);
  return [...ended, ...(waiting ? [`${waiting} not begun`] : [])].join(", ");
}

/** The counts in words, above a bar with the share of each. */
function bar(sweep) {
  const { counts } = sweep;
  return h("span", { class: "ended" }, h("span", {}, counted(sweep)),
    h("span", { class: "shares", "aria-hidden": "true" }, STATES.filter((state) => counts[state]).map((state) => {
      const share = h("span", { class: state });
      share.style.flexGrow = counts[state];
      return share;
    })));
}

/** Why runs have no result, and the command that runs each again. */
function problems(id, runs) {
  const item = (run) => h("li", {}, h("p", {}, pill(run.state), " ", h("a", { href: runLink(run) }, nameOf(run)),
    h("span", { class: "where" }, ` ${[run.task, run.seed === undefined || run.seed === null ? "" : `seed ${run.seed}`].filter(Boolean).join(", ")}`)),
  h("p", { class: "reason" }, run.note), command(run.command));
  const more = runs.slice(LISTED);
  return [
    h("ul", { class: "problems" }, runs.slice(0, LISTED).map(item)),
    more.length ? details(`${id}-more`, `${grouped(more.length)} more`, h("ul", { class: "problems" }, more.map(item))) : null,
  ];
}
