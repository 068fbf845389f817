import { expect, test, vi } from "vitest";
import { LogStore, type LogEvent } from "../src/log/store";

const at = "2026-11-25T10:00:00.000Z";
const log = (seq: number, line: string, stream: "stdout" | "sdp" = "stdout"): LogEvent => ({ type: "log", seq, at, stage: "build", stream, line });

test("what is known already is taken once", () => {
  const store = new LogStore();
  for (const seq of [1, 2, 2, 1, 3]) store.append(log(seq, `line ${seq}`));
  expect(store.length).toBe(3);
  expect(store.next).toBe(4);
  expect(store.row(2)).toMatchObject({ seq: 3, text: "line 3", kind: "stdout" });
});

test("errors are found and gone through, around the end", () => {
  const store = new LogStore();
  ["ok", "main.go:3: error: x", "ok", "panic: y", "no errors"].forEach((line, index) => store.append(log(index + 1, line)));
  store.append({ type: "state", seq: 6, at, state: "failed", failure: { reason: "exit status 1" } });
  expect(store.errors).toBe(3);
  expect([-1, 1, 3, 5].map((from) => store.step("error", from, true))).toEqual([1, 3, 5, 1]);
  expect([6, 5, 1].map((from) => store.step("error", from, false))).toEqual([5, 3, 5]);
});

test("what the platform itself says is no error of the build", () => {
  const store = new LogStore();
  store.append(log(1, "error budget: 3", "sdp"));
  expect(store.errors).toBe(0);
});

test("a search finds what is there and what comes, whatever its case and colour", () => {
  vi.useFakeTimers();
  const store = new LogStore();
  store.append(log(1, "Linking \u001b[31mCata\u001b[0mlogue"));
  store.append(log(2, "other"));
  store.search("catalogue");
  expect(store.matches).toBe(1);
  store.append(log(3, "CATALOGUE again"));
  vi.runAllTimers();
  expect(store.matches).toBe(2);
  expect(store.step("match", 0, true)).toBe(2);
  expect(store.matchRank(1)).toBe(1);
  store.search("");
  expect(store.matches).toBe(0);
  vi.useRealTimers();
});

test("a million lines are taken and searched", () => {
  const store = new LogStore();
  for (let seq = 1; seq <= 1_000_000; seq += 1) store.append(log(seq, "compiling"));
  expect(store.length).toBe(1_000_000);
  expect(store.row(999_999).seq).toBe(1_000_000);
});

test("listeners are told at most once for what comes together", () => {
  vi.useFakeTimers();
  const store = new LogStore();
  const told = vi.fn();
  store.subscribe(told);
  for (let seq = 1; seq <= 100; seq += 1) store.append(log(seq, "x"));
  vi.runAllTimers();
  expect(told).toHaveBeenCalledTimes(1);
  vi.useRealTimers();
});

test("copied text has no sequences", () => {
  const store = new LogStore();
  store.append(log(1, "\u001b[1mone\u001b[0m"));
  store.append(log(2, "two"));
  expect(store.text(0, 1)).toBe("one\ntwo");
});
