import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Plus } from "lucide-react";
import { useState } from "react";
import { client, take } from "../api/client";
import { formError } from "../api/problem";
import { queries } from "../api/queries";
import type { ApiToken, Role, Scope } from "../api/types";
import { Confirm, Dialog } from "../ui/dialog";
import { Field } from "../ui/field";
import { Page, Panel } from "../ui/page";
import { Secret } from "../ui/Secret";
import { Empty, FormError, Loaded } from "../ui/states";
import { Time } from "../ui/time";
import { say } from "../ui/toast";

const SCOPES: Record<Scope, string> = { read: "look at everything", deploy: "deploy, and change what is yours", admin: "everything an admin may" };
const ALLOWED: Record<Role, Scope[]> = { viewer: ["read"], developer: ["read", "deploy"], admin: ["read", "deploy", "admin"] };

export function Tokens() {
  const query = useQuery(queries.tokens);
  const cache = useQueryClient();
  const [isMaking, setMaking] = useState(false);
  const [secret, setSecret] = useState<string>();
  const [revoked, setRevoked] = useState<ApiToken>();
  const refresh = () => cache.invalidateQueries({ queryKey: ["tokens"] });
  return (
    <Page
      title="Tokens"
      tab="Tokens"
      lead="For scripts, sent as a bearer token. No git password is kept for one."
      actions={
        <button type="button" className="button button-primary" onClick={() => setMaking(true)}>
          <Plus size={16} aria-hidden /> New token
        </button>
      }
    >
      <Panel flush>
        <Loaded query={query}>
          {(all) =>
            all.length === 0 ? (
              <Empty title="You have no token">Make one for a script or a pipeline.</Empty>
            ) : (
              <table className="table">
                <thead>
                  <tr>
                    <th scope="col">Name</th>
                    <th scope="col">May</th>
                    <th scope="col">Last used</th>
                    <th scope="col">Ends</th>
                    <th scope="col">
                      <span className="visually-hidden">Actions</span>
                    </th>
                  </tr>
                </thead>
                <tbody>
                  {all.map((it) => (
                    <tr key={it.id}>
                      <td className="cell-main strong">{it.name}</td>
                      <td data-label="May">{it.scopes.join(", ")}</td>
                      <td data-label="Last used">{it.last_used ? <Time at={it.last_used} /> : <span className="muted">never</span>}</td>
                      <td data-label="Ends">
                        <Time at={it.expires_at} />
                      </td>
                      <td className="cell-actions">
                        <button type="button" className="button button-small" onClick={() => setRevoked(it)} aria-label={`Revoke ${it.name}`}>
                          Revoke
                        </button>
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            )
          }
        </Loaded>
      </Panel>
      {isMaking ? (
        <Make
          onClose={() => setMaking(false)}
          onDone={(made) => {
            setMaking(false);
            setSecret(made);
            void refresh();
          }}
        />
      ) : null}
      {secret === undefined ? null : (
        <Secret title="Your new token" secret={secret} onClose={() => setSecret(undefined)}>
          Send it as <code>Authorization: Bearer …</code>.
        </Secret>
      )}
      {revoked ? (
        <Confirm
          title={`Revoke ${revoked.name}?`}
          action="Revoke it"
          onClose={() => setRevoked(undefined)}
          onConfirm={async () => {
            await take(client.DELETE("/api/tokens/{id}", { params: { path: { id: revoked.id } } }));
            say(`Token ${revoked.name} is revoked`);
            void refresh();
          }}
        >
          Scripts that use it are refused from now on.
        </Confirm>
      ) : null}
    </Page>
  );
}

function Make({ onClose, onDone }: { onClose: () => void; onDone: (secret: string) => void }) {
  const role = useQuery(queries.me).data?.role ?? "viewer";
  const [name, setName] = useState("");
  const [expires, setExpires] = useState("90d");
  const [scopes, setScopes] = useState<readonly Scope[]>(["read"]);
  const make = useMutation({
    mutationFn: () => take(client.POST("/api/tokens", { body: { name, scopes: [...scopes], expires_in: expires } })),
    onSuccess: (made) => onDone(made.secret),
  });
  return (
    <Dialog title="New token" onClose={onClose}>
      <form
        className="form"
        onSubmit={(event) => {
          event.preventDefault();
          make.mutate();
        }}
      >
        <FormError text={formError(make.error, ["name", "expires_in"])} />
        <Field label="Name" name="name" error={make.error} hint="What it is for, such as nightly build.">
          {(control) => <input {...control} className="input" required value={name} onChange={(event) => setName(event.target.value)} />}
        </Field>
        <fieldset className="sub">
          <legend>It may</legend>
          {ALLOWED[role].map((scope) => (
            <label className="check" key={scope}>
              <input type="checkbox" aria-label={`${scope}: ${SCOPES[scope]}`} checked={scopes.includes(scope)} onChange={(event) => setScopes(event.target.checked ? [...scopes, scope] : scopes.filter((it) => it !== scope))} />
              <span>
                <strong>{scope}</strong> <span className="muted">{SCOPES[scope]}</span>
              </span>
            </label>
          ))}
        </fieldset>
        <Field label="Ends in" name="expires_in" error={make.error} hint="366d at most.">
          {(control) => <input {...control} className="input" required value={expires} onChange={(event) => setExpires(event.target.value)} />}
        </Field>
        <div className="actions">
          <button type="button" className="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" className="button button-primary" disabled={make.isPending || scopes.length === 0}>
            Make it
          </button>
        </div>
      </form>
    </Dialog>
  );
}
