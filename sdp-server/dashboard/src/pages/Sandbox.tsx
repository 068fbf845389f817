import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, getRouteApi, useNavigate } from "@tanstack/react-router";
import { Clock, Copy, LayoutTemplate, ListTree, Moon, Plus, Rocket, Share2, SquareTerminal, Sun, Trash2 } from "lucide-react";
import { useState } from "react";
import { client, take } from "../api/client";
import { queries } from "../api/queries";
import { type Deployment, type SandboxDetail, type ServiceStats, hasOutput, isActive } from "../api/types";
import { actionsOf, useAct } from "../ui/actions";
import { Badge, SandboxBadge, StateBadge } from "../ui/badge";
import { Copyable } from "../ui/copy";
import { DeploymentRows } from "../ui/DeploymentRows";
import { Confirm } from "../ui/dialog";
import { Menu } from "../ui/menu";
import { Missing } from "../ui/Missing";
import { Page, Panel } from "../ui/page";
import { Empty, Loaded } from "../ui/states";
import { Time } from "../ui/time";
import { complain, say } from "../ui/toast";
import { Usage } from "../ui/Usage";
import { plain } from "../log/ansi";
import { Expiry, SaveAsTemplate, Share } from "./sandbox/dialogs";
import { Routes } from "./sandbox/Routes";
import { Variables } from "./sandbox/Variables";

const route = getRouteApi("/app/sandboxes/$name");

export function SandboxPage() {
  const { name } = route.useParams();
  const query = useQuery(queries.sandbox(name));
  if (query.isLoadingError) {
    const all = (
      <Link to="/sandboxes" className="button">
        All sandboxes
      </Link>
    );
    return <Missing title={name} error={query.error} retry={() => void query.refetch()} back={all} />;
  }
  return <Loaded query={query}>{(sandbox) => <Shown key={name} sandbox={sandbox} />}</Loaded>;
}

type Open = "delete" | "expiry" | "share" | "template";

function Shown({ sandbox }: { sandbox: SandboxDetail }) {
  const { name } = sandbox;
  const params = { params: { path: { name } } };
  const cache = useQueryClient();
  const navigate = useNavigate();
  const me = useQuery(queries.me).data;
  const [open, setOpen] = useState<Open>();
  const close = () => setOpen(undefined);
  const refresh = () => cache.invalidateQueries({ queryKey: ["sandbox", name] });
  const isMine = me?.role === "admin" || sandbox.owner === me?.user || (sandbox.shared_with ?? []).includes(me?.user ?? "");
  const deployAll = useMutation({
    mutationFn: () => take(client.POST("/api/sandboxes/{name}/deploy", { ...params, body: {} })),
    onSuccess: ({ deployments, refused }) => {
      say(`${deployments.length} ${deployments.length === 1 ? "service is" : "services are"} being deployed`);
      for (const it of refused ?? []) complain(new Error(`${it.repo}: ${it.problem.detail}`));
      void refresh();
    },
    onError: complain,
  });
  const rest = useMutation({
    mutationFn: () => take(client.POST(`/api/sandboxes/{name}/${sandbox.state === "asleep" ? "wake" : "sleep"}`, params)),
    onSuccess: (now) => {
      say(now.state === "asleep" ? `${name} sleeps` : `${name} is awake`);
      void refresh();
    },
    onError: complain,
  });
  const remove = async () => {
    await take(client.DELETE("/api/sandboxes/{name}", params));
    say(`${name} is torn down`);
    void cache.invalidateQueries({ queryKey: ["sandboxes"] });
    await navigate({ to: "/sandboxes" });
  };
  const isAsleep = sandbox.state === "asleep";
  return (
    <Page
      tab={name}
      title={name}
      lead={
        <div className="facts">
          <SandboxBadge state={sandbox.state} />
          <span>of {sandbox.owner}</span>
          {sandbox.shared_with?.length ? <span>shared with {sandbox.shared_with.join(", ")}</span> : null}
          <span>in {sandbox.environment}</span>
          <span className={sandbox.expires_soon ? "warn" : undefined}>
            expires <Time at={sandbox.expires_at} />
          </span>
        </div>
      }
      actions={
        isMine ? (
          <>
            <button type="button" className="button" onClick={() => setOpen("expiry")}>
              <Clock size={15} aria-hidden /> Extend
            </button>
            {sandbox.services.length > 0 ? (
              <button type="button" className="button" disabled={deployAll.isPending} onClick={() => deployAll.mutate()}>
                <Rocket size={15} aria-hidden /> Deploy all
              </button>
            ) : null}
            <Menu
              label="More"
              items={[
                { label: "Share…", icon: <Share2 size={15} aria-hidden />, onSelect: () => setOpen("share") },
                { label: "Clone…", icon: <Copy size={15} aria-hidden />, onSelect: () => void navigate({ to: "/sandboxes", search: { clone: name } }) },
                { label: "Save as template…", icon: <LayoutTemplate size={15} aria-hidden />, onSelect: () => setOpen("template") },
                { label: isAsleep ? "Wake" : "Put to sleep", icon: isAsleep ? <Sun size={15} aria-hidden /> : <Moon size={15} aria-hidden />, onSelect: () => rest.mutate() },
                { label: "Delete…", icon: <Trash2 size={15} aria-hidden />, isDanger: true, onSelect: () => setOpen("delete") },
              ]}
            />
          </>
        ) : (
          <button type="button" className="button" onClick={() => void navigate({ to: "/sandboxes", search: { clone: name } })}>
            <Copy size={15} aria-hidden /> Clone
          </button>
        )
      }
    >
      {sandbox.problem ? <p className="notice notice-error">{sandbox.problem}</p> : null}
      {sandbox.expires_soon ? (
        <p className="notice notice-warn">
          It expires <Time at={sandbox.expires_at} />, and everything in it goes then. Extend it if it is still needed.
        </p>
      ) : null}
      {(sandbox.taken ?? []).map((lost) => (
        <p className="notice notice-warn" key={lost.service}>
          <Link to="/sandboxes/$name" params={{ name: lost.by }}>
            {lost.by}
          </Link>{" "}
          took the route of {lost.service} over, {lost.user} <Time at={lost.at} />.
        </p>
      ))}
      <Services sandbox={sandbox} isMine={isMine} />
      <Routes sandbox={sandbox} isMine={isMine} />
      <Access sandbox={sandbox} />
      <Panel title="Deployments" actions={<Link to="/history" search={{ sandbox: name }}>History</Link>} flush>
        <Recent name={name} />
      </Panel>
      {open === "delete" ? (
        <Confirm title={`Delete ${name}?`} action="Delete the sandbox" onConfirm={remove} onClose={close}>
          What runs in it is stopped and removed, its routes go back, and its worktrees are deleted. Branches stay as they are.
        </Confirm>
      ) : null}
      {open === "expiry" ? <Expiry sandbox={sandbox} onClose={close} /> : null}
      {open === "share" ? <Share sandbox={sandbox} onClose={close} /> : null}
      {open === "template" ? <SaveAsTemplate sandbox={sandbox} onClose={close} /> : null}
    </Page>
  );
}

/** The newest deployment of each repo, and the one that serves meanwhile. */
export function latest(deployments: readonly Deployment[]): { now: Deployment; serving: Deployment | undefined }[] {
  const repos = new Map<string, Deployment[]>();
  for (const it of deployments) repos.set(it.repo, [...(repos.get(it.repo) ?? []), it]);
  return [...repos.entries()]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(([, all]) => {
      const [now, ...others] = all.sort((a, b) => b.created_at.localeCompare(a.created_at));
      const serving = now?.state === "running" ? undefined : others.find((it) => it.state === "running");
      return now ? { now, serving } : undefined;
    })
    .filter((it) => it !== undefined);
}

function Services({ sandbox, isMine }: { sandbox: SandboxDetail; isMine: boolean }) {
  const act = useAct();
  const [edited, setEdited] = useState<Deployment>();
  const running = latest(sandbox.deployments);
  const isMeasured = running.some(({ now, serving }) => now.state === "running" || serving !== undefined);
  const measured = useQuery({ ...queries.sandboxStats(sandbox.name), enabled: isMeasured }).data ?? [];
  const never = sandbox.services.filter((it) => !running.some(({ now }) => now.repo === it.repo));
  return (
    <Panel
      title="Services"
      actions={
        isMine ? (
          <Link to="/deploy" search={{ sandbox: sandbox.name }} className="button button-small">
            <Plus size={15} aria-hidden /> Deploy into it
          </Link>
        ) : null
      }
      flush
    >
      {running.length === 0 && never.length === 0 ? (
        <Empty title="Nothing is deployed in it" action={isMine ? <Link to="/deploy" search={{ sandbox: sandbox.name }} className="button">Deploy a branch</Link> : null}>
          A deployed branch can then take its service's route.
        </Empty>
      ) : (
        <ul className="list">
          {running.map(({ now, serving }) => {
            const [first, ...others] = actionsOf(now);
            const printing = hasOutput(now.state) ? now : serving;
            const url = now.url ?? serving?.url;
            const more = others.map(({ deed, label, icon }) => ({ label, icon, onSelect: () => act.mutate({ deed, of: now }) }));
            if (!isActive(now.state)) more.push({ label: "Variables…", icon: <ListTree size={15} aria-hidden />, onSelect: () => setEdited(now) });
            return (
              <li key={now.repo} className="service">
                <div className="service-main">
                  <Link to="/deployments/$id" params={{ id: now.id }} className="strong">
                    {now.repo}
                  </Link>
                  <span className="branch">{now.branch}</span>
                  {now.commit ? <code className="muted">{now.commit.slice(0, 8)}</code> : null}
                  <StateBadge state={now.state} />
                  {serving ? <Badge tone="good">{serving.branch} serves</Badge> : null}
                  {now.state === "running" || serving ? <Measured stats={measured.find((it) => it.repo === now.repo)} /> : null}
                </div>
                <div className="service-side">
                  {url && (now.state === "running" || isActive(now.state) || serving) ? <Copyable text={url} label={`Copy the URL of ${now.repo}`} href={url} /> : null}
                  {printing ? (
                    <Link to="/deployments/$id" params={{ id: printing.id }} search={{ tab: "output" }} className="button button-small" aria-label={`Output of ${now.repo}`}>
                      <SquareTerminal size={15} aria-hidden /> Output
                    </Link>
                  ) : null}
                  {isMine && first ? (
                    <>
                      <button type="button" className="button button-small" disabled={act.isPending} onClick={() => act.mutate({ deed: first.deed, of: now })}>
                        {first.icon} {first.label}
                      </button>
                      {more.length > 0 ? <Menu label={`More for ${now.repo}`} items={more} /> : null}
                    </>
                  ) : null}
                </div>
                {now.failure ? <p className="service-failure">{plain(now.failure.reason)}</p> : null}
              </li>
            );
          })}
          {never.map((it) => (
            <li key={it.repo} className="service">
              <div className="service-main">
                <span className="strong">{it.repo}</span>
                <span className="branch">{it.branch}</span>
                <Badge tone="quiet">not deployed</Badge>
              </div>
              {isMine ? (
                <div className="service-side">
                  <Link to="/deploy" search={{ sandbox: sandbox.name, repo: it.repo, branch: it.branch }} className="button button-small">
                    <Rocket size={15} aria-hidden /> Deploy
                  </Link>
                </div>
              ) : null}
            </li>
          ))}
        </ul>
      )}
      {edited ? <Variables sandbox={sandbox} deployment={edited} onClose={() => setEdited(undefined)} /> : null}
    </Panel>
  );
}

/** What a service uses, or why that is not known. */
function Measured({ stats }: { stats: ServiceStats | undefined }) {
  if (stats?.running) return <Usage of={stats.repo} stats={stats.running} />;
  return stats?.problem ? (
    <span className="muted" title={stats.problem.detail}>
      CPU and memory are not known: {stats.problem.title.toLowerCase()}
    </span>
  ) : null;
}

/** How requests reach the sandbox. */
function Access({ sandbox }: { sandbox: SandboxDetail }) {
  const { gateway, request_key: key } = sandbox;
  if (!gateway && !key) return null;
  return (
    <Panel title="Reach it">
      {gateway ? (
        <p>
          It has a gateway of its own on {gateway.agent}: <StateBadge state={gateway.state} /> {gateway.url ? <Copyable text={gateway.url} label="Copy the gateway's URL" href={gateway.url} /> : null}
        </p>
      ) : null}
      {key ? (
        <>
          <p className="muted">
            {key.per_request
              ? "A request to the gateway that carries one of these reaches this sandbox's services, whatever is set for everybody."
              : "The gateway does not route by request: set per_request = true under [gateway] of its agent for these to have an effect."}
          </p>
          <dl className="details">
            <div>
              <dt>Header</dt>
              <dd>
                <Copyable text={key.header} label="Copy the header" />
              </dd>
            </div>
            <div>
              <dt>Cookie</dt>
              <dd>
                <Copyable text={key.cookie} label="Copy the cookie" />
              </dd>
            </div>
            <div>
              <dt>Baggage</dt>
              <dd>
                <Copyable text={key.baggage} label="Copy the baggage" />
              </dd>
            </div>
            {key.curl ? (
              <div>
                <dt>curl</dt>
                <dd>
                  <Copyable text={key.curl} label="Copy the curl command" />
                </dd>
              </div>
            ) : null}
          </dl>
        </>
      ) : null}
    </Panel>
  );
}

function Recent({ name }: { name: string }) {
  const query = useQuery({
    queryKey: ["deployments", "of", name],
    queryFn: () => take(client.GET("/api/deployments", { params: { query: { sandbox: name, limit: 10 } } })),
  });
  return <Loaded query={query}>{({ items }) => (items.length === 0 ? <Empty title="None yet" /> : <DeploymentRows items={items} showSandbox={false} />)}</Loaded>;
}
