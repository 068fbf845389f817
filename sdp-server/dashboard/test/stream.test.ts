import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { LogStore } from "../src/log/store";
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

test("a log is whole however often its connection is lost", async () => {
  const { follow } = await import("../src/log/stream");
  const store = new LogStore();
  const states: string[] = [];
  const stop = follow("d", store, (state) => states.push(state));
  expect(FakeSocket.last.url).toBe("wss://sdp.example/sdp/ws/deployments/d?from=1");
  FakeSocket.last.onopen?.();
  FakeSocket.last.tell(line(1), line(2));
  // It is lost before what came is taken in.
  FakeSocket.last.close();
  vi.advanceTimersByTime(20_000);
  expect(FakeSocket.last.url).toContain("from=3");
  FakeSocket.last.tell(line(3));
  FakeSocket.last.tell({ type: "end", state: "running", last: 3 });
  vi.advanceTimersByTime(100);
  FakeSocket.last.close();
  vi.advanceTimersByTime(60_000);
  expect(store.text(0, 2)).toBe("line 1\nline 2\nline 3");
  expect(states.at(-1)).toBe("ended");
  expect(FakeSocket.all).toHaveLength(2);
  stop();
});

test("who leaves the page hears no more", async () => {
  const { follow } = await import("../src/log/stream");
  const store = new LogStore();
  const stop = follow("d", store, () => undefined);
  stop();
  vi.advanceTimersByTime(60_000);
  expect(FakeSocket.all).toHaveLength(1);
});
