import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Plus, Trash2 } from "lucide-react";
import { useState } from "react";
import { client, take } from "../api/client";
import { type Edited, takeEdited } from "../api/edited";
import { queries } from "../api/queries";
import type { RouteTarget, Template } from "../api/types";
import { BranchField } from "../ui/BranchField";
import { Dialog } from "../ui/dialog";
import { Editing, SaveError } from "../ui/Editing";
import { Field } from "../ui/field";
import { say } from "../ui/toast";

interface Row {
  repo: string;
  branch: string;
  port: string;
  isRouted: boolean;
  env: object | undefined;
}

/** What a template is made of, as rows to edit. */
function rowsOf(template: Template | undefined, serviceOf: (repo: string) => string): Row[] {
  const routes = (template?.routes ?? {}) as Record<string, RouteTarget>;
  return (template?.services ?? [{ repo: "", branch: "" }]).map((it) => ({
    repo: it.repo,
    branch: it.branch,
    port: "host_port" in it && it.host_port != null ? String(it.host_port) : "",
    isRouted: template === undefined || routes[serviceOf(it.repo)] === "sandbox",
    env: "env" in it ? it.env : undefined,
  }));
}

/** Edits the template of this name, or makes one. */
export function EditTemplate({ name, onClose }: { name: string | undefined; onClose: () => void }) {
  return (
    <Dialog title={name === undefined ? "New template" : `Template ${name}`} onClose={onClose} className="dialog-wide">
      {name === undefined ? (
        <TemplateForm edited={undefined} onReload={() => undefined} onClose={onClose} />
      ) : (
        <Editing of={["template", name]} read={() => takeEdited(client.GET("/api/templates/{name}", { params: { path: { name } } }))}>
          {(edited, again) => <TemplateForm edited={edited} onReload={again} onClose={onClose} />}
        </Editing>
      )}
    </Dialog>
  );
}

function TemplateForm({ edited, onReload, onClose }: { edited: Edited<Template> | undefined; onReload: () => void; onClose: () => void }) {
  const template = edited?.value;
  const cache = useQueryClient();
  const repos = useQuery(queries.repos).data ?? [];
  const serviceOf = (repo: string) => repos.find((it) => it.name === repo)?.service ?? repo;
  const [name, setName] = useState(template?.name ?? "");
  const [expires, setExpires] = useState(template?.expires_in ?? "");
  const [rows, setRows] = useState(() => rowsOf(template, serviceOf));
  const replace = (index: number, change: Partial<Row>) => setRows(rows.map((row, at) => (at === index ? { ...row, ...change } : row)));
  const save = useMutation({
    mutationFn: (version: string | undefined) => {
      const used = rows.filter((row) => row.repo !== "");
      const services = used.map(({ repo, branch, port, env }) => ({ repo, branch, ...(port === "" ? {} : { host_port: Number(port) }), ...(env ? { env } : {}) }));
      // Routes that this form does not show stay as they are.
      const kept = Object.entries((template?.routes ?? {}) as Record<string, RouteTarget>).filter(([service]) => !used.some((row) => serviceOf(row.repo) === service));
      const routed = used.filter((row) => row.isRouted).map((row): [string, RouteTarget] => [serviceOf(row.repo), "sandbox"]);
      const body = { services, routes: Object.fromEntries([...kept, ...routed]), ...(expires === "" ? {} : { expires_in: expires }) } as never;
      return take(template ? client.PUT("/api/templates/{name}", { params: { path: { name: template.name }, header: { "If-Match": version } }, body }) : client.POST("/api/templates", { body: { name, ...(body as object) } }));
    },
    onSuccess: (saved) => {
      void cache.invalidateQueries({ queryKey: ["templates"] });
      say(`Template ${saved.name} is saved`);
      onClose();
    },
  });
  return (
    <form
      className="form"
      onSubmit={(event) => {
        event.preventDefault();
        save.mutate(edited?.version);
      }}
    >
      <SaveError error={save.error} fields={["name", "expires_in"]} subject={`templates/${name}`} onReload={onReload} onOverwrite={() => save.mutate(undefined)} />
      <div className="form-row">
        <Field label="Name" name="name" error={save.error}>
          {(control) => <input {...control} className="input" required disabled={template !== undefined} autoCapitalize="off" spellCheck={false} value={name} onChange={(event) => setName(event.target.value)} />}
        </Field>
        <Field label="Sandboxes live" name="expires_in" error={save.error} optional>
          {(control) => <input {...control} className="input" placeholder="7d" value={expires} onChange={(event) => setExpires(event.target.value)} />}
        </Field>
      </div>
      {rows.map((row, index) => (
        <fieldset className="sub" key={index}>
          <legend>Service {index + 1}</legend>
          <div className="form-row">
            <Field label="Repo" name="repo">
              {(control) => (
                <select {...control} className="input" required value={row.repo} onChange={(event) => replace(index, { repo: event.target.value, branch: "" })}>
                  <option value="">Choose…</option>
                  {repos.map((it) => (
                    <option key={it.name}>{it.name}</option>
                  ))}
                </select>
              )}
            </Field>
            <BranchField repo={row.repo} value={row.branch} onChange={(branch) => replace(index, { branch })} />
            <Field label="Host port" name="host_port" optional>
              {(control) => <input {...control} className="input" type="number" min={1} max={65535} placeholder="picked" value={row.port} onChange={(event) => replace(index, { port: event.target.value })} />}
            </Field>
          </div>
          <div className="actions actions-between">
            <label className="check">
              <input type="checkbox" checked={row.isRouted} onChange={(event) => replace(index, { isRouted: event.target.checked })} />
              Route its service to the sandbox
            </label>
            <button type="button" className="button button-quiet" onClick={() => setRows(rows.filter((_, at) => at !== index))}>
              <Trash2 size={15} aria-hidden /> Remove
            </button>
          </div>
        </fieldset>
      ))}
      <button type="button" className="button button-quiet" onClick={() => setRows([...rows, { repo: "", branch: "", port: "", isRouted: true, env: undefined }])}>
        <Plus size={15} aria-hidden /> Add a service
      </button>
      <div className="actions">
        <button type="button" className="button" onClick={onClose}>
          Cancel
        </button>
        <button type="submit" className="button button-primary" disabled={save.isPending}>
          Save
        </button>
      </div>
    </form>
  );
}
