import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { Lines } from "../src/log/lines";
import type { Told } from "../src/log/stream";
import { FakeSocket, pretendToBeABrowser } from "./sockets";

beforeEach(() => {
  vi.useFakeTimers();
  pretendToBeABrowser();
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const line = (seq: number) => ({ type: "log", seq, at: "2026-11-25T10:00:00Z", stage: "build", stream: "stdout", line: `line ${seq}` });
const printed = (line: string, stream = "stdout") => ({ stream, line });
const problem = (detail: string, retryable: boolean) => ({ type: "about:blank", title: "It is not so", status: 409, code: "conflict", detail, retryable });

/** Follows a program's output; the server would answer `refusal` if it was asked why. */
async function followed(refusal?: object) {
  const answer = vi.fn<(request: Request) => Promise<Response>>(() => Promise.resolve(refusal ? Response.json(refusal, { status: 409 }) : new Response("")));
  vi.stubGlobal("fetch", answer);
  const { followOutput } = await import("../src/log/output");
  const lines = new Lines();
  const told: Told[] = [];
  const stop = followOutput("d", lines, (now) => told.push(now));
  return { lines, told, stop, answer };
}

test("a log is whole however often its connection is lost", async () => {
  const { followLog } = await import("../src/log/events");
  const lines = new Lines();
  const told: Told[] = [];
  const stop = followLog("d", lines, (now) => told.push(now));
  expect(FakeSocket.last.url).toBe("wss://sdp.example/sdp/ws/deployments/d?from=1");
  FakeSocket.last.onopen?.();
  FakeSocket.last.tell(line(1), line(2), line(2), line(1));
  // It is lost before what came is taken in.
  FakeSocket.last.close();
  vi.advanceTimersByTime(20_000);
  expect(FakeSocket.last.url).toContain("from=3");
  FakeSocket.last.tell(line(3));
  FakeSocket.last.tell({ type: "end", state: "running", last: 3 });
  vi.advanceTimersByTime(100);
  FakeSocket.last.close();
  vi.advanceTimersByTime(60_000);
  expect(lines.text(1, 3)).toBe("line 1\nline 2\nline 3");
  expect(lines.last).toBe(3);
  expect(told.at(-1)).toEqual({ state: "ended" });
  expect(FakeSocket.all).toHaveLength(2);
  stop();
});

test("who leaves the page hears no more", async () => {
  const { followLog } = await import("../src/log/events");
  const stop = followLog("d", new Lines(), () => undefined);
  stop();
  vi.advanceTimersByTime(60_000);
  expect(FakeSocket.all).toHaveLength(1);
});

test("output is followed from its last lines on, until the program ends", async () => {
  const { lines, told, stop } = await followed();
  expect(FakeSocket.last.url).toBe("wss://sdp.example/sdp/ws/deployments/d/output?tail=1000");
  FakeSocket.last.onopen?.();
  FakeSocket.last.tell(printed("it listens"), printed("it is slow", "stderr"));
  FakeSocket.last.tell({ type: "end" });
  vi.advanceTimersByTime(100);
  FakeSocket.last.close();
  await vi.advanceTimersByTimeAsync(60_000);
  expect([1, 2].map((seq) => lines.row(seq).kind)).toEqual(["stdout", "stderr"]);
  expect(lines.text(1, 2)).toBe("it listens\nit is slow");
  expect(told.map(({ state }) => state)).toEqual(["connecting", "live", "ended"]);
  expect(FakeSocket.all).toHaveLength(1);
  stop();
});

test("output begins again with nothing once a lost connection is there again", async () => {
  const { lines, told, stop } = await followed();
  FakeSocket.last.onopen?.();
  FakeSocket.last.tell(printed("one"), printed("two"));
  FakeSocket.last.close();
  vi.advanceTimersByTime(20_000);
  expect(FakeSocket.all).toHaveLength(2);
  expect(lines.text(1, 2)).toBe("one\ntwo");
  FakeSocket.last.onopen?.();
  FakeSocket.last.tell(printed("two"), printed("three"));
  vi.advanceTimersByTime(100);
  expect(lines.text(1, 9)).toBe("two\nthree");
  expect(told.map(({ state }) => state)).toEqual(["connecting", "live", "away", "live"]);
  stop();
});

test("output that cannot be followed any further says why, and is left so", async () => {
  const { lines, told, stop } = await followed();
  FakeSocket.last.onopen?.();
  FakeSocket.last.tell(printed("one"));
  FakeSocket.last.tell({ type: "broken", problem: problem("its container is gone", false) });
  vi.advanceTimersByTime(100);
  FakeSocket.last.close();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(told.at(-1)).toEqual({ state: "broken", why: "its container is gone" });
  expect(lines.length).toBe(1);
  expect(FakeSocket.all).toHaveLength(1);
  stop();
});

test("output whose agent is away for a moment is followed again", async () => {
  const { told, stop } = await followed();
  FakeSocket.last.onopen?.();
  FakeSocket.last.tell(printed("one"), { type: "broken", problem: problem("agent micro went away", true) });
  vi.advanceTimersByTime(100);
  FakeSocket.last.close();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(FakeSocket.all).toHaveLength(2);
  expect(told.map((now) => now.state)).not.toContain("broken");
  stop();
});

test("a refused handshake is explained by the document's refusal", async () => {
  const { told, stop, answer } = await followed(problem("deployment d is failed", false));
  FakeSocket.last.close();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(told.at(-1)).toEqual({ state: "broken", why: "deployment d is failed" });
  expect(answer.mock.calls[0]?.[0].url).toBe("https://sdp.example/sdp/api/deployments/d/output?tail=0");
  expect(FakeSocket.all).toHaveLength(1);
  stop();
});

test("what another attempt may cure is tried again", async () => {
  const { told, stop } = await followed(problem("agent micro is away", true));
  FakeSocket.last.close();
  await vi.advanceTimersByTimeAsync(20_000);
  expect(told.at(-1)).toEqual({ state: "away", why: "agent micro is away" });
  expect(FakeSocket.all).toHaveLength(2);
  stop();
  FakeSocket.last.close();
  await vi.advanceTimersByTimeAsync(60_000);
  expect(FakeSocket.all).toHaveLength(2);
});
