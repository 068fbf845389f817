import { useInfiniteQuery, useQuery } from "@tanstack/react-query";
import { getRouteApi } from "@tanstack/react-router";
import { queries } from "../api/queries";
import type { Deployment, DeploymentState } from "../api/types";
import { DeploymentRows } from "../ui/DeploymentRows";
import { Page, Panel } from "../ui/page";
import { StageChart } from "../ui/StageChart";
import { Empty, Failure, Loading } from "../ui/states";

const route = getRouteApi("/app/history");
const STATES: readonly DeploymentState[] = ["queued", "source", "build", "start", "health", "routes", "running", "failed", "cancelled", "stopped", "superseded"];

export function History() {
  const filter = route.useSearch();
  const navigate = route.useNavigate();
  const query = useInfiniteQuery(queries.history(filter));
  const repos = useQuery(queries.repos).data ?? [];
  const sandboxes = useQuery(queries.sandboxes).data ?? [];
  const set = (change: Partial<typeof filter>) => void navigate({ search: { ...filter, ...change }, replace: true });
  const isFiltered = Object.values(filter).some((value) => value !== undefined);
  const items: Deployment[] = query.data?.pages.flatMap((page) => page.items) ?? [];
  return (
    <Page title="History" tab="History">
      <form className="filters filters-wide" onSubmit={(event) => event.preventDefault()}>
        <label>
          <span>Repo</span>
          <input className="input" list="history-repos" placeholder="any" value={filter.repo ?? ""} onChange={(event) => set({ repo: event.target.value || undefined })} />
        </label>
        <label>
          <span>Sandbox</span>
          <input className="input" list="history-sandboxes" placeholder="any" value={filter.sandbox ?? ""} onChange={(event) => set({ sandbox: event.target.value || undefined })} />
        </label>
        <label>
          <span>By</span>
          <input className="input" placeholder="anybody" autoCapitalize="off" value={filter.user ?? ""} onChange={(event) => set({ user: event.target.value || undefined })} />
        </label>
        <label>
          <span>State</span>
          <select className="input" value={filter.state ?? ""} onChange={(event) => set({ state: (event.target.value || undefined) as DeploymentState | undefined })}>
            <option value="">any</option>
            {STATES.map((state) => (
              <option key={state}>{state}</option>
            ))}
          </select>
        </label>
        {isFiltered ? (
          <button type="button" className="button" onClick={() => void navigate({ search: {}, replace: true })}>
            Clear
          </button>
        ) : null}
        <datalist id="history-repos">
          {repos.map((it) => (
            <option key={it.name} value={it.name} />
          ))}
        </datalist>
        <datalist id="history-sandboxes">
          {sandboxes.map((it) => (
            <option key={it.name} value={it.name} />
          ))}
        </datalist>
      </form>
      {query.isPending ? (
        <Loading />
      ) : query.isError ? (
        <Failure error={query.error} retry={() => void query.refetch()} />
      ) : items.length === 0 ? (
        <Panel>
          <Empty title={isFiltered ? "No deployment fits" : "Nothing has been deployed"}>{isFiltered ? "Change or clear the filters above." : null}</Empty>
        </Panel>
      ) : (
        <>
          <StageChart items={items} />
          <Panel flush>
            <DeploymentRows items={items} />
          </Panel>
          {query.hasNextPage ? (
            <div className="actions actions-center">
              <button type="button" className="button" disabled={query.isFetchingNextPage} onClick={() => void query.fetchNextPage()}>
                {query.isFetchingNextPage ? "Loading…" : "Show earlier ones"}
              </button>
            </div>
          ) : null}
        </>
      )}
    </Page>
  );
}
