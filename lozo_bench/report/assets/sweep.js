// The page of a sweep: its tables, curves and runs.

function sweepPage(sweep) {
  const runs = runsOf(sweep);
  const id = `sweep-${data.sweeps.indexOf(sweep)}`;
  const unfinished = runs.filter((run) => run.state === "failed" || run.state === "stopped");
  return [
    h("h1", {}, sweep.name),
    totals(runs),
    sweep.papers.map((made, number) => h("section", {}, h("h2", {}, "Beside the published numbers"), madeTable(`${id}-paper-${number}`, made))),
    h("section", {}, h("h2", {}, "Results"), sweep.tables.map((made, number) => madeTable(`${id}-table-${number}`, made))),
    sweep.curves.length ? h("section", {}, h("h2", {}, "Curves"), chart(`${id}-chart`, sweep.curves)) : null,
    unfinished.length ? h("section", {}, h("h2", {}, "Runs without a result"), problems(id, unfinished)) : null,
    h("section", {}, h("h2", {}, "Runs"), runTable(`${id}-runs`, runs)),
  ];
}

function runTable(id, runs) {
  const filter = chosen("filters", id, { text: "", state: "" });
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (run) => (!filter.state || run.state === filter.state)
    && words.every((word) => `${nameOf(run)} ${run.task} ${run.model} s${run.seed} ${run.name}`.toLowerCase().includes(word));
  const found = runs.filter(matches);
  const states = STATES.filter((one) => runs.some((run) => run.state === one));
  const hours = runs.some((run) => run.cost.gpu_hours !== undefined);
  const models = new Set(runs.map((run) => run.model)).size > 1;
  const columns = [
    { name: "run" }, { name: "task" }, ...(models ? [{ name: "model" }] : []), { name: "seed", number: true }, { name: "status" },
    { name: "dev", number: true }, { name: "test", number: true }, { name: "time", number: true },
    ...(hours ? [{ name: "GPU-hours", number: true }] : []),
    { name: "memory", number: true, title: "peak memory" }, { name: "forwards", number: true, title: "forward passes" },
  ];
  const rows = found.map((run) => [
    { text: nameOf(run), node: h("a", { href: runLink(run) }, nameOf(run)) },
    { text: run.task }, ...(models ? [{ text: run.model }] : []),
    { text: run.seed ?? "" }, { text: run.state, node: [pill(run.state), progress(run)] },
    { text: metric(theirMetric(run, "dev")) }, { text: metric(theirMetric(run, "test")) },
    { text: duration(run.cost.seconds), sort: run.cost.seconds ?? null },
    ...(hours ? [{ text: gpuHours(run.cost.gpu_hours), sort: run.cost.gpu_hours ?? null }] : []),
    { text: bytes(run.cost.memory), sort: run.cost.memory ?? null },
    { text: run.cost.forwards === undefined ? "" : grouped(run.cost.forwards) },
  ]);
  const search = h("label", {}, "Find ", h("input", {
    type: "search", id: `${id}-find`, value: filter.text, placeholder: "lozo lr=1e-3 s0", autocomplete: "off",
    oninput: (event) => { filter.text = event.target.value; refresh(); },
  }));
  const which = states.length > 1 ? choice(`${id}-state`, "Status",
    [["", "all"], ...states.map((one) => [one, one])], filter.state, (value) => { filter.state = value; refresh(); }) : null;
  const howMany = found.length === runs.length ? plural(runs.length, "run") : `${found.length} of ${plural(runs.length, "run")}`;
  return [
    runs.length > 4 ? h("div", { class: "controls" }, search, which, h("p", { class: "notes", role: "status" }, howMany)) : null,
    sortable(id, "Runs of this sweep", columns, rows, { hideCaption: true }),
  ];
}

function progress(run) {
  if (!run.progress || run.state === "finished") return null;
  const [step, of] = run.progress;
  return h("span", { class: "step" }, ` ${grouped(step)} of ${grouped(of)} steps`);
}
