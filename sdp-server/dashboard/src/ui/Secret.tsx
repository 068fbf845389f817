import { Copyable } from "./copy";
import { Dialog } from "./dialog";

/** A secret that is shown this once. */
export function Secret({ title, secret, children, onClose }: { title: string; secret: string; children: React.ReactNode; onClose: () => void }) {
  return (
    <Dialog title={title} onClose={onClose}>
      <div className="stack">
        <p className="notice notice-warn">This is shown once. Copy it now: only its hash is kept.</p>
        <Copyable text={secret} label="Copy the token" />
        <div className="muted">{children}</div>
        <div className="actions">
          <button type="button" className="button button-primary" onClick={onClose}>
            I have it
          </button>
        </div>
      </div>
    </Dialog>
  );
}
