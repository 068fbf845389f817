import { useQuery } from "@tanstack/react-query";
import { Link, getRouteApi } from "@tanstack/react-router";
import { queries } from "../api/queries";
import type { Deployment } from "../api/types";
import { plain } from "../log/ansi";
import { actionsOf, useAct } from "../ui/actions";
import { StateBadge } from "../ui/badge";
import { Copyable } from "../ui/copy";
import { Missing } from "../ui/Missing";
import { Page } from "../ui/page";
import { Loaded } from "../ui/states";
import { Time } from "../ui/time";
import { Timeline } from "../ui/Timeline";
import { Usage } from "../ui/Usage";
import { Printed } from "./deployment/Printed";

const route = getRouteApi("/app/deployments/$id");

export function DeploymentPage() {
  const { id } = route.useParams();
  const query = useQuery(queries.deployment(id));
  if (query.isLoadingError) {
    const all = (
      <Link to="/history" className="button">
        All deployments
      </Link>
    );
    return <Missing title="Deployment" error={query.error} retry={() => void query.refetch()} back={all} />;
  }
  return <Loaded query={query}>{(deployment) => <Shown key={id} deployment={deployment} />}</Loaded>;
}

function Shown({ deployment }: { deployment: Deployment }) {
  const act = useAct();
  const { failure } = deployment;
  const isRunning = deployment.state === "running";
  const used = useQuery({ ...queries.stats(deployment.id), enabled: isRunning }).data;
  const env = Object.entries((deployment.env ?? {}) as Record<string, string>);
  return (
    <Page
      tab={`${deployment.repo} ${deployment.branch}`}
      title={
        <>
          {deployment.repo} <span className="branch">{deployment.branch}</span>
        </>
      }
      lead={
        <div className="facts">
          <StateBadge state={deployment.state} />
          {deployment.sandbox ? (
            <span>
              in{" "}
              <Link to="/sandboxes/$name" params={{ name: deployment.sandbox }}>
                {deployment.sandbox}
              </Link>
            </span>
          ) : (
            <span>quick deploy</span>
          )}
          <span>by {deployment.user}</span>
          <span>on {deployment.agent}</span>
          <Time at={deployment.created_at} />
          {deployment.rollback_of ? (
            <span>
              rollback to{" "}
              <Link to="/deployments/$id" params={{ id: deployment.rollback_of }}>
                an earlier one
              </Link>
            </span>
          ) : null}
        </div>
      }
      actions={actionsOf(deployment).map(({ deed, label, icon }) => (
        <button key={deed} type="button" className="button" disabled={act.isPending} onClick={() => act.mutate({ deed, of: deployment })}>
          {icon} {label}
        </button>
      ))}
    >
      {failure ? (
        <div className="notice notice-error" role="alert">
          <strong>{failure.stage ? `Stage ${failure.stage} failed` : "It failed"}.</strong> {plain(failure.reason)}
          {failure.previous_restored === true ? " What served before serves again." : null}
          {failure.previous_restored === false ? " What served before could not be put back." : null}
        </div>
      ) : null}
      <Timeline deployment={deployment} />
      <dl className="details">
        {deployment.url ? (
          <div>
            <dt>Answers on</dt>
            <dd>
              <Copyable text={deployment.url} label="Copy the URL" href={deployment.url} />
            </dd>
          </div>
        ) : null}
        {deployment.commit ? (
          <div>
            <dt>Commit</dt>
            <dd>
              <Copyable text={deployment.commit} label="Copy the commit" />
            </dd>
          </div>
        ) : null}
        {deployment.host_port ? (
          <div>
            <dt>Host port</dt>
            <dd>{deployment.host_port}</dd>
          </div>
        ) : null}
        {isRunning && used ? (
          <div>
            <dt>Uses</dt>
            <dd>
              <Usage of={deployment.repo} stats={used} />
            </dd>
          </div>
        ) : null}
        {env.length > 0 ? (
          <div>
            <dt>Environment</dt>
            <dd className="wrap">
              {env.map(([name, value]) => (
                <code key={name}>
                  {name}={value}
                </code>
              ))}
            </dd>
          </div>
        ) : null}
      </dl>
      <Printed deployment={deployment} />
    </Page>
  );
}
