import { Link } from "@tanstack/react-router";
import { type Deployment, isActive } from "../api/types";
import { StateBadge } from "./badge";
import { duration, Time, useClock } from "./time";

function Took({ deployment }: { deployment: Deployment }) {
  const now = useClock(isActive(deployment.state));
  const begun = deployment.stages[0]?.started_at ?? deployment.created_at;
  const last = deployment.stages.at(-1)?.ended_at;
  const end = isActive(deployment.state) ? now : Date.parse(last ?? deployment.finished_at ?? begun);
  return <>{duration(Math.max(0, end - Date.parse(begun)))}</>;
}

/** Deployments as a table that becomes cards where it is narrow. */
export function DeploymentRows({ items, showSandbox = true }: { items: readonly Deployment[]; showSandbox?: boolean }) {
  return (
    <table className="table">
      <thead>
        <tr>
          <th scope="col">Deployment</th>
          <th scope="col">State</th>
          {showSandbox ? <th scope="col">Sandbox</th> : null}
          <th scope="col">Commit</th>
          <th scope="col">By</th>
          <th scope="col">Took</th>
          <th scope="col">When</th>
        </tr>
      </thead>
      <tbody>
        {items.map((it) => (
          <tr key={it.id}>
            <td className="cell-main">
              <Link to="/deployments/$id" params={{ id: it.id }} className="strong">
                {it.repo}
              </Link>{" "}
              <span className="branch">{it.branch}</span>
            </td>
            <td data-label="State">
              <StateBadge state={it.state} />
            </td>
            {showSandbox ? (
              <td data-label="Sandbox">
                {it.sandbox ? (
                  <Link to="/sandboxes/$name" params={{ name: it.sandbox }}>
                    {it.sandbox}
                  </Link>
                ) : (
                  <span className="muted">quick deploy</span>
                )}
              </td>
            ) : null}
            <td data-label="Commit">{it.commit ? <code>{it.commit.slice(0, 8)}</code> : <span className="muted">–</span>}</td>
            <td data-label="By">{it.user}</td>
            <td data-label="Took">
              <Took deployment={it} />
            </td>
            <td data-label="When">
              <Time at={it.created_at} />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
