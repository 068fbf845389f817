import { ArrowDownToLine, ArrowUp, ArrowDown, CircleAlert, Copy, Download, Link as LinkIcon, Pause, Search } from "lucide-react";
import { type CSSProperties, type KeyboardEvent, type ReactNode, useCallback, useEffect, useLayoutEffect, useRef, useState, useSyncExternalStore } from "react";
import { copy } from "../ui/copy";
import { clock } from "../ui/time";
import { complain, say } from "../ui/toast";
import { spans } from "./ansi";
import type { Lines, Row } from "./lines";
import type { StreamState } from "./stream";
import { type Range, contains, format, window as visible, ROW } from "./view";

interface LogViewProps {
  lines: Lines;
  state: StreamState;
  /** Its heading, and what it is within a sentence. */
  label: string;
  name: string;
  /** What an ended one is said to be. */
  ended: string;
  selected: Range | undefined;
  onSelect: (range: Range | undefined) => void;
  /** Whether the page's address names the selected lines. */
  isLinked?: boolean;
  /** What is to be known of it as it stands. */
  note?: ReactNode;
  download: string;
}

const SAYS: Record<Exclude<StreamState, "ended">, string> = {
  connecting: "connecting…",
  live: "live",
  away: "reconnecting…",
  broken: "broken off",
};

/** Lines, however many: only what is seen of them is drawn. */
export function LogView({ lines, state, label, name, ended, selected, onSelect, isLinked = false, note, download }: LogViewProps) {
  useSyncExternalStore(lines.subscribe, lines.version);
  const scroller = useRef<HTMLDivElement>(null);
  const search = useRef<HTMLInputElement>(null);
  const [size, setSize] = useState({ top: 0, height: 400 });
  const [follows, setFollows] = useState(selected === undefined);
  const [current, setCurrent] = useState(0);
  const [needle, setNeedle] = useState(lines.needle);
  const view = visible(lines.length, size.top, size.height);
  const { first } = lines;

  const show = useCallback(
    (seq: number) => {
      const box = scroller.current;
      if (!box) return;
      setFollows(false);
      setCurrent(seq);
      box.scrollTop = view.topOf(seq - first);
    },
    [view, first],
  );

  // The lines that the address names are shown once they are there.
  const shown = useRef(false);
  useLayoutEffect(() => {
    if (!isLinked || !selected || shown.current || lines.last < selected.from) return;
    shown.current = true;
    show(selected.from);
  });

  // Who reads on keeps the line before their eyes while older ones are let go above it.
  const drawn = useRef(first);
  useLayoutEffect(() => {
    const gone = first - drawn.current;
    drawn.current = first;
    if (scroller.current && !follows && gone > 0) scroller.current.scrollTop -= gone * ROW;
  }, [first, follows]);

  useLayoutEffect(() => {
    const box = scroller.current;
    if (box && follows) box.scrollTop = box.scrollHeight;
    // After each drawing: whatever has moved it, its end is what is followed.
  });

  useEffect(() => {
    const box = scroller.current;
    if (!box) return;
    const observer = new ResizeObserver(() => setSize({ top: box.scrollTop, height: box.clientHeight }));
    observer.observe(box);
    return () => observer.disconnect();
  }, []);

  const step = (what: "match" | "error", forward: boolean) => {
    const seq = lines.step(what, current > 0 || forward ? current : lines.last + 1, forward);
    if (seq !== undefined) show(seq);
  };
  const look = (text: string) => {
    setNeedle(text);
    lines.search(text);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "f" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      search.current?.focus();
      search.current?.select();
    } else if (event.target !== scroller.current) return;
    else if (event.key === "/") {
      event.preventDefault();
      search.current?.focus();
    } else if (event.key === "n" || event.key === "N") step("match", event.key === "n");
    else if (event.key === "e" || event.key === "E") step("error", event.key === "e");
    else if (event.key === "End") setFollows(true);
    else if (event.key === "Home") show(first);
  };
  const pick = (seq: number, extend: boolean) => {
    // It is seen already.
    shown.current = true;
    setFollows(false);
    setCurrent(seq);
    if (extend && selected) onSelect({ from: Math.min(selected.from, seq), to: Math.max(selected.from, seq) });
    else onSelect(selected?.from === seq && selected.to === seq ? undefined : { from: seq, to: seq });
  };
  const copyLines = () => {
    const text = selected ? lines.text(selected.from, selected.to) : lines.text(first, lines.last);
    void copy(text).then(() => say(selected ? "Lines copied" : `The whole ${name} is copied`), complain);
  };
  const copies = selected ? "Copy the selected lines" : `Copy the whole ${name}`;
  const rank = needle === "" ? 0 : lines.matchRank(current);
  const rows: Row[] = [];
  for (let index = view.first; index < view.last; index += 1) rows.push(lines.row(first + index));
  const digits = { "--digits": `${Math.max(3, String(lines.last).length)}ch` } as CSSProperties;

  return (
    // The keys are those of the log within; its controls are reached with Tab.
    // eslint-disable-next-line jsx-a11y/no-static-element-interactions
    <div className="log" onKeyDown={onKeyDown}>
      <div className="log-bar">
        <div className="log-search">
          <Search size={15} aria-hidden />
          <input
            ref={search}
            type="search"
            aria-label={`Search the ${name}`}
            placeholder="Search  /"
            spellCheck={false}
            value={needle}
            onChange={(event) => look(event.target.value)}
            onKeyDown={(event) => {
              if (event.key === "Enter") step("match", !event.shiftKey);
              if (event.key === "Escape") {
                look("");
                scroller.current?.focus();
              }
            }}
          />
          {needle === "" ? null : (
            <>
              <span className="log-count" role="status">
                {lines.matches === 0 ? (lines.isSearching ? "…" : "none") : current === 0 ? `${lines.matches.toLocaleString("en")} found` : `${Math.min(rank, lines.matches)}/${lines.matches.toLocaleString("en")}`}
              </span>
              <button type="button" className="icon-button" aria-label="Previous match" onClick={() => step("match", false)}>
                <ArrowUp size={15} aria-hidden />
              </button>
              <button type="button" className="icon-button" aria-label="Next match" onClick={() => step("match", true)}>
                <ArrowDown size={15} aria-hidden />
              </button>
            </>
          )}
        </div>
        <span className="log-state" data-state={state}>
          <span className="dot" aria-hidden /> {state === "ended" ? ended : SAYS[state]} · {lines.length.toLocaleString("en")} {lines.length === 1 ? "line" : "lines"}
        </span>
        <div className="log-tools">
          {lines.errors > 0 ? (
            <button type="button" className="button button-small button-error" onClick={() => step("error", true)} title="Next error (e)">
              <CircleAlert size={15} aria-hidden /> {lines.errors.toLocaleString("en")} <span className="wide">{lines.errors === 1 ? "error" : "errors"}</span>
            </button>
          ) : null}
          <button type="button" className="button button-small" aria-pressed={follows} onClick={() => setFollows(!follows)}>
            {follows ? <Pause size={15} aria-hidden /> : <ArrowDownToLine size={15} aria-hidden />}
            <span className="wide">{follows ? "Pause" : "Follow"}</span>
            <span className="narrow visually-hidden">{follows ? "Pause" : "Follow"}</span>
          </button>
          {selected && isLinked ? (
            <button
              type="button"
              className="icon-button"
              aria-label="Copy a link to these lines"
              title="Copy a link to these lines"
              onClick={() => void copy(window.location.href).then(() => say(`The link to ${format(selected)} is copied`), complain)}
            >
              <LinkIcon size={16} aria-hidden />
            </button>
          ) : null}
          <button type="button" className="icon-button" aria-label={copies} title={copies} onClick={copyLines}>
            <Copy size={16} aria-hidden />
          </button>
          <a className="icon-button" aria-label={`Download the ${name}`} title={`Download the ${name}`} href={download} download>
            <Download size={16} aria-hidden />
          </a>
        </div>
      </div>
      <div className="log-note" role="status">
        {note}
      </div>
      {first > 1 ? <p className="log-gone">The oldest {(first - 1).toLocaleString("en")} lines were let go. The download has everything that is still kept.</p> : null}
      <div
        ref={scroller}
        className="log-lines"
        role="log"
        aria-label={label}
        aria-live="off"
        // It is scrolled and searched with keys.
        // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
        tabIndex={0}
        style={digits}
        onScroll={(event) => {
          const box = event.currentTarget;
          setSize({ top: box.scrollTop, height: box.clientHeight });
        }}
        onWheel={(event) => event.deltaY < 0 && setFollows(false)}
        onTouchMove={() => setFollows(false)}
        onKeyDownCapture={(event) => {
          if (["ArrowUp", "PageUp", "Home"].includes(event.key)) setFollows(false);
        }}
        onPointerDown={(event) => {
          // On the scroll bar.
          if (event.target === event.currentTarget) setFollows(false);
        }}
      >
        {lines.length === 0 && state !== "broken" ? <p className="log-empty">{state === "ended" ? `The ${name} is empty.` : "Waiting for the first line…"}</p> : null}
        <div className="log-height" style={{ height: view.height }}>
          <div className="log-window" style={{ transform: `translateY(${view.offset}px)` }}>
            {rows.map((row) => (
              <Line key={row.seq} row={row} isSelected={contains(selected, row.seq)} isCurrent={row.seq === current} needle={needle} onPick={pick} names={isLinked ? "Link to this line" : "Select this line"} />
            ))}
          </div>
        </div>
      </div>
    </div>
  );
}

interface LineProps {
  row: Row;
  isSelected: boolean;
  isCurrent: boolean;
  needle: string;
  onPick: (seq: number, extend: boolean) => void;
  /** What its number does. */
  names: string;
}

function Line({ row, isSelected, isCurrent, needle, onPick, names }: LineProps) {
  const classes = ["line", `line-${row.kind}`];
  if (row.isWrong) classes.push("line-wrong");
  if (isSelected) classes.push("line-selected");
  if (isCurrent) classes.push("line-current");
  return (
    <div className={classes.join(" ")} style={{ height: ROW }} data-line={row.seq}>
      <button
        type="button"
        className="line-number"
        tabIndex={-1}
        aria-label={`Line ${row.seq}`}
        title={`${names}; with Shift, all up to it`}
        onClick={(event) => onPick(row.seq, event.shiftKey)}
      >
        {row.seq}
      </button>
      {row.at === undefined ? <span className="line-stream">{row.kind === "stderr" ? "err" : ""}</span> : <span className="line-time">{clock(row.at)}</span>}
      <span className="line-text">
        {spans(row.text).map((span, index) => (
          <span key={index} className={span.className} style={span.color || span.background ? { color: span.color, backgroundColor: span.background } : undefined}>
            {needle === "" ? span.text : <Marked text={span.text} needle={needle} />}
          </span>
        ))}
      </span>
    </div>
  );
}

function Marked({ text, needle }: { text: string; needle: string }) {
  const parts = [];
  const lower = text.toLowerCase();
  const wanted = needle.toLowerCase();
  let at = 0;
  for (let found = lower.indexOf(wanted); found >= 0; found = lower.indexOf(wanted, at)) {
    parts.push(text.slice(at, found), <mark key={found}>{text.slice(found, found + needle.length)}</mark>);
    at = found + needle.length;
  }
  return [...parts, text.slice(at)];
}
