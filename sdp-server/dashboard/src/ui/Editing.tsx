import { useQuery } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { client, take } from "../api/client";
import type { Edited } from "../api/edited";
import { ApiProblem, formError } from "../api/problem";
import { FormError, Loaded } from "./states";
import { Time } from "./time";

interface EditingProps<T> {
  /** What it is: `["environment", "qa"]`. */
  of: readonly string[];
  read: () => Promise<Edited<T>>;
  children: (edited: Edited<T>, again: () => void) => ReactNode;
}

/** Reads what is to be edited as it is now, and shows the form for it; anew when asked to. */
export function Editing<T>({ of, read, children }: EditingProps<T>) {
  const [turn, setTurn] = useState(0);
  const query = useQuery({ queryKey: ["edited", ...of, turn], queryFn: read, staleTime: Infinity, gcTime: 0 });
  return (
    <Loaded query={query} rows={3}>
      {(edited) => (
        <Held key={turn} edited={edited}>
          {(held) => children(held, () => setTurn(turn + 1))}
        </Held>
      )}
    </Loaded>
  );
}

/** Keeps what the form began with: only of that it can say that it has been seen. */
function Held<T>({ edited, children }: { edited: Edited<T>; children: (edited: Edited<T>) => ReactNode }) {
  const [held] = useState(edited);
  return children(held);
}

interface SaveErrorProps {
  error: unknown;
  fields: readonly string[];
  /** As the audit log names what is edited: `environments/qa`. */
  subject: string;
  onReload: () => void;
  onOverwrite: () => void;
}

/** Why something was not saved. Where somebody else was faster: who, and a choice. */
export function SaveError({ error, fields, subject, onReload, onOverwrite }: SaveErrorProps) {
  const isChanged = error instanceof ApiProblem && error.status === 412;
  const last = useQuery({
    queryKey: ["audit", "last", subject],
    queryFn: () => take(client.GET("/api/audit", { params: { query: { subject, limit: 1 } } })),
    enabled: isChanged,
    staleTime: 0,
  });
  if (!isChanged) return <FormError text={formError(error, fields)} />;
  const by = last.data?.items[0];
  return (
    <div className="notice notice-warn" role="alert">
      <p>
        {by ? (
          <>
            <strong>{by.user ?? "The platform"}</strong> changed it meanwhile, <Time at={by.at} />.
          </>
        ) : (
          "It was changed meanwhile."
        )}{" "}
        Nothing is saved yet, and what you typed is still here.
      </p>
      <div className="actions">
        <button type="button" className="button button-small" onClick={onReload}>
          Reload, and lose what I typed
        </button>
        <button type="button" className="button button-small button-danger" onClick={onOverwrite}>
          Overwrite with mine
        </button>
      </div>
    </div>
  );
}
