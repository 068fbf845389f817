import type { UseQueryResult } from "@tanstack/react-query";
import { CircleAlert, Inbox } from "lucide-react";
import type { ReactNode } from "react";
import { sentence } from "../api/problem";

/** That there is nothing yet, and what to do about it. */
export function Empty({ title, children, action }: { title: string; children?: ReactNode; action?: ReactNode }) {
  return (
    <div className="state">
      <Inbox size={28} aria-hidden />
      <p className="state-title">{title}</p>
      {children ? <p className="muted">{children}</p> : null}
      {action}
    </div>
  );
}

/** Why something is not shown, and a way to try again. */
export function Failure({ error, retry, action }: { error: unknown; retry?: (() => void) | undefined; action?: ReactNode }) {
  return (
    <div className="state" role="alert">
      <CircleAlert size={28} aria-hidden className="bad" />
      <p className="state-title">This could not be loaded</p>
      <p className="muted">{sentence(error)}</p>
      {retry ? (
        <button type="button" className="button" onClick={retry}>
          Try again
        </button>
      ) : null}
      {action}
    </div>
  );
}

/** Where something is about to be. */
export function Loading({ rows = 4 }: { rows?: number }) {
  return (
    <div className="skeletons" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, index) => (
        <div key={index} className="skeleton" />
      ))}
    </div>
  );
}

/** What a query has, or how it stands. What was there before stays while it is read again. */
export function Loaded<T>({ query, children, rows }: { query: UseQueryResult<T>; children: (data: T) => ReactNode; rows?: number }) {
  if (query.data !== undefined) return children(query.data);
  if (query.isError) return <Failure error={query.error} retry={() => void query.refetch()} />;
  return <Loading rows={rows ?? 4} />;
}

/** A refusal that is about no single field. */
export function FormError({ text }: { text: string | undefined }) {
  return text === undefined ? null : (
    <p className="notice notice-error" role="alert">
      {text}
    </p>
  );
}
