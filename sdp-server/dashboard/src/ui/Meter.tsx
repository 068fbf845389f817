interface MeterProps {
  label: string;
  /** How much of it is used, from 0 to 1. */
  share: number;
  /** What the share is in words. */
  text: string;
  tone?: "good" | "warn" | "bad";
  /** From where on it is too much, from 0 to 1. */
  limit?: number | undefined;
}

/** How full something is, as a bar. */
export function Meter({ label, share, text, tone = "good", limit }: MeterProps) {
  const percent = Math.round(Math.min(1, Math.max(0, share)) * 100);
  return (
    <span className="meter" role="meter" aria-label={label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={percent} aria-valuetext={text} data-tone={tone} title={text}>
      <span style={{ width: `${percent}%` }} />
      {limit !== undefined && limit < 1 ? <i style={{ left: `${limit * 100}%` }} /> : null}
    </span>
  );
}
