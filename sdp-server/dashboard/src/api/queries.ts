import { infiniteQueryOptions, keepPreviousData, queryOptions } from "@tanstack/react-query";
import { client, take } from "./client";
import { ApiProblem } from "./problem";
import type { DeploymentState, Me } from "./types";

export interface HistoryFilter {
  sandbox?: string | undefined;
  repo?: string | undefined;
  user?: string | undefined;
  state?: DeploymentState | undefined;
}

export interface AuditFilter {
  user?: string | undefined;
  action?: string | undefined;
  subject?: string | undefined;
}

/** How often what agents measure is asked for, while the page is looked at. */
const MEASURED_MS = 10_000;

export const queries = {
  me: queryOptions({
    queryKey: ["me"],
    queryFn: async (): Promise<Me | null> => {
      try {
        return await take(client.GET("/api/me"));
      } catch (error) {
        if (error instanceof ApiProblem && error.status === 401) return null;
        throw error;
      }
    },
    staleTime: 300_000,
  }),
  agents: queryOptions({ queryKey: ["agents"], queryFn: () => take(client.GET("/api/agents")), refetchInterval: 30_000 }),
  disks: (name: string) =>
    queryOptions({
      queryKey: ["disks", name],
      queryFn: () => take(client.GET("/api/agents/{name}/disks", { params: { path: { name } } })),
      refetchInterval: 60_000,
      retry: false,
    }),
  doctor: (name: string) =>
    queryOptions({
      queryKey: ["doctor", name],
      queryFn: () => take(client.GET("/api/agents/{name}/doctor", { params: { path: { name } } })),
      staleTime: Infinity,
      retry: false,
    }),
  repos: queryOptions({ queryKey: ["repos"], queryFn: () => take(client.GET("/api/repos")) }),
  branches: (repo: string, q: string) =>
    queryOptions({
      queryKey: ["branches", repo, q],
      queryFn: ({ signal }) =>
        take(client.GET("/api/repos/{repo}/branches", { params: { path: { repo }, query: { q, limit: 50 } }, signal })),
      enabled: repo !== "",
      placeholderData: keepPreviousData,
      retry: false,
    }),
  environments: queryOptions({ queryKey: ["environments"], queryFn: () => take(client.GET("/api/environments")) }),
  templates: queryOptions({ queryKey: ["templates"], queryFn: () => take(client.GET("/api/templates")) }),
  tokens: queryOptions({ queryKey: ["tokens"], queryFn: () => take(client.GET("/api/tokens")) }),
  users: queryOptions({ queryKey: ["users"], queryFn: () => take(client.GET("/api/users")) }),
  sandboxes: queryOptions({
    queryKey: ["sandboxes"],
    queryFn: async () => {
      const items = [];
      let after: string | undefined;
      do {
        const query = after === undefined ? { limit: 500 } : { after, limit: 500 };
        const page = await take(client.GET("/api/sandboxes", { params: { query } }));
        items.push(...page.items);
        after = page.next ?? undefined;
      } while (after !== undefined);
      return items;
    },
  }),
  sandbox: (name: string) =>
    queryOptions({
      queryKey: ["sandbox", name],
      queryFn: () => take(client.GET("/api/sandboxes/{name}", { params: { path: { name } } })),
    }),
  sandboxStats: (name: string) =>
    queryOptions({
      queryKey: ["stats", "sandbox", name],
      queryFn: () => take(client.GET("/api/sandboxes/{name}/stats", { params: { path: { name } } })),
      refetchInterval: MEASURED_MS,
      retry: false,
    }),
  stats: (id: string) =>
    queryOptions({
      queryKey: ["stats", "deployment", id],
      queryFn: () => take(client.GET("/api/deployments/{id}/stats", { params: { path: { id } } })),
      refetchInterval: MEASURED_MS,
      retry: false,
    }),
  routes: (name: string) =>
    queryOptions({
      queryKey: ["routes", name],
      queryFn: ({ signal }) => take(client.GET("/api/sandboxes/{name}/routes", { params: { path: { name } }, signal })),
      retry: false,
    }),
  deployment: (id: string) =>
    queryOptions({
      queryKey: ["deployment", id],
      queryFn: () => take(client.GET("/api/deployments/{id}", { params: { path: { id } } })),
    }),
  recent: queryOptions({
    queryKey: ["deployments", "recent"],
    queryFn: () => take(client.GET("/api/deployments", { params: { query: { limit: 8 } } })),
  }),
  history: (filter: HistoryFilter) =>
    infiniteQueryOptions({
      queryKey: ["deployments", filter],
      queryFn: ({ pageParam }) =>
        take(client.GET("/api/deployments", { params: { query: { ...filter, limit: 50, ...pageParam } } })),
      initialPageParam: {},
      getNextPageParam: (page) => (page.next == null ? undefined : { before: page.next }),
    }),
  audit: (filter: AuditFilter) =>
    infiniteQueryOptions({
      queryKey: ["audit", filter],
      queryFn: ({ pageParam }) =>
        // The server judges what a person typed.
        take(client.GET("/api/audit", { params: { query: { ...filter, limit: 100, ...pageParam } as never } })),
      initialPageParam: {},
      getNextPageParam: (page) => (page.next == null ? undefined : { before: Number(page.next) }),
    }),
};
