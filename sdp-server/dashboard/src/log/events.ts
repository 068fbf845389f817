import { socketUrl } from "../api/client";
import { type DeploymentState, type Stage, isActive } from "../api/types";
import { plain } from "./ansi";
import { Lines, type RowKind } from "./lines";
import { type Tell, stream } from "./stream";

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

/** Takes an event that follows the last of a log, whose lines are its events; one that is known already is left out. */
export function append(lines: Lines, event: LogEvent): void {
  if (event.seq <= lines.last) return;
  const [kind, text] = row(event);
  lines.push(kind, text, Date.parse(event.at));
}

/** Brings a deployment's whole log, then what follows, until it ends. Resumes where it was cut off. */
export function followLog(id: string, lines: Lines, tell: Tell): () => void {
  return stream(
    {
      url: () => socketUrl(`ws/deployments/${id}`, { from: lines.last + 1 }),
      take(message) {
        const event = JSON.parse(message) as LogEvent | { type: "end" };
        if (event.type === "end") return { state: "ended" };
        append(lines, event);
        return undefined;
      },
    },
    tell,
  );
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
