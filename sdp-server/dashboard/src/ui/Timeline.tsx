import { Check, CircleDashed, Minus, X } from "lucide-react";
import { type Deployment, STAGES, type StageRecord, isActive } from "../api/types";
import { duration, useClock } from "./time";

/** How long a stage took, or takes by now. */
export function took(record: StageRecord, now: number): number {
  const end = record.ended_at == null ? Math.max(now, Date.parse(record.started_at)) : Date.parse(record.ended_at);
  return end - Date.parse(record.started_at);
}

const ICONS = {
  started: <span className="spinner" aria-hidden />,
  done: <Check size={14} aria-hidden />,
  skipped: <Minus size={14} aria-hidden />,
  failed: <X size={14} aria-hidden />,
  cancelled: <X size={14} aria-hidden />,
};

/** A deployment's stages, in order, with what each took. */
export function Timeline({ deployment }: { deployment: Deployment }) {
  const now = useClock(isActive(deployment.state));
  const records = new Map(deployment.stages.map((record) => [record.stage, record]));
  const times = STAGES.map((stage) => {
    const record = records.get(stage);
    return record && record.status !== "skipped" ? took(record, now) : 0;
  });
  const longest = Math.max(1, ...times);
  return (
    <ol className="timeline">
      {STAGES.map((stage, index) => {
        const record = records.get(stage);
        const status = record?.status ?? (isActive(deployment.state) ? "waiting" : "not reached");
        return (
          <li key={stage} data-status={status}>
            <span className="timeline-mark">{record ? ICONS[record.status] : <CircleDashed size={14} aria-hidden />}</span>
            <span className="timeline-name">{stage}</span>
            <span className="timeline-time">
              {record && record.status !== "skipped" ? duration(times[index] ?? 0) : status}
              {record && record.status !== "skipped" ? <span className="visually-hidden"> {status}</span> : null}
            </span>
            <span className="timeline-bar" aria-hidden>
              <span style={{ width: `${((times[index] ?? 0) / longest) * 100}%` }} />
            </span>
          </li>
        );
      })}
    </ol>
  );
}
