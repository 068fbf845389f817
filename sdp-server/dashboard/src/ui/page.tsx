import type { ReactNode } from "react";

/** A page's heading with what can be done, and the window's title. */
export function Page({ title, actions, children, lead, tab }: { title: ReactNode; tab: string; actions?: ReactNode; children: ReactNode; lead?: ReactNode }) {
  return (
    <div className="page">
      <title>{`${tab} · SDP`}</title>
      <div className="page-head">
        <div>
          <h1>{title}</h1>
          {lead ? <div className="lead">{lead}</div> : null}
        </div>
        {actions ? <div className="actions">{actions}</div> : null}
      </div>
      {children}
    </div>
  );
}

export function Panel({ title, actions, children, flush = false }: { title?: ReactNode; actions?: ReactNode; children: ReactNode; flush?: boolean }) {
  return (
    <section className="panel">
      {title ? (
        <div className="panel-head">
          <h2>{title}</h2>
          {actions ? <div className="actions">{actions}</div> : null}
        </div>
      ) : null}
      <div className={flush ? "panel-flush" : "panel-body"}>{children}</div>
    </section>
  );
}
