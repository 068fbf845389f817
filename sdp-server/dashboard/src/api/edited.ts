import { type Answer, take } from "./client";

/** Something with the version that was read of it, which saving names so that nobody's change is lost. */
export interface Edited<T> {
  value: T;
  version: string | undefined;
}

/** What was asked for, with its version. */
export async function takeEdited<T>(call: Promise<Answer<T>>): Promise<Edited<T>> {
  const answer = await call;
  return { value: await take(Promise.resolve(answer)), version: strong(answer.response.headers.get("etag")) };
}

/** A proxy that packs answers marks their tags as weak, which the server would match with nothing. */
export const strong = (tag: string | null): string | undefined => tag?.replace(/^W\//, "") ?? undefined;
