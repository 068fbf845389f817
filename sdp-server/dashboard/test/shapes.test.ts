import { beforeAll, expect, test } from "vitest";
import type { Deployment, Route, RouteTable } from "../src/api/types";
import { pretendToBeABrowser } from "./sockets";

beforeAll(pretendToBeABrowser);

const route = (change: Partial<Route>): Route => ({ service: "eredar", value: "http://ocp", origin: "ocp", default: "http://ocp", ...change });

test("a switch stands where the route leads, seen from the sandbox", async () => {
  const { position } = await import("../src/pages/sandbox/Routes");
  expect(position(route({}), "mine")).toBe("ocp");
  expect(position(route({ origin: "sandbox", owner: "mine" }), "mine")).toBe("sandbox");
  expect(position(route({ origin: "custom", owner: "mine" }), "mine")).toBe("custom");
  expect(position(route({ origin: "sandbox", owner: "theirs" }), "mine")).toBe("other");
});

test("a switch moves before the gateway has answered, and only that one", async () => {
  const { expected, position } = await import("../src/pages/sandbox/Routes");
  const table = { routes: [route({}), route({ service: "illidan" })] } as RouteTable;
  const moved = expected(table, { service: "eredar", target: "sandbox" }, "mine").routes;
  expect(moved.map((it) => position(it, "mine"))).toEqual(["sandbox", "ocp"]);
  const back = expected({ routes: moved }, { service: "eredar", target: "ocp" }, "mine").routes;
  expect(back[0]).toMatchObject({ value: "http://ocp", origin: "ocp" });
});

test("a service shows its newest deployment, and what serves while that comes up", async () => {
  const { latest } = await import("../src/pages/Sandbox");
  const of = (id: string, state: string, created_at: string) => ({ id, repo: "eredar", state, created_at }) as Deployment;
  const [service] = latest([of("old", "running", "2026-01-01"), of("new", "build", "2026-01-02")]);
  expect([service?.now.id, service?.serving?.id]).toEqual(["new", "old"]);
  expect(latest([of("new", "running", "2026-01-02"), of("old", "superseded", "2026-01-01")])[0]?.serving).toBeUndefined();
});

test("figures leave out what has not ended and what a person ended", async () => {
  const { median, successRate } = await import("../src/ui/StageChart");
  const of = (state: string) => ({ state }) as Deployment;
  expect(successRate([of("running"), of("failed"), of("cancelled"), of("build")])).toBe(0.5);
  expect(successRate([of("build")])).toBeUndefined();
  expect(median([3, 1, 2])).toBe(2);
});

test("nobody is sent to another site after signing in", async () => {
  const { safeNext } = await import("../src/router");
  expect(safeNext("/sandboxes/x?y=1")).toBe("/sandboxes/x?y=1");
  for (const next of ["//evil.example", "https://evil.example", "javascript:alert(1)", "/\\evil.example", undefined, 7]) {
    expect(safeNext(next)).toBeUndefined();
  }
});
