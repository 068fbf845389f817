import { useMutation, useQueryClient } from "@tanstack/react-query";
import { X } from "lucide-react";
import { type ReactNode, useState } from "react";
import { client, take } from "../../api/client";
import { type Edited, takeEdited } from "../../api/edited";
import { formError } from "../../api/problem";
import type { SandboxDetail } from "../../api/types";
import { Dialog } from "../../ui/dialog";
import { Editing, SaveError } from "../../ui/Editing";
import { Field } from "../../ui/field";
import { FormError } from "../../ui/states";
import { Time } from "../../ui/time";
import { say } from "../../ui/toast";

interface Props {
  sandbox: SandboxDetail;
  onClose: () => void;
}

type Body = { expires_in?: string; shared_with?: string[] };

interface FormProps extends Props {
  version: string | undefined;
  onReload: () => void;
}

/** Reads the sandbox as it is now, and shows a form for it. */
function Changing({ title, sandbox, onClose, form: Form }: Props & { title: string; form: (props: FormProps) => ReactNode }) {
  const { name } = sandbox;
  return (
    <Dialog title={title} onClose={onClose}>
      <Editing of={["sandbox", name]} read={(): Promise<Edited<SandboxDetail>> => takeEdited(client.GET("/api/sandboxes/{name}", { params: { path: { name } } }))}>
        {({ value, version }, again) => <Form sandbox={value} version={version} onReload={again} onClose={onClose} />}
      </Editing>
    </Dialog>
  );
}

function useChange({ sandbox, onClose }: Props, done: string) {
  const cache = useQueryClient();
  const { name } = sandbox;
  return useMutation({
    mutationFn: ({ body, version }: { body: Body; version: string | undefined }) =>
      take(client.PATCH("/api/sandboxes/{name}", { params: { path: { name }, header: { "If-Match": version } }, body })),
    onSuccess: (now) => {
      cache.setQueryData(["sandbox", name], now);
      void cache.invalidateQueries({ queryKey: ["sandboxes"] });
      say(done);
      onClose();
    },
  });
}

function Form({ children, onSubmit, onClose, action, isPending }: { children: ReactNode; onSubmit: () => void; onClose: () => void; action: string; isPending: boolean }) {
  return (
    <form
      className="form"
      onSubmit={(event) => {
        event.preventDefault();
        onSubmit();
      }}
    >
      {children}
      <div className="actions">
        <button type="button" className="button" onClick={onClose}>
          Cancel
        </button>
        <button type="submit" className="button button-primary" disabled={isPending}>
          {action}
        </button>
      </div>
    </form>
  );
}

export const Expiry = (props: Props) => <Changing {...props} title="When it expires" form={ExpiryForm} />;

/** From now on, as people count. */
function ExpiryForm(props: FormProps) {
  const { sandbox, version, onReload, onClose } = props;
  const [span, setSpan] = useState("7d");
  const change = useChange(props, `${sandbox.name} expires later`);
  const body = { expires_in: span };
  return (
    <Form onSubmit={() => change.mutate({ body, version })} onClose={onClose} action="Set" isPending={change.isPending}>
      <SaveError error={change.error} fields={["expires_in"]} subject={`sandboxes/${sandbox.name}`} onReload={onReload} onOverwrite={() => change.mutate({ body, version: undefined })} />
      <p className="muted">
        It expires <Time at={sandbox.expires_at} />. Then everything in it is torn down.
      </p>
      <Field label="Expires, from now, in" name="expires_in" error={change.error} hint="Such as 8h, 3d or 14d.">
        {(control) => <input {...control} className="input" required value={span} onChange={(event) => setSpan(event.target.value)} />}
      </Field>
      <div className="chips">
        {["8h", "1d", "3d", "7d", "14d"].map((it) => (
          <button key={it} type="button" className="chip" aria-pressed={span === it} onClick={() => setSpan(it)}>
            {it}
          </button>
        ))}
      </div>
    </Form>
  );
}

export const Share = (props: Props) => <Changing {...props} title="Share it" form={ShareForm} />;

function ShareForm(props: FormProps) {
  const { sandbox, version, onReload, onClose } = props;
  const [people, setPeople] = useState(sandbox.shared_with ?? []);
  const [typed, setTyped] = useState("");
  const change = useChange(props, "It is shared");
  const body = { shared_with: [...new Set([...people, ...typed.split(/[\s,]+/).filter(Boolean)])] };
  return (
    <Form onSubmit={() => change.mutate({ body, version })} onClose={onClose} action="Save" isPending={change.isPending}>
      <SaveError error={change.error} fields={["shared_with"]} subject={`sandboxes/${sandbox.name}`} onReload={onReload} onOverwrite={() => change.mutate({ body, version: undefined })} />
      <p className="muted">Whom it is shared with may do with it what its owner may.</p>
      {people.length > 0 ? (
        <ul className="chips">
          {people.map((person) => (
            <li key={person} className="chip">
              {person}
              <button type="button" className="icon-button" aria-label={`Do not share with ${person}`} onClick={() => setPeople(people.filter((it) => it !== person))}>
                <X size={13} aria-hidden />
              </button>
            </li>
          ))}
        </ul>
      ) : null}
      <Field label="Git users" name="shared_with" error={change.error} hint="Several with commas between.">
        {(control) => <input {...control} className="input" placeholder="bob, cyd" autoCapitalize="off" spellCheck={false} value={typed} onChange={(event) => setTyped(event.target.value)} />}
      </Field>
    </Form>
  );
}

export function SaveAsTemplate({ sandbox, onClose }: Props) {
  const cache = useQueryClient();
  const [name, setName] = useState(sandbox.name);
  const save = useMutation({
    mutationFn: () => take(client.POST("/api/templates", { body: { name, from_sandbox: sandbox.name } })),
    onSuccess: () => {
      void cache.invalidateQueries({ queryKey: ["templates"] });
      say(`Template ${name} is saved`);
      onClose();
    },
  });
  return (
    <Dialog title="Save as a template" onClose={onClose}>
      <Form onSubmit={() => save.mutate()} onClose={onClose} action="Save" isPending={save.isPending}>
        <FormError text={formError(save.error, ["name"])} />
        <Field label="Name" name="name" error={save.error} hint="Its services with their branches, ports and variables, and its routes.">
          {(control) => <input {...control} className="input" required autoCapitalize="off" spellCheck={false} value={name} onChange={(event) => setName(event.target.value)} />}
        </Field>
      </Form>
    </Dialog>
  );
}
