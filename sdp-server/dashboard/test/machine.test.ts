import { beforeAll, expect, test } from "vitest";
import type { Disk, Examination, Verdict } from "../src/api/types";
import { bytes, cpuShare } from "../src/ui/bytes";
import { pretendToBeABrowser } from "./sockets";

beforeAll(pretendToBeABrowser);

test("sizes and shares are as people say them", () => {
  expect([0, 999, 1_000, 9 << 20, 128 * 2 ** 30, 1023.9 * 2 ** 20, 2 ** 90].map(bytes)).toEqual(["0 B", "999 B", "1.0 KiB", "9.0 MiB", "128 GiB", "1.0 GiB", "1099511627776 PiB"]);
  expect([0, 0.0004, 0.034, 0.25, 1.5].map(cpuShare)).toEqual(["0 %", "0.0 %", "3.4 %", "25 %", "150 %"]);
});

test("a disk is judged as the doctor judges it", async () => {
  const { fullness } = await import("../src/pages/agents/Machine");
  const of = (free: number, total: number): Disk => ({ path: "/", free_bytes: free, total_bytes: total, min_free_bytes: 1_000 });
  expect([of(50_000, 100_000), of(5_000, 100_000), of(1_500, 2_000), of(999, 100_000)].map(fullness)).toEqual(["good", "warn", "warn", "bad"]);
});

test("an examination is as bad as the worst it found", async () => {
  const { summary } = await import("../src/pages/agents/Machine");
  const of = (...verdicts: Verdict[]): Examination => ({ findings: verdicts.map((verdict) => ({ check: "disk", verdict, evidence: "" })) });
  expect(summary(of("ok", "warning", "broken", "broken"))).toEqual(["bad", "2 broken"]);
  expect(summary(of("ok", "warning"))).toEqual(["warn", "1 warning"]);
  expect(summary(of())).toEqual(["good", "all well"]);
});

test("a version that a proxy has marked as weak is the server's again", async () => {
  const { strong, takeEdited } = await import("../src/api/edited");
  expect([strong('W/"a"'), strong('"a"'), strong(null)]).toEqual(['"a"', '"a"', undefined]);
  const response = new Response("{}", { headers: { etag: 'W/"b"' } });
  expect(await takeEdited(Promise.resolve({ data: { name: "qa" }, response }))).toEqual({ value: { name: "qa" }, version: '"b"' });
});
