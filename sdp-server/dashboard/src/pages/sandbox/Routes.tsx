import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { type FormEvent, useState } from "react";
import { client, take } from "../../api/client";
import { ApiProblem, fieldError, sentence } from "../../api/problem";
import { queries } from "../../api/queries";
import type { Route, RouteTable, RouteTarget, SandboxDetail } from "../../api/types";
import { Badge, OriginBadge } from "../../ui/badge";
import { Dialog } from "../../ui/dialog";
import { Field } from "../../ui/field";
import { Panel } from "../../ui/page";
import { Empty, Failure, FormError, Loading } from "../../ui/states";
import { Time } from "../../ui/time";
import { complain, say } from "../../ui/toast";

interface Wanted {
  service: string;
  target: RouteTarget;
  takeover?: boolean;
  reason?: string;
  expires_in?: string;
}

/** Where a route leads, seen from one sandbox. */
export function position(route: Route, sandbox: string): "ocp" | "sandbox" | "custom" | "other" {
  if (route.owner != null && route.owner !== sandbox && route.origin !== "ocp") return "other";
  if (route.origin === "sandbox") return "sandbox";
  return route.origin === "custom" ? "custom" : "ocp";
}

/** A table as it will be once the gateway has done what it is asked to. */
export function expected(table: RouteTable, { service, target }: Wanted, sandbox: string): RouteTable {
  const routes = table.routes.map((route): Route => {
    if (route.service !== service) return route;
    if (target === "ocp") return { ...route, origin: "ocp", value: route.default, owner: null, reason: null, expires_at: null, effective: null };
    if (target === "sandbox") return { ...route, origin: "sandbox", owner: sandbox, effective: null };
    return { ...route, origin: "custom", value: target.url, owner: sandbox, effective: null };
  });
  return { ...table, routes };
}

/** The gateway's table as its file says it now, with a switch for each service. */
export function Routes({ sandbox, isMine }: { sandbox: SandboxDetail; isMine: boolean }) {
  const { name } = sandbox;
  const cache = useQueryClient();
  const query = useQuery({ ...queries.routes(name), refetchInterval: 30_000 });
  const [custom, setCustom] = useState<Route>();
  const [contested, setContested] = useState<{ wanted: Wanted; problem: ApiProblem }>();
  // What is asked for stands until it is answered, whatever is read of the table meanwhile.
  const [asked, setAsked] = useState<ReadonlyMap<string, Wanted>>(new Map());
  const key = queries.routes(name).queryKey;
  const set = useMutation({
    mutationFn: ({ service, ...body }: Wanted) =>
      take(client.PUT("/api/sandboxes/{name}/routes/{service}", { params: { path: { name, service } }, body: { takeover: false, ...body } })),
    onSuccess: async (table, { service }) => {
      // One that was read before the change may still be on its way.
      await cache.cancelQueries({ queryKey: key });
      cache.setQueryData(key, table);
      setCustom(undefined);
      setContested(undefined);
      const now = table.routes.find((route) => route.service === service);
      say(`${service} now leads to ${now?.origin === "ocp" ? "the stable cluster" : (now?.value ?? "nothing")}`);
      void cache.invalidateQueries({ queryKey: ["sandbox", name] });
    },
    onError: (error, wanted) => {
      void cache.invalidateQueries({ queryKey: key });
      if (error instanceof ApiProblem && error.problem.holder != null && error.status === 409 && !wanted.takeover) setContested({ wanted, problem: error });
      else if (typeof wanted.target === "string") complain(error);
    },
    onSettled: (_table, _error, { service }) => setAsked((all) => new Map([...all].filter(([it]) => it !== service))),
  });
  const ask = (wanted: Wanted) => {
    setAsked((all) => new Map(all).set(wanted.service, wanted));
    set.mutate(wanted);
  };
  const table = query.data && [...asked.values()].reduce((table, wanted) => expected(table, wanted, name), query.data);
  return (
    <Panel
      title="Routes"
      actions={
        table ? (
          <span className="muted">
            {sandbox.gateway ? "its own gateway" : "the shared gateway"}
            {table.branch ? `, branch ${table.branch}` : ""}
          </span>
        ) : null
      }
      flush
    >
      {table ? (
        <>
          {(table.warnings ?? []).map((warning) => (
            <p key={warning} className="notice notice-warn notice-flush">
              {warning}
            </p>
          ))}
          {table.routes.length === 0 ? <Empty title="The gateway's configuration has no service" /> : null}
          <ul className="list">
            {table.routes.map((route) => (
              <RouteRow
                key={route.service}
                route={route}
                sandbox={name}
                note={(table.not_routable)?.[route.service]}
                isMine={isMine}
                isBusy={asked.has(route.service)}
                onSet={(target) => ask({ service: route.service, target })}
                onCustom={() => {
                  set.reset();
                  setCustom(route);
                }}
              />
            ))}
          </ul>
        </>
      ) : query.isError ? (
        <Failure error={query.error} retry={() => void query.refetch()} />
      ) : (
        <Loading rows={2} />
      )}
      {custom ? <CustomUrl route={custom} error={set.error} isPending={set.isPending} onSet={ask} onClose={() => setCustom(undefined)} /> : null}
      {contested ? (
        <Dialog title={`${contested.problem.problem.holder ?? "Another sandbox"} holds ${contested.wanted.service}`} onClose={() => setContested(undefined)}>
          <div className="stack">
            <p>{contested.problem.message}</p>
            <p className="muted">Taking it over changes what that sandbox's people see. They are told.</p>
            <div className="actions">
              <button type="button" className="button" onClick={() => setContested(undefined)}>
                Leave it
              </button>
              <button type="button" className="button button-danger" disabled={set.isPending} onClick={() => ask({ ...contested.wanted, takeover: true })}>
                Take it over
              </button>
            </div>
          </div>
        </Dialog>
      ) : null}
    </Panel>
  );
}

interface RouteRowProps {
  route: Route;
  sandbox: string;
  note: string | undefined;
  isMine: boolean;
  isBusy: boolean;
  onSet: (target: RouteTarget) => void;
  onCustom: () => void;
}

function RouteRow({ route, sandbox, note, isMine, isBusy, onSet, onCustom }: RouteRowProps) {
  const at = position(route, sandbox);
  const differs = route.effective != null && !route.expression && route.effective !== route.value;
  return (
    <li className="route">
      <div className="route-main">
        <span className="strong">{route.service}</span>
        <OriginBadge origin={route.origin} />
        {at === "other" && route.owner ? (
          <Badge tone="warn">
            held by{" "}
            <Link to="/sandboxes/$name" params={{ name: route.owner }}>
              {route.owner}
            </Link>
          </Badge>
        ) : null}
        <code className="route-value">{route.value}</code>
      </div>
      <fieldset className="segmented" disabled={!isMine || isBusy} aria-busy={isBusy}>
        <legend className="visually-hidden">Where {route.service} leads</legend>
        <label>
          <input type="radio" name={`route-${route.service}`} checked={at === "ocp"} onChange={() => onSet("ocp")} />
          <span>OCP</span>
        </label>
        <label>
          <input type="radio" name={`route-${route.service}`} checked={at === "sandbox"} onChange={() => onSet("sandbox")} />
          <span>Sandbox</span>
        </label>
        <label>
          <input type="radio" name={`route-${route.service}`} checked={at === "custom"} onClick={at === "custom" ? onCustom : undefined} onChange={onCustom} />
          <span>Custom…</span>
        </label>
      </fieldset>
      {route.reason || route.expires_at || note || differs || route.origin === "drifted" ? (
        <p className="route-notes">
          {route.reason ? <span>“{route.reason}” </span> : null}
          {route.expires_at ? (
            <span>
              The claim ends <Time at={route.expires_at} />.{" "}
            </span>
          ) : null}
          {route.origin === "drifted" ? <span className="warn">Somebody changed it in the file by hand; setting it here overwrites that. </span> : null}
          {differs ? <span className="warn">The gateway was last seen to use {route.effective}. </span> : null}
          {note ? <span>Not by request: {note}</span> : null}
        </p>
      ) : null}
    </li>
  );
}

interface CustomUrlProps {
  route: Route;
  error: unknown;
  isPending: boolean;
  onSet: (wanted: Wanted) => void;
  onClose: () => void;
}

function CustomUrl({ route, error, isPending, onSet, onClose }: CustomUrlProps) {
  const [url, setUrl] = useState(route.origin === "custom" ? route.value : "");
  const [reason, setReason] = useState(route.reason ?? "");
  const [expires, setExpires] = useState("");
  // The field of a target that is a URL goes by any of these names.
  const named = ["target.url", "target", "url"].map((field) => fieldError(error, field)).find(Boolean);
  const about = named === undefined ? error : new ApiProblem({ ...(error as ApiProblem).problem, field: "url" });
  const isElsewhere = error && !["url", "reason", "expires_in"].some((field) => fieldError(about, field));
  const submit = (event: FormEvent) => {
    event.preventDefault();
    onSet({ service: route.service, target: { url }, ...(reason === "" ? {} : { reason }), ...(expires === "" ? {} : { expires_in: expires }) });
  };
  return (
    <Dialog title={`Where ${route.service} leads`} onClose={onClose}>
      <form className="form" onSubmit={submit}>
        <FormError text={isElsewhere ? sentence(error) : undefined} />
        <Field label="URL" name="url" error={about}>
          {(control) => <input {...control} className="input mono" type="url" required placeholder="http://10.0.0.7:8080" value={url} onChange={(event) => setUrl(event.target.value)} />}
        </Field>
        <div className="form-row">
          <Field label="Why" name="reason" error={error} optional hint="For those who would like the service.">
            {(control) => <input {...control} className="input" value={reason} onChange={(event) => setReason(event.target.value)} />}
          </Field>
          <Field label="For how long" name="expires_in" error={error} optional>
            {(control) => <input {...control} className="input" placeholder="2h" value={expires} onChange={(event) => setExpires(event.target.value)} />}
          </Field>
        </div>
        <div className="actions">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button button-primary" disabled={isPending}>
            Set the route
          </button>
        </div>
      </form>
    </Dialog>
  );
}
