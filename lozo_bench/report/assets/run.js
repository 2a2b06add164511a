// The page of one run.

function runPage(run) {
  const id = `run-${data.runs.indexOf(run)}`;
  const sweep = sweepOf(run);
  const environment = data.environments[run.environment] || {};
  const lines = [{ label: nameOf(run), ...run.curves }];
  const measured = ["loss", "dev", "dev_loss"].some((kind) => run.curves[kind]);
  const about = [run.task, run.model, run.seed === undefined || run.seed === null ? "" : `seed ${run.seed}`];
  return [
    h("h1", {}, nameOf(run)),
    h("p", { class: "about" }, pill(run.state), h("span", {}, about.filter(Boolean).join(" \u00b7 ")), progress(run)),
    ended(run),
    run.problems.length ? h("div", { class: "notice" }, h("h2", {}, "What could not be read"),
      h("ul", {}, run.problems.map((line) => h("li", {}, line)))) : null,
    h("div", { class: "pair" },
      results(id, run),
      h("section", {}, h("h2", {}, "Cost"), costList(run))),
    measured ? h("section", {}, h("h2", {}, "Curves"),
      chart(`${id}-chart`, [{ name: about[0] || "this run", metric: run.curves.metric, lines }])) : null,
    run.figures.map((figure) => h("section", {}, h("h2", {}, figure.title), picture(figure))),
    h("section", {}, h("h2", {}, "Where its values come from"), origin(run)),
    h("section", {}, h("h2", {}, "Config"), config(id, run)),
    Object.keys(environment).length ? h("section", {}, h("h2", {}, "Environment"), h("dl", { class: "pairs" },
      Object.entries(environment).flatMap(([key, value]) => pairs(key, value)))) : null,
    h("section", {}, h("h2", {}, "End of the log"), logOf(id, run)),
    neighbours(sweep, run),
  ];
}

/** Why the run has no result, and how to get one. */
function ended(run) {
  if (run.state !== "failed" && run.state !== "stopped") {
    return run.command ? details(`again-${run.folder}`, "The command that makes this run", command(run.command)) : null;
  }
  return h("div", { class: `notice ${run.state}` },
    h("h2", {}, run.state === "failed" ? "Why it failed" : "It was stopped"),
    h("p", { class: "reason" }, run.note),
    run.command ? h("p", { class: "lead" }, run.state === "failed" ? "This command runs it again:" : "This command resumes it:") : null,
    command(run.command));
}

function results(id, run) {
  const sets = Object.entries(run.metrics || {});
  if (!sets.length) return h("section", {}, h("h2", {}, "Results"), h("p", { class: "none" }, "There is no result yet."));
  const names = [...new Set(sets.flatMap(([, values]) => Object.keys(values)))];
  const columns = [{ name: "rows" }, ...names.map((name) => ({ name, number: true }))];
  const titles = { zero_shot: "test, before training", dev: "dev", test: "test" };
  const rows = sets.map(([set, values]) => [{ text: titles[set] || set }, ...names.map((name) => ({ text: metric(values[name]) }))]);
  return h("section", {}, h("h2", {}, "Results"), sortable(`${id}-results`, "Metrics of the tested step", columns, rows, { hideCaption: true }),
    run.best_step === null || run.best_step === undefined ? null
      : h("p", { class: "notes" }, `Tested with the weights of step ${grouped(run.best_step)} of ${grouped(run.steps)}.`));
}

function costList(run) {
  const { cost } = run;
  const facts = [
    ["time", duration(cost.seconds)], ["of it training steps", duration(cost.train_seconds)],
    ["GPU-hours", gpuHours(cost.gpu_hours)],
    [cost.memory_of_process ? "peak memory (of the process)" : "peak memory", bytes(cost.memory)],
    ["median step", cost.step_ms ? `${+cost.step_ms.toPrecision(3)} ms` : ""],
    ["forward passes", number(cost.forwards)], ["backward passes", number(cost.backwards)],
    ["queries", number(cost.queries)], ["tokens", number(cost.tokens)],
    ["floating-point operations", cost.flops ? shortNumber(cost.flops) : ""],
    ["skipped steps", cost.bad_steps ? number(cost.bad_steps) : ""],
    ["sittings", cost.sittings > 1 ? number(cost.sittings) : ""],
  ].filter(([, value]) => value !== "");
  return facts.length ? h("dl", { class: "pairs" }, facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))))
    : h("p", { class: "none" }, "Nothing is known yet.");
}

function number(value) {
  return value === undefined ? "" : grouped(value);
}

function picture(figure) {
  return figure.left_out ? h("p", { class: "none" }, figure.left_out)
    : h("p", { class: "picture", tabindex: 0, role: "region", "aria-label": figure.title },
      h("img", { src: data.figures[figure.image], alt: figure.title }));
}

function origin(run) {
  return [
    run.given.length ? h("p", {}, "On the command line: ", run.given.map((text) => [h("code", { class: "chip" }, text), " "]))
      : h("p", {}, "Nothing was given on the command line."),
    run.values_from ? h("p", {}, `${run.values_from[0].toUpperCase()}${run.values_from.slice(1)}.`) : null,
    h("p", { class: "where" }, "Folder: ", h("code", {}, run.folder), run.digest ? [", digest ", h("code", {}, run.digest)] : null),
  ];
}

/** The method's own values, then all others by node. */
function config(id, run) {
  const groups = new Map();
  data.config.forEach(([key, values], number) => {
    const at = run.config[number] ?? -1;
    if (at < 0) return;
    const node = key.includes(".") ? key.split(".")[0] : "run";
    if (!groups.has(node)) groups.set(node, []);
    groups.get(node).push([key, values[at]]);
  });
  const given = new Set(run.given.map((text) => text.split("=")[0]));
  const list = (entries) => h("dl", { class: "pairs values" }, entries.map(([key, value]) => h("div", { class: given.has(key) ? "given" : null },
    h("dt", {}, key, given.has(key) ? h("span", { class: "mark" }, " command line") : null), h("dd", {}, h("code", {}, value)))));
  if (!groups.size) return h("p", { class: "none" }, "The config is not known.");
  const first = ["optimizer", "tuning", "run"].filter((node) => groups.has(node));
  const rest = [...groups.keys()].filter((node) => !first.includes(node));
  const count = rest.reduce((total, node) => total + groups.get(node).length, 0);
  return [
    first.map((node) => [h("h3", {}, node), list(groups.get(node))]),
    details(`${id}-config`, `${plural(count, "more value")}: ${rest.join(", ")}`, rest.map((node) => [h("h3", {}, node), list(groups.get(node))])),
  ];
}

function pairs(key, value) {
  if (value !== null && typeof value === "object") {
    return Object.entries(value).flatMap(([name, child]) => pairs(key === "versions" ? name : `${key} ${name}`, child));
  }
  return value === null ? [] : [h("div", {}, h("dt", {}, key), h("dd", {}, String(value)))];
}

function logOf(id, run) {
  if (!run.log.length) return h("p", { class: "none" }, "There is no log.");
  return h("pre", { id: `${id}-log`, class: "log scroll", tabindex: 0, role: "region", "aria-label": "End of the log" }, run.log.join("\n"));
}

function neighbours(sweep, run) {
  const runs = runsOf(sweep);
  const at = runs.indexOf(run);
  const link = (other, words) => (other ? h("a", { href: runLink(other) }, h("span", {}, words), nameOf(other),
    other.seed === undefined || other.seed === null ? null : `, seed ${other.seed}`) : h("span", {}));
  return h("nav", { class: "neighbours", "aria-label": "Runs beside this one" }, link(runs[at - 1], "Before"), link(runs[at + 1], "Next"));
}
