import { Cpu, MemoryStick, RotateCcw } from "lucide-react";
import type { RunningStats } from "../api/types";
import { bytes, cpuShare } from "./bytes";
import { Meter } from "./Meter";

/** What a service uses now. */
export function Usage({ of, stats }: { of: string; stats: RunningStats }) {
  const { cpus, memory_bytes: used, memory_limit_bytes: limit, restarts } = stats;
  const share = limit == null || limit === 0 ? undefined : used / limit;
  const memory = limit == null ? bytes(used) : `${bytes(used)} of ${bytes(limit)}`;
  return (
    <span className="usage">
      <span title="CPU in use; 100 % is one whole CPU">
        <Cpu size={14} aria-hidden /> <span className="visually-hidden">CPU</span> {cpuShare(cpus)}
      </span>
      <span title="Memory in use, without page cache">
        <MemoryStick size={14} aria-hidden /> <span className="visually-hidden">memory</span> {memory}
      </span>
      {share === undefined ? null : <Meter label={`Memory of ${of}`} share={share} text={memory} tone={share > 0.9 ? "bad" : share > 0.75 ? "warn" : "good"} />}
      {restarts > 0 ? (
        <span className="warn" title="Its program exited, and was started again">
          <RotateCcw size={14} aria-hidden /> restarted {restarts === 1 ? "once" : `${restarts} times`}
        </span>
      ) : null}
    </span>
  );
}
