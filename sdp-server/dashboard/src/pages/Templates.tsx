import { useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Pencil, Plus, Trash2 } from "lucide-react";
import { useState } from "react";
import { client, take } from "../api/client";
import { queries } from "../api/queries";
import type { RouteTarget, Template } from "../api/types";
import { Confirm } from "../ui/dialog";
import { Menu } from "../ui/menu";
import { Page } from "../ui/page";
import { Empty, Loaded } from "../ui/states";
import { Time } from "../ui/time";
import { say } from "../ui/toast";
import { EditTemplate } from "./TemplateForm";

/** Where a route is to lead, in words. */
const target = (it: RouteTarget): string => (typeof it === "string" ? it : it.url);

export function Templates() {
  const query = useQuery(queries.templates);
  const me = useQuery(queries.me).data;
  const cache = useQueryClient();
  const [edited, setEdited] = useState<{ name: string | undefined }>();
  const [removed, setRemoved] = useState<Template>();
  return (
    <Page
      title="Templates"
      tab="Templates"
      lead="Saved shapes of sandboxes. A sandbox can be saved as one from its page."
      actions={
        <button type="button" className="button button-primary" onClick={() => setEdited({ name: undefined })}>
          <Plus size={16} aria-hidden /> New template
        </button>
      }
    >
      <Loaded query={query}>
        {(all) =>
          all.length === 0 ? (
            <section className="panel">
              <Empty title="There is no template yet">Make one here, or save a sandbox as one.</Empty>
            </section>
          ) : (
            <div className="cards">
              {all.map((it) => (
                <section key={it.name} className="panel card" aria-label={it.name}>
                  <div className="panel-head">
                    <h2>{it.name}</h2>
                    <div className="actions">
                      <Link to="/sandboxes" search={{ template: it.name }} className="button button-small">
                        Use it
                      </Link>
                      {me?.role === "admin" || it.owner === me?.user ? (
                        <Menu
                          label={`More for ${it.name}`}
                          items={[
                            { label: "Edit…", icon: <Pencil size={15} aria-hidden />, onSelect: () => setEdited({ name: it.name }) },
                            { label: "Delete…", icon: <Trash2 size={15} aria-hidden />, isDanger: true, onSelect: () => setRemoved(it) },
                          ]}
                        />
                      ) : null}
                    </div>
                  </div>
                  <div className="panel-body stack">
                    <ul className="plain">
                      {it.services.map((service) => (
                        <li key={service.repo}>
                          <span className="strong">{service.repo}</span> <span className="branch">{service.branch}</span>
                          {service.host_port ? <span className="muted"> port {service.host_port}</span> : null}
                        </li>
                      ))}
                      {it.services.length === 0 ? <li className="muted">No service</li> : null}
                    </ul>
                    {Object.keys(it.routes).length > 0 ? (
                      <ul className="chips" aria-label="Routes">
                        {Object.entries(it.routes as Record<string, RouteTarget>).map(([service, to]) => (
                          <li key={service} className="chip">
                            {service} → {target(to)}
                          </li>
                        ))}
                      </ul>
                    ) : null}
                    <p className="muted">
                      by {it.owner}, <Time at={it.saved_at} />
                      {it.expires_in ? `; sandboxes live ${it.expires_in}` : ""}
                    </p>
                  </div>
                </section>
              ))}
            </div>
          )
        }
      </Loaded>
      {edited ? <EditTemplate name={edited.name} onClose={() => setEdited(undefined)} /> : null}
      {removed ? (
        <Confirm
          title={`Delete ${removed.name}?`}
          action="Delete the template"
          onClose={() => setRemoved(undefined)}
          onConfirm={async () => {
            await take(client.DELETE("/api/templates/{name}", { params: { path: { name: removed.name } } }));
            say(`Template ${removed.name} is deleted`);
            void cache.invalidateQueries({ queryKey: ["templates"] });
          }}
        >
          Sandboxes that were made from it stay as they are.
        </Confirm>
      ) : null}
    </Page>
  );
}
