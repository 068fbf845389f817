import { type DeploymentState, type Stage, isActive } from "../api/types";
import { plain } from "./ansi";

/** An event of a deployment's log, as far as it is shown. */
export type LogEvent = { seq: number; at: string } & (
  | { type: "log"; stage: Stage; stream: "stdout" | "stderr" | "sdp"; line: string }
  | { type: "stage"; stage: Stage; status: string }
  | { type: "state"; state: string; failure?: { reason: string; stage?: Stage } }
  | { type: "source"; branch: string; commit: string }
  | { type: "endpoint"; host_port: number; url: string; instance: string }
  | { type: "route"; route: { service: string; value: string } }
  | { type: "unknown" }
);

export type RowKind = "stdout" | "stderr" | "sdp" | "stage" | "failure" | "state" | "note";
const KINDS: readonly RowKind[] = ["stdout", "stderr", "sdp", "stage", "failure", "state", "note"];

const LOOKS_WRONG = /\b(?:error|fatal|panic|exception|failed)\b/i;

/** A list of numbers that grows without copying each time. */
class Numbers {
  #values: Uint32Array = new Uint32Array(1024);
  length = 0;

  push(value: number): void {
    if (this.length === this.#values.length) {
      const larger = new Uint32Array(this.length * 2);
      larger.set(this.#values);
      this.#values = larger;
    }
    this.#values[this.length] = value;
    this.length += 1;
  }

  at(index: number): number {
    return this.#values[index] ?? 0;
  }

  clear(): void {
    this.length = 0;
  }

  /** The place of the first value that is at least `value`. */
  lowerBound(value: number): number {
    let low = 0;
    let high = this.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.at(middle) < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

export interface Row {
  /** Its place in the log, which links name: 1 for the first. */
  seq: number;
  at: number;
  kind: RowKind;
  text: string;
  isWrong: boolean;
}

/** A deployment's log in memory: one row for each event, in order. Rows are kept in columns, for there are many. */
export class LogStore {
  readonly #texts: string[] = [];
  readonly #kinds = new Numbers();
  readonly #times: number[] = [];
  readonly #wrong = new Numbers();
  readonly #found = new Numbers();
  #needle = "";
  #searched = 0;
  #searching: ReturnType<typeof setTimeout> | undefined;
  #version = 0;
  #told = false;
  readonly #listeners = new Set<() => void>();

  /** Changes whenever the log or what was found in it does. */
  readonly version = (): number => this.#version;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  get length(): number {
    return this.#texts.length;
  }

  get errors(): number {
    return this.#wrong.length;
  }

  get matches(): number {
    return this.#found.length;
  }

  /** Whether the search has not yet come to the end. */
  get isSearching(): boolean {
    return this.#needle !== "" && this.#searched < this.length;
  }

  /** The next event's number. */
  get next(): number {
    return this.length + 1;
  }

  /** Takes an event that follows the last; one that is known already is left out. */
  append(event: LogEvent): void {
    if (event.seq < this.next) return;
    const [kind, text] = row(event);
    const isWrong = kind === "failure" || ((kind === "stdout" || kind === "stderr") && LOOKS_WRONG.test(text));
    if (isWrong) this.#wrong.push(this.length);
    this.#kinds.push(KINDS.indexOf(kind) + (isWrong ? 16 : 0));
    this.#times.push(Date.parse(event.at));
    this.#texts.push(text);
    this.#changed();
  }

  row(index: number): Row {
    const kind = this.#kinds.at(index);
    return {
      seq: index + 1,
      at: this.#times[index] ?? 0,
      kind: KINDS[kind & 15] ?? "note",
      text: this.#texts[index] ?? "",
      isWrong: kind >= 16,
    };
  }

  /** Rows as text for the clipboard. */
  text(from: number, to: number): string {
    return this.#texts.slice(from, to + 1).map(plain).join("\n");
  }

  /** Looks for a text, whatever its case, in what is there and in what comes. */
  search(needle: string): void {
    this.#needle = needle.toLowerCase();
    this.#searched = 0;
    this.#found.clear();
    this.#changed();
    if (needle !== "") this.#look();
  }

  /** How many of those found are before a row. */
  matchRank(index: number): number {
    return this.#found.lowerBound(index);
  }

  /** The row to go to from a row: the next or previous one found, around the ends. */
  step(what: "match" | "error", from: number, forward: boolean): number | undefined {
    const rows = what === "match" ? this.#found : this.#wrong;
    if (rows.length === 0) return undefined;
    const place = forward ? rows.lowerBound(from + 1) : rows.lowerBound(from) - 1;
    return rows.at((place + rows.length) % rows.length);
  }

  /** Searches for as long as nobody notices, and goes on later. */
  #look(): void {
    clearTimeout(this.#searching);
    if (this.#needle === "") return;
    const until = performance.now() + 8;
    while (this.#searched < this.length) {
      if (plain(this.#texts[this.#searched] ?? "").toLowerCase().includes(this.#needle)) this.#found.push(this.#searched);
      this.#searched += 1;
      if (this.#searched % 512 === 0 && performance.now() > until) break;
    }
    this.#changed();
    if (this.#searched < this.length) this.#searching = setTimeout(() => this.#look());
  }

  /** Tells at most once a frame. */
  #changed(): void {
    this.#version += 1;
    if (this.#told) return;
    this.#told = true;
    setTimeout(() => {
      this.#told = false;
      if (this.isSearching) this.#look();
      for (const listener of this.#listeners) listener();
    }, 16);
  }
}

function row(event: LogEvent): [RowKind, string] {
  switch (event.type) {
    case "log":
      return [event.stream, event.line];
    case "stage":
      return event.status === "failed" ? ["failure", `${event.stage} failed`] : ["stage", `${event.stage} ${event.status}`];
    case "state":
      if (event.failure) return ["failure", `${event.state}: ${plain(event.failure.reason)}`];
      return isActive(event.state as DeploymentState) ? ["state", event.state] : ["stage", event.state];
    case "source":
      return ["note", `${event.branch} at ${event.commit}`];
    case "endpoint":
      return ["note", `${event.instance} answers on ${event.url}`];
    case "route":
      return ["note", `${event.route.service} → ${event.route.value}`];
    default:
      return ["note", "an event of a newer version"];
  }
}
