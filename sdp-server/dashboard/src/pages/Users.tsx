import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { client, take } from "../api/client";
import { queries } from "../api/queries";
import type { Role } from "../api/types";
import { Badge } from "../ui/badge";
import { Page, Panel } from "../ui/page";
import { Loaded } from "../ui/states";
import { Time } from "../ui/time";
import { complain, say } from "../ui/toast";

export function Users() {
  const query = useQuery(queries.users);
  const me = useQuery(queries.me).data;
  const cache = useQueryClient();
  const change = useMutation({
    mutationFn: ({ name, ...body }: { name: string; role?: Role; disabled?: boolean }) => take(client.PUT("/api/users/{name}", { params: { path: { name } }, body })),
    onSuccess: (user) => say(user.disabled ? `${user.name} is locked out` : `${user.name} is ${user.role === "admin" ? "an" : "a"} ${user.role}`),
    onError: complain,
    onSettled: () => cache.invalidateQueries({ queryKey: ["users"] }),
  });
  return (
    <Page title="Users" tab="Users" lead="Everybody who has signed in. Whoever the git host knows can.">
      <Panel flush>
        <Loaded query={query}>
          {(all) => (
            <table className="table">
              <thead>
                <tr>
                  <th scope="col">User</th>
                  <th scope="col">Role</th>
                  <th scope="col">First seen</th>
                  <th scope="col">Last seen</th>
                  <th scope="col">
                    <span className="visually-hidden">Actions</span>
                  </th>
                </tr>
              </thead>
              <tbody>
                {all.map((it) => (
                  <tr key={it.name}>
                    <td className="cell-main">
                      <span className="strong">{it.name}</span> {it.disabled ? <Badge tone="bad">locked out</Badge> : null}
                    </td>
                    <td data-label="Role">
                      <select className="input input-small" aria-label={`Role of ${it.name}`} value={it.role} disabled={change.isPending || it.name === me?.user} onChange={(event) => change.mutate({ name: it.name, role: event.target.value as Role })}>
                        {["viewer", "developer", "admin"].map((role) => (
                          <option key={role}>{role}</option>
                        ))}
                      </select>
                    </td>
                    <td data-label="First seen">
                      <Time at={it.first_seen} />
                    </td>
                    <td data-label="Last seen">
                      <Time at={it.last_seen} />
                    </td>
                    <td className="cell-actions">
                      {it.name === me?.user ? (
                        <span className="muted">you</span>
                      ) : (
                        <button type="button" className="button button-small" onClick={() => change.mutate({ name: it.name, disabled: !it.disabled })}>
                          {it.disabled ? "Let in again" : "Lock out"}
                        </button>
                      )}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
        </Loaded>
      </Panel>
    </Page>
  );
}
