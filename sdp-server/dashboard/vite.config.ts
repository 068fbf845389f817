import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

/** Where the dashboard is served from, for a web server that serves it by itself: `/sdp/`. */
const base = `/${process.env.BASE_PATH ?? ""}/`.replace(/\/+/g, "/");

/** Packs files once, so that a server need not, and leaves the folder's `.gitignore` where it is. */
function pack(): Plugin {
  let dist = "";
  return {
    name: "pack",
    apply: "build",
    configResolved({ root, build }) {
      dist = resolve(root, build.outDir);
    },
    buildStart() {
      mkdirSync(dist, { recursive: true });
      for (const name of readdirSync(dist)) if (!name.startsWith(".")) rmSync(join(dist, name), { recursive: true });
    },
    closeBundle() {
      for (const name of readdirSync(dist, { recursive: true, encoding: "utf8" })) {
        if (!/\.(js|css|html|svg)$/.test(name)) continue;
        writeFileSync(join(dist, `${name}.gz`), gzipSync(readFileSync(join(dist, name)), { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [
    react(),
    { name: "base", transformIndexHtml: (html) => html.replace('<base href="/"', `<base href="${base}"`) },
    pack(),
  ],
  build: { outDir: process.env.DIST ?? "dist", emptyOutDir: false, target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { proxy: { "/api": "http://127.0.0.1:3452", "/ws": { target: "ws://127.0.0.1:3452", ws: true } } },
});
