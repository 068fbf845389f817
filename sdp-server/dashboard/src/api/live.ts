import type { QueryClient } from "@tanstack/react-query";
import { socketUrl } from "./client";
import type { Deployment, DeploymentState } from "./types";

/** What `/ws/events` tells, as far as this page acts on it. */
export type LiveMessage =
  | { type: "position"; next: number }
  | { type: "gap"; from: number; oldest: number }
  | { type: "deployment"; seq: number; id: string; sandbox?: string; state: DeploymentState; url?: string }
  | { type: "sandbox"; seq: number; name: string }
  | { type: "route"; seq: number }
  | { type: "agent"; seq: number; name: string }
  | { type: "environment"; seq: number }
  | { type: "template"; seq: number }
  | { type: "started"; seq: number };

/** The keys of what a change makes stale; all of them when that cannot be told. */
export function stale(message: LiveMessage): string[][] | "everything" {
  switch (message.type) {
    case "position":
      return [];
    case "gap":
    case "started":
      return "everything";
    case "deployment": {
      const sandbox = message.sandbox === undefined ? [] : [["sandbox", message.sandbox]];
      // The list has each sandbox's branches.
      if (message.sandbox !== undefined && message.state === "source") sandbox.push(["sandboxes"]);
      return [["deployments"], ["deployment", message.id], ["audit"], ...sandbox];
    }
    case "sandbox":
      return [["sandboxes"], ["sandbox", message.name], ["audit"]];
    case "route":
      return [["routes"], ["sandbox"], ["audit"]];
    case "agent":
      return [["agents"], ["repos"], ["routes"]];
    case "environment":
      return [["environments"]];
    case "template":
      return [["templates"]];
    default:
      // Of a newer server.
      return [];
  }
}

export type LinkState = "connecting" | "live" | "away";

/** How long changes are gathered before what they concern is asked for again. */
const GATHER_MS = 120;
const LONGEST_PAUSE_MS = 10_000;

/** One socket for everything that changes. It resumes where it was cut off. */
export class Live {
  state: LinkState = "connecting";
  #next: number | undefined;
  #socket: WebSocket | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #gathering: ReturnType<typeof setTimeout> | undefined;
  #stale = new Map<string, string[]>();
  #failures = 0;
  #hiddenAt = 0;
  readonly #listeners = new Set<() => void>();

  constructor(readonly queries: QueryClient) {}

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  start(): () => void {
    window.addEventListener("online", this.#again);
    document.addEventListener("visibilitychange", this.#seen);
    this.#connect();
    return () => {
      window.removeEventListener("online", this.#again);
      document.removeEventListener("visibilitychange", this.#seen);
      clearTimeout(this.#timer);
      clearTimeout(this.#gathering);
      const socket = this.#socket;
      this.#socket = undefined;
      socket?.close();
    };
  }

  /** A machine that slept may have a socket that only looks open. */
  readonly #seen = () => {
    if (document.visibilityState === "hidden") this.#hiddenAt = Date.now();
    else if (Date.now() - this.#hiddenAt > 60_000 || this.state !== "live") this.#again();
  };

  readonly #again = () => {
    clearTimeout(this.#timer);
    this.#connect();
  };

  #connect(): void {
    const earlier = this.#socket;
    const socket = new WebSocket(socketUrl("ws/events", { from: this.#next }));
    this.#socket = socket;
    earlier?.close();
    socket.onmessage = (message: MessageEvent<string>) => {
      if (this.#socket !== socket) return;
      for (const line of message.data.split("\n")) this.#take(JSON.parse(line) as LiveMessage);
    };
    socket.onclose = () => {
      if (this.#socket !== socket) return;
      this.#failures += 1;
      this.#say("away");
      // A refused handshake looks like a lost connection: whether the session is over, a request tells.
      if (this.#failures === 2) void this.queries.invalidateQueries({ queryKey: ["me"] });
      const pause = Math.min(LONGEST_PAUSE_MS, 250 * 2 ** this.#failures) * (0.5 + Math.random() / 2);
      this.#timer = setTimeout(() => this.#connect(), pause);
    };
  }

  #take(message: LiveMessage): void {
    if (message.type === "position") {
      const isFirst = this.#next === undefined;
      this.#next = message.next;
      this.#failures = 0;
      this.#say("live");
      // What was read before the first connection may be older than it.
      if (isFirst) void this.queries.invalidateQueries();
      return;
    }
    if (message.type === "gap") this.#next = message.oldest;
    else if (typeof message.seq === "number") this.#next = message.seq + 1;
    if (message.type === "deployment") this.#patch(message);
    const keys = stale(message);
    if (keys === "everything") this.#stale.set("", []);
    else for (const key of keys) this.#stale.set(key.join("/"), key);
    this.#gathering ??= setTimeout(() => this.#refresh(), GATHER_MS);
  }

  /** Shows a new state before the whole is read again. */
  #patch({ id, state, url }: Extract<LiveMessage, { type: "deployment" }>): void {
    this.queries.setQueryData<Deployment>(["deployment", id], (old) => old && { ...old, state, url: url ?? old.url });
  }

  #refresh(): void {
    this.#gathering = undefined;
    for (const queryKey of this.#stale.values()) void this.queries.invalidateQueries({ queryKey });
    this.#stale.clear();
  }

  #say(state: LinkState): void {
    this.state = state;
    for (const listener of this.#listeners) listener();
  }
}
