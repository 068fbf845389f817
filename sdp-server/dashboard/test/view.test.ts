import { describe, expect, test } from "vitest";
import { ROW, contains, format, parse, window } from "../src/log/view";

describe("what is drawn", () => {
  test("is what is seen and a little more", () => {
    const view = window(10_000, 2_000, 400);
    expect(view.first).toBe(100 - 12);
    expect(view.last).toBe(120 + 12);
    expect(view.offset).toBe(view.first * ROW);
    expect(view.height).toBe(10_000 * ROW);
  });

  test.each([0, 1, 10, 1_000, 749_999, 1_000_000, 5_000_000])("of %d rows reaches both ends", (count) => {
    const height = 640;
    expect(window(count, 0, height).first).toBe(0);
    const bottom = window(count, Number.MAX_SAFE_INTEGER, height);
    expect(bottom.last).toBe(count);
    expect(bottom.height).toBeLessThanOrEqual(15_000_000);
  });

  test("of a log that is too high for a browser is where it was scrolled to", () => {
    const count = 1_000_000;
    for (const index of [0, 123_456, 500_000, 999_999]) {
      const top = window(count, 0, 600).topOf(index);
      const view = window(count, top, 600);
      expect(view.first).toBeLessThanOrEqual(index);
      expect(view.last).toBeGreaterThan(index);
      const y = view.offset + (index - view.first) * ROW;
      expect(y).toBeGreaterThanOrEqual(top - 1);
      expect(y).toBeLessThan(top + 600);
    }
  });
});

test("lines in addresses read back, and nonsense names none", () => {
  for (const range of [{ from: 3, to: 3 }, { from: 3, to: 9 }]) expect(parse(format(range))).toEqual(range);
  for (const text of [undefined, "", "0", "9-3", "x", "1-", "1e3", "99999999999"]) expect(parse(text)).toBeUndefined();
  expect(contains({ from: 2, to: 4 }, 4)).toBe(true);
  expect(contains(undefined, 4)).toBe(false);
});
