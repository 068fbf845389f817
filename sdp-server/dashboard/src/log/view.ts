/** A row's height. */
export const ROW = 20;

/** Browsers lay nothing out that is much higher than this. Longer logs scroll faster than they are high. */
const HIGHEST = 15_000_000;

/** Rows drawn beyond those seen. */
const BEYOND = 12;

export interface View {
  /** The first row to draw, and the one after the last. */
  first: number;
  last: number;
  /** How high everything is, as far as the browser knows. */
  height: number;
  /** Where the first drawn row is to be. */
  offset: number;
  /** Where to scroll for a row to be a third down. */
  topOf: (index: number) => number;
}

/** What is to be drawn of `count` rows where `top` is scrolled to and `height` of them is seen. */
export function window(count: number, top: number, height: number): View {
  const real = count * ROW;
  const laid = Math.min(real, HIGHEST);
  const scale = laid > height ? (real - height) / (laid - height) : 1;
  const at = Math.max(0, Math.min(top, laid - height)) * scale;
  const first = Math.max(0, Math.floor(at / ROW) - BEYOND);
  const last = Math.min(count, Math.ceil((at + height) / ROW) + BEYOND);
  return {
    first,
    last,
    height: laid,
    offset: first * ROW - at + Math.max(0, Math.min(top, laid - height)),
    topOf: (index) => Math.max(0, Math.min((index * ROW - height / 3) / scale, laid - height)),
  };
}

/** Lines of a log, by their numbers, both included. */
export interface Range {
  from: number;
  to: number;
}

/** `12` or `12-20`, as addresses have it. */
export const format = ({ from, to }: Range): string => (from === to ? `${from}` : `${from}-${to}`);

/** The lines that an address names; none where it names none. */
export function parse(text: string | undefined): Range | undefined {
  const found = /^(\d{1,9})(?:-(\d{1,9}))?$/.exec(text ?? "");
  if (!found) return undefined;
  const from = Number(found[1]);
  const to = Number(found[2] ?? found[1]);
  return from >= 1 && to >= from ? { from, to } : undefined;
}

export const contains = (range: Range | undefined, line: number): boolean =>
  range !== undefined && range.from <= line && line <= range.to;
