export type EnvRow = readonly [name: string, value: string];

/** `NAME=value` lines, as files of variables have them: comments, `export` and quotes are understood. */
export function parseEnv(text: string): EnvRow[] {
  return text
    .split(/\r?\n/)
    .map((line) => /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$/.exec(line))
    .filter((found) => found !== null)
    .map((found) => [found[1] ?? "", unquoted(found[2] ?? "")]);
}

function unquoted(value: string): string {
  const quote = value[0];
  return value.length > 1 && (quote === '"' || quote === "'") && value.endsWith(quote) ? value.slice(1, -1) : value;
}

/** Rows as the API takes them. A row without a name is none. */
export function toEnv(rows: readonly EnvRow[]): Record<string, string> {
  const named = rows.map(([name, value]): EnvRow => [name.trim(), value]).filter(([name]) => name !== "");
  return Object.fromEntries(named);
}

export const fromEnv = (env: object | undefined): EnvRow[] => Object.entries((env ?? {}) as Record<string, string>);
