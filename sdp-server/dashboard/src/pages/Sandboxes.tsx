import { useMutation, useQuery } from "@tanstack/react-query";
import { Link, getRouteApi, useNavigate } from "@tanstack/react-router";
import { Plus } from "lucide-react";
import { useState } from "react";
import { client, take } from "../api/client";
import { formError } from "../api/problem";
import { queries } from "../api/queries";
import type { ListedSandbox, ServiceSpec } from "../api/types";
import { SandboxBadge } from "../ui/badge";
import { BranchField } from "../ui/BranchField";
import { Dialog } from "../ui/dialog";
import { Field } from "../ui/field";
import { Page, Panel } from "../ui/page";
import { rank } from "../ui/rank";
import { Empty, FormError, Loaded } from "../ui/states";
import { Time, useNow } from "../ui/time";
import { say } from "../ui/toast";

const route = getRouteApi("/app/sandboxes");

export function Sandboxes() {
  const { q, create, template, clone } = route.useSearch();
  const navigate = route.useNavigate();
  const query = useQuery(queries.sandboxes);
  const isCreating = create !== undefined || template !== undefined || clone !== undefined;
  return (
    <Page
      title="Sandboxes"
      tab="Sandboxes"
      actions={
        <button type="button" className="button button-primary" onClick={() => void navigate({ search: { create: "plain" } })}>
          <Plus size={16} aria-hidden /> Create sandbox
        </button>
      }
    >
      <Panel flush>
        <Loaded query={query}>
          {(all) =>
            all.length === 0 ? (
              <Empty title="There is no sandbox yet">One holds branches of services and the routes that lead to them, for a while.</Empty>
            ) : (
              <>
                <div className="filters">
                  <input type="search" className="input" aria-label="Filter by name, owner, environment, repo or branch" placeholder="Filter by name, owner, environment, repo or branch" value={q ?? ""} onChange={(event) => void navigate({ search: { q: event.target.value || undefined }, replace: true })} />
                </div>
                <Rows items={rank(all, q ?? "", (it) => `${it.name} ${it.owner} ${it.environment} ${Object.entries(it.branches as Record<string, string>).flat().join(" ")}`)} />
              </>
            )
          }
        </Loaded>
      </Panel>
      {isCreating ? <Create from={{ template, clone }} onClose={() => void navigate({ search: { q }, replace: true })} /> : null}
    </Page>
  );
}

function Rows({ items }: { items: readonly ListedSandbox[] }) {
  const now = useNow(false);
  if (items.length === 0) return <Empty title="No sandbox fits">Change what is typed above.</Empty>;
  return (
    <table className="table">
      <thead>
        <tr>
          <th scope="col">Name</th>
          <th scope="col">State</th>
          <th scope="col">Services</th>
          <th scope="col">Owner</th>
          <th scope="col">Environment</th>
          <th scope="col">Expires</th>
          <th scope="col">Made</th>
        </tr>
      </thead>
      <tbody>
        {items.map((it) => (
          <tr key={it.name}>
            <td className="cell-main">
              <Link to="/sandboxes/$name" params={{ name: it.name }} className="strong">
                {it.name}
              </Link>
            </td>
            <td data-label="State">
              <SandboxBadge state={it.state} />
            </td>
            <td className="cell-detail" data-label="Services">
              <Services of={it} />
            </td>
            <td data-label="Owner">
              {it.owner}
              {it.shared_with?.length ? <span className="muted"> +{it.shared_with.length}</span> : null}
            </td>
            <td data-label="Environment">{it.environment}</td>
            <td data-label="Expires" className={Date.parse(it.expires_at) - now < 86_400_000 ? "warn" : undefined}>
              <Time at={it.expires_at} />
            </td>
            <td data-label="Made">
              <Time at={it.created_at} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** The repos in a sandbox, each with its branch. */
function Services({ of }: { of: ListedSandbox }) {
  const services = Object.entries(of.branches as Record<string, string>);
  if (services.length === 0) return <span className="muted">none</span>;
  return (
    <ul className="wrap">
      {services.map(([repo, branch]) => (
        <li key={repo}>
          {repo} <span className="branch">{branch}</span>
        </li>
      ))}
    </ul>
  );
}

type From = "plain" | "template" | "clone";
const FIELDS = ["name", "environment", "expires_in", "template", "clone_of", "branches"];

function Create({ from, onClose }: { from: { template?: string | undefined; clone?: string | undefined }; onClose: () => void }) {
  const navigate = useNavigate();
  const environments = useQuery(queries.environments).data ?? [];
  const templates = useQuery(queries.templates).data ?? [];
  const sandboxes = useQuery(queries.sandboxes).data ?? [];
  const [kind, setKind] = useState<From>(from.template !== undefined ? "template" : from.clone !== undefined ? "clone" : "plain");
  const [name, setName] = useState("");
  const [environment, setEnvironment] = useState("");
  const [expires, setExpires] = useState("");
  const [template, setTemplate] = useState(from.template ?? "");
  const [clone, setClone] = useState(from.clone ?? "");
  const [branches, setBranches] = useState<Record<string, string>>({});
  const [deploys, setDeploys] = useState(true);
  const original = useQuery({ ...queries.sandbox(clone), enabled: kind === "clone" && clone !== "" }).data;
  const services: readonly ServiceSpec[] = kind === "template" ? (templates.find((it) => it.name === template)?.services ?? []) : kind === "clone" ? (original?.services ?? []) : [];
  const create = useMutation({
    mutationFn: async () => {
      const other = Object.entries(branches).filter(([repo, branch]) => branch !== "" && services.some((it) => it.repo === repo && it.branch !== branch));
      const made = await take(
        client.POST("/api/sandboxes", {
          body: {
            name,
            ...(environment === "" ? {} : { environment }),
            ...(expires === "" ? {} : { expires_in: expires }),
            ...(kind === "template" ? { template } : kind === "clone" ? { clone_of: clone } : {}),
            ...(other.length === 0 ? {} : { branches: Object.fromEntries(other) }),
          },
        }),
      );
      if (services.length === 0 || !deploys) return made;
      // It is made whatever becomes of its services, which its page shows.
      const begun = await take(client.POST("/api/sandboxes/{name}/deploy", { params: { path: { name: made.name } }, body: {} })).catch(() => undefined);
      for (const refused of begun?.refused ?? []) say(`${refused.repo}: ${refused.problem.detail}`);
      return made;
    },
    onSuccess: (made) => {
      say(`Sandbox ${made.name} is made`);
      return navigate({ to: "/sandboxes/$name", params: { name: made.name } });
    },
  });
  return (
    <Dialog title="Create a sandbox" onClose={onClose}>
      <form
        className="form"
        onSubmit={(event) => {
          event.preventDefault();
          create.mutate();
        }}
      >
        <FormError text={formError(create.error, FIELDS)} />
        <fieldset className="segmented">
          <legend className="visually-hidden">Made from</legend>
          {(["plain", "template", "clone"] as const).map((it) => (
            <label key={it}>
              <input type="radio" name="from" checked={kind === it} onChange={() => setKind(it)} />
              <span>{it === "plain" ? "Empty" : it === "template" ? "From a template" : "Clone"}</span>
            </label>
          ))}
        </fieldset>
        <Field label="Name" name="name" error={create.error} hint="Lower-case letters, digits and hyphens.">
          {(control) => <input {...control} className="input" required autoComplete="off" autoCapitalize="off" spellCheck={false} placeholder="checkout" value={name} onChange={(event) => setName(event.target.value)} />}
        </Field>
        {kind === "template" ? (
          <Field label="Template" name="template" error={create.error}>
            {(control) => (
              <select {...control} className="input" required value={template} onChange={(event) => setTemplate(event.target.value)}>
                <option value="">{templates.length === 0 ? "There is none" : "Choose…"}</option>
                {templates.map((it) => (
                  <option key={it.name}>{it.name}</option>
                ))}
              </select>
            )}
          </Field>
        ) : null}
        {kind === "clone" ? (
          <Field label="Sandbox to clone" name="clone_of" error={create.error}>
            {(control) => (
              <select {...control} className="input" required value={clone} onChange={(event) => setClone(event.target.value)}>
                <option value="">{sandboxes.length === 0 ? "There is none" : "Choose…"}</option>
                {sandboxes.map((it) => (
                  <option key={it.name}>{it.name}</option>
                ))}
              </select>
            )}
          </Field>
        ) : null}
        {services.map((service) => (
          <BranchField key={service.repo} label={`Branch of ${service.repo}`} name="branches" repo={service.repo} value={branches[service.repo] ?? service.branch} onChange={(branch) => setBranches({ ...branches, [service.repo]: branch })} error={create.error} />
        ))}
        <div className="form-row">
          <Field label="Environment" name="environment" error={create.error}>
            {(control) => (
              <select {...control} className="input" value={environment} onChange={(event) => setEnvironment(event.target.value)}>
                <option value="">{kind === "clone" ? "The same" : "default"}</option>
                {environments.map((it) => (
                  <option key={it.name}>{it.name}</option>
                ))}
              </select>
            )}
          </Field>
          <Field label="Expires in" name="expires_in" error={create.error} optional>
            {(control) => <input {...control} className="input" list="lifetimes" placeholder="7d" value={expires} onChange={(event) => setExpires(event.target.value)} />}
          </Field>
          <datalist id="lifetimes">
            {["8h", "1d", "3d", "7d", "14d", "30d"].map((it) => (
              <option key={it} value={it} />
            ))}
          </datalist>
        </div>
        {services.length > 0 ? (
          <label className="check">
            <input type="checkbox" checked={deploys} onChange={(event) => setDeploys(event.target.checked)} />
            Deploy its {services.length === 1 ? "service" : `${services.length} services`} at once
          </label>
        ) : null}
        <div className="actions">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button button-primary" disabled={create.isPending}>
            {create.isPending ? "Creating…" : "Create"}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
