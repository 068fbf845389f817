import { useSyncExternalStore } from "react";

function subscribeEvery(seconds: number) {
  return (listener: () => void) => {
    const timer = setInterval(listener, seconds * 1_000);
    return () => clearInterval(timer);
  };
}

const everySecond = subscribeEvery(1);
const everyTenSeconds = subscribeEvery(10);
const never = () => () => {};

/** Now, to the second where time is watched, to ten where it is not. */
export function useNow(isWatched: boolean): number {
  const step = isWatched ? 1_000 : 10_000;
  return useSyncExternalStore(isWatched ? everySecond : everyTenSeconds, () => Math.floor(Date.now() / step) * step);
}

/** As `useNow`, and not at all where nothing moves. */
export function useClock(moves: boolean): number {
  return useSyncExternalStore(moves ? everySecond : never, () => (moves ? Math.floor(Date.now() / 1_000) * 1_000 : 0));
}

const UNITS: [Intl.RelativeTimeFormatUnit, number][] = [
  ["year", 31_536_000],
  ["month", 2_592_000],
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];
const relative = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "long" });

/** `3 minutes ago`, `in 2 days`. */
export function ago(at: number, now: number): string {
  const seconds = (at - now) / 1_000;
  // Now may be ten seconds old.
  if (Math.abs(seconds) < 45) return seconds > 10 ? "in a moment" : "just now";
  for (const [unit, size] of UNITS) {
    if (Math.abs(seconds) >= size * 0.95) return relative.format(Math.round(seconds / size), unit);
  }
  return relative.format(Math.sign(seconds), "minute");
}

/** `240 ms`, `3.4 s`, `2 min 5 s`, `1 h 3 min`. */
export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1_000);
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
}

const absolute = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** A time as people say it, and exactly on hover. */
export function Time({ at }: { at: string }) {
  const now = useNow(false);
  const when = Date.parse(at);
  return (
    <time dateTime={at} title={absolute.format(when)}>
      {ago(when, Math.max(now, Date.now() - 10_000))}
    </time>
  );
}

/** The time of day, to the millisecond, as logs have it. */
export function clock(at: number): string {
  const date = new Date(at);
  const two = (value: number) => String(value).padStart(2, "0");
  const ms = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${ms}`;
}
