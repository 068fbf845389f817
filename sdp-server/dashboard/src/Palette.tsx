import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { type KeyboardEvent, useEffect, useId, useRef, useState } from "react";
import { queries } from "./api/queries";
import type { Role } from "./api/types";
import { rank } from "./ui/rank";
import { setTheme } from "./ui/theme";
import { Dialog } from "./ui/dialog";

interface Command {
  label: string;
  kind: string;
  run: () => void;
}

/** Every page, sandbox, repo and deed, by typing some of its name. */
export default function Palette({ onClose, role }: { onClose: () => void; role: Role }) {
  const navigate = useNavigate();
  const [text, setText] = useState("");
  const [active, setActive] = useState(0);
  const list = useId();
  const options = useRef<HTMLUListElement>(null);
  const sandboxes = useQuery(queries.sandboxes).data ?? [];
  const repos = useQuery(queries.repos).data ?? [];
  const recent = useQuery(queries.recent).data?.items ?? [];

  const go = (to: string, search: Record<string, string> = {}) => () => void navigate({ to, search } as never);
  const pages = ["Overview", "Deploy", "Sandboxes", "History", "Templates", "Environments", "Agents", "Audit", "Tokens", "Settings"];
  const commands: Command[] = [
    ...pages.map((page) => ({ label: page, kind: "Page", run: go(page === "Overview" ? "/" : `/${page.toLowerCase()}`) })),
    ...(role === "admin" ? [{ label: "Users", kind: "Page", run: go("/users") }] : []),
    { label: "Create a sandbox", kind: "Action", run: go("/sandboxes", { create: "plain" }) },
    ...repos.map((repo) => ({ label: `Deploy ${repo.name}`, kind: "Action", run: go("/deploy", { repo: repo.name }) })),
    ...sandboxes.map((sandbox) => ({ label: sandbox.name, kind: "Sandbox", run: go(`/sandboxes/${sandbox.name}`) })),
    ...recent.map((it) => ({ label: `${it.repo} ${it.branch}`, kind: `Deployment · ${it.state}`, run: go(`/deployments/${it.id}`) })),
    ...(["dark", "light", "system"] as const).map((theme) => ({ label: `Theme: ${theme}`, kind: "Action", run: () => setTheme(theme) })),
  ];
  const found = rank(commands, text, (command) => command.label).slice(0, 60);
  const at = Math.min(active, found.length - 1);
  const run = (command: Command | undefined) => {
    if (!command) return;
    onClose();
    command.run();
  };
  useEffect(() => {
    options.current?.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }, [at]);
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      setActive((at + (event.key === "ArrowDown" ? 1 : -1) + found.length) % Math.max(1, found.length));
    } else if (event.key === "Enter") {
      event.preventDefault();
      run(found[at]);
    }
  };
  return (
    <Dialog title="Go to or do" onClose={onClose} className="palette" hideTitle>
      <input
        className="palette-input"
        role="combobox"
        aria-label="Go to or do"
        aria-expanded
        aria-controls={list}
        aria-activedescendant={at >= 0 ? `${list}-${at}` : undefined}
        placeholder="Type a page, a sandbox, a repo…"
        autoComplete="off"
        spellCheck={false}
        value={text}
        onChange={(event) => {
          setText(event.target.value);
          setActive(0);
        }}
        onKeyDown={onKeyDown}
      />
      <ul className="palette-list" role="listbox" id={list} aria-label="Found" ref={options}>
        {found.map((command, index) => (
          // The keys are the input's, as this pattern has it.
          // eslint-disable-next-line jsx-a11y/click-events-have-key-events
          <li key={`${command.kind} ${command.label} ${index}`} id={`${list}-${index}`} role="option" tabIndex={-1} aria-selected={index === at} onMouseMove={() => setActive(index)} onClick={() => run(command)}>
            <span className="clip">{command.label}</span>
            <span className="muted">{command.kind}</span>
          </li>
        ))}
        {found.length === 0 ? <li role="option" aria-selected={false} aria-disabled className="muted">Nothing is called that</li> : null}
      </ul>
    </Dialog>
  );
}
