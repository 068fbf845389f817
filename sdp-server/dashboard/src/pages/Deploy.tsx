import { useMutation, useQuery } from "@tanstack/react-query";
import { getRouteApi, useNavigate } from "@tanstack/react-router";
import { Rocket } from "lucide-react";
import { useState } from "react";
import { client, take } from "../api/client";
import { formError } from "../api/problem";
import { queries } from "../api/queries";
import { BranchField } from "../ui/BranchField";
import { toEnv, type EnvRow } from "../ui/env";
import { EnvEditor } from "../ui/EnvEditor";
import { Field } from "../ui/field";
import { Page, Panel } from "../ui/page";
import { Empty, FormError, Loaded } from "../ui/states";

const route = getRouteApi("/app/deploy");
const FIELDS = ["repo", "branch", "host_port", "env", "agent", "name"];

export function Deploy() {
  const search = route.useSearch();
  const navigate = useNavigate();
  const repos = useQuery(queries.repos);
  const sandboxes = useQuery(queries.sandboxes).data ?? [];
  const [repo, setRepo] = useState(search.repo ?? "");
  const [branch, setBranch] = useState(search.branch ?? "");
  const [sandbox, setSandbox] = useState(search.sandbox ?? "");
  const [port, setPort] = useState("");
  const [agent, setAgent] = useState("");
  const [force, setForce] = useState(false);
  const [env, setEnv] = useState<EnvRow[]>([]);
  const deploy = useMutation({
    mutationFn: () => {
      const body = {
        repo,
        branch,
        ...(port === "" ? {} : { host_port: Number(port) }),
        ...(agent === "" ? {} : { agent }),
        ...(force ? { force } : {}),
        env: toEnv(env),
      };
      return take(
        sandbox === ""
          ? client.POST("/api/deployments", { body })
          : client.POST("/api/sandboxes/{name}/deployments", { params: { path: { name: sandbox } }, body }),
      );
    },
    onSuccess: (made) => navigate({ to: "/deployments/$id", params: { id: made.id } }),
  });
  const agents = repos.data?.find((it) => it.name === repo)?.agents ?? [];
  return (
    <Page title="Deploy a branch" tab="Deploy" lead="It is built on the VM and run there; the log is shown while it happens.">
      <Loaded query={repos}>
        {(all) =>
          all.length === 0 ? (
            <Panel>
              <Empty title="No agent that is connected has a repo">Declare one under [[repo]] in an agent's configuration, and see on the page Agents that it is connected.</Empty>
            </Panel>
          ) : (
            <Panel>
              <form
                className="form"
                onSubmit={(event) => {
                  event.preventDefault();
                  deploy.mutate();
                }}
              >
                <FormError text={formError(deploy.error, FIELDS)} />
                <div className="form-row">
                  <Field label="Repo" name="repo" error={deploy.error}>
                    {(control) => (
                      <select
                        {...control}
                        className="input"
                        required
                        value={repo}
                        onChange={(event) => {
                          setRepo(event.target.value);
                          setBranch("");
                          setAgent("");
                        }}
                      >
                        <option value="">Choose…</option>
                        {all.map((it) => (
                          <option key={it.name} value={it.name}>
                            {it.name}
                            {it.gateway ? " (gateway)" : ""}
                          </option>
                        ))}
                      </select>
                    )}
                  </Field>
                  <BranchField repo={repo} value={branch} onChange={setBranch} error={deploy.error} />
                </div>
                <div className="form-row">
                  <Field label="Into" name="name" error={deploy.error} hint={sandbox === "" ? "A quick deploy belongs to no sandbox; there is one for each repo." : "What of this repo runs in the sandbox is replaced."}>
                    {(control) => (
                      <select {...control} className="input" value={sandbox} onChange={(event) => setSandbox(event.target.value)}>
                        <option value="">Quick deploy, no sandbox</option>
                        {sandboxes.map((it) => (
                          <option key={it.name}>{it.name}</option>
                        ))}
                      </select>
                    )}
                  </Field>
                  <Field label="Host port" name="host_port" error={deploy.error} optional hint="Left out, a free one is picked.">
                    {(control) => (
                      <input {...control} className="input" type="number" min={1} max={65535} inputMode="numeric" placeholder="picked" value={port} onChange={(event) => setPort(event.target.value)} />
                    )}
                  </Field>
                </div>
                {agents.length > 1 ? (
                  <Field label="Agent" name="agent" error={deploy.error} optional>
                    {(control) => (
                      <select {...control} className="input" value={agent} onChange={(event) => setAgent(event.target.value)}>
                        <option value="">Whichever fits</option>
                        {agents.map((it) => (
                          <option key={it}>{it}</option>
                        ))}
                      </select>
                    )}
                  </Field>
                ) : null}
                <Field label="Environment variables" name="env" error={deploy.error} optional hint="Over those of the repo and the environment. Paste a whole .env file into a name.">
                  {() => <EnvEditor rows={env} onChange={setEnv} />}
                </Field>
                <label className="check">
                  <input type="checkbox" checked={force} onChange={(event) => setForce(event.target.checked)} />
                  Replace what runs even if it is the same already
                </label>
                <div className="actions">
                  <button type="submit" className="button button-primary" disabled={deploy.isPending}>
                    <Rocket size={16} aria-hidden /> {deploy.isPending ? "Asking…" : "Deploy"}
                  </button>
                </div>
              </form>
            </Panel>
          )
        }
      </Loaded>
    </Page>
  );
}
