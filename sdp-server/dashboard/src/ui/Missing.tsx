import type { ReactNode } from "react";
import { ApiProblem } from "../api/problem";
import { Page } from "./page";
import { Failure } from "./states";

/** In the place of a page about one thing that could not be read: why, and where to go instead. */
export function Missing({ title, error, retry, back }: { title: string; error: unknown; retry: () => void; back: ReactNode }) {
  // Asked again, it would be refused again.
  const isRefused = error instanceof ApiProblem && error.status < 500;
  return (
    <Page title={title} tab={title}>
      <section className="panel">
        <Failure error={error} retry={isRefused ? undefined : retry} action={back} />
      </section>
    </Page>
  );
}
