import { Check, Copy as CopyIcon } from "lucide-react";
import { useEffect, useState } from "react";
import { complain } from "./toast";

/** Puts a text on the clipboard, also on pages served without TLS, where the browser's own way is not there. */
export async function copy(text: string): Promise<void> {
  if (window.isSecureContext) return navigator.clipboard.writeText(text);
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "visually-hidden";
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  // There is no other way without a secure context.
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("The browser did not let the text be copied. Select it and copy it by hand.");
}

export function CopyButton({ text, label }: { text: string; label: string }) {
  const [isCopied, setCopied] = useState(false);
  useEffect(() => {
    if (!isCopied) return;
    const timer = setTimeout(() => setCopied(false), 1_500);
    return () => clearTimeout(timer);
  }, [isCopied]);
  return (
    <button
      type="button"
      className="icon-button"
      aria-label={isCopied ? "Copied" : label}
      title={label}
      onClick={() => void copy(text).then(() => setCopied(true), complain)}
    >
      {isCopied ? <Check size={15} aria-hidden className="good" /> : <CopyIcon size={15} aria-hidden />}
    </button>
  );
}

/** A text in code's letters with a button that copies it. */
export function Copyable({ text, label, href }: { text: string; label: string; href?: string | undefined }) {
  return (
    <span className="copyable">
      {href === undefined ? (
        <code>{text}</code>
      ) : (
        <a href={href} target="_blank" rel="noreferrer">
          <code>{text}</code>
        </a>
      )}
      <CopyButton text={text} label={label} />
    </span>
  );
}
