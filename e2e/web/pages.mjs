// Drives a real browser through the pages of a server.
//
// node pages.mjs FACTS: the path of a JSON object with `url`, `chromium`, `screenshots` (a folder), `invocation`,
// `target`, `action` (the path of a page) and `live` (a target). It prints `ready` when the first page is open: then an
// action of the target `live` is to be run, which the page must show by itself. The last line is `passed`, or the exit
// code is not 0.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const facts = JSON.parse(readFileSync(process.argv[2], "utf8"));
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({
  executablePath: facts.chromium,
  // The tests run as root, which has no sandbox in the browser.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});

/** A page that fails the test for everything that a console shows as an error. */
async function open(options) {
  // The policy of the pages forbids scripts of others, and that of the accessibility checker is one.
  const context = await browser.newContext({ baseURL: facts.url, ...options });
  const page = await context.newPage();
  const errors = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) errors.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => errors.push(`exception: ${error}`));
  page.on("response", (response) => {
    if (response.status() >= 400) errors.push(`${response.status()} ${response.url()}`);
  });
  page.on("requestfailed", (request) => {
    // A page that is left ends its events, and a download is no page.
    const expected = ["/events", "/blob/"].some((path) => request.url().includes(path));
    if (!expected) errors.push(`failed: ${request.url()} ${request.failure()?.errorText}`);
  });
  return { context, page, errors };
}

/** The obstacles of a page for some people, as lines of text. */
async function obstacles(page, name) {
  // The devtools protocol is not bound by the policy, unlike an element that is added to the page.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document));
  const nodes = (it) => it.nodes.map((node) => `\n  ${node.html.slice(0, 300)}\n    ${node.failureSummary}`);
  return violations.map((it) => `${name}: ${it.id}: ${it.help}${nodes(it).join("")}`);
}

const shot = (page, name) => page.screenshot({ path: join(facts.screenshots, `${name}.png`), fullPage: true });

/** The pages by name; `flows` adds those that only links lead to. */
const paths = {
  now: "/",
  invocations: "/invocations",
  invocation: `/invocation?name=${encodeURIComponent(facts.invocation)}`,
  action: facts.action,
  target: `/search?q=${encodeURIComponent(facts.target)}`,
  cache: "/cache",
  doctor: "/doctor",
};

/** As a person goes through a build, with the mouse and with the keyboard. */
async function flows() {
  const { context, page, errors } = await open();
  await page.goto("/");
  console.log("ready");
  await page.getByText(facts.live).first().waitFor({ timeout: 60_000 });
  assert.equal(await page.getByRole("heading", { level: 1 }).count(), 1);

  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "A", "a key reaches the first link");
  await page.getByRole("link", { name: "invocations" }).click();
  await page.getByRole("link", { name: facts.invocation, exact: true }).click();
  await page.getByRole("heading", { name: `Invocation ${facts.invocation}` }).waitFor();
  const bar = page.locator("svg.timeline a").first();
  await bar.focus();
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/action\//);

  await page.goto(facts.action);
  const tree = page.getByRole("link", { name: "src", exact: false }).first();
  await tree.click();
  await page.getByRole("heading", { name: "Directory", exact: true }).waitFor();
  paths.directory = page.url();
  const download = page.waitForEvent("download");
  await page.locator('a[href^="/blob/"]').first().click();
  const file = await download;
  assert.equal(readFileSync(await file.path(), "utf8"), facts.content, "an input is downloaded as it is");

  await page.goto(facts.action);
  await page.getByRole("link", { name: "last other run of the target" }).first().click();
  await page.getByRole("heading", { name: "Compare", exact: true }).waitFor();
  await page.getByRole("cell", { name: "src/in" }).waitFor();
  paths.compare = page.url();

  await page.getByRole("searchbox").fill(facts.target);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: `Target ${facts.target}`, exact: true }).waitFor();
  await page.goBack();
  await page.getByRole("heading", { name: "Compare", exact: true }).waitFor();
  assert.deepEqual(errors, []);
  await context.close();
}

/** Every page, as it looks for several people. */
async function looks() {
  const found = [];
  for (const [look, options] of Object.entries({
    light: { colorScheme: "light" },
    dark: { colorScheme: "dark" },
    phone: { viewport: { width: 375, height: 667 }, isMobile: true, hasTouch: true },
  })) {
    const { context, page, errors } = await open(options);
    for (const [name, path] of Object.entries(paths)) {
      await page.goto(path);
      found.push(...(await obstacles(page, `${name} (${look})`)));
      // On a phone a page that is too wide is made smaller: `innerWidth` is that of the page then.
      const { width } = page.viewportSize();
      const excess = (await page.evaluate(() => document.documentElement.scrollWidth)) - width;
      if (excess > 0) found.push(`${name} (${look}) is ${excess} pixels too wide`);
      await shot(page, `${name}-${look}`);
    }
    assert.deepEqual(errors, [], look);
    await context.close();
  }
  assert.equal(found.join("\n"), "");
}

/** Nothing is lost for a reader without scripts. */
async function withoutScripts() {
  const { context, page, errors } = await open({ javaScriptEnabled: false });
  for (const path of Object.values(paths)) {
    await page.goto(path);
    assert.ok((await page.locator("main").innerText()).trim().length > 20, path);
  }
  await page.goto(paths.invocation);
  await page.locator('td a[href^="/action/"]').first().click();
  assert.match(page.url(), /\/action\//);
  assert.deepEqual(errors, []);
  await context.close();
}

/** Where no more events are to be had, the page asks. */
async function withoutEvents() {
  const { context, page } = await open();
  await page.route("**/events?*", (route) => route.fulfill({ status: 503, body: "full" }));
  const asked = page.waitForRequest((request) => request.url().endsWith("/now"), { timeout: 60_000 });
  await page.goto("/");
  await asked;
  await context.close();
}

try {
  await flows();
  await looks();
  await withoutScripts();
  await withoutEvents();
  console.log("passed");
} finally {
  await browser.close();
}
