// From what was measured at steps to points on the chosen axis.

const AXES = [
  ["steps", "steps", "steps"],
  ["forwards", "forwards", "forward passes"],
  ["passes", "passes", "forward and backward passes"],
  ["queries", "queries", "queries (forward passes of one row)"],
  ["tokens", "tokens", "tokens"],
  ["seconds", "seconds", "seconds of training"],
];
// Okabe and Ito's colours, which colour-blind readers tell apart; then other line styles.
const COLOURS = ["blue", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "ink"];
const DASHES = [[], [7, 4], [2, 3], [8, 3, 2, 3]];
// Points above the quantile are cut off if they would make the chart this many times as high.
const MOST = 0.95;
const FAR = 4;

/** The colour and dashes of a line, by its place among all lines of the chart. */
function look(number) {
  const colour = COLOURS[number % COLOURS.length];
  return {
    colour: colour.startsWith("#") ? colour : styleOf(`--${colour}`), // of these, dark pages have lighter ones
    dash: DASHES[Math.floor(number / COLOURS.length) % DASHES.length],
  };
}

function styleOf(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** The value at x on the line through points; xs ascend. */
function interpolate(x, xs, ys) {
  if (x <= xs[0]) return ys[0];
  let [low, high] = [0, xs.length - 1];
  if (x >= xs[high]) return ys[high];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= x) low = middle;
    else high = middle;
  }
  const share = (x - xs[low]) / (xs[high] - xs[low] || 1);
  return ys[low] + share * (ys[high] - ys[low]);
}

/** Returns {x, y, d} of a line against an axis; null if it was not measured or its cost is not known. */
function against(line, shown, axis) {
  const points = line[shown];
  if (!points) return null;
  if (axis === "steps") return { x: points.s, y: points.y, d: points.d };
  const cost = line.cost[axis];
  return cost ? { x: points.s.map((step) => interpolate(step, ...cost)), y: points.y, d: points.d } : null;
}

/** The highest value to draw if a few points are far above all others: a run that diverged. */
function ceiling(lines) {
  const values = lines.flatMap((line) => line.y).sort((a, b) => a - b);
  if (!values.length) return null;
  const low = values[0];
  const most = values[Math.floor(MOST * (values.length - 1))];
  const high = values[values.length - 1];
  return most > low && high - low > FAR * (most - low) ? most + 0.1 * (most - low) : null;
}
