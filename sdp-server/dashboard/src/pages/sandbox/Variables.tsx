import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { client, take } from "../../api/client";
import { formError } from "../../api/problem";
import type { Deployment, SandboxDetail } from "../../api/types";
import { Dialog } from "../../ui/dialog";
import { fromEnv, toEnv } from "../../ui/env";
import { EnvEditor } from "../../ui/EnvEditor";
import { Field } from "../../ui/field";
import { FormError } from "../../ui/states";
import { say } from "../../ui/toast";

/** A service's variables, with which it is deployed again. */
export function Variables({ sandbox, deployment, onClose }: { sandbox: SandboxDetail; deployment: Deployment; onClose: () => void }) {
  const { repo, branch } = deployment;
  const cache = useQueryClient();
  const service = sandbox.services.find((it) => it.repo === repo);
  const [rows, setRows] = useState(() => fromEnv(service?.env ?? deployment.env));
  const deploy = useMutation({
    mutationFn: () => take(client.POST("/api/sandboxes/{name}/deployments", { params: { path: { name: sandbox.name } }, body: { repo, branch, env: toEnv(rows) } })),
    onSuccess: () => {
      void cache.invalidateQueries({ queryKey: ["sandbox", sandbox.name] });
      say(`${repo} is being deployed with these variables`);
      onClose();
    },
  });
  return (
    <Dialog title={`Variables of ${repo}`} onClose={onClose} className="dialog-wide">
      <form
        className="form"
        onSubmit={(event) => {
          event.preventDefault();
          deploy.mutate();
        }}
      >
        <FormError text={formError(deploy.error, ["env"])} />
        <Field label="Environment variables" name="env" error={deploy.error} hint="Over those of the repo and the environment. Paste a whole .env file into a name.">
          {() => <EnvEditor rows={rows} onChange={setRows} />}
        </Field>
        <p className="muted">
          Branch <span className="branch">{branch}</span> is deployed again with them; its port stays.
        </p>
        <div className="actions">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button button-primary" disabled={deploy.isPending}>
            Deploy with these
          </button>
        </div>
      </form>
    </Dialog>
  );
}
