/** A run of text that looks the same. */
export interface Span {
  text: string;
  /** Names of the styles' classes. */
  className: string;
  /** A colour that is not among the sixteen. */
  color?: string;
  background?: string;
}

interface Style {
  fg?: string;
  bg?: string;
  color?: string;
  background?: string;
  flags: Set<string>;
}

// eslint-disable-next-line no-control-regex
const SEQUENCE = /\u001b\[([0-9;:]*)([@-~])|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b[@-Z\\^_]/g;

const FLAGS: Record<number, string> = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike" };
const ENDS: Record<number, string[]> = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 29: ["strike"] };

/** What a terminal would have left of a line: what follows the last return to its start. */
export function settled(line: string): string {
  const text = line.endsWith("\r") ? line.slice(0, -1) : line;
  return text.slice(text.lastIndexOf("\r") + 1);
}

/** A line without its escape sequences. */
export function plain(line: string): string {
  const text = settled(line);
  return text.includes("\u001b") ? text.replace(SEQUENCE, "") : text;
}

/** A line's runs of equal style. Sequences that are not about style are left out. */
export function spans(line: string): Span[] {
  const text = settled(line);
  if (!text.includes("\u001b")) return [{ text, className: "" }];
  const found: Span[] = [];
  const style: Style = { flags: new Set() };
  let at = 0;
  const push = (end: number) => {
    if (end > at) found.push(span(text.slice(at, end), style));
  };
  for (const match of text.matchAll(SEQUENCE)) {
    push(match.index);
    at = match.index + match[0].length;
    if (match[2] === "m") apply(style, match[1] ?? "");
  }
  push(text.length);
  return found;
}

function span(text: string, style: Style): Span {
  const names = [...style.flags].map((flag) => `ansi-${flag}`);
  if (style.fg) names.push(`ansi-fg-${style.fg}`);
  if (style.bg) names.push(`ansi-bg-${style.bg}`);
  const made: Span = { text, className: names.join(" ") };
  if (style.color) made.color = style.color;
  if (style.background) made.background = style.background;
  return made;
}

function apply(style: Style, parameters: string): void {
  const codes = parameters.split(/[;:]/).map(Number);
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at] ?? 0;
    if (code === 0) {
      style.flags.clear();
      paint(style, true, undefined, undefined);
      paint(style, false, undefined, undefined);
    } else if (FLAGS[code]) style.flags.add(FLAGS[code]);
    else if (ENDS[code]) for (const flag of ENDS[code]) style.flags.delete(flag);
    else if (code === 39) paint(style, true, undefined, undefined);
    else if (code === 49) paint(style, false, undefined, undefined);
    else if (code >= 30 && code <= 37) paint(style, true, String(code - 30), undefined);
    else if (code >= 90 && code <= 97) paint(style, true, String(code - 82), undefined);
    else if (code >= 40 && code <= 47) paint(style, false, String(code - 40), undefined);
    else if (code >= 100 && code <= 107) paint(style, false, String(code - 92), undefined);
    else if (code === 38 || code === 48) {
      const kind = codes[at + 1];
      if (kind === 5) {
        const index = codes[at + 2] ?? 0;
        if (index < 16) paint(style, code === 38, String(index), undefined);
        else paint(style, code === 38, undefined, indexed(index));
        at += 2;
      } else if (kind === 2) {
        const [red = 0, green = 0, blue = 0] = codes.slice(at + 2, at + 5).map((value) => Math.min(255, value || 0));
        paint(style, code === 38, undefined, `rgb(${red} ${green} ${blue})`);
        at += 4;
      }
    }
  }
}

function paint(style: Style, isForeground: boolean, name: string | undefined, color: string | undefined): void {
  if (isForeground) Object.assign(style, { fg: name, color });
  else Object.assign(style, { bg: name, background: color });
}

/** A colour of the 6×6×6 cube or of the greys. */
function indexed(index: number): string {
  if (index >= 232) {
    const grey = 8 + (Math.min(index, 255) - 232) * 10;
    return `rgb(${grey} ${grey} ${grey})`;
  }
  const level = (value: number) => (value === 0 ? 0 : 55 + value * 40);
  const cube = index - 16;
  return `rgb(${level(Math.floor(cube / 36))} ${level(Math.floor(cube / 6) % 6)} ${level(cube % 6)})`;
}
