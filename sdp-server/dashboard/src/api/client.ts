import createClient from "openapi-fetch";
import { isOnce } from "./once";
import { asProblem } from "./problem";
import type { paths } from "./schema";

/** Where the server is: beside the page, wherever a proxy has put both. */
export const base = new URL(".", document.baseURI);

/** The address of one of the server's sockets. */
export function socketUrl(path: string, query: Record<string, string | number | undefined>): string {
  const url = new URL(path, base);
  url.protocol = base.protocol === "https:" ? "wss:" : "ws:";
  for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, String(value));
  return url.href;
}

/** `crypto.randomUUID` is not there on pages served without TLS. */
function newKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function persistently(request: Request): Promise<Response> {
  if (!isOnce(request.method, request.url)) return fetch(request);
  request.headers.set("idempotency-key", newKey());
  for (const wait of [300, 1_000]) {
    try {
      return await fetch(request.clone());
    } catch {
      await pause(wait);
    }
  }
  return fetch(request);
}

export const client = createClient<paths>({
  baseUrl: base.href.replace(/\/$/, ""),
  fetch: persistently,
  headers: { accept: "application/json" },
});

let onSignedOut: () => void = () => {};

/** Says what is to happen when a session turns out to be over. */
export function whenSignedOut(callback: () => void): void {
  onSignedOut = callback;
}

export interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** What was asked for, or an `ApiProblem`. */
export async function take<T>(call: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await call;
  if (response.ok) return data as T;
  if (response.status === 401 && !response.url.endsWith("/api/login")) onSignedOut();
  throw asProblem(error, response);
}
