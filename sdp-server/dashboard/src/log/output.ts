import { client, socketUrl, take } from "../api/client";
import { ApiProblem } from "../api/problem";
import type { Problem } from "../api/types";
import type { Limit, Lines } from "./lines";
import { type Told, type Tell, stream } from "./stream";

/** How many of the lines that are there already are shown. */
export const TAIL = 1_000;

/** What a program prints has no end. */
export const KEPT: Limit = { lines: 20_000, characters: 32_000_000 };

/** What comes, a line of JSON each. */
type Message = { type?: undefined; stream: "stdout" | "stderr"; line: string } | { type: "end" } | { type: "broken"; problem: Problem };

/** Brings the last lines that a deployment's program has printed, then what it prints, until it ends. Nothing is kept on
 * the way: after a lost connection it begins again. */
export function followOutput(id: string, lines: Lines, tell: Tell): () => void {
  return stream(
    {
      url: () => socketUrl(`ws/deployments/${id}/output`, { tail: TAIL }),
      opened: () => lines.clear(),
      take(text) {
        const message = JSON.parse(text) as Message;
        if (message.type === "end") return { state: "ended" };
        if (message.type === "broken") {
          // Its agent is away for a moment: the socket is closed now, and opened again.
          return message.problem.retryable ? undefined : { state: "broken", why: message.problem.detail };
        }
        // Of a newer server, perhaps.
        if (typeof message.line === "string") lines.push(message.stream, message.line);
        return undefined;
      },
      refused: () => refusal(id),
    },
    tell,
  );
}

/** What the server has against it: a browser does not say how a handshake was answered, so the same is asked for as a document. */
async function refusal(id: string): Promise<Told | undefined> {
  try {
    await take(client.GET("/api/deployments/{id}/output", { params: { path: { id }, query: { tail: 0 } }, parseAs: "text" }));
  } catch (error) {
    if (error instanceof ApiProblem) return { state: error.problem.retryable ? "away" : "broken", why: error.problem.detail };
  }
  return undefined;
}
