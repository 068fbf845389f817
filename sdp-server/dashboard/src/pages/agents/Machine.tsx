import { useQuery } from "@tanstack/react-query";
import { RefreshCw } from "lucide-react";
import { sentence } from "../../api/problem";
import { queries } from "../../api/queries";
import type { Disk, Examination, Verdict } from "../../api/types";
import { Badge, type Tone } from "../../ui/badge";
import { bytes } from "../../ui/bytes";
import { Dialog } from "../../ui/dialog";
import { Meter } from "../../ui/Meter";
import { Failure } from "../../ui/states";
import { Time } from "../../ui/time";

/** How full a disk is, as its agent and its doctor judge it. */
export function fullness({ free_bytes: free, total_bytes: total, min_free_bytes: least }: Disk): "good" | "warn" | "bad" {
  if (free < least) return "bad";
  return free < least * 2 || free < total / 10 ? "warn" : "good";
}

/** The disks that an agent uses, as bars with a mark from where on nothing is deployed any more. */
export function Disks({ agent }: { agent: string }) {
  const query = useQuery(queries.disks(agent));
  if (query.isError) return <p className="muted">Its disks are not known: {sentence(query.error)}</p>;
  return (
    <ul className="disks" aria-label={`Disks of ${agent}`}>
      {(query.data ?? []).map((disk) => {
        const { path, free_bytes: free, total_bytes: total, min_free_bytes: least } = disk;
        const text = `${bytes(free)} of ${bytes(total)} free`;
        return (
          <li key={path}>
            <span className="disk-facts">
              <code className="clip" title={path}>
                {path}
              </code>
              <span className="muted">{text}</span>
            </span>
            <Meter label={`Disk at ${path}`} share={total === 0 ? 0 : 1 - free / total} text={text} tone={fullness(disk)} limit={total === 0 ? undefined : 1 - least / total} />
          </li>
        );
      })}
    </ul>
  );
}

const TONES: Record<Verdict, Tone> = { ok: "good", warning: "warn", broken: "bad" };

/** What an examination comes to, in a few words. */
export function summary({ findings }: Examination): [Tone, string] {
  const count = (verdict: Verdict) => findings.filter((it) => it.verdict === verdict).length;
  const broken = count("broken");
  const warnings = count("warning");
  if (broken > 0) return ["bad", `${broken} broken`];
  return warnings > 0 ? ["warn", warnings === 1 ? "1 warning" : `${warnings} warnings`] : ["good", "all well"];
}

/** What the doctor found the last time, if it was asked. */
export function Health({ agent }: { agent: string }) {
  const { data } = useQuery({ ...queries.doctor(agent), enabled: false });
  if (!data) return null;
  const [tone, words] = summary(data);
  return <Badge tone={tone}>{words}</Badge>;
}

/** Has an agent examine its machine, and shows what it finds. */
export function Doctor({ agent, onClose }: { agent: string; onClose: () => void }) {
  const query = useQuery(queries.doctor(agent));
  return (
    <Dialog title={`The doctor on ${agent}`} onClose={onClose} className="dialog-wide">
      <div className="stack" aria-busy={query.isFetching}>
        {query.data ? (
          <>
            <p className="muted">
              Examined <Time at={new Date(query.dataUpdatedAt).toISOString()} />, as <code>sdp-agent doctor</code> does it there.
            </p>
            <ul className="findings">
              {query.data.findings.map((it, index) => (
                <li key={index} data-verdict={it.verdict}>
                  <Badge tone={TONES[it.verdict]}>{it.verdict}</Badge>
                  <span className="strong">{it.check}</span>
                  <span className="finding-text">
                    {it.evidence}
                    {it.cure ? <span className="finding-cure">{it.cure}</span> : null}
                  </span>
                </li>
              ))}
            </ul>
          </>
        ) : query.isError ? (
          <Failure error={query.error} />
        ) : (
          <p role="status" className="muted">
            It looks at its token, the way to this server, the engine and its images, toolchains, git hosts, disks and the gateway. That takes up to ten seconds…
          </p>
        )}
        <div className="actions">
          <button type="button" className="button" disabled={query.isFetching} onClick={() => void query.refetch()}>
            <RefreshCw size={15} aria-hidden /> {query.isFetching ? "Examining…" : "Examine again"}
          </button>
          <button type="button" className="button button-primary" onClick={onClose}>
            Close
          </button>
        </div>
      </div>
    </Dialog>
  );
}
