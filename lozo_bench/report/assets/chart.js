// A chart of curves with its choices and its legend, which is where lines are switched on and off.

const MANY = 6; // lines that are on at first
const PHONE = 620; // pixels
const WHOLE = Array.from({ length: 15 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

/**
 * Returns the element of a chart.
 * groups: [{name, metric, lines: [{label, runs, loss, dev, dev_loss, cost}]}].
 */
function chart(id, groups) {
  const chosenNow = chosen("charts", id, { group: groups[0].name, shown: null, axis: "steps", hidden: {}, range: null });
  const group = groups.find((one) => one.name === chosenNow.group) || groups[0];
  const kinds = [
    ["loss", "Training loss"],
    ["dev", group.metric ? `Dev ${group.metric}` : "Dev metric"],
    ["dev_loss", "Dev loss"],
  ].filter(([kind]) => group.lines.some((line) => line[kind])
    && !(kind === "dev_loss" && group.metric === "loss"));
  if (!kinds.length) return h("p", { class: "none" }, "Nothing was measured yet.");
  if (!kinds.some(([kind]) => kind === chosenNow.shown)) chosenNow.shown = kinds[0][0];
  const known = (axis) => group.lines.some((line) => against(line, chosenNow.shown, axis));
  const axis = known(chosenNow.axis) ? chosenNow.axis : "steps";
  const set = (changes) => { Object.assign(chosenNow, changes); refresh(); };

  const plot = h("div", { class: "plot", id: `${id}-plot`, tabindex: 0, role: "group" });
  const lines = group.lines
    .map((line, number) => ({ ...line, ...look(number), points: against(line, chosenNow.shown, axis) }))
    .filter((line) => line.points);
  const hiddenOf = (chosenNow.hidden[group.name] ??= lines.slice(MANY).map((line) => line.label));
  const shownLines = lines.filter((line) => !hiddenOf.includes(line.label));
  const kindName = kinds.find(([kind]) => kind === chosenNow.shown)[1];
  const axisName = AXES.find(([key]) => key === axis)[2];
  plot.setAttribute("aria-label", `${kindName} against ${axisName} for ${group.name}, ${plural(shownLines.length, "line")}. `
    + "The values are in the legend. Keys: plus and minus zoom, arrows move, 0 shows everything.");

  const picker = groups.length > 1 ? h("label", { class: "picker" }, "Task and model ", h("select", {
    id: `${id}-group`, onchange: (event) => set({ group: event.target.value, range: null }),
  }, groups.map((one) => h("option", { value: one.name, selected: one === group }, one.name)))) : null;
  const controls = h("div", { class: "controls" }, picker,
    choice(`${id}-shown`, "Show", kinds, chosenNow.shown, (value) => set({ shown: value })),
    choice(`${id}-axis`, "Against", AXES.map(([key, name]) => [key, name, !known(key)]), axis,
      (value) => set({ axis: value, range: null })));
  const readers = [];
  const legend = legendOf(id, lines, hiddenOf, readers);
  const draw = () => drawPlot(plot, shownLines, { chosenNow, axisName, kindName, readers });
  onShow(draw);
  const zoom = (name, title, sign, action) => h("button", {
    type: "button", class: "quiet", id: `${id}-${name}`, title, "aria-label": sign.length > 1 ? null : title, onclick: () => action(plot.chart),
  }, sign);
  const tools = h("div", { class: "tools", role: "group", "aria-label": "Zoom" },
    zoom("in", "Zoom in", "+", (u) => zoomBy(u, 0.5)), zoom("out", "Zoom out", "\u2212", (u) => zoomBy(u, 2)),
    zoom("whole", "Show everything", "Whole", (u) => zoomTo(u, null)));
  plot.addEventListener("keydown", (event) => keyed(event, plot.chart));
  return h("div", { class: "chart" }, controls,
    h("div", { class: "drawn" }, h("figure", {}, h("figcaption", {}, kindName, h("span", {}, ` against ${axisName}`)), plot,
      h("p", { class: "notes", id: `${id}-notes` }, notesOf(lines, shownLines, axis, chosenNow.shown))),
      h("div", { class: "side" }, legend, tools)));
}

/** Buttons that show the line, its name and its value: the last one, or that at the pointer. */
function legendOf(id, lines, hiddenOf, readers) {
  const toggle = (label) => {
    const at = hiddenOf.indexOf(label);
    if (at < 0) hiddenOf.push(label);
    else hiddenOf.splice(at, 1);
    refresh();
  };
  const all = (on) => { hiddenOf.splice(0, hiddenOf.length, ...(on ? [] : lines.map((line) => line.label))); refresh(); };
  const items = lines.map((line, number) => {
    const value = h("span", { class: "value" });
    const last = line.points.y[line.points.y.length - 1];
    const read = (x) => {
      value.textContent = shortValue(x === null ? last : interpolate(x, line.points.x, line.points.y));
    };
    read(null);
    readers.push(read);
    const seeds = line.runs && line.runs.length > 1 ? h("span", { class: "seeds" }, ` ${line.runs.length} seeds`) : null;
    const on = !hiddenOf.includes(line.label);
    return h("li", {}, h("button", {
      type: "button", id: `${id}-line-${number}`, class: "line", "aria-pressed": on ? "true" : "false",
      onclick: () => toggle(line.label),
    }, swatch(line), h("span", { class: "label" }, line.label, seeds), value));
  });
  const both = lines.length > 2 ? h("p", { class: "both" },
    h("button", { type: "button", class: "quiet", id: `${id}-all`, onclick: () => all(true) }, "All"),
    h("button", { type: "button", class: "quiet", id: `${id}-none`, onclick: () => all(false) }, "None")) : null;
  return h("div", {}, h("ul", { class: "legend", "aria-label": "Lines" }, items), both);
}

function swatch(line) {
  return svg("svg", { width: 26, height: 10, "aria-hidden": "true" }, svg("line", {
    x1: 1, x2: 25, y1: 5, y2: 5, stroke: line.colour, "stroke-width": 2.4, "stroke-dasharray": line.dash.join(" "),
  }));
}

function shortValue(value) {
  return Math.abs(value) >= 1000 ? shortNumber(value) : value.toFixed(4);
}

function notesOf(lines, shownLines, axis, shown) {
  const notes = [];
  if (lines.some((line) => line.points.d)) {
    notes.push("A line is the mean over the seeds, a band one standard deviation.");
    if (axis !== "steps") notes.push("Seeds are compared at equal steps; a point lies at the mean cost of its step.");
  }
  const cut = lines.filter((line) => line[shown].of);
  if (cut.length) {
    const most = Math.max(...cut.map((line) => line[shown].of));
    notes.push(`Long curves are shortened: of up to ${grouped(most)} points, the lowest and the highest of each short stretch are drawn.`);
  }
  if (ceiling(shownLines.map((line) => line.points)) !== null) notes.push("The highest points are cut off.");
  return notes.join(" ");
}

function drawPlot(plot, lines, { chosenNow, axisName, kindName, readers }) {
  if (plot.chart) plot.chart.destroy();
  plot.replaceChildren();
  if (!lines.length) {
    plot.append(h("p", { class: "none" }, "No line is switched on."));
    return;
  }
  const tables = lines.map((line) => [line.points.x, line.points.y]);
  const points = lines.map((line) => line.points);
  const [low, high] = limits(points);
  const axisStyle = {
    stroke: styleOf("--soft"), font: `12px ${styleOf("--sans")}`, ticks: { show: false },
    grid: { stroke: styleOf("--hair"), width: 1 }, border: { show: false },
  };
  const options = {
    width: Math.max(240, plot.clientWidth), height: innerWidth < PHONE ? 260 : 360,
    legend: { show: false },
    cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false, dist: 6 } },
    focus: { alpha: 0.25 },
    scales: { x: { time: false, ...(chosenNow.range ? { range: () => zoomedRange(plot, chosenNow) } : {}) }, y: { range: () => [low, high] } },
    axes: [
      { ...axisStyle, values: (u, splits) => splits.map(shortNumber), label: axisName, size: 36, labelSize: 22, ...(axisName.startsWith("seconds") ? {} : { incrs: WHOLE }), labelFont: `12px ${styleOf("--sans")}`, space: 70 },
      { ...axisStyle, size: 58, values: (u, splits) => splits.map((value) => shortNumber(value)) },
    ],
    series: [{}, ...lines.map((line) => ({
      label: line.label, stroke: line.colour, width: 1.8, dash: line.dash, points: { size: 5, fill: line.colour },
    }))],
    hooks: {
      drawClear: [(u) => lines.forEach((line) => drawBand(u, line))],
      setSelect: [(u) => selected(u, chosenNow)],
      setCursor: [(u) => readers.forEach((read) => read(u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : null))],
    },
  };
  options.cursor.bind = { dblclick: (u) => () => zoomTo(u, null) };
  plot.chart = new uPlot(options, tables.length > 1 ? uPlot.join(tables) : tables[0], plot);
  plot.chart.chosenNow = chosenNow;
  plot.chart.whole = [Math.min(...points.map((one) => one.x[0])), Math.max(...points.map((one) => one.x[one.x.length - 1]))];
  plot.dataset.drawn = kindName;
}

function zoomedRange(plot, chosenNow) {
  return chosenNow.range || plot.chart.whole;
}

function limits(points) {
  const values = points.flatMap(({ y, d }) => (d ? y.flatMap((value, i) => [value - d[i], value + d[i]]) : y));
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  high = ceiling(points) ?? high;
  const margin = 0.05 * (high - low) || 0.05 * Math.abs(high) || 0.1;
  return [low - margin, high + margin];
}

function drawBand(u, line) {
  const { x, y, d } = line.points;
  if (!d) return;
  const { ctx, bbox } = u;
  const at = (i, sign) => [u.valToPos(x[i], "x", true), u.valToPos(y[i] + sign * d[i], "y", true)];
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.beginPath();
  for (let i = 0; i < x.length; i++) ctx.lineTo(...at(i, 1));
  for (let i = x.length - 1; i >= 0; i--) ctx.lineTo(...at(i, -1));
  ctx.globalAlpha = 0.14;
  ctx.fillStyle = line.colour;
  ctx.fill();
  ctx.restore();
}

function selected(u, chosenNow) {
  if (u.select.width < 4) return;
  const range = [u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x")];
  u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
  chosenNow.range = range;
  refresh();
}

function zoomTo(u, range) {
  if (!u) return;
  u.chosenNow.range = range;
  refresh();
}

function zoomBy(u, factor) {
  if (!u) return;
  const [low, high] = u.chosenNow.range || u.whole;
  const [middle, half] = [(low + high) / 2, ((high - low) / 2) * factor];
  const range = [Math.max(u.whole[0], middle - half), Math.min(u.whole[1], middle + half)];
  zoomTo(u, range[0] <= u.whole[0] && range[1] >= u.whole[1] ? null : range);
}

function moveBy(u, share) {
  if (!u || !u.chosenNow.range) return;
  const [low, high] = u.chosenNow.range;
  const wanted = share * (high - low);
  const by = Math.max(u.whole[0] - low, Math.min(u.whole[1] - high, wanted));
  zoomTo(u, [low + by, high + by]);
}

function keyed(event, u) {
  const actions = {
    "+": () => zoomBy(u, 0.5), "=": () => zoomBy(u, 0.5), "-": () => zoomBy(u, 2), 0: () => zoomTo(u, null),
    ArrowLeft: () => moveBy(u, -0.25), ArrowRight: () => moveBy(u, 0.25),
  };
  if (actions[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    actions[event.key]();
  }
}
