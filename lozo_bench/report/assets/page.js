// Chooses the page by the address, draws it, and keeps it up to date if the report is watched.

const main = document.getElementById("main");
const root = document.documentElement;
const POLL_MS = 2000;
let shown = []; // functions that draw once their elements are on the page

function onShow(draw) {
  shown.push(draw);
}

/** The parts of the address after #: ["sweep", NAME], ["run", FOLDER] or []. */
function route() {
  const [kind, ...rest] = location.hash.slice(1).split("/");
  try {
    return [kind, decodeURIComponent(rest.join("/"))];
  } catch {
    return ["", ""];
  }
}

function pageOf([kind, name]) {
  const sweep = kind === "sweep" ? data.sweeps.find((one) => one.name === name) : null;
  if (sweep) return { title: sweep.name, trail: [sweep], draw: () => sweepPage(sweep) };
  const run = kind === "run" ? data.runs.find((one) => one.folder === name) : null;
  if (run) return { title: nameOf(run), trail: [sweepOf(run), run], draw: () => runPage(run) };
  return { title: "", trail: [], draw: overview };
}

/** Draws the page again and keeps where the reader is: the focus, the scroll and what is open. */
function refresh() {
  const focused = document.activeElement;
  const caret = focused && focused.type === "search" ? [focused.selectionStart, focused.selectionEnd] : null;
  const scrolled = [...document.querySelectorAll(".scroll[id]")].map((box) => [box.id, box.scrollLeft, box.scrollTop]);
  const [x, y] = [scrollX, scrollY];
  const height = main.offsetHeight;
  main.style.minHeight = `${height}px`;
  render();
  for (const [id, left, top] of scrolled) document.getElementById(id)?.scrollTo(left, top);
  if (focused && focused.id) {
    const again = document.getElementById(focused.id);
    again?.focus({ preventScroll: true });
    if (caret && again) again.setSelectionRange(...caret);
  }
  main.style.minHeight = "";
  scrollTo({ left: x, top: y, behavior: "instant" });
}

function render() {
  const page = pageOf(route());
  shown = [];
  const content = document.createDocumentFragment();
  append(content, [page.draw()]);
  main.replaceChildren(content);
  document.title = [page.title, data.root, "lozo_bench"].filter(Boolean).join(" \u2013 ");
  crumbs(page.trail);
  footer();
  for (const draw of shown) draw();
}

function crumbs(trail) {
  const home = h("a", { href: "#" }, data.root);
  const parts = trail.map((one, number) => {
    const name = one.runs ? one.name : [nameOf(one), one.seed === undefined || one.seed === null ? "" : `seed ${one.seed}`].filter(Boolean).join(", ");
    return number === trail.length - 1 ? h("span", { "aria-current": "page" }, name) : h("a", { href: sweepLink(one) }, name);
  });
  document.getElementById("crumbs").replaceChildren(h("ol", {}, [trail.length ? home : h("span", { "aria-current": "page" }, "lozo_bench"), ...parts].map((part) => h("li", {}, part))));
}

function footer() {
  document.getElementById("foot").replaceChildren(h("p", {},
    `Made ${data.made} by lozo-report of lozo_bench ${data.package}. This file has everything in it; nothing is loaded from a network.`));
}

// Light or dark: as the system has it, until the button is pressed.

function setTheme(theme) {
  if (theme) root.dataset.theme = theme;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const button = document.getElementById("theme");
  button.textContent = dark ? "Light" : "Dark";
  button.setAttribute("aria-label", dark ? "Light page" : "Dark page");
  button.onclick = () => { setTheme(dark ? "light" : "dark"); refresh(); };
}

// A watched report asks its server for newer data.

async function poll() {
  const status = document.getElementById("watch");
  const say = (text, kind) => {
    if (status.textContent !== text) status.textContent = text;
    status.className = `watch ${kind}`;
  };
  status.hidden = false;
  try {
    const answer = await fetch("data.json", { headers: { "If-None-Match": `"${data.version}"` }, cache: "no-store" });
    if (answer.status === 200) {
      data = await answer.json();
      refresh();
    }
    say("Up to date", "on");
  } catch {
    say("The server has ended; this is its last state", "off");
  }
  setTimeout(poll, POLL_MS);
}

let width = innerWidth;
addEventListener("resize", () => {
  if (innerWidth === width) return; // a phone changes the height while it scrolls
  width = innerWidth;
  for (const draw of shown) draw();
});
addEventListener("hashchange", () => {
  render();
  scrollTo({ top: 0, behavior: "instant" });
  main.focus({ preventScroll: true });
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { setTheme(); refresh(); });
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address says which page is shown
  main.focus();
});
setTheme();
render();
if (root.dataset.watched === "true") poll();
