import { expect, test } from "vitest";
import { isOnce } from "../src/api/once";

const at = (path: string) => `http://127.0.0.1:3452${path}`;

test("what makes something is asked for again with the same key", () => {
  for (const path of [
    "/api/deployments",
    "/api/sandboxes",
    "/api/tokens",
    "/tools/sdp/api/templates",
    "/api/sandboxes/pay/deploy",
    "/api/sandboxes/pay/deployments",
    "/api/deployments/1/rollback",
    "/api/agents/micro/rotate",
  ])
    expect(isOnce("POST", at(path)), path).toBe(true);
});

test("what does something is asked for once", () => {
  for (const path of ["/api/login", "/api/logout", "/api/deployments/1/restart", "/api/deployments/1/stop", "/api/sandboxes/pay/wake"])
    expect(isOnce("POST", at(path)), path).toBe(false);
  expect(isOnce("PUT", at("/api/sandboxes"))).toBe(false);
});
