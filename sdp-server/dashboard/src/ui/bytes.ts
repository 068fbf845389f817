const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** `9.0 MiB`, `128 GiB`. */
export function bytes(count: number): string {
  let value = Math.max(0, count);
  let unit = 0;
  // What would be rounded up to the next unit's first step is in it.
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit > 0 && value < 9.95 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** CPUs in use as people say it, one whole CPU being 100 %. */
export function cpuShare(cpus: number): string {
  const percent = Math.max(0, cpus * 100);
  return `${percent > 0 && percent < 9.95 ? percent.toFixed(1) : Math.round(percent)} %`;
}
