import { expect, test } from "vitest";
import { plain, spans } from "../src/log/ansi";

const ESC = "\u001b";

test("text without sequences is one run", () => {
  expect(spans("go build ./...")).toEqual([{ text: "go build ./...", className: "" }]);
});

test("styles begin, add up and end", () => {
  const line = `${ESC}[1m${ESC}[31mbad${ESC}[22m still red${ESC}[0m plain`;
  expect(spans(line).map((span) => [span.text, span.className])).toEqual([
    ["bad", "ansi-bold ansi-fg-1"],
    [" still red", "ansi-fg-1"],
    [" plain", ""],
  ]);
});

test("bright, indexed and true colours are understood", () => {
  expect(spans(`${ESC}[92mx`)[0]?.className).toBe("ansi-fg-10");
  expect(spans(`${ESC}[38;5;9mx`)[0]?.className).toBe("ansi-fg-9");
  expect(spans(`${ESC}[38;5;196mx`)[0]?.color).toBe("rgb(255 0 0)");
  expect(spans(`${ESC}[48;5;244mx`)[0]?.background).toBe("rgb(128 128 128)");
  expect(spans(`${ESC}[38;2;1;2;999mx`)[0]?.color).toBe("rgb(1 2 255)");
});

test("what a terminal would have overwritten is not shown", () => {
  expect(plain("10 %\r50 %\r100 %\r")).toBe("100 %");
});

test("other sequences are left out, whatever they are", () => {
  expect(plain(`a${ESC}[2Kb${ESC}]8;;http://x${ESC}\\c${ESC}]0;title\u0007d`)).toBe("abcd");
  expect(spans(`${ESC}[mx${ESC}[`).map((span) => span.text).join("")).toContain("x");
});
