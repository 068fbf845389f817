import { socketUrl } from "../api/client";
import type { LogEvent, LogStore } from "./store";

export type StreamState = "connecting" | "live" | "away" | "ended";

/** How long lines are taken in before the page may draw. */
const SLICE_MS = 10;

/** Brings a deployment's whole log into a store, then what follows, until it ends. Resumes where it was cut off. */
export function follow(id: string, store: LogStore, tell: (state: StreamState) => void): () => void {
  let socket: WebSocket | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;
  let hasEnded = false;
  let isOver = false;
  const waiting: string[] = [];
  let isTaking = false;

  const takeIn = () => {
    isTaking = false;
    if (isOver) return;
    const until = performance.now() + SLICE_MS;
    let done = 0;
    while (done < waiting.length && performance.now() < until) {
      for (const line of (waiting[done] ?? "").split("\n")) {
        const event = JSON.parse(line) as LogEvent | { type: "end" };
        if (event.type === "end") {
          hasEnded = true;
          tell("ended");
        } else store.append(event);
      }
      done += 1;
    }
    waiting.splice(0, done);
    if (waiting.length > 0) schedule();
    else if (socket === undefined && !hasEnded) reconnect();
  };
  const schedule = () => {
    if (isTaking) return;
    isTaking = true;
    setTimeout(takeIn);
  };
  const reconnect = () => {
    tell("away");
    failures += 1;
    timer = setTimeout(connect, Math.min(10_000, 250 * 2 ** failures) * (0.5 + Math.random() / 2));
  };
  const connect = () => {
    const opened = new WebSocket(socketUrl(`ws/deployments/${id}`, { from: store.next }));
    socket = opened;
    opened.onopen = () => tell("live");
    opened.onmessage = (message: MessageEvent<string>) => {
      failures = 0;
      waiting.push(message.data);
      schedule();
    };
    opened.onclose = () => {
      if (socket !== opened) return;
      socket = undefined;
      // What has come is taken in first: the next connection begins after it.
      if (!isOver && !hasEnded && waiting.length === 0) reconnect();
    };
  };
  tell("connecting");
  connect();
  return () => {
    isOver = true;
    clearTimeout(timer);
    const last = socket;
    socket = undefined;
    last?.close();
  };
}
