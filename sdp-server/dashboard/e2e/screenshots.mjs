// Every page in both themes at two widths, into the folder `screenshots`; with README=1 only those that the README shows.
import { mkdirSync, statSync } from "node:fs";
import { call, newPage, settled, signIn, withBrowser } from "./browser.mjs";

const folder = process.env.SCREENSHOTS ?? new URL("../screenshots/", import.meta.url).pathname;
const WIDTHS = [[1440, 900], [360, 780]];
/** What the README shows, into the folder `docs`, which is committed: small, and not often. */
const SHOWN = [["sandbox", "light"], ["deployment", "dark"], ["agents", "light"]];
const MOST_BYTES = 100 * 1024;

async function fill(page) {
  const deploy = (sandbox, repo, branch, env = {}) =>
    call(page, "POST", sandbox ? `/api/sandboxes/${sandbox}/deployments` : "/api/deployments", { repo, branch, env });
  await settled(page, (await deploy(undefined, "erangel-ocean", "main")).id);
  for (const [name, expires_in] of [["checkout", "7d"], ["holiday-prices", "20h"], ["search-rework", "14d"]]) {
    await call(page, "POST", "/api/sandboxes", { name, expires_in });
  }
  const made = [
    await deploy("checkout", "eredar", "feature/greeting", { MODE: "test", PRICE_SERVICE_TIMEOUT: "250ms" }),
    await deploy("checkout", "illidan", "main"),
    await deploy("holiday-prices", "illidan", "feature/greeting"),
  ];
  for (const { id } of made) await settled(page, id);
  const failed = await deploy("search-rework", "chatty", "main");
  await settled(page, failed.id);
  await call(page, "PUT", "/api/sandboxes/checkout/routes/eredar", { target: "sandbox", reason: "trying the new greeting", expires_in: "2h" });
  await call(page, "PUT", "/api/sandboxes/holiday-prices/routes/illidan", { target: "sandbox" });
  await call(page, "POST", "/api/templates", { name: "checkout", from_sandbox: "checkout" });
  await call(page, "POST", "/api/environments", { name: "qa", env: { MODE: "qa" }, ports: "21000-21499", sandbox_lifetime: "3d", idle_after: "12h" });
  await call(page, "POST", "/api/tokens", { name: "nightly build", scopes: ["deploy"] });
  await call(page, "POST", "/api/agents", { name: "micro-93" });
  return { running: made[0].id, failed: failed.id };
}

function pages({ running, failed }) {
  const click = (name) => (page) => page.getByRole("button", { name }).first().click();
  return [
    ["overview", "/"],
    ["deploy", "/deploy?repo=eredar", async (page) => {
      await page.getByLabel("Branch").fill("fea");
      await page.getByRole("option", { name: /feature/ }).waitFor();
    }],
    ["sandboxes", "/sandboxes"],
    ["create", "/sandboxes?template=checkout"],
    ["sandbox", "/sandboxes/checkout", (page) => page.locator(".usage").first().waitFor()],
    ["variables", "/sandboxes/checkout", async (page) => {
      await page.getByRole("button", { name: "More for eredar" }).click();
      await page.getByRole("menuitem", { name: "Variables…" }).click();
    }],
    ["deployment", `/deployments/${running}`, (page) => page.locator(".usage").first().waitFor()],
    ["output", `/deployments/${running}?tab=output`, (page) => page.getByText("listens on").first().waitFor()],
    ["failure", `/deployments/${failed}`, (page) => page.getByLabel("Search the log").fill("module_3")],
    ["history", "/history"],
    ["templates", "/templates"],
    ["environments", "/environments"],
    ["environment", "/environments", async (page) => {
      await page.getByRole("button", { name: "More for qa" }).click();
      await page.getByRole("menuitem", { name: "Edit" }).click();
      await page.getByLabel("Sandboxes live").waitFor();
    }],
    ["agents", "/agents", (page) => page.getByRole("meter").first().waitFor()],
    ["doctor", "/agents", async (page) => {
      await page.getByRole("button", { name: "Examine" }).last().click();
      await page.locator(".findings").waitFor();
    }],
    ["audit", "/audit"],
    ["tokens", "/tokens"],
    ["new-token", "/tokens", click("New token")],
    ["users", "/users"],
    ["settings", "/settings"],
    ["palette", "/", async (page) => {
      await page.keyboard.press("Control+k");
      await page.getByRole("combobox", { name: "Go to or do" }).fill("ere");
    }],
  ];
}

/** Brings a page to where its picture is taken. */
async function show(page, [, path, prepare]) {
  await page.goto(`${process.env.SDP_URL}${path}`);
  await page.locator("h1").first().waitFor();
  await page.locator(".skeletons").first().waitFor({ state: "detached" });
  await prepare?.(page);
  await page.waitForTimeout(350);
}

async function shown(browser, storageState, all) {
  const docs = new URL("../docs/", import.meta.url).pathname;
  mkdirSync(docs, { recursive: true });
  for (const [name, colorScheme] of SHOWN) {
    const page = await newPage(browser, { colorScheme, viewport: { width: 1040, height: 540 }, reducedMotion: "reduce", storageState });
    await show(page, all.find(([it]) => it === name));
    const path = `${docs}${name}.png`;
    await page.screenshot({ path });
    const { size } = statSync(path);
    if (size > MOST_BYTES) throw new Error(`${path} has ${size} bytes; ${MOST_BYTES} may be committed`);
    await page.context().close();
  }
  console.log(`the README's pictures are in ${docs}`);
}

async function everything(browser, storageState, all) {
  mkdirSync(folder, { recursive: true });
  for (const colorScheme of ["light", "dark"]) {
    for (const [width, height] of WIDTHS) {
      const options = { colorScheme, viewport: { width, height }, reducedMotion: "reduce" };
      const shoot = async (page, name) => page.screenshot({ path: `${folder}/${name}-${colorScheme}-${width}.png` });
      const guest = await newPage(browser, options);
      await guest.goto(`${process.env.SDP_URL}/sign-in`);
      await guest.getByLabel("Git user").waitFor();
      await shoot(guest, "sign-in");
      await guest.context().close();
      const seen = await newPage(browser, { ...options, storageState });
      for (const it of all) {
        await show(seen, it);
        await shoot(seen, it[0]);
      }
      for (const complaint of seen.complaints) console.log(`${colorScheme} ${width}: ${complaint}`);
      await seen.context().close();
    }
  }
  console.log(`the pictures are in ${folder}`);
}

await withBrowser(async (browser) => {
  const page = await newPage(browser);
  await signIn(page);
  const all = pages(await fill(page));
  await (process.env.README ? shown : everything)(browser, await page.context().storageState(), all);
});
