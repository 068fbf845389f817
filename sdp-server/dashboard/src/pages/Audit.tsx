import { useInfiniteQuery } from "@tanstack/react-query";
import { Link, getRouteApi } from "@tanstack/react-router";
import { queries } from "../api/queries";
import type { AuditAction } from "../api/types";
import { Page, Panel } from "../ui/page";
import { Empty, Failure, Loading } from "../ui/states";
import { Time } from "../ui/time";

const route = getRouteApi("/app/audit");

/** Every action, checked to be all of them. */
const ACTIONS: Record<AuditAction, 0> = {
  "sign-in": 0, "sign-in-failed": 0, "sign-out": 0, deploy: 0, cancel: 0, stop: 0, restart: 0, exec: 0, retry: 0,
  rollback: 0, "sandbox-create": 0, "sandbox-apply": 0, "sandbox-delete": 0, "sandbox-extend": 0, "sandbox-share": 0,
  "sandbox-sleep": 0, "sandbox-wake": 0, "sandbox-expire": 0, "environment-create": 0, "environment-replace": 0,
  "environment-delete": 0, "template-create": 0, "template-replace": 0, "template-delete": 0, "token-create": 0,
  "token-revoke": 0, "user-change": 0, "agent-enrol": 0, "agent-rotate": 0, "agent-revoke": 0, "route-set": 0,
  "route-takeover": 0, "route-released": 0,
};

export function Audit() {
  const filter = route.useSearch();
  const navigate = route.useNavigate();
  const query = useInfiniteQuery(queries.audit(filter));
  const set = (change: Partial<typeof filter>) => void navigate({ search: { ...filter, ...change }, replace: true });
  const items = query.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <Page title="Audit" tab="Audit" lead="Who did what, when, and from where.">
      <form className="filters filters-wide" onSubmit={(event) => event.preventDefault()}>
        <label>
          <span>Who</span>
          <input className="input" placeholder="anybody" autoCapitalize="off" value={filter.user ?? ""} onChange={(event) => set({ user: event.target.value || undefined })} />
        </label>
        <label>
          <span>Action</span>
          <select className="input" value={filter.action ?? ""} onChange={(event) => set({ action: event.target.value || undefined })}>
            <option value="">any</option>
            {Object.keys(ACTIONS).map((action) => (
              <option key={action}>{action}</option>
            ))}
          </select>
        </label>
        <label>
          <span>Subject</span>
          <input className="input" placeholder="any, such as sandboxes/checkout" autoCapitalize="off" value={filter.subject ?? ""} onChange={(event) => set({ subject: event.target.value || undefined })} />
        </label>
      </form>
      {query.isPending ? (
        <Loading />
      ) : query.isError ? (
        <Failure error={query.error} retry={() => void query.refetch()} />
      ) : (
        <Panel flush>
          {items.length === 0 ? (
            <Empty title="Nothing of that kind is written down" />
          ) : (
            <table className="table">
              <thead>
                <tr>
                  <th scope="col">Action</th>
                  <th scope="col">Subject</th>
                  <th scope="col">Who</th>
                  <th scope="col">From</th>
                  <th scope="col">Detail</th>
                  <th scope="col">When</th>
                </tr>
              </thead>
              <tbody>
                {items.map((it) => (
                  <tr key={it.id}>
                    <td className="cell-main strong">{it.action}</td>
                    <td data-label="Subject">
                      {it.deployment ? (
                        <Link to="/deployments/$id" params={{ id: it.deployment }}>
                          {it.subject}
                        </Link>
                      ) : (
                        it.subject
                      )}
                    </td>
                    <td data-label="Who">{it.user ?? <span className="muted">the platform</span>}</td>
                    <td data-label="From">{it.address ? <code>{it.address}</code> : <span className="muted">–</span>}</td>
                    <td data-label="Detail" className="cell-detail">{it.detail ?? ""}</td>
                    <td data-label="When">
                      <Time at={it.at} />
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
        </Panel>
      )}
      {query.hasNextPage ? (
        <div className="actions actions-center">
          <button type="button" className="button" disabled={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
            Show earlier ones
          </button>
        </div>
      ) : null}
    </Page>
  );
}
