import { type ReactNode, useId } from "react";
import { fieldError } from "../api/problem";

interface FieldProps {
  label: string;
  /** The name that the server has for it, by which its refusals find it. */
  name: string;
  error?: unknown;
  hint?: ReactNode;
  optional?: boolean;
  children: (control: { id: string; "aria-describedby": string | undefined; "aria-invalid": true | undefined }) => ReactNode;
}

/** A labelled control with its hint and, where the server refused it, why. */
export function Field({ label, name, error, hint, optional = false, children }: FieldProps) {
  const id = useId();
  const wrong = fieldError(error, name);
  const describedBy = [wrong === undefined ? undefined : `${id}-error`, hint ? `${id}-hint` : undefined];
  return (
    <div className="field">
      <label htmlFor={id}>
        {label}
        {optional ? <span className="optional"> optional</span> : null}
      </label>
      {children({
        id,
        "aria-describedby": describedBy.filter(Boolean).join(" ") || undefined,
        "aria-invalid": wrong === undefined ? undefined : true,
      })}
      {wrong === undefined ? null : (
        <p className="field-error" id={`${id}-error`} role="alert">
          {wrong}
        </p>
      )}
      {hint ? (
        <p className="hint" id={`${id}-hint`}>
          {hint}
        </p>
      ) : null}
    </div>
  );
}
