import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Lines } from "../src/log/lines";

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

const filled = (...texts: string[]): Lines => {
  const lines = new Lines();
  for (const text of texts) lines.push("stdout", text);
  return lines;
};
/** So many lines, of which only the last ten are to be kept. */
const limited = (count: number): Lines => {
  const lines = new Lines({ lines: 10, characters: Infinity });
  for (let seq = 1; seq <= count; seq += 1) lines.push("stdout", seq % 5 === 0 ? `error ${seq}` : `line ${seq}`);
  return lines;
};

test("errors are found and gone through, around the end", () => {
  const lines = filled("ok", "main.go:3: error: x", "ok", "panic: y", "no errors");
  lines.push("failure", "exit status 1");
  expect(lines.errors).toBe(3);
  expect([0, 2, 4, 6].map((from) => lines.step("error", from, true))).toEqual([2, 4, 6, 2]);
  expect([7, 6, 2].map((from) => lines.step("error", from, false))).toEqual([6, 4, 6]);
});

test("what the platform itself says is no error of the build", () => {
  const lines = new Lines();
  lines.push("sdp", "error budget: 3");
  expect(lines.errors).toBe(0);
});

test("a search finds what is there and what comes, whatever its case and colour", () => {
  const lines = filled("Linking \u001b[31mCata\u001b[0mlogue", "other");
  lines.search("Catalogue");
  expect(lines.matches).toBe(1);
  lines.push("stdout", "CATALOGUE again");
  vi.runAllTimers();
  expect(lines.matches).toBe(2);
  expect(lines.step("match", 1, true)).toBe(3);
  expect([0, 1, 2, 3].map((seq) => lines.matchRank(seq))).toEqual([0, 1, 1, 2]);
  expect(lines.needle).toBe("Catalogue");
  lines.search("");
  expect(lines.matches).toBe(0);
});

test("a million lines are taken and searched", () => {
  const lines = new Lines();
  for (let seq = 1; seq <= 1_000_000; seq += 1) lines.push("stdout", "compiling");
  expect(lines.length).toBe(1_000_000);
  expect(lines.row(1_000_000).text).toBe("compiling");
});

test("listeners are told at most once for what comes together", () => {
  const lines = new Lines();
  const told = vi.fn();
  lines.subscribe(told);
  for (let seq = 1; seq <= 100; seq += 1) lines.push("stdout", "x");
  vi.runAllTimers();
  expect(told).toHaveBeenCalledTimes(1);
});

test("copied text has no sequences", () => {
  expect(filled("\u001b[1mone\u001b[0m", "two").text(1, 2)).toBe("one\ntwo");
});

test("a line has a time only where one is known", () => {
  const lines = new Lines();
  lines.push("stderr", "without");
  lines.push("stdout", "with", 5);
  expect(lines.row(1)).toEqual({ seq: 1, at: undefined, kind: "stderr", text: "without", isWrong: false });
  expect(lines.row(2).at).toBe(5);
});

test("the oldest lines are let go, and the others keep their numbers", () => {
  const lines = limited(23);
  expect(lines.length).toBeLessThanOrEqual(11);
  expect(lines.last).toBe(23);
  expect(lines.first).toBe(24 - lines.length);
  expect(lines.row(lines.first).text).toBe(`line ${lines.first}`);
  expect(lines.row(23).text).toBe("line 23");
  // Of a selection what is still there.
  expect(lines.text(1, lines.first)).toBe(`line ${lines.first}`);
  expect(lines.text(1, 2)).toBe("");
});

test("errors and what was found go with their lines", () => {
  const lines = limited(23);
  expect(lines.errors).toBe(2);
  expect(lines.step("error", 0, true)).toBe(15);
  lines.search("error");
  expect(lines.matches).toBe(2);
  for (let more = 0; more < 30; more += 1) lines.push("stdout", "quiet");
  vi.runAllTimers();
  expect([lines.errors, lines.matches]).toEqual([0, 0]);
  lines.push("stdout", "an error again");
  vi.runAllTimers();
  expect(lines.step("match", 0, true)).toBe(54);
});

test("long lines are let go earlier, but never the last", () => {
  const lines = new Lines({ lines: 1_000, characters: 100 });
  for (let count = 0; count < 20; count += 1) lines.push("stdout", "x".repeat(30));
  expect(lines.length).toBe(3);
  lines.push("stdout", "y".repeat(500));
  expect(lines.length).toBe(1);
  expect(lines.row(lines.last).text).toHaveLength(500);
});

test("what begins again has none, and looks for the same", () => {
  const lines = limited(40);
  lines.search("line");
  lines.clear();
  expect([lines.length, lines.first, lines.last, lines.errors, lines.matches]).toEqual([0, 1, 0, 0, 0]);
  lines.push("stdout", "line 1");
  vi.runAllTimers();
  expect(lines.row(1).text).toBe("line 1");
  expect(lines.matches).toBe(1);
});
