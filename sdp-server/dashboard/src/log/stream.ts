export type StreamState = "connecting" | "live" | "away" | "ended" | "broken";

/** How a stream stands. */
export interface Told {
  state: StreamState;
  /** Why it is so, as a sentence, where that is known. */
  why?: string;
}

export type Tell = (told: Told) => void;

/** What is streamed. */
export interface Source {
  /** Its socket's address, for each connection anew. */
  url: () => string;
  /** Before the first message of a connection. */
  opened?: () => void;
  /** Takes a line of a message in; answers how it came to its end, if that was it. */
  take: (line: string) => Told | undefined;
  /** Asked after a connection that never opened: why, and it is `broken` when another attempt cannot help. */
  refused?: () => Promise<Told | undefined>;
}

/** How long lines are taken in before the page may draw. */
const SLICE_MS = 10;

/** Takes in what a source's socket tells until its end, and connects again whenever the connection is lost. */
export function stream(source: Source, tell: Tell): () => void {
  let socket: WebSocket | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let failures = 0;
  let hasEnded = false;
  let isOver = false;
  const waiting: string[] = [];
  let isTaking = false;

  const end = (told: Told) => {
    hasEnded = true;
    tell(told);
  };
  const takeIn = () => {
    isTaking = false;
    if (isOver) return;
    const until = performance.now() + SLICE_MS;
    let done = 0;
    while (done < waiting.length && performance.now() < until) {
      for (const line of (waiting[done] ?? "").split("\n")) {
        const told = source.take(line);
        if (told) end(told);
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
  const reconnect = (told: Told = { state: "away" }) => {
    tell(told);
    failures += 1;
    timer = setTimeout(connect, Math.min(10_000, 250 * 2 ** failures) * (0.5 + Math.random() / 2));
  };
  const refused = async () => {
    const told = await source.refused?.();
    if (isOver) return;
    if (told?.state === "broken") end(told);
    else reconnect(told);
  };
  const connect = () => {
    let wasOpen = false;
    const opened = new WebSocket(source.url());
    socket = opened;
    opened.onopen = () => {
      wasOpen = true;
      source.opened?.();
      tell({ state: "live" });
    };
    opened.onmessage = (message: MessageEvent<string>) => {
      failures = 0;
      waiting.push(message.data);
      schedule();
    };
    opened.onclose = () => {
      if (socket !== opened) return;
      socket = undefined;
      // What has come is taken in first: the next connection begins after it.
      if (isOver || hasEnded || waiting.length > 0) return;
      if (wasOpen) reconnect();
      else void refused();
    };
  };
  tell({ state: "connecting" });
  connect();
  return () => {
    isOver = true;
    clearTimeout(timer);
    const last = socket;
    socket = undefined;
    last?.close();
  };
}
