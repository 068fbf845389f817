// The main story, as a person goes through it: every page against the real server with real agents.
import { call, control, eventually, expect, fillIn, gateway, newPage, obstacles, settled, signIn, url, user, withBrowser } from "./browser.mjs";
import { withSubPath } from "./subpath.mjs";

// The branch whose build prints 200,000 lines, or `huge`, which prints a million.
const LOG = process.env.LOG ?? "long";

const steps = [];
const step = (name, work) => steps.push([name, work]);
let page;
let other;
/** Opens a page of its own at another origin. */
let elsewhere;

/** What the gateway answers for a service. */
async function askGateway(headers = {}) {
  const answer = await fetch(`${gateway}eredar/`, { headers });
  return answer.text();
}

/** Whether a line of the log is within what is seen of it. */
function isSeen(page, line) {
  return page.evaluate((line) => {
    const box = document.querySelector(".log-lines").getBoundingClientRect();
    const row = document.querySelector(`[data-line="${line}"]`)?.getBoundingClientRect();
    return row !== undefined && row.top >= box.top - 1 && row.bottom <= box.bottom + 1;
  }, line);
}

/** How a log scrolls, a little each frame as a wheel does and then far: what the frames took, and whether any was empty. */
async function smoothness(page) {
  const seen = await page.evaluate(async () => {
    const box = document.querySelector(".log-lines");
    const frame = () => new Promise(requestAnimationFrame);
    const run = async (step, count) => {
      const times = [];
      let blank = 0;
      box.scrollTop = box.scrollHeight / 3;
      await frame();
      for (let at = 0; at < count; at += 1) {
        const begun = performance.now();
        box.scrollTop += step;
        await frame();
        await frame();
        times.push((performance.now() - begun) / 2);
        const { left, top, height } = box.getBoundingClientRect();
        const shown = [0.1, 0.5, 0.9].every((part) => document.elementFromPoint(left + 40, top + height * part)?.closest(".line"));
        if (!shown) blank += 1;
      }
      times.sort((a, b) => a - b);
      return { median: times[count >> 1], slow: times[Math.floor(count * 0.95)], blank };
    };
    return { wheel: await run(120, 120), far: await run(30_000, 120) };
  });
  const said = Object.entries(seen).map(([how, { median, slow }]) => `${how}: ${median.toFixed(1)} ms a frame, 95 % within ${slow.toFixed(1)}`);
  expect(seen.wheel.blank === 0 && seen.far.blank === 0, `lines are there wherever it is scrolled to: ${JSON.stringify(seen)}`);
  return said.join("; ");
}

step("whoever is not signed in is asked to, and a wrong password is told", async () => {
  await page.goto(`${url}/history?repo=eredar`);
  await page.getByLabel("Git user").fill(user);
  await page.getByLabel("Password or access token").fill("wrong");
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").waitFor();
  expect(new URL(page.url()).pathname === "/sign-in", "the page stays");
  await signIn(page);
});

step("a quick deploy of the gateway shows its log live, to the end", async () => {
  await page.getByRole("link", { name: "Deploy a branch" }).click();
  await page.getByLabel("Repo").selectOption("erangel-ocean");
  await page.getByLabel("Branch").fill("mai");
  await page.getByRole("option", { name: /main/ }).click();
  await page.getByRole("button", { name: "Deploy", exact: true }).click();
  await page.getByRole("log").getByText("running", { exact: true }).waitFor();
  await page.getByText("answers on").first().waitFor();
});

step("a port that is taken is told at the field of the port", async () => {
  const { host_port: port } = (await call(page, "GET", "/api/deployments?repo=erangel-ocean")).items[0];
  await page.goto(`${url}/deploy?repo=erangel-ocean&branch=main`);
  await page.getByLabel("Host port").fill(String(port));
  await call(page, "POST", "/api/sandboxes", { name: "other" });
  await page.reload();
  await page.getByLabel("Into").selectOption("other");
  await page.getByLabel("Host port").fill(String(port));
  await page.getByRole("button", { name: "Deploy", exact: true }).click();
  await page.locator(".field-error", { hasText: "erangel-ocean" }).waitFor();
  expect((await page.getByLabel("Host port").getAttribute("aria-invalid")) === "true", "the port is marked");
});

step("a sandbox is made, a branch deployed into it, and both browsers see it", async () => {
  await other.goto(`${url}/sandboxes`);
  await page.goto(`${url}/sandboxes?create=plain`);
  await page.getByLabel("Name", { exact: true }).fill("checkout");
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("heading", { name: "checkout", level: 1 }).waitFor();
  await other.getByRole("link", { name: "checkout" }).click();
  await page.getByRole("link", { name: "Deploy into it" }).click();
  await page.getByLabel("Repo").selectOption("eredar");
  await page.getByLabel("Branch").fill("feature/greeting");
  await page.getByRole("button", { name: "Add variable" }).click();
  await page.getByLabel("Name of variable 1").fill("MODE");
  await page.getByLabel("Value of MODE").fill("test");
  await page.getByRole("button", { name: "Deploy", exact: true }).click();
  await page.getByRole("log").getByText("running", { exact: true }).waitFor();
  await other.locator(".service", { hasText: "eredar" }).getByText("running", { exact: true }).waitFor();
  await other.goto(`${url}/sandboxes?q=greeting`);
  await other.locator("tr", { hasText: "checkout" }).getByText("feature/greeting").waitFor();
  await other.getByRole("link", { name: "checkout" }).click();
});

step("what a service uses is shown, and its variables are changed in place", async () => {
  await page.goto(`${url}/sandboxes/checkout`);
  const service = page.locator(".service", { hasText: "eredar" });
  await service.getByText(/\d (KiB|MiB)/).waitFor();
  await service.getByRole("button", { name: "More for eredar" }).click();
  await page.getByRole("menuitem", { name: "Variables…" }).click();
  await page.getByLabel("Value of MODE").fill("load");
  await page.getByRole("button", { name: "Deploy with these" }).click();
  await eventually("it runs with the new value", async () => {
    const { deployments } = await call(page, "GET", "/api/sandboxes/checkout");
    return deployments.some((it) => it.repo === "eredar" && it.state === "running" && it.env.MODE === "load");
  });
  await service.getByText("running", { exact: true }).waitFor();
});

step("what a running program prints is followed, and its address leads there", async () => {
  await page.goto(`${url}/sandboxes/checkout`);
  await page.getByRole("link", { name: "Output of eredar" }).click();
  const output = page.getByRole("log", { name: "Program output" });
  await output.locator(".line", { hasText: "listens on" }).waitFor();
  const { pathname, searchParams } = new URL(page.url());
  expect(searchParams.get("tab") === "output", "the address names the tab");
  const { url: service } = await call(page, "GET", `/api${pathname}`);
  await fetch(new URL("what-is-printed", service));
  await output.locator(".line", { hasText: "/what-is-printed" }).waitFor();
  await page.reload();
  await output.locator(".line", { hasText: "/what-is-printed" }).waitFor();
  expect((await obstacles(page)).length === 0, "what it prints is for everybody to read");
  await page.getByRole("tab", { name: "Log" }).click();
  await page.getByRole("log", { name: "Log" }).getByText("running", { exact: true }).waitFor();
  expect(!new URL(page.url()).searchParams.has("tab"), "the address is the log's again");
});

step("a toggled route changes what the gateway answers, and the other browser's switch", async () => {
  const before = await askGateway();
  await page.goto(`${url}/sandboxes/checkout`);
  const route = page.locator(".route", { hasText: "eredar" });
  await route.getByLabel("Sandbox").check();
  await eventually("the gateway follows", async () => (await askGateway()) !== before);
  await eventually("the other browser follows", () => other.locator(".route", { hasText: "eredar" }).getByLabel("Sandbox").isChecked());
  await route.getByLabel("OCP").check();
  await eventually("the gateway goes back", async () => (await askGateway()) === before);
  await eventually("the other browser goes back", () => other.locator(".route", { hasText: "eredar" }).getByLabel("OCP").isChecked());
});

step("a custom URL that is none is told at its field", async () => {
  const route = page.locator(".route", { hasText: "eredar" });
  await route.getByLabel("Custom…").click();
  await page.getByLabel("URL", { exact: true }).fill("ftp://x");
  await page.getByRole("button", { name: "Set the route" }).click();
  await page.locator("dialog .field-error, dialog .notice-error").first().waitFor();
  await page.keyboard.press("Escape");
  await page.locator("dialog").waitFor({ state: "detached" });
});

step("a route that another sandbox holds is taken over only when asked to", async () => {
  const made = await call(page, "POST", "/api/sandboxes/other/deployments", { repo: "eredar", branch: "main" });
  expect((await settled(page, made.id)) === "running", "it runs");
  await call(page, "PUT", "/api/sandboxes/other/routes/eredar", { target: "sandbox" });
  const route = page.locator(".route", { hasText: "eredar" });
  await route.getByText("held by").waitFor();
  await route.getByLabel("Sandbox").click();
  await page.getByRole("button", { name: "Take it over" }).click();
  await eventually("the switch follows", () => route.getByLabel("Sandbox").isChecked());
  await route.getByLabel("OCP").check();
});

step("an environment is edited in its place, and nobody's change is lost", async () => {
  const qa = { agents: [], env: { MODE: "qa" }, ports: "21000-21499" };
  await call(page, "POST", "/api/environments", { name: "qa", ...qa });
  await page.goto(`${url}/environments`);
  const place = page.getByRole("region", { name: "qa" });
  const edit = async () => {
    await place.getByRole("button", { name: "More for qa" }).click();
    await page.getByRole("menuitem", { name: "Edit" }).click();
    await place.getByLabel("Sandboxes live").fill("2d");
  };
  const save = () => place.getByRole("button", { name: "Save" }).click();
  await edit();
  await call(page, "PUT", "/api/environments/qa", { ...qa, idle_after: "3h" });
  await save();
  await place.getByText("changed it meanwhile").waitFor();
  expect((await obstacles(page)).length === 0, "the conflict is for everybody to read");
  await place.getByRole("button", { name: "Reload" }).click();
  await eventually("the form has what is there now", async () => (await place.getByLabel("Sleep after").inputValue()) === "3h");
  await place.getByLabel("Sandboxes live").fill("2d");
  await save();
  await place.getByText("2d").waitFor();
  await edit();
  await call(page, "PUT", "/api/environments/qa", { ...qa, idle_after: "5h" });
  await save();
  await place.getByRole("button", { name: "Overwrite" }).click();
  await place.getByText("3h").waitFor();
  const { sandbox_lifetime: lifetime, idle_after: idle } = await call(page, "GET", "/api/environments/qa");
  expect(lifetime === "2d" && idle === "3h", "what was typed is saved");
});

step("an agent shows its disks, and its doctor says what is wrong", async () => {
  await page.goto(`${url}/agents`);
  const card = page.getByRole("region", { name: /^micro-/ });
  await card.getByRole("meter", { name: /^Disk at/ }).first().waitFor();
  await card.getByRole("button", { name: "Examine" }).click();
  const dialog = page.getByRole("dialog", { name: /^The doctor on micro-/ });
  await dialog.locator("li", { hasText: "websocket" }).getByText("ok", { exact: true }).waitFor({ timeout: 60_000 });
  expect((await obstacles(page)).length === 0, "the findings are for everybody to read");
  await dialog.getByRole("button", { name: "Close" }).last().click();
});

step("an agent that goes away is shown so, and shown back", async () => {
  await page.goto(`${url}/agents`);
  const card = page.getByRole("region", { name: /^micro-/ });
  await card.getByText("connected", { exact: true }).waitFor();
  await control("stop-agent micro");
  await card.getByText("away", { exact: true }).waitFor();
  await control("start-agent micro");
  await card.getByText("connected", { exact: true }).waitFor();
});

step("its expiry is extended, and it becomes a template and a sandbox again", async () => {
  await page.goto(`${url}/sandboxes/checkout`);
  await page.getByRole("button", { name: "Extend" }).click();
  await page.getByRole("button", { name: "14d" }).click();
  await page.getByRole("button", { name: "Set", exact: true }).click();
  await page.getByText("in 2 weeks").or(page.getByText("in 14 days")).first().waitFor();
  await page.getByRole("button", { name: "More", exact: true }).click();
  await page.getByRole("menuitem", { name: "Save as template…" }).click();
  await page.getByRole("button", { name: "Save", exact: true }).click();
  await page.goto(`${url}/templates`);
  await page.getByRole("link", { name: "Use it" }).click();
  await page.getByLabel("Name", { exact: true }).fill("again");
  await page.getByRole("button", { name: "Create", exact: true }).click();
  await page.getByRole("heading", { name: "again", level: 1 }).waitFor();
  await page.locator(".service", { hasText: "eredar" }).getByText("running", { exact: true }).waitFor({ timeout: 60_000 });
});

step("a long log is followed, searched, linked to, and seen from its first line by who comes late", async () => {
  const { id } = await call(page, "POST", "/api/deployments", { repo: "chatty", branch: LOG });
  await page.goto(`${url}/deployments/${id}`);
  expect((await settled(page, id)) === "failed", "its build fails at the end");
  const complete = LOG === "huge" ? "complete · 1,000," : "complete · 200,";
  await page.getByText(complete).waitFor({ timeout: 120_000 });
  const lines = Number((await page.locator(".log-state").innerText()).replace(/\D/g, ""));
  await eventually("its end is seen, for it is followed", () => isSeen(page, lines), 50);
  await page.getByLabel("Search the log").fill("[150000]");
  await page.getByText("1 found").waitFor({ timeout: 60_000 });
  await page.getByLabel("Search the log").press("Enter");
  await page.locator(".line", { hasText: "[150000]" }).locator(".line-number").click();
  await eventually("the address names the line", () => /line=\d+$/.test(page.url()));
  const line = Number(new URL(page.url()).searchParams.get("line"));
  await page.getByRole("button", { name: /errors?$/ }).click();
  await page.locator(".line-wrong").first().waitFor();
  const begun = performance.now();
  await other.goto(`${url}/deployments/${id}?line=${line}`);
  await other.locator(".line-selected", { hasText: "[150000]" }).waitFor({ timeout: 120_000 });
  await other.getByRole("log").press("Home");
  await other.locator('[data-line="1"]').waitFor();
  await other.getByRole("log").press("End");
  await other.getByText(complete).waitFor({ timeout: 120_000 });
  console.log(`     all of it was there after ${Math.round(performance.now() - begun)} ms`);
  await eventually("its end is seen again", () => isSeen(other, lines), 50);
  console.log(`     ${await smoothness(other)}`);
});

step("history is filtered in the address", async () => {
  await page.goto(`${url}/history`);
  await page.getByLabel("State").selectOption("failed");
  await eventually("the address says so", () => page.url().includes("state=failed"));
  await page.locator("tbody tr").first().waitFor();
  expect((await page.locator("tbody tr", { hasText: "running" }).count()) === 0, "only failed ones are shown");
});

step("everything is reached by keyboard", async () => {
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox", { name: "Go to or do" }).waitFor();
  await page.keyboard.type("checkout");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "checkout", level: 1 }).waitFor();
});

step("a token is shown once, and a sandbox is deleted after a question", async () => {
  await page.goto(`${url}/tokens`);
  await page.getByRole("button", { name: "New token" }).click();
  await page.getByLabel("Name", { exact: true }).fill("nightly");
  await page.getByRole("button", { name: "Make it" }).click();
  await page.getByText("This is shown once").waitFor();
  await page.getByRole("button", { name: "I have it" }).click();
  await page.goto(`${url}/sandboxes/again`);
  await page.getByRole("button", { name: "More", exact: true }).click();
  await page.getByRole("menuitem", { name: "Delete…" }).click();
  await page.getByRole("button", { name: "Delete the sandbox" }).click();
  await page.getByRole("heading", { name: "Sandboxes", level: 1 }).waitFor();
  await page.getByRole("link", { name: "again" }).waitFor({ state: "detached" });
});

const PAGES = [
  "/", "/deploy?repo=eredar", "/sandboxes", "/sandboxes?create=plain", "/sandboxes/checkout", "/history", "/templates", "/environments",
  "/agents", "/audit", "/tokens", "/users", "/settings", "/no-such-page", "/sandboxes/none", "/deployments/none",
];

step("nothing keeps anybody from using a page, in either theme, wide or narrow", async () => {
  const found = [];
  const { id } = (await call(page, "GET", "/api/deployments?state=running")).items[0];
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.setViewportSize(colorScheme === "dark" ? { width: 360, height: 780 } : { width: 1280, height: 860 });
    for (const path of [...PAGES, `/deployments/${id}`, `/deployments/${id}?tab=output`]) {
      await page.goto(`${url}${path}`);
      await page.locator("h1").first().waitFor();
      await page.locator(".skeletons").first().waitFor({ state: "detached" });
      for (const obstacle of await obstacles(page)) found.push(`${colorScheme} ${path}: ${obstacle}`);
      const spills = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      if (spills > 0) found.push(`${colorScheme} ${path} is ${spills} pixels too wide`);
    }
  }
  await page.setViewportSize({ width: 1280, height: 860 });
  expect(found.length === 0, `no obstacles:\n${found.join("\n")}`);
});

step("another web server serves it below a path of its own", async () => {
  await withSubPath("/tools/sdp/", async (root) => {
    const guest = await elsewhere(root);
    await guest.goto(`${root}history?repo=eredar`);
    await fillIn(guest);
    await guest.getByRole("heading", { name: "History", level: 1 }).waitFor();
    expect(guest.url() === `${root}history?repo=eredar`, `its addresses are below the path: ${guest.url()}`);
    await guest.locator('.link-state[data-state="live"]').waitFor();
    await guest.locator("tbody tr").first().getByRole("link").first().click();
    await guest.getByRole("log").locator(".line").first().waitFor();
    await guest.reload();
    await guest.getByRole("log").locator(".line").first().waitFor();
    expect(guest.complaints.length === 0, `it asks for nothing elsewhere: ${guest.complaints.join(", ")}`);
    await guest.context().close();
  });
});

step("whoever signs out is out everywhere at once", async () => {
  await page.goto(`${url}/`);
  await other.goto(`${url}/sandboxes`);
  await page.getByRole("button", { name: user }).click();
  await page.getByRole("menuitem", { name: "Sign out everywhere" }).click();
  await page.getByLabel("Git user").waitFor();
  await other.getByLabel("Git user").waitFor({ timeout: 60_000 });
});

let failed = 0;
await withBrowser(async (browser) => {
  page = await newPage(browser);
  other = await newPage(browser);
  elsewhere = (origin) => newPage(browser, {}, origin);
  await signIn(other);
  for (const [name, work] of steps) {
    try {
      await work();
      console.log(`ok   ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}\n     ${page.url()}\n     ${String(error?.stack ?? error).split("\n").slice(0, 40).join("\n     ")}`);
    }
  }
  for (const complaint of new Set([...page.complaints, ...other.complaints])) {
    failed += 1;
    console.log(`FAIL the console is quiet\n     ${complaint}`);
  }
});
console.log(`${steps.length + (failed === 0 ? 1 : 0) - failed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
