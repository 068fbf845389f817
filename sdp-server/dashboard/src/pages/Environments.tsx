import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Pencil, Plus, Trash2 } from "lucide-react";
import { type ReactNode, useEffect, useRef, useState } from "react";
import { client, take } from "../api/client";
import { type Edited, takeEdited } from "../api/edited";
import { queries } from "../api/queries";
import type { Environment } from "../api/types";
import { Confirm } from "../ui/dialog";
import { Editing, SaveError } from "../ui/Editing";
import { fromEnv, toEnv } from "../ui/env";
import { EnvEditor } from "../ui/EnvEditor";
import { Field } from "../ui/field";
import { Menu } from "../ui/menu";
import { Page } from "../ui/page";
import { Loaded } from "../ui/states";
import { say } from "../ui/toast";

export function Environments() {
  const query = useQuery(queries.environments);
  const isAdmin = useQuery(queries.me).data?.role === "admin";
  const cache = useQueryClient();
  const [edited, setEdited] = useState<string>();
  const [isNew, setNew] = useState(false);
  const [removed, setRemoved] = useState<Environment>();
  return (
    <Page
      title="Environments"
      tab="Environments"
      lead="Where sandboxes live: which agents and gateway, from which ports, with which variables, for how long."
      actions={
        isAdmin ? (
          <button type="button" className="button button-primary" onClick={() => setNew(true)}>
            <Plus size={16} aria-hidden /> New environment
          </button>
        ) : null
      }
    >
      <Loaded query={query}>
        {(all) => (
          <div className="cards">
            {isNew ? (
              <Place title="New environment">
                <EditEnvironment edited={undefined} onReload={() => undefined} onClose={() => setNew(false)} />
              </Place>
            ) : null}
            {all.map((it) =>
              edited === it.name ? (
                <Place key={it.name} title={it.name}>
                  <Editing of={["environment", it.name]} read={() => takeEdited(client.GET("/api/environments/{name}", { params: { path: { name: it.name } } }))}>
                    {(held, again) => <EditEnvironment edited={held} onReload={again} onClose={() => setEdited(undefined)} />}
                  </Editing>
                </Place>
              ) : (
                <Card key={it.name} environment={it} isAdmin={isAdmin} onEdit={() => setEdited(it.name)} onRemove={() => setRemoved(it)} />
              ),
            )}
          </div>
        )}
      </Loaded>
      {removed ? (
        <Confirm
          title={`Delete ${removed.name}?`}
          action="Delete the environment"
          onClose={() => setRemoved(undefined)}
          onConfirm={async () => {
            await take(client.DELETE("/api/environments/{name}", { params: { path: { name: removed.name } } }));
            say(`Environment ${removed.name} is deleted`);
            void cache.invalidateQueries({ queryKey: ["environments"] });
          }}
        >
          It must hold no sandbox.
        </Confirm>
      ) : null}
    </Page>
  );
}

interface CardProps {
  environment: Environment;
  isAdmin: boolean;
  onEdit: () => void;
  onRemove: () => void;
}

function Card({ environment: it, isAdmin, onEdit, onRemove }: CardProps) {
  const env = fromEnv(it.env);
  return (
    <section className="panel card" aria-label={it.name}>
      <div className="panel-head">
        <h2>{it.name}</h2>
        {isAdmin ? (
          <Menu
            label={`More for ${it.name}`}
            items={[
              { label: "Edit", icon: <Pencil size={15} aria-hidden />, onSelect: onEdit },
              { label: "Delete…", icon: <Trash2 size={15} aria-hidden />, isDanger: true, disabled: it.name === "default", onSelect: onRemove },
            ]}
          />
        ) : null}
      </div>
      <dl className="pairs panel-body">
        <dt>Gateway</dt>
        <dd>{it.gateway ?? <span className="muted">the server's</span>}</dd>
        <dt>Agents</dt>
        <dd>{it.agents.length > 0 ? it.agents.join(", ") : <span className="muted">any</span>}</dd>
        <dt>Ports</dt>
        <dd>{it.ports ?? <span className="muted">the agents' own</span>}</dd>
        <dt>Sandboxes live</dt>
        <dd>{it.sandbox_lifetime ?? <span className="muted">as the server says</span>}</dd>
        <dt>Sleep after</dt>
        <dd>{it.idle_after ?? <span className="muted">as the server says</span>}</dd>
        <dt>Variables</dt>
        <dd className="wrap">{env.length === 0 ? <span className="muted">none</span> : env.map(([name, value]) => <code key={name}>{`${name}=${value}`}</code>)}</dd>
      </dl>
    </section>
  );
}

/** Where an environment is edited: in the place of its card. */
function Place({ title, children }: { title: string; children: ReactNode }) {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => heading.current?.focus(), []);
  return (
    <section className="panel card-wide" aria-label={title}>
      <div className="panel-head">
        <h2 ref={heading} tabIndex={-1}>
          {title}
        </h2>
      </div>
      <div className="panel-body">{children}</div>
    </section>
  );
}

const FIELDS = ["name", "gateway", "agents", "ports", "sandbox_lifetime", "idle_after", "env"];

function EditEnvironment({ edited, onReload, onClose }: { edited: Edited<Environment> | undefined; onReload: () => void; onClose: () => void }) {
  const environment = edited?.value;
  const cache = useQueryClient();
  const agents = useQuery(queries.agents).data ?? [];
  const [name, setName] = useState(environment?.name ?? "");
  const [gateway, setGateway] = useState(environment?.gateway ?? "");
  const [chosen, setChosen] = useState<readonly string[]>(environment?.agents ?? []);
  const [ports, setPorts] = useState(environment?.ports ?? "");
  const [lifetime, setLifetime] = useState(environment?.sandbox_lifetime ?? "");
  const [idle, setIdle] = useState(environment?.idle_after ?? "");
  const [env, setEnv] = useState(() => fromEnv(environment?.env));
  const save = useMutation({
    mutationFn: (version: string | undefined) => {
      const body = {
        agents: [...chosen],
        env: toEnv(env),
        ...(gateway === "" ? {} : { gateway }),
        ...(ports === "" ? {} : { ports }),
        ...(lifetime === "" ? {} : { sandbox_lifetime: lifetime }),
        ...(idle === "" ? {} : { idle_after: idle }),
      };
      return take(environment ? client.PUT("/api/environments/{name}", { params: { path: { name: environment.name }, header: { "If-Match": version } }, body }) : client.POST("/api/environments", { body: { name, ...body } }));
    },
    onSuccess: (saved) => {
      void cache.invalidateQueries({ queryKey: ["environments"] });
      say(`Environment ${saved.name} is saved`);
      onClose();
    },
  });
  return (
    <form
      className="form"
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate(edited?.version);
      }}
    >
      <SaveError error={save.error} fields={FIELDS} subject={`environments/${name}`} onReload={onReload} onOverwrite={() => save.mutate(undefined)} />
      <div className="form-row">
        <Field label="Name" name="name" error={save.error}>
          {(control) => <input {...control} className="input" required disabled={environment !== undefined} autoCapitalize="off" spellCheck={false} value={name} onChange={(event) => setName(event.target.value)} />}
        </Field>
        <Field label="Gateway's agent" name="gateway" error={save.error}>
          {(control) => (
            <select {...control} className="input" value={gateway} onChange={(event) => setGateway(event.target.value)}>
              <option value="">The server's</option>
              {agents
                .filter((it) => it.inventory?.gateway || it.name === gateway)
                .map((it) => (
                  <option key={it.name}>{it.name}</option>
                ))}
            </select>
          )}
        </Field>
      </div>
      <fieldset className="sub">
        <legend>Agents that deploy; none chosen means any</legend>
        <div className="wrap">
          {agents.map((it) => (
            <label className="check" key={it.name}>
              <input type="checkbox" checked={chosen.includes(it.name)} onChange={(event) => setChosen(event.target.checked ? [...chosen, it.name] : chosen.filter((one) => one !== it.name))} />
              {it.name}
            </label>
          ))}
        </div>
      </fieldset>
      <div className="form-row">
        <Field label="Host ports" name="ports" error={save.error} optional>
          {(control) => <input {...control} className="input" placeholder="20000-20999" value={ports} onChange={(event) => setPorts(event.target.value)} />}
        </Field>
        <Field label="Sandboxes live" name="sandbox_lifetime" error={save.error} optional>
          {(control) => <input {...control} className="input" placeholder="7d" value={lifetime} onChange={(event) => setLifetime(event.target.value)} />}
        </Field>
        <Field label="Sleep after" name="idle_after" error={save.error} optional>
          {(control) => <input {...control} className="input" placeholder="12h" value={idle} onChange={(event) => setIdle(event.target.value)} />}
        </Field>
      </div>
      <Field label="Variables of every deployment" name="env" error={save.error} optional>
        {() => <EnvEditor rows={env} onChange={setEnv} />}
      </Field>
      <div className="actions">
        <button type="button" className="button" onClick={onClose}>
          Cancel
        </button>
        <button type="submit" className="button button-primary" disabled={save.isPending}>
          Save
        </button>
      </div>
    </form>
  );
}
