// A web server that serves the dashboard's files by itself, below a path, and hands the API on: what nginx is to others.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { createServer, request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { url } from "./browser.mjs";

const KINDS = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };
const { hostname, port } = new URL(url);

/** Builds the dashboard for a path, serves it there while `work` looks at it, and leaves nothing behind. */
export async function withSubPath(path, work) {
  const folder = mkdtempSync(join(tmpdir(), "sdp-sub-path-"));
  const server = createServer((asked, answer) => serve(path, folder, asked, answer));
  try {
    const cwd = fileURLToPath(new URL("..", import.meta.url));
    execFileSync("npm", ["run", "--silent", "build", "--", "--logLevel", "error"], { cwd, env: { ...process.env, BASE_PATH: path, DIST: folder } });
    server.on("upgrade", (asked, socket, head) => upgrade(path, asked, socket, head));
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    await work(`http://127.0.0.1:${server.address().port}${path}`);
  } finally {
    server.close();
    server.closeAllConnections();
    rmSync(folder, { recursive: true, force: true });
  }
}

const isServers = (below) => /^(api|ws)(\/|$)/.test(below);

function serve(path, folder, asked, answer) {
  const { pathname, search } = new URL(asked.url, "http://x");
  if (!pathname.startsWith(path)) return answer.writeHead(404).end();
  const below = pathname.slice(path.length);
  if (isServers(below)) {
    const options = { hostname, port, path: `/${below}${search}`, method: asked.method, headers: asked.headers };
    const passed = request(options, (told) => {
      answer.writeHead(told.statusCode, told.headers);
      told.pipe(answer);
    });
    passed.on("error", () => answer.writeHead(502).end());
    return asked.pipe(passed);
  }
  const file = join(folder, normalize(`/${below}`));
  const found = statSync(file, { throwIfNoEntry: false })?.isFile() ? file : join(folder, "index.html");
  answer.writeHead(200, { "content-type": KINDS[extname(found)] ?? "application/octet-stream" });
  return answer.end(readFileSync(found));
}

function upgrade(path, asked, socket, head) {
  const server = connect(Number(port), hostname, () => {
    const headers = asked.rawHeaders.flatMap((name, at) => (at % 2 === 0 ? [`${name}: ${asked.rawHeaders[at + 1]}`] : []));
    server.write(`GET /${asked.url.slice(path.length)} HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n`);
    server.write(head);
    server.pipe(socket).pipe(server);
  });
  for (const end of [server, socket]) {
    end.on("error", () => {
      server.destroy();
      socket.destroy();
    });
  }
}
