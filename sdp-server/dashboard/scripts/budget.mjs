// Fails when what a browser loads first is larger than it may be.
import { readFileSync, readdirSync, statSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMIT = 200 * 1024;
const dist = new URL("../dist/", import.meta.url);
const page = readFileSync(new URL("index.html", dist), "utf8");
const first = [...page.matchAll(/(?:src|href)="(?:\.\/)?(assets\/[^"]+)"/g)].map((found) => found[1]);
const sizes = ["index.html", ...first].map((name) => [name, gzipSync(readFileSync(new URL(name, dist))).length]);
const total = sizes.reduce((sum, [, size]) => sum + size, 0);
const all = readdirSync(new URL("assets/", dist)).filter((name) => name.endsWith(".gz"));
const everything = all.reduce((sum, name) => sum + statSync(new URL(`assets/${name}`, dist)).size, 0);
for (const [name, size] of sizes) console.log(`${String(size).padStart(8)}  ${name}`);
console.log(`first load: ${total} bytes gzipped of at most ${LIMIT}; every page together: ${everything}`);
if (first.length === 0 || total > LIMIT) process.exit(1);
