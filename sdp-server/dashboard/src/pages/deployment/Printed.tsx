import { getRouteApi } from "@tanstack/react-router";
import { Tabs } from "radix-ui";
import { useEffect, useState } from "react";
import { base } from "../../api/client";
import { type Deployment, type DeploymentState, hasOutput, isActive } from "../../api/types";
import { followLog } from "../../log/events";
import { Lines } from "../../log/lines";
import { LogView } from "../../log/LogView";
import { KEPT, followOutput } from "../../log/output";
import type { Told } from "../../log/stream";
import { type Range, format, parse } from "../../log/view";
import { Empty } from "../../ui/states";

const route = getRouteApi("/app/deployments/$id");

/** Where a deployment's texts are as documents. */
const document = (id: string, name: "log" | "output") => new URL(`api/deployments/${id}/${name}?format=text`, base).href;

/** Why there is no output to be read. */
const missing = (state: DeploymentState): string =>
  isActive(state) ? "What the program prints can be read once it runs." : "No program of it is there whose output could be read: the log has what was told of it.";

/** What a deployment's stages have told, and what its program prints. */
export function Printed({ deployment: { id, state } }: { deployment: Deployment }) {
  const { tab = "log", line } = route.useSearch();
  const navigate = route.useNavigate();
  // Here rather than in its panel: who comes back to it finds it as it was.
  const [lines] = useState(() => new Lines());
  const [told, setTold] = useState<Told>({ state: "connecting" });
  useEffect(() => followLog(id, lines, setTold), [id, lines]);
  const isOffered = hasOutput(state);
  // Its panel explains it by itself.
  const isExplained = !isOffered && tab === "log";
  const address = (change: { tab?: "output" | undefined; line?: string | undefined }) =>
    void navigate({ search: (old) => ({ ...old, ...change }), replace: true, resetScroll: false });
  return (
    <Tabs.Root className="tabs" value={tab} onValueChange={(tab) => address({ tab: tab === "output" ? tab : undefined })}>
      <div className="tabs-head">
        <Tabs.List className="tabs-list" aria-label="What is told of it">
          <Tabs.Trigger className="tab" value="log">
            Log
          </Tabs.Trigger>
          <Tabs.Trigger className="tab" value="output" disabled={!isOffered} aria-describedby={isExplained ? "no-output" : undefined}>
            Program output
          </Tabs.Trigger>
        </Tabs.List>
        {isExplained ? (
          <span id="no-output" className="hint">
            {missing(state)}
          </span>
        ) : null}
      </div>
      <Tabs.Content value="log">
        <LogView
          lines={lines}
          state={told.state}
          label="Log"
          name="log"
          ended="complete"
          selected={parse(line)}
          onSelect={(range) => address({ line: range && format(range) })}
          isLinked
          download={document(id, "log")}
        />
      </Tabs.Content>
      <Tabs.Content value="output">
        <Output id={id} state={state} />
      </Tabs.Content>
    </Tabs.Root>
  );
}

/** What the program prints. What was read stays when the program goes. */
function Output({ id, state }: { id: string; state: DeploymentState }) {
  const [wasOffered, setWasOffered] = useState(false);
  if (hasOutput(state) && !wasOffered) setWasOffered(true);
  return wasOffered ? (
    <Followed id={id} isRunning={state === "running"} />
  ) : (
    <div className="panel">
      <Empty title="No program output">{missing(state)}</Empty>
    </div>
  );
}

function Followed({ id, isRunning }: { id: string; isRunning: boolean }) {
  const [lines] = useState(() => new Lines(KEPT));
  const [told, setTold] = useState<Told>({ state: "connecting" });
  const [selected, setSelected] = useState<Range>();
  const [attempt, setAttempt] = useState(0);
  const isOver = told.state === "ended" || told.state === "broken";
  useEffect(
    () =>
      followOutput(id, lines, (now) => {
        setTold(now);
        // The lines are numbered anew.
        if (now.state === "live") setSelected(undefined);
      }),
    [id, lines, attempt],
  );

  // A program that is started again is followed again.
  const [wasRunning, setWasRunning] = useState(isRunning);
  if (wasRunning !== isRunning) {
    setWasRunning(isRunning);
    if (isRunning && isOver) setAttempt(attempt + 1);
  }

  const sentence = told.why ?? (told.state === "ended" ? "The program has ended." : undefined);
  return (
    <LogView
      lines={lines}
      state={told.state}
      label="Program output"
      name="output"
      ended="ended"
      selected={selected}
      onSelect={setSelected}
      note={
        sentence === undefined ? null : (
          <>
            {sentence}
            {isOver ? (
              <button type="button" className="button button-small" onClick={() => setAttempt(attempt + 1)}>
                Follow again
              </button>
            ) : null}
          </>
        )
      }
      download={document(id, "output")}
    />
  );
}
