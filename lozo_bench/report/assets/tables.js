// Tables that are sorted by a click, or the Enter key, on the head of a column.

const AT_FIRST = 40; // rows that are listed before one asks for all
const SHORT = 24; // characters that stay in one line

/**
 * columns: [{name, number, title}], rows: [[cell]], a cell: {text, node, sort}.
 * `node` is shown instead of the text, `sort` compared instead of it.
 */
function sortable(id, caption, columns, rows, options = {}) {
  const sort = state.sorts[id];
  const all = state.open[id] || rows.length <= AT_FIRST + 5;
  const body = h("tbody", {});
  const table = h("table", {},
    h("caption", { class: options.hideCaption ? "unseen" : null }, caption),
    h("thead", {}, h("tr", {}, columns.map((column, number) => h("th", {
      scope: "col", class: column.number ? "number" : null,
      "aria-sort": !sort || sort.column !== number ? "none" : sort.down ? "descending" : "ascending",
    }, h("button", {
      type: "button", id: `${id}-by-${number}`, title: column.title,
      onclick: () => { sortBy(id, number, column.number); refresh(); },
    }, column.number ? [arrow(), column.name] : [column.name, arrow()]))))),
    body);
  for (const row of sorted(rows, sort).slice(0, all ? rows.length : AT_FIRST)) {
    body.append(h("tr", {}, row.map((cell, number) => {
      const column = columns[number];
      const short = String(cell.text).length < SHORT;
      const attributes = { class: column.number ? "number" : short ? "short" : null };
      return number === 0
        ? h("th", { scope: "row", ...attributes }, content(cell))
        : h("td", attributes, content(cell));
    })));
  }
  if (!rows.length) {
    body.append(h("tr", {}, h("td", { colspan: columns.length, class: "none" }, "Nothing to show.")));
  }
  return [scrolling(`${id}-box`, caption, table), all ? null : h("p", { class: "more" }, h("button", {
    type: "button", class: "quiet", id: `${id}-all`, onclick: () => { state.open[id] = true; refresh(); },
  }, `Show all ${rows.length}`))];
}

function arrow() {
  return h("span", { class: "arrow", "aria-hidden": "true" });
}

function content(cell) {
  return cell.node || cell.text;
}

/** Ascending first; numbers are more interesting from the largest on. */
function sortBy(id, column, number) {
  const sort = state.sorts[id];
  const same = sort && sort.column === column;
  state.sorts[id] = { column, down: same ? !sort.down : Boolean(number) };
}

function sorted(rows, sort) {
  if (!sort) return rows;
  const key = (row) => {
    const cell = row[sort.column];
    return cell.sort === undefined ? sortKey(cell.text) : cell.sort;
  };
  const absent = (value) => value === "" || value === "-" || value === null;
  return [...rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (absent(x) || absent(y)) return absent(x) - absent(y); // last, in both directions
    const order = typeof x === typeof y ? (x > y) - (x < y) : typeof x === "number" ? -1 : 1;
    return sort.down ? -order : order;
  });
}

/** The table of a sweep, or of a paper, as Python has made it. */
function madeTable(id, made) {
  const rows = made.rows.map((cells) => cells.map((cell) => ({ text: cell.text, node: numbers(cell, made) })));
  const notes = made.notes.length ? h("ul", { class: "notes" }, made.notes.map((note) => h("li", {}, note))) : null;
  const key = made.rows.some((row) => row.some((cell) => cell.published))
    ? h("p", { class: "notes key" }, `Below each number: ${made.label}, and ours minus it.`) : null;
  return [made.header.length ? sortable(id, made.caption, made.header, rows) : h("p", {}, made.caption), key, notes];
}

function numbers(cell, made) {
  const best = cell.text.endsWith(" *");
  const text = best ? cell.text.slice(0, -2) : cell.text;
  const spread = text.match(/^(.*?) (\(.*\))(.*)$/);
  const own = spread && /^[\d.-]/.test(text)
    ? [spread[1], h("span", { class: "spread" }, ` ${spread[2]}`), spread[3]] : [text];
  if (best) own.push(h("span", { class: "best", title: "the best on the dev rows" }, " *"));
  if (!cell.published) return best || spread ? h("span", {}, own) : null;
  return h("span", { class: "beside" },
    h("span", { class: "own" }, own),
    h("span", { class: "published" }, h("span", { class: "unseen" }, `${made.label}: `), cell.published),
    cell.difference ? h("span", { class: "difference" },
      h("span", { class: "unseen" }, "difference: "), cell.difference) : null);
}
