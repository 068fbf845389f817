import { Link } from "@tanstack/react-router";
import { type Deployment, STAGES, isActive } from "../api/types";
import { duration } from "./time";
import { took } from "./Timeline";

/** How many deployments are drawn. */
const DRAWN = 40;

/** Of those that ended by themselves, how many came up: `undefined` where none did. */
export function successRate(items: readonly Deployment[]): number | undefined {
  const ended = items.filter(({ state }) => !isActive(state) && state !== "cancelled");
  if (ended.length === 0) return undefined;
  return ended.filter(({ state }) => state !== "failed").length / ended.length;
}

/** The middle of some numbers. */
export function median(values: readonly number[]): number | undefined {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}

/** How long deployments took, by stage, the newest at the right. */
export function StageChart({ items }: { items: readonly Deployment[] }) {
  const drawn = items.filter((it) => !isActive(it.state) && it.stages.length > 0).slice(0, DRAWN).reverse();
  if (drawn.length < 2) return null;
  const times = drawn.map((it) => STAGES.map((stage) => {
    const record = it.stages.find((one) => one.stage === stage);
    return record?.ended_at == null ? 0 : took(record, 0);
  }));
  const totals = times.map((all) => all.reduce((sum, ms) => sum + ms, 0));
  const longest = Math.max(1, ...totals);
  const rate = successRate(items);
  const usual = median(totals.filter((_, index) => drawn[index]?.state !== "failed"));
  return (
    <section className="panel chart" aria-label="How long deployments took">
      <div className="chart-facts">
        <div>
          <span className="figure">{rate === undefined ? "–" : `${Math.round(rate * 100)} %`}</span>
          <span className="muted">came up</span>
        </div>
        <div>
          <span className="figure">{usual === undefined ? "–" : duration(usual)}</span>
          <span className="muted">usual time</span>
        </div>
        <ul className="legend">
          {STAGES.map((stage) => (
            <li key={stage}>
              <span className={`swatch stage-${stage}`} aria-hidden /> {stage}
            </li>
          ))}
        </ul>
      </div>
      <ol className="bars">
        {drawn.map((it, index) => {
          const says = `${it.repo} ${it.branch}: ${duration(totals[index] ?? 0)}, ${it.state}`;
          return (
            <li key={it.id}>
              <Link to="/deployments/$id" params={{ id: it.id }} title={says} aria-label={says} className={it.state === "failed" ? "bar bar-failed" : "bar"}>
                {STAGES.map((stage, at) => (
                  <span key={stage} className={`stage-${stage}`} style={{ height: `${((times[index]?.[at] ?? 0) / longest) * 100}%` }} />
                ))}
              </Link>
            </li>
          );
        })}
      </ol>
    </section>
  );
}
