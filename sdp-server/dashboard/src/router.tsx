import type { QueryClient } from "@tanstack/react-query";
import { createRootRouteWithContext, createRoute, createRouter, lazyRouteComponent, redirect } from "@tanstack/react-router";
import { base } from "./api/client";
import { queries } from "./api/queries";
import type { DeploymentState } from "./api/types";
import { NotFound, Problem } from "./pages/Wrong";
import { Shell } from "./Shell";

const text = (value: unknown): string | undefined => {
  if (typeof value === "number") return String(value);
  return typeof value === "string" && value !== "" ? value : undefined;
};

/** Only an address of this app: nobody is sent elsewhere after signing in. */
export const safeNext = (next: unknown): string | undefined =>
  typeof next === "string" && next.startsWith("/") && !next.startsWith("//") && !next.includes("\\") ? next : undefined;

const root = createRootRouteWithContext<{ queries: QueryClient }>()({ notFoundComponent: NotFound, errorComponent: Problem });

const signIn = createRoute({
  getParentRoute: () => root,
  path: "/sign-in",
  validateSearch: (search: Record<string, unknown>): { next?: string } => ({ next: safeNext(search.next) }),
}).update({ component: lazyRouteComponent(() => import("./pages/SignIn"), "SignIn") });

const app = createRoute({
  getParentRoute: () => root,
  id: "app",
  component: Shell,
  beforeLoad: async ({ context, location }) => {
    const me = await context.queries.ensureQueryData(queries.me);
    // The router carries a redirection as something thrown.
    if (me === null) throw redirect({ to: "/sign-in", search: { next: location.href } });
  },
});
const parent = { getParentRoute: () => app };

const home = createRoute({ ...parent, path: "/", component: lazyRouteComponent(() => import("./pages/Home"), "Home") });
const deploy = createRoute({
  ...parent,
  path: "/deploy",
  validateSearch: (search: Record<string, unknown>): { repo?: string; branch?: string; sandbox?: string } => ({
    repo: text(search.repo),
    branch: text(search.branch),
    sandbox: text(search.sandbox),
  }),
  component: lazyRouteComponent(() => import("./pages/Deploy"), "Deploy"),
});
const deployment = createRoute({
  ...parent,
  path: "/deployments/$id",
  validateSearch: (search: Record<string, unknown>): { tab?: "output"; line?: string } => ({
    tab: search.tab === "output" ? "output" : undefined,
    line: text(search.line),
  }),
  component: lazyRouteComponent(() => import("./pages/Deployment"), "DeploymentPage"),
});
const sandboxes = createRoute({
  ...parent,
  path: "/sandboxes",
  validateSearch: (search: Record<string, unknown>): { q?: string; create?: string; template?: string; clone?: string } => ({
    q: text(search.q),
    create: text(search.create),
    template: text(search.template),
    clone: text(search.clone),
  }),
  component: lazyRouteComponent(() => import("./pages/Sandboxes"), "Sandboxes"),
});
const sandbox = createRoute({
  ...parent,
  path: "/sandboxes/$name",
  component: lazyRouteComponent(() => import("./pages/Sandbox"), "SandboxPage"),
});
const history = createRoute({
  ...parent,
  path: "/history",
  validateSearch: (search: Record<string, unknown>): { sandbox?: string; repo?: string; user?: string; state?: DeploymentState } => ({
    sandbox: text(search.sandbox),
    repo: text(search.repo),
    user: text(search.user),
    state: text(search.state) as DeploymentState | undefined,
  }),
  component: lazyRouteComponent(() => import("./pages/History"), "History"),
});
const agents = createRoute({ ...parent, path: "/agents", component: lazyRouteComponent(() => import("./pages/Agents"), "Agents") });
const templates = createRoute({ ...parent, path: "/templates", component: lazyRouteComponent(() => import("./pages/Templates"), "Templates") });
const environments = createRoute({ ...parent, path: "/environments", component: lazyRouteComponent(() => import("./pages/Environments"), "Environments") });
const audit = createRoute({
  ...parent,
  path: "/audit",
  validateSearch: (search: Record<string, unknown>): { user?: string; action?: string; subject?: string } => ({
    user: text(search.user),
    action: text(search.action),
    subject: text(search.subject),
  }),
  component: lazyRouteComponent(() => import("./pages/Audit"), "Audit"),
});
const tokens = createRoute({ ...parent, path: "/tokens", component: lazyRouteComponent(() => import("./pages/Tokens"), "Tokens") });
const users = createRoute({ ...parent, path: "/users", component: lazyRouteComponent(() => import("./pages/Users"), "Users") });
const settings = createRoute({ ...parent, path: "/settings", component: lazyRouteComponent(() => import("./pages/Settings"), "Settings") });

const tree = root.addChildren([
  signIn,
  app.addChildren([home, deploy, deployment, sandboxes, sandbox, history, agents, templates, environments, audit, tokens, users, settings]),
]);

export function createAppRouter(client: QueryClient) {
  return createRouter({
    routeTree: tree,
    basepath: base.pathname,
    context: { queries: client },
    // Plain names and values, as people write them.
    parseSearch: (search) => Object.fromEntries(new URLSearchParams(search)),
    stringifySearch: (search) => {
      const pairs = Object.entries(search as Record<string, string | undefined>).filter((pair) => pair[1] !== undefined);
      const text = new URLSearchParams(pairs as [string, string][]).toString();
      return text === "" ? "" : `?${text}`;
    },
    defaultPreload: "intent",
    // A log keeps its own place.
    scrollRestoration: ({ location }) => !location.pathname.includes("/deployments/"),
  });
}

declare module "@tanstack/react-router" {
  interface Register {
    router: ReturnType<typeof createAppRouter>;
  }
}
