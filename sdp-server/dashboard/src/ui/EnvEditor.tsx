import { Plus, Trash2 } from "lucide-react";
import { type EnvRow, parseEnv } from "./env";

/** Environment variables, one row each. Many can be pasted at once into a name. */
export function EnvEditor({ rows, onChange }: { rows: readonly EnvRow[]; onChange: (rows: EnvRow[]) => void }) {
  const replace = (index: number, ...next: EnvRow[]) => onChange([...rows.slice(0, index), ...next, ...rows.slice(index + 1)]);
  return (
    <div className="env">
      {rows.map(([name, value], index) => (
        <div className="env-row" key={index}>
          <input
            className="input mono"
            aria-label={`Name of variable ${index + 1}`}
            placeholder="NAME"
            spellCheck={false}
            autoCapitalize="off"
            value={name}
            onChange={(event) => replace(index, [event.target.value, value])}
            onPaste={(event) => {
              const pasted = parseEnv(event.clipboardData.getData("text"));
              if (pasted.length === 0) return;
              event.preventDefault();
              replace(index, ...pasted);
            }}
          />
          <input
            className="input mono"
            aria-label={`Value of ${name || `variable ${index + 1}`}`}
            placeholder="value"
            spellCheck={false}
            autoCapitalize="off"
            value={value}
            onChange={(event) => replace(index, [name, event.target.value])}
          />
          <button type="button" className="icon-button" aria-label={`Remove ${name || "variable"}`} onClick={() => replace(index)}>
            <Trash2 size={16} aria-hidden />
          </button>
        </div>
      ))}
      <button type="button" className="button button-quiet" onClick={() => onChange([...rows, ["", ""]])}>
        <Plus size={16} aria-hidden /> Add variable
      </button>
    </div>
  );
}
