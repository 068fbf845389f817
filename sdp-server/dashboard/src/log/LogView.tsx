import { ArrowDownToLine, ArrowUp, ArrowDown, CircleAlert, Copy, Download, Link as LinkIcon, Pause, Search } from "lucide-react";
import { type CSSProperties, type KeyboardEvent, useCallback, useEffect, useLayoutEffect, useRef, useState, useSyncExternalStore } from "react";
import { copy } from "../ui/copy";
import { clock } from "../ui/time";
import { complain, say } from "../ui/toast";
import { spans } from "./ansi";
import type { LogStore, Row } from "./store";
import type { StreamState } from "./stream";
import { type Range, contains, format, window as visible, ROW } from "./view";

interface LogViewProps {
  store: LogStore;
  state: StreamState;
  /** The lines that the page's address names. */
  selected: Range | undefined;
  onSelect: (range: Range | undefined) => void;
  download: string;
}

const SAYS: Record<StreamState, string> = {
  connecting: "connecting…",
  live: "live",
  away: "reconnecting…",
  ended: "complete",
};

/** A log of any length: only what is seen of it is drawn. */
export function LogView({ store, state, selected, onSelect, download }: LogViewProps) {
  useSyncExternalStore(store.subscribe, store.version);
  const scroller = useRef<HTMLDivElement>(null);
  const search = useRef<HTMLInputElement>(null);
  const [size, setSize] = useState({ top: 0, height: 400 });
  const [follows, setFollows] = useState(selected === undefined);
  const [current, setCurrent] = useState(-1);
  const [needle, setNeedle] = useState("");
  const view = visible(store.length, size.top, size.height);

  const show = useCallback(
    (index: number) => {
      const box = scroller.current;
      if (!box) return;
      setFollows(false);
      setCurrent(index);
      box.scrollTop = view.topOf(index);
    },
    [view],
  );

  // The lines that the address names are shown once they are there.
  const shown = useRef(false);
  useLayoutEffect(() => {
    if (!selected || shown.current || store.length < selected.from) return;
    shown.current = true;
    show(selected.from - 1);
  });

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
    const index = store.step(what, current < 0 ? (forward ? -1 : store.length) : current, forward);
    if (index !== undefined) show(index);
  };
  const look = (text: string) => {
    setNeedle(text);
    store.search(text);
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
    else if (event.key === "Home") show(0);
  };
  const pick = (seq: number, extend: boolean) => {
    setCurrent(seq - 1);
    if (extend && selected) onSelect({ from: Math.min(selected.from, seq), to: Math.max(selected.from, seq) });
    else onSelect(selected?.from === seq && selected.to === seq ? undefined : { from: seq, to: seq });
  };
  const copyLines = () => {
    const text = selected ? store.text(selected.from - 1, selected.to - 1) : store.text(0, store.length - 1);
    void copy(text).then(() => say(selected ? "Lines copied" : "The whole log is copied"), complain);
  };
  const rank = needle === "" ? 0 : store.matchRank(current + 1);
  const rows: Row[] = [];
  for (let index = view.first; index < view.last; index += 1) rows.push(store.row(index));
  const digits = { "--digits": `${Math.max(3, String(store.length).length)}ch` } as CSSProperties;

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
            aria-label="Search the log"
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
                {store.matches === 0 ? (store.isSearching ? "…" : "none") : current < 0 ? `${store.matches.toLocaleString("en")} found` : `${Math.min(rank, store.matches)}/${store.matches.toLocaleString("en")}`}
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
          <span className="dot" aria-hidden /> {SAYS[state]} · {store.length.toLocaleString("en")} lines
        </span>
        <div className="log-tools">
          {store.errors > 0 ? (
            <button type="button" className="button button-small button-error" onClick={() => step("error", true)} title="Next error (e)">
              <CircleAlert size={15} aria-hidden /> {store.errors.toLocaleString("en")} <span className="wide">{store.errors === 1 ? "error" : "errors"}</span>
            </button>
          ) : null}
          <button type="button" className="button button-small" aria-pressed={follows} onClick={() => setFollows(!follows)}>
            {follows ? <Pause size={15} aria-hidden /> : <ArrowDownToLine size={15} aria-hidden />}
            <span className="wide">{follows ? "Pause" : "Follow"}</span>
            <span className="narrow visually-hidden">{follows ? "Pause" : "Follow"}</span>
          </button>
          {selected ? (
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
          <button type="button" className="icon-button" aria-label={selected ? "Copy the selected lines" : "Copy the whole log"} title={selected ? "Copy the selected lines" : "Copy the whole log"} onClick={copyLines}>
            <Copy size={16} aria-hidden />
          </button>
          <a className="icon-button" aria-label="Download the log" title="Download the log" href={download} download>
            <Download size={16} aria-hidden />
          </a>
        </div>
      </div>
      <div
        ref={scroller}
        className="log-lines"
        role="log"
        aria-label="Log"
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
        {store.length === 0 ? <p className="log-empty">{state === "ended" ? "The log is empty." : "Waiting for the first line…"}</p> : null}
        <div className="log-height" style={{ height: view.height }}>
          <div className="log-window" style={{ transform: `translateY(${view.offset}px)` }}>
            {rows.map((row) => (
              <Line key={row.seq} row={row} isSelected={contains(selected, row.seq)} isCurrent={row.seq - 1 === current} needle={needle} onPick={pick} />
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
}

function Line({ row, isSelected, isCurrent, needle, onPick }: LineProps) {
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
        title="Link to this line; with Shift, to all up to it"
        onClick={(event) => onPick(row.seq, event.shiftKey)}
      >
        {row.seq}
      </button>
      <span className="line-time">{clock(row.at)}</span>
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
