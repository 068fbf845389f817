import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Boxes, Cpu, Rocket } from "lucide-react";
import { queries } from "../api/queries";
import { Badge, SandboxBadge } from "../ui/badge";
import { DeploymentRows } from "../ui/DeploymentRows";
import { Page, Panel } from "../ui/page";
import { Empty, Loaded } from "../ui/states";
import { Time } from "../ui/time";

export function Home() {
  const me = useQuery(queries.me).data;
  const sandboxes = useQuery(queries.sandboxes);
  const agents = useQuery(queries.agents);
  const recent = useQuery(queries.recent);
  return (
    <Page
      title="Overview"
      tab="Overview"
      actions={
        <Link to="/deploy" className="button button-primary">
          <Rocket size={16} aria-hidden /> Deploy a branch
        </Link>
      }
    >
      <div className="columns">
        <Panel title={<><Boxes size={16} aria-hidden /> Your sandboxes</>} actions={<Link to="/sandboxes">All</Link>} flush>
          <Loaded query={sandboxes} rows={3}>
            {(all) => {
              const mine = all.filter((it) => it.owner === me?.user || it.shared_with?.includes(me?.user ?? ""));
              return mine.length === 0 ? (
                <Empty title="You have no sandbox" action={<Link to="/sandboxes" search={{ create: "plain" }} className="button">Create one</Link>}>
                  A sandbox holds your branches and the routes that lead to them.
                </Empty>
              ) : (
                <ul className="list">
                  {mine.slice(0, 8).map((it) => (
                    <li key={it.name}>
                      <Link to="/sandboxes/$name" params={{ name: it.name }} className="strong clip">
                        {it.name}
                      </Link>
                      <SandboxBadge state={it.state} />
                      <span className="muted push">
                        expires <Time at={it.expires_at} />
                      </span>
                    </li>
                  ))}
                </ul>
              );
            }}
          </Loaded>
        </Panel>
        <Panel title={<><Cpu size={16} aria-hidden /> Agents</>} actions={<Link to="/agents">All</Link>} flush>
          <Loaded query={agents} rows={3}>
            {(all) =>
              all.length === 0 ? (
                <Empty title="No agent is enrolled">An admin enrols one on the page Agents.</Empty>
              ) : (
                <ul className="list">
                  {all.map((it) => (
                    <li key={it.name}>
                      <span className="strong clip">{it.name}</span>
                      <Badge tone={it.connected ? "good" : "bad"}>{it.connected ? "connected" : "away"}</Badge>
                      <span className="muted push">
                        {it.connected ? `${it.active_deployments} under way` : it.last_seen ? <>seen <Time at={it.last_seen} /></> : "never seen"}
                      </span>
                    </li>
                  ))}
                </ul>
              )
            }
          </Loaded>
        </Panel>
      </div>
      <Panel title="Latest deployments" actions={<Link to="/history">History</Link>} flush>
        <Loaded query={recent}>
          {({ items }) =>
            items.length === 0 ? (
              <Empty title="No branch has been deployed" action={<Link to="/deploy" className="button">Deploy one</Link>}>A branch is built on its VM and runs there.</Empty>
            ) : (
              <DeploymentRows items={items} />
            )
          }
        </Loaded>
      </Panel>
    </Page>
  );
}
