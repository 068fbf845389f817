import type { DeploymentState, Route, Sandbox } from "../api/types";
import { isActive } from "../api/types";

export type Tone = "good" | "bad" | "busy" | "warn" | "quiet" | "accent";

export function Badge({ tone, children }: { tone: Tone; children: React.ReactNode }) {
  return (
    <span className={`badge badge-${tone}`}>
      <span className="dot" aria-hidden />
      {children}
    </span>
  );
}

export function tone(state: DeploymentState): Tone {
  if (isActive(state)) return "busy";
  if (state === "running") return "good";
  return state === "failed" ? "bad" : "quiet";
}

export function StateBadge({ state }: { state: DeploymentState }) {
  return <Badge tone={tone(state)}>{state}</Badge>;
}

export function SandboxBadge({ state }: { state: Sandbox["state"] }) {
  return <Badge tone={state === "active" ? "good" : state === "asleep" ? "quiet" : "warn"}>{state}</Badge>;
}

const ORIGINS: Record<Route["origin"], Tone> = { ocp: "quiet", sandbox: "accent", custom: "warn", drifted: "bad" };

export function OriginBadge({ origin }: { origin: Route["origin"] }) {
  return <Badge tone={ORIGINS[origin]}>{origin}</Badge>;
}
