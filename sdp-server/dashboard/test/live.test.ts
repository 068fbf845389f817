import { QueryClient } from "@tanstack/react-query";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { FakeSocket, pretendToBeABrowser } from "./sockets";

beforeEach(() => {
  vi.useFakeTimers();
  pretendToBeABrowser();
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

async function start() {
  const { Live } = await import("../src/api/live");
  const queries = new QueryClient();
  const asked = vi.spyOn(queries, "invalidateQueries");
  const live = new Live(queries);
  return { live, queries, asked, stop: live.start() };
}

test("a lost connection resumes after the last event seen", async () => {
  const { live, stop } = await start();
  expect(FakeSocket.last.url).toBe("wss://sdp.example/sdp/ws/events");
  FakeSocket.last.tell({ type: "position", next: 7 });
  expect(live.state).toBe("live");
  FakeSocket.last.tell({ type: "agent", seq: 7, name: "micro" }, { type: "agent", seq: 8, name: "micro" });
  FakeSocket.last.close();
  expect(live.state).toBe("away");
  vi.advanceTimersByTime(10_000);
  expect(FakeSocket.all).toHaveLength(2);
  expect(FakeSocket.last.url).toBe("wss://sdp.example/sdp/ws/events?from=9");
  stop();
});

test("what a change concerns is read again, once for what comes together", async () => {
  const { asked, stop } = await start();
  FakeSocket.last.tell({ type: "position", next: 1 });
  asked.mockClear();
  FakeSocket.last.tell({ type: "sandbox", seq: 1, name: "a" }, { type: "sandbox", seq: 2, name: "a" });
  vi.advanceTimersByTime(1_000);
  expect(asked.mock.calls.map(([filter]) => filter?.queryKey)).toEqual([["sandboxes"], ["sandbox", "a"], ["audit"]]);
  stop();
});

test("whoever was away too long reads everything again, and goes on from what is kept", async () => {
  const { asked, stop } = await start();
  FakeSocket.last.tell({ type: "position", next: 3 });
  asked.mockClear();
  FakeSocket.last.tell({ type: "gap", from: 3, oldest: 50 });
  vi.advanceTimersByTime(1_000);
  expect(asked.mock.calls.map(([filter]) => filter?.queryKey)).toEqual([[]]);
  FakeSocket.last.close();
  vi.advanceTimersByTime(10_000);
  expect(FakeSocket.last.url).toContain("from=50");
  stop();
});

test("a deployment's new state is shown before the whole is read again", async () => {
  const { queries, stop } = await start();
  queries.setQueryData(["deployment", "x"], { id: "x", state: "build", url: null });
  FakeSocket.last.tell({ type: "deployment", seq: 1, id: "x", state: "running", url: "http://a" });
  expect(queries.getQueryData(["deployment", "x"])).toEqual({ id: "x", state: "running", url: "http://a" });
  stop();
});

test("when it is over nothing is connected any more", async () => {
  const { stop } = await start();
  stop();
  vi.advanceTimersByTime(60_000);
  expect(FakeSocket.all).toHaveLength(1);
  expect(FakeSocket.last.isClosed).toBe(true);
});
