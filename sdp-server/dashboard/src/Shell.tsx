import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, Outlet, useLocation, useRouter, useRouterState } from "@tanstack/react-router";
import {
  Boxes, Cpu, History as HistoryIcon, KeyRound, Layers, LayoutDashboard, LayoutTemplate, LogOut, Menu as MenuIcon, Rocket, ScrollText, Search, Settings as SettingsIcon, Users as UsersIcon,
} from "lucide-react";
import { Suspense, lazy, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { client, take } from "./api/client";
import { Live } from "./api/live";
import { queries } from "./api/queries";
import { Menu } from "./ui/menu";
import { Loading } from "./ui/states";
import { complain } from "./ui/toast";

const loadPalette = () => import("./Palette");
const Palette = lazy(loadPalette);

const LINKS = [
  [
    { to: "/", label: "Overview", icon: LayoutDashboard },
    { to: "/deploy", label: "Deploy", icon: Rocket },
    { to: "/sandboxes", label: "Sandboxes", icon: Boxes },
    { to: "/history", label: "History", icon: HistoryIcon },
  ],
  [
    { to: "/templates", label: "Templates", icon: LayoutTemplate },
    { to: "/environments", label: "Environments", icon: Layers },
    { to: "/agents", label: "Agents", icon: Cpu },
  ],
  [
    { to: "/audit", label: "Audit", icon: ScrollText },
    { to: "/tokens", label: "Tokens", icon: KeyRound },
    { to: "/users", label: "Users", icon: UsersIcon, role: "admin" },
    { to: "/settings", label: "Settings", icon: SettingsIcon },
  ],
] as const;

/** What is around every page: where to go, who one is, whether what is shown is live. */
export function Shell() {
  const cache = useQueryClient();
  const live = useMemo(() => new Live(cache), [cache]);
  const link = useSyncExternalStore(live.subscribe, () => live.state);
  const me = useQuery(queries.me).data;
  const router = useRouter();
  const path = useLocation({ select: (location) => location.pathname });
  const [isPaletteOpen, setPaletteOpen] = useState(false);
  const [isNavOpen, setNavOpen] = useState(false);
  const main = useRef<HTMLElement>(null);
  const isPending = useRouterState({ select: (state) => state.status === "pending" });

  useEffect(() => live.start(), [live]);

  // It is there when its key is pressed, also while the server is not.
  useEffect(() => {
    const timer = setTimeout(() => void loadPalette().catch(() => undefined), 1_500);
    return () => clearTimeout(timer);
  }, []);

  // The session is over, here or elsewhere.
  useEffect(() => {
    if (me === null) void router.navigate({ to: "/sign-in", search: { next: router.latestLocation.href } });
  }, [me, router]);

  // A new page begins at its heading, also for who does not see it.
  const earlier = useRef(path);
  useEffect(() => {
    setNavOpen(false);
    if (earlier.current !== path) {
      main.current?.focus({ preventScroll: true });
      if (path.startsWith("/deployments/")) window.scrollTo(0, 0);
    }
    earlier.current = path;
  }, [path]);

  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        setPaletteOpen((isOpen) => !isOpen);
      }
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, []);

  const signOut = async (everywhere: boolean) => {
    try {
      await take(client.POST("/api/logout", { params: { query: everywhere ? { everywhere } : {} } }));
      await router.navigate({ to: "/sign-in", search: {} });
      cache.clear();
    } catch (error) {
      complain(error);
    }
  };
  if (!me) return <Loading />;
  return (
    <div className="shell">
      <header className="top">
        <a
          className="skip"
          href="#main"
          onClick={(event) => {
            // The page's base is not its address.
            event.preventDefault();
            main.current?.focus();
          }}
        >
          Skip to the page
        </a>
        <button type="button" className="icon-button nav-toggle" aria-label="Navigation" aria-expanded={isNavOpen} aria-controls="nav" onClick={() => setNavOpen(!isNavOpen)}>
          <MenuIcon size={20} aria-hidden />
        </button>
        <Link to="/" className="brand" aria-label="SDP, overview">
          <Logo /> <span>SDP</span>
        </Link>
        <button type="button" className="search-button" onClick={() => setPaletteOpen(true)}>
          <Search size={15} aria-hidden />
          <span>Go to or do…</span>
          <kbd>Ctrl K</kbd>
        </button>
        <span className="link-state" data-state={link} role="status">
          <span className="dot" aria-hidden />
          <span className="wide">{link === "live" ? "Live" : link === "away" ? "Reconnecting…" : "Connecting…"}</span>
        </span>
        <Menu
          label="Account"
          trigger={
            <button type="button" className="account">
              <span className="avatar" aria-hidden>{me.user.slice(0, 2)}</span>
              <span className="wide">{me.user}</span>
              <span className="visually-hidden narrow">{me.user}</span>
            </button>
          }
          items={[
            { label: "Sign out", icon: <LogOut size={15} aria-hidden />, onSelect: () => void signOut(false) },
            { label: "Sign out everywhere", icon: <LogOut size={15} aria-hidden />, onSelect: () => void signOut(true) },
          ]}
        />
      </header>
      <nav id="nav" className={isNavOpen ? "nav nav-open" : "nav"} aria-label="Pages">
        {LINKS.map((group, index) => (
          <ul key={index}>
            {group
              .filter((item) => !("role" in item) || me.role === item.role)
              .map(({ to, label, icon: Icon }) => (
                <li key={to}>
                  <Link to={to} activeOptions={{ exact: to === "/", includeSearch: false }} className="nav-link">
                    <Icon size={17} aria-hidden />
                    {label}
                  </Link>
                </li>
              ))}
          </ul>
        ))}
      </nav>
      {link === "away" ? (
        <p className="banner" role="status">
          The connection to the server is lost. What is shown may be old; it is brought up to date when the server answers again.
        </p>
      ) : null}
      <main id="main" className="main" ref={main} tabIndex={-1} aria-busy={isPending}>
        <Suspense fallback={<Loading />}>
          <Outlet />
        </Suspense>
      </main>
      {isPaletteOpen ? (
        <Suspense fallback={null}>
          <Palette onClose={() => setPaletteOpen(false)} role={me.role} />
        </Suspense>
      ) : null}
    </div>
  );
}

export function Logo() {
  return (
    <svg width="26" height="26" viewBox="0 0 32 32" aria-hidden className="logo">
      <rect width="32" height="32" rx="8" />
      <path d="M8 21l8 4 8-4M8 16l8 4 8-4M16 7l8 4-8 4-8-4z" />
    </svg>
  );
}
