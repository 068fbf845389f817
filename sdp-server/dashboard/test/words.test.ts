import { expect, test } from "vitest";
import { ApiProblem, asProblem, fieldError, formError, sentence } from "../src/api/problem";
import { parseEnv, toEnv } from "../src/ui/env";
import { rank } from "../src/ui/rank";
import { ago, duration } from "../src/ui/time";

const refusal = (field?: string) =>
  new ApiProblem({ type: "x", title: "x", status: 409, code: "conflict", detail: "port 20001 is held by eredar", retryable: false, field: field ?? null });

test("a refusal is shown at its field, and above the form only when it has none there", () => {
  expect(fieldError(refusal("host_port"), "host_port")).toContain("held by eredar");
  expect(fieldError(refusal("env.MODE"), "env")).toBeDefined();
  expect(fieldError(refusal("environment"), "env")).toBeUndefined();
  expect(formError(refusal("host_port"), ["host_port"])).toBeUndefined();
  expect(formError(refusal(), ["host_port"])).toContain("held by eredar");
  expect(formError(refusal("other"), ["host_port"])).toContain("held by eredar");
  expect(formError(null, [])).toBeUndefined();
});

test("what is no problem document is told all the same", () => {
  const problem = asProblem("<html>", new Response(null, { status: 502, statusText: "Bad Gateway" }));
  expect(problem.message).toBe("The server answered 502 Bad Gateway.");
  expect(sentence(new TypeError("Failed to fetch"))).toContain("cannot be reached");
});

test("a file of variables is read as shells do", () => {
  expect(parseEnv("# x\nexport A=1\nB = 'two words'\r\nC=\"x=y\"\nnonsense\nD=")).toEqual([["A", "1"], ["B", "two words"], ["C", "x=y"], ["D", ""]]);
  expect(toEnv([[" A ", "1"], ["", "2"]])).toEqual({ A: "1" });
});

test("the best fit comes first", () => {
  const names = ["Deploy illidan", "Deploy eredar", "Deployments", "Audit"];
  expect(rank(names, "ere", (name) => name)[0]).toBe("Deploy eredar");
  expect(rank(names, "dee", (name) => name)[0]).toBe("Deploy eredar");
  expect(rank(names, "zz", (name) => name)).toEqual([]);
  expect(rank(names, " ", (name) => name)).toEqual(names);
});

test("times are as people say them", () => {
  const now = Date.parse("2026-11-25T12:00:00Z");
  const says = (seconds: number) => ago(now + seconds * 1_000, now);
  expect([10, 30].map(says)).toEqual(["just now", "in a moment"]);
  expect([0, -50, -3_600, -86_400 * 3, 86_400 * 7].map(says)).toEqual(["just now", "1 minute ago", "1 hour ago", "3 days ago", "in 7 days"]);
  expect([0, 240, 3_400, 125_000, 3_780_000].map(duration)).toEqual(["0 ms", "240 ms", "3.4 s", "2 min 5 s", "1 h 3 min"]);
});
