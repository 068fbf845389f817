import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { base } from "../api/client";
import { queries } from "../api/queries";
import { Copyable } from "../ui/copy";
import { Page, Panel } from "../ui/page";
import { Time } from "../ui/time";
import { setTheme, theme, type Theme } from "../ui/theme";

const KEYS = [
  ["Ctrl K", "Go to any page, sandbox or repo"],
  ["/", "Search the log that has the focus"],
  ["n, N", "Next and previous match in the log"],
  ["e, E", "Next and previous error in the log"],
  ["End", "Follow the log"],
] as const;

export function Settings() {
  const me = useQuery(queries.me).data;
  const [chosen, setChosen] = useState(theme);
  return (
    <Page title="Settings" tab="Settings">
      <Panel title="Appearance">
        <fieldset className="segmented">
          <legend className="visually-hidden">Theme</legend>
          {(["system", "light", "dark"] satisfies Theme[]).map((it) => (
            <label key={it}>
              <input
                type="radio"
                name="theme"
                checked={chosen === it}
                onChange={() => {
                  setTheme(it);
                  setChosen(it);
                }}
              />
              <span>{it === "system" ? "As the system" : it === "light" ? "Light" : "Dark"}</span>
            </label>
          ))}
        </fieldset>
        <p className="hint">It is kept in this browser.</p>
      </Panel>
      {me ? (
        <Panel title="You">
          <dl className="pairs">
            <dt>Git user</dt>
            <dd>{me.user}</dd>
            <dt>Role</dt>
            <dd>{me.role}</dd>
            <dt>Session ends</dt>
            <dd>
              <Time at={me.expires_at} />
            </dd>
          </dl>
        </Panel>
      ) : null}
      <Panel title="The API">
        <p>
          Everything here is done over it: <a href={new URL("api/docs", base).href}>its description</a>.
        </p>
        <Copyable text={new URL("api/openapi.json", base).href} label="Copy the address of the description" />
      </Panel>
      <Panel title="Keys">
        <dl className="pairs">
          {KEYS.map(([key, does]) => (
            <div key={key} className="pair">
              <dt>
                <kbd>{key}</kbd>
              </dt>
              <dd>{does}</dd>
            </div>
          ))}
        </dl>
      </Panel>
    </Page>
  );
}
