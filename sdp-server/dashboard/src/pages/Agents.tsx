import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { KeyRound, Plus, Stethoscope, Unplug } from "lucide-react";
import { useState } from "react";
import { client, take } from "../api/client";
import { formError } from "../api/problem";
import { queries } from "../api/queries";
import type { Agent } from "../api/types";
import { Badge } from "../ui/badge";
import { Confirm, Dialog } from "../ui/dialog";
import { Field } from "../ui/field";
import { Menu } from "../ui/menu";
import { Page } from "../ui/page";
import { Secret } from "../ui/Secret";
import { Empty, FormError, Loaded } from "../ui/states";
import { Time } from "../ui/time";
import { say } from "../ui/toast";
import { Disks, Doctor, Health } from "./agents/Machine";

type Open = { kind: "enrol" } | { kind: "doctor" | "rotate" | "revoke"; name: string } | { kind: "secret"; name: string; token: string };

export function Agents() {
  const query = useQuery(queries.agents);
  const cache = useQueryClient();
  const role = useQuery(queries.me).data?.role;
  const isAdmin = role === "admin";
  const [open, setOpen] = useState<Open>();
  const close = () => setOpen(undefined);
  const refresh = () => cache.invalidateQueries({ queryKey: ["agents"] });
  return (
    <Page
      title="Agents"
      tab="Agents"
      lead="One on each VM that runs branches, and one on the gateway's. They dial this server."
      actions={
        isAdmin ? (
          <button type="button" className="button button-primary" onClick={() => setOpen({ kind: "enrol" })}>
            <Plus size={16} aria-hidden /> Enrol an agent
          </button>
        ) : null
      }
    >
      <Loaded query={query}>
        {(all) =>
          all.length === 0 ? (
            <section className="panel">
              <Empty title="No agent is enrolled">{isAdmin ? "Enrol one, put its token on its VM, and start sdp-agent there." : "An admin can enrol one."}</Empty>
            </section>
          ) : (
            <div className="cards">
              {all.map((agent) => (
                <AgentCard key={agent.name} agent={agent} isAdmin={isAdmin} mayExamine={role !== "viewer"} onOpen={setOpen} />
              ))}
            </div>
          )
        }
      </Loaded>
      {open?.kind === "enrol" ? (
        <Enrol
          onClose={close}
          onDone={(name, token) => {
            void refresh();
            setOpen({ kind: "secret", name, token });
          }}
        />
      ) : null}
      {open?.kind === "doctor" ? <Doctor agent={open.name} onClose={close} /> : null}
      {open?.kind === "rotate" ? (
        <Rotate
          name={open.name}
          onClose={close}
          onDone={(token) => {
            void refresh();
            setOpen({ kind: "secret", name: open.name, token });
          }}
        />
      ) : null}
      {open?.kind === "revoke" ? (
        <Confirm
          title={`Revoke ${open.name}?`}
          action="Revoke it"
          onClose={close}
          onConfirm={async () => {
            await take(client.DELETE("/api/agents/{name}", { params: { path: { name: open.name } } }));
            say(`${open.name} is revoked`);
            void refresh();
          }}
        >
          Its connection ends and its token is refused from then on. What runs on its VM goes on running.
        </Confirm>
      ) : null}
      {open?.kind === "secret" ? (
        <Secret title={`The token of ${open.name}`} secret={open.token} onClose={close}>
          Write it to the agent's token_file, readable by its user only, and start sdp-agent.
        </Secret>
      ) : null}
    </Page>
  );
}

interface AgentCardProps {
  agent: Agent;
  isAdmin: boolean;
  mayExamine: boolean;
  onOpen: (open: Open) => void;
}

function AgentCard({ agent, isAdmin, mayExamine, onOpen }: AgentCardProps) {
  const { inventory, name } = agent;
  return (
    <section className="panel card" aria-label={name}>
      <div className="panel-head">
        <h2>{name}</h2>
        <div className="actions">
          <Badge tone={agent.connected ? "good" : "bad"}>{agent.connected ? "connected" : "away"}</Badge>
          {isAdmin ? (
            <Menu
              label={`More for ${name}`}
              items={[
                { label: "Give it another token…", icon: <KeyRound size={15} aria-hidden />, onSelect: () => onOpen({ kind: "rotate", name }) },
                { label: "Revoke…", icon: <Unplug size={15} aria-hidden />, isDanger: true, onSelect: () => onOpen({ kind: "revoke", name }) },
              ]}
            />
          ) : null}
        </div>
      </div>
      <div className="panel-body stack">
        {agent.connected ? null : (
          <p className="notice notice-warn">
            {agent.last_seen ? (
              <>
                Last seen <Time at={agent.last_seen} />. On its VM, <code>sdp-agent doctor</code> says what is wrong. What it runs goes on.
              </>
            ) : (
              "It has never connected. Put its token on its VM and start sdp-agent there."
            )}
          </p>
        )}
        <dl className="pairs">
          {agent.transport ? (
            <>
              <dt>Link</dt>
              <dd>{agent.transport}</dd>
            </>
          ) : null}
          {inventory ? (
            <>
              <dt>Version</dt>
              <dd>{inventory.version}</dd>
              <dt>Runs</dt>
              <dd>{inventory.deployer}</dd>
              <dt>Host</dt>
              <dd>{inventory.advertise}</dd>
              {inventory.port_range ? (
                <>
                  <dt>Ports</dt>
                  <dd>{inventory.port_range}</dd>
                </>
              ) : null}
              {inventory.gateway ? (
                <>
                  <dt>Gateway</dt>
                  <dd>
                    {inventory.gateway.repo}
                    {inventory.gateway.branch ? <> on {inventory.gateway.branch}</> : null}
                    {inventory.gateway.per_request ? ", routes by request" : null}
                  </dd>
                </>
              ) : null}
            </>
          ) : null}
          <dt>Under way</dt>
          <dd>{agent.active_deployments}</dd>
        </dl>
        {agent.connected ? <Disks agent={name} /> : null}
        {inventory && inventory.repos.length > 0 ? (
          <ul className="chips" aria-label="Repos">
            {inventory.repos.map((repo) => (
              <li key={repo.name} className="chip">
                {repo.name} <span className="muted">{repo.recipe}</span>
              </li>
            ))}
          </ul>
        ) : null}
        {agent.connected && mayExamine ? (
          <div className="actions">
            <button type="button" className="button button-small" onClick={() => onOpen({ kind: "doctor", name })}>
              <Stethoscope size={15} aria-hidden /> Examine
            </button>
            <Health agent={name} />
          </div>
        ) : null}
      </div>
    </section>
  );
}

function Enrol({ onClose, onDone }: { onClose: () => void; onDone: (name: string, token: string) => void }) {
  const [name, setName] = useState("");
  const enrol = useMutation({
    mutationFn: () => take(client.POST("/api/agents", { body: { name } })),
    onSuccess: (made) => onDone(made.name, made.token),
  });
  return (
    <Dialog title="Enrol an agent" onClose={onClose}>
      <form
        className="form"
        onSubmit={(event) => {
          event.preventDefault();
          enrol.mutate();
        }}
      >
        <FormError text={formError(enrol.error, ["name"])} />
        <Field label="Name" name="name" error={enrol.error} hint="As in its configuration: lower-case letters, digits and hyphens.">
          {(control) => <input {...control} className="input" required autoCapitalize="off" spellCheck={false} placeholder="micro-92" value={name} onChange={(event) => setName(event.target.value)} />}
        </Field>
        <div className="actions">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button button-primary" disabled={enrol.isPending}>
            Enrol
          </button>
        </div>
      </form>
    </Dialog>
  );
}

function Rotate({ name, onClose, onDone }: { name: string; onClose: () => void; onDone: (token: string) => void }) {
  const rotate = async () => {
    const made = await take(client.POST("/api/agents/{name}/rotate", { params: { path: { name } } }));
    // After the question has closed.
    setTimeout(() => onDone(made.token));
  };
  return (
    <Confirm title={`Give ${name} another token?`} action="Give it another token" onConfirm={rotate} onClose={onClose}>
      Its connection ends; it connects again once the new token is on its VM.
    </Confirm>
  );
}
