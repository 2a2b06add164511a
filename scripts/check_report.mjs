// Opens a report in Chromium and checks it: load time, console errors, requests to a network, axe's
// findings and whether the page is wider than the screen, on each kind of page, at phone and desk
// width, light and dark. It writes screenshots. How to run it is in scripts/README.md.
//
//   node check_report.mjs REPORT.html [FOLDER FOR SCREENSHOTS]

import { readFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

// The packages are looked up where the command is given, not beside this file.
const require = createRequire(join(process.cwd(), "package.json"));
const { chromium } = require("playwright-core");
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];
const MOST_MS = 2000;
const MOST_SHELL = 400_000;
const SERIOUS = ["serious", "critical"];

const [report, shots] = process.argv.slice(2);
if (!report) {
  console.error("usage: node check_report.mjs REPORT.html [FOLDER FOR SCREENSHOTS]");
  process.exit(2);
}
const failures = [];

function check(right, line) {
  console.log(`${right ? "ok  " : "BAD "} ${line}`);
  if (!right) failures.push(line);
}

function shellSize() {
  const text = readFileSync(report, "utf8");
  const begins = text.indexOf('id="data">') + 'id="data">'.length;
  return { shell: text.length - (text.indexOf("</script>", begins) - begins), all: text.length };
}

/** The addresses of a page of each kind: a sweep, and a run of each state and with pictures. */
function pages() { // runs in the page
  const data = JSON.parse(document.getElementById("data").textContent);
  const runs = new Map();
  for (const run of data.runs) {
    for (const kind of [run.state, run.figures.length ? "pictured" : null, run.problems.length ? "damaged" : null]) {
      if (kind && !runs.has(kind)) runs.set(kind, `#run/${encodeURIComponent(run.folder)}`);
    }
  }
  const largest = (key) => [...data.sweeps].sort((a, b) => key(b) - key(a))[0];
  const address = (sweep) => `#sweep/${encodeURIComponent(sweep.name)}`;
  return [
    ["overview", "#"], ["sweep", address(largest((sweep) => sweep.runs.length))],
    ["paper", address(largest((sweep) => sweep.papers.flatMap((table) => table.rows).length))],
    ...[...runs].map(([kind, at]) => [`run-${kind}`, at]),
  ];
}

async function axe(page) {
  const found = await page.evaluate(async () => (await window.axe.run(document)).violations
    .map((one) => ({ id: one.id, impact: one.impact, nodes: one.nodes.map((node) => node.html.slice(0, 160)) })));
  return found.filter((one) => SERIOUS.includes(one.impact));
}

async function look(width, scheme) {
  const user = mkdtempSync(join(tmpdir(), "report-check-"));
  const browser = await chromium.launchPersistentContext(user, {
    executablePath: "/usr/bin/chromium", args: FLAGS, headless: true, colorScheme: scheme,
    viewport: { width, height: width < 600 ? 844 : 900 }, bypassCSP: true, // for axe's script
  });
  try {
    const page = await browser.newPage();
    const problems = [];
    page.on("console", (message) => { if (["error", "warning"].includes(message.type())) problems.push(message.text()); });
    page.on("pageerror", (error) => problems.push(String(error)));
    page.on("request", (request) => { if (/^(https?|wss?):/.test(request.url())) problems.push(`asks for ${request.url()}`); });
    const began = Date.now();
    await page.goto(pathToFileURL(resolve(report)).href, { waitUntil: "load" });
    await page.waitForSelector("main h1");
    const took = Date.now() - began;
    check(took < MOST_MS, `${width} px ${scheme}: opened in ${took} ms`);
    const list = await page.evaluate(pages);
    await page.evaluate(AXE);
    for (const [name, hash] of list) {
      await page.evaluate((at) => { location.hash = at; }, hash);
      await page.waitForTimeout(150);
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      const found = await axe(page);
      check(found.length === 0 && wide <= 0, `${width} px ${scheme}: ${name}: ${found.length} serious findings${wide > 0 ? `, ${wide} px too wide` : ""}`);
      for (const one of found) console.log("      ", one.id, one.nodes.length, one.nodes[0]);
      if (shots) await page.screenshot({ path: join(shots, `${name}-${width}-${scheme}.png`), fullPage: true });
    }
    if (width > 600 && scheme === "light") await use(page, list);
    check(problems.length === 0, `${width} px ${scheme}: ${problems.length} console errors or requests ${problems.join(" | ").slice(0, 400)}`);
  } finally {
    await browser.close();
    rmSync(user, { recursive: true, force: true });
  }
}

/** Uses a sweep's page by keyboard: sort, switch the axis, switch a line off, zoom. */
async function use(page, list) {
  await page.evaluate((at) => { location.hash = at; }, list.find(([name]) => name === "sweep")[1]);
  await page.waitForSelector(".plot canvas");
  const head = page.locator("thead button").first();
  await head.focus();
  await page.keyboard.press("Enter");
  check(await page.locator("th[aria-sort='ascending']").count() === 1, "Enter on the head of a column sorts by it");
  check(await page.evaluate(() => document.activeElement.closest("th") !== null), "the focus stays after a refresh");
  await page.locator("input[value='steps']").focus();
  await page.keyboard.press("ArrowRight");
  check(await page.locator("figcaption").innerText().then((text) => text.includes("forward passes")), "an arrow key switches the axis");
  const line = page.locator("button.line").first();
  await line.focus();
  await page.keyboard.press("Space");
  check(await line.getAttribute("aria-pressed") === "false", "Space switches a line off");
  await page.locator(".plot").focus();
  await page.keyboard.press("+");
  check(await page.evaluate(() => document.activeElement.className === "plot"), "plus zooms and the focus stays");
  await page.locator("#theme").click();
  check(await page.evaluate(() => document.documentElement.dataset.theme === "dark"), "the button changes the theme");
}

const { shell, all } = shellSize();
check(shell < MOST_SHELL, `without data it has ${(shell / 1000).toFixed(0)} kB, with data ${(all / 1000).toFixed(0)} kB`);
if (shots) mkdirSync(shots, { recursive: true });
for (const width of [1280, 390]) for (const scheme of ["light", "dark"]) await look(width, scheme);
console.log(failures.length ? `${failures.length} checks failed` : "all checks passed");
process.exit(failures.length ? 1 : 0);
