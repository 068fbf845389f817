// What the scripts beside this one share: a browser, a signed-in page, the judge of accessibility, and the platform's
// own controls. They are run by the `playground` of the examples, which says where the platform is.
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

export const { SDP_URL: url, SDP_USER: user, SDP_PASSWORD: password, SDP_GATEWAY: gateway } = process.env;
if (!url) throw new Error("run this with `make story` or `make screenshots`: they start the platform");

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const ARGUMENTS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
];

/** Runs `work` with a browser, and ends it whatever happens. */
export async function withBrowser(work) {
  const profile = mkdtempSync(join(tmpdir(), "sdp-browser-"));
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  const browser = await chromium.launch({ executablePath, args: ARGUMENTS, env: { ...process.env, HOME: profile } });
  try {
    await work(browser);
  } finally {
    await browser.close();
    rmSync(profile, { recursive: true, force: true });
    process.stdin.destroy();
  }
}

/** A page of a person of their own. What its console complains of, and what its policy blocks, is gathered. */
export async function newPage(browser, options = {}, origin = url) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, locale: "en-GB", ...options });
  const page = await context.newPage();
  page.complaints = [];
  page.on("console", (message) => {
    // Refusals are answers, which the page shows.
    if (message.type() === "error" && !/status of (4\d\d|503)|WebSocket connection/.test(message.text())) page.complaints.push(message.text());
  });
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("request", (request) => {
    if (!/^(data|blob):/.test(request.url()) && !request.url().startsWith(origin)) page.complaints.push(`asked ${request.url()}`);
  });
  return page;
}

export async function signIn(page) {
  await page.goto(`${url}/sign-in`);
  await fillIn(page);
  await page.getByRole("heading", { name: "Overview" }).waitFor();
}

/** Signs in at the page that is there. */
export async function fillIn(page) {
  await page.getByLabel("Git user").fill(user);
  await page.getByLabel("Password or access token").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** What keeps people from using the page, by the rules of WCAG 2.1 AA; nothing when all is well. */
export async function obstacles(page) {
  // Evaluated in the page's own world, where its policy does not forbid it.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() =>
    window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"] }),
  );
  return violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => `${node.target} ${node.failureSummary?.split("\n")[1] ?? ""}`).join(" | ")}`);
}

/** Calls the API as the signed-in person. */
export async function call(page, method, path, body) {
  const answer = await page.context().request.fetch(`${url}${path}`, {
    method,
    headers: { origin: url, "content-type": "application/json" },
    ...(body === undefined ? {} : { data: JSON.stringify(body) }),
  });
  const text = await answer.text();
  if (!answer.ok()) throw new Error(`${method} ${path}: ${answer.status()} ${text}`);
  return text === "" ? undefined : JSON.parse(text);
}

/** Asks again until `found` answers something. */
export async function eventually(what, found, times = 300) {
  for (let tries = 0; tries < times; tries += 1) {
    const value = await found();
    if (value) return value;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error(`this did not happen in time: ${what}`);
}

/** Waits until a deployment has ended or runs, and answers its state. */
export function settled(page, id) {
  const ends = ["running", "failed", "cancelled", "stopped", "superseded"];
  return eventually(`${id} settles`, async () => {
    const { state } = await call(page, "GET", `/api/deployments/${id}`);
    return ends.includes(state) ? state : undefined;
  }, 2_000);
}

const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

/** Stops or starts an agent of the platform: `stop-agent micro`. */
export async function control(order) {
  console.log(order);
  const { value } = await answers.next();
  if (value !== "done") throw new Error(`${order}: ${value}`);
}

export function expect(condition, what) {
  if (!condition) throw new Error(`not so: ${what}`);
}
