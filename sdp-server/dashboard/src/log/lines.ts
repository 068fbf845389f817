import { plain } from "./ansi";

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

  /** Lets the first `count` go. */
  drop(count: number): void {
    this.#values.copyWithin(0, count, this.length);
    this.length -= count;
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
  /** Its number, which links name: 1 for the first that came. */
  seq: number;
  /** When it was written, where that is known. */
  at: number | undefined;
  kind: RowKind;
  text: string;
  isWrong: boolean;
}

/** How much is kept; older lines are let go. */
export interface Limit {
  lines: number;
  characters: number;
}

/** Lines in memory, each with its number. They are kept in columns, for there are many. */
export class Lines {
  readonly #limit: Limit;
  #first = 1;
  #characters = 0;
  #texts: string[] = [];
  #times: number[] = [];
  readonly #kinds = new Numbers();
  readonly #wrong = new Numbers();
  readonly #found = new Numbers();
  #needle = "";
  #wanted = "";
  #searched = 0;
  #searching: ReturnType<typeof setTimeout> | undefined;
  #version = 0;
  #told = false;
  readonly #listeners = new Set<() => void>();

  constructor(limit: Limit = { lines: Infinity, characters: Infinity }) {
    this.#limit = limit;
  }

  /** Changes whenever the lines or what was found in them do. */
  readonly version = (): number => this.#version;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  get length(): number {
    return this.#texts.length;
  }

  /** The number of the oldest line that is kept: 1 unless lines were let go. */
  get first(): number {
    return this.#first;
  }

  /** The number of the newest line. */
  get last(): number {
    return this.#first + this.length - 1;
  }

  get errors(): number {
    return this.#wrong.length;
  }

  get matches(): number {
    return this.#found.length;
  }

  /** What is looked for, as it was typed. */
  get needle(): string {
    return this.#needle;
  }

  /** Whether the search has not yet come to the end. */
  get isSearching(): boolean {
    return this.#needle !== "" && this.#searched < this.last;
  }

  /** Takes a line that follows the last. */
  push(kind: RowKind, text: string, at: number = NaN): void {
    const isWrong = kind === "failure" || ((kind === "stdout" || kind === "stderr") && LOOKS_WRONG.test(text));
    this.#kinds.push(KINDS.indexOf(kind) + (isWrong ? 16 : 0));
    this.#times.push(at);
    this.#texts.push(text);
    this.#characters += text.length;
    if (isWrong) this.#wrong.push(this.last);
    this.#trim();
    this.#changed();
  }

  /** Begins again with none. What is looked for stays. */
  clear(): void {
    this.#first = 1;
    this.#characters = 0;
    this.#texts = [];
    this.#times = [];
    for (const numbers of [this.#kinds, this.#wrong, this.#found]) numbers.clear();
    this.#searched = 0;
    this.#changed();
  }

  row(seq: number): Row {
    const index = seq - this.#first;
    const kind = this.#kinds.at(index);
    const at = this.#times[index] ?? NaN;
    return {
      seq,
      at: Number.isNaN(at) ? undefined : at,
      kind: KINDS[kind & 15] ?? "note",
      text: this.#texts[index] ?? "",
      isWrong: kind >= 16,
    };
  }

  /** Lines as text for the clipboard, both included. */
  text(from: number, to: number): string {
    return this.#texts.slice(Math.max(0, from - this.#first), Math.max(0, to - this.#first + 1)).map(plain).join("\n");
  }

  /** Looks for a text, whatever its case, in what is there and in what comes. */
  search(needle: string): void {
    this.#needle = needle;
    this.#wanted = needle.toLowerCase();
    this.#searched = this.#first - 1;
    this.#found.clear();
    this.#changed();
    if (needle !== "") this.#look();
  }

  /** How many of those found are not after a line. */
  matchRank(seq: number): number {
    return this.#found.lowerBound(seq + 1);
  }

  /** The line to go to from a line: the next or previous one found, around the ends. */
  step(what: "match" | "error", from: number, forward: boolean): number | undefined {
    const rows = what === "match" ? this.#found : this.#wrong;
    if (rows.length === 0) return undefined;
    const place = forward ? rows.lowerBound(from + 1) : rows.lowerBound(from) - 1;
    return rows.at((place + rows.length) % rows.length);
  }

  /** Lets the oldest go once a twentieth is too much: one by one would move everything for each. */
  #trim(): void {
    const { lines, characters } = this.#limit;
    if (this.length <= lines * 1.05 && this.#characters <= characters * 1.05) return;
    let count = Math.max(0, this.length - lines);
    let freed = 0;
    for (let at = 0; at < count; at += 1) freed += this.#texts[at]?.length ?? 0;
    while (count < this.length - 1 && this.#characters - freed > characters) {
      freed += this.#texts[count]?.length ?? 0;
      count += 1;
    }
    this.#texts.splice(0, count);
    this.#times.splice(0, count);
    this.#kinds.drop(count);
    this.#characters -= freed;
    this.#first += count;
    for (const numbers of [this.#wrong, this.#found]) numbers.drop(numbers.lowerBound(this.#first));
    this.#searched = Math.max(this.#searched, this.#first - 1);
  }

  /** Searches for as long as nobody notices, and goes on later. */
  #look(): void {
    clearTimeout(this.#searching);
    if (this.#needle === "") return;
    const until = performance.now() + 8;
    while (this.#searched < this.last) {
      this.#searched += 1;
      const text = this.#texts[this.#searched - this.#first] ?? "";
      if (plain(text).toLowerCase().includes(this.#wanted)) this.#found.push(this.#searched);
      if (this.#searched % 512 === 0 && performance.now() > until) break;
    }
    this.#changed();
    if (this.#searched < this.last) this.#searching = setTimeout(() => this.#look());
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
