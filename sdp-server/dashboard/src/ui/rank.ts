/** How well a text fits what was typed: its letters in order, best at beginnings of words; `-1` when it does not. */
export function score(text: string, typed: string): number {
  const lower = text.toLowerCase();
  const wanted = typed.toLowerCase().replaceAll(" ", "");
  const whole = lower.indexOf(typed.toLowerCase().trim());
  if (whole >= 0) return 1_000 - whole - text.length / 100;
  let at = -1;
  let total = 0;
  for (const letter of wanted) {
    const next = lower.indexOf(letter, at + 1);
    if (next < 0) return -1;
    if (next === 0 || /[^a-z0-9]/.test(lower[next - 1] ?? "")) total += 10;
    else if (next === at + 1) total += 5;
    total -= (next - at) / 10;
    at = next;
  }
  return total;
}

/** Those that fit, the best first; all in their order when nothing was typed. */
export function rank<T>(items: readonly T[], typed: string, name: (item: T) => string): T[] {
  if (typed.trim() === "") return [...items];
  const scored = items.map((item) => ({ item, score: score(name(item), typed) })).filter((it) => it.score > -1);
  return scored.sort((a, b) => b.score - a.score).map((it) => it.item);
}
