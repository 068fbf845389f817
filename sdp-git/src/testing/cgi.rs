//! The bridge to `git http-backend`: CGI/1.1 (RFC 3875), as much of it as git uses.

use std::{io, path::Path, process::Stdio};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Request, Response, StatusCode, header},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
};
use tokio_util::io::{ReaderStream, StreamReader};

/// Answers `request` with what `git http-backend` says about the repositories below `root`.
pub(super) async fn serve(root: &Path, user: &str, request: Request<Body>) -> io::Result<Response<Body>> {
    let (parts, body) = request.into_parts();
    let text = |name: header::HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut child = Command::new("git")
        .arg("http-backend")
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("REMOTE_USER", user)
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or(""))
        .env("CONTENT_TYPE", text(header::CONTENT_TYPE))
        .env("CONTENT_LENGTH", text(header::CONTENT_LENGTH))
        .env("HTTP_CONTENT_ENCODING", text(header::CONTENT_ENCODING))
        .env("GIT_PROTOCOL", parts.headers.get("git-protocol").and_then(|value| value.to_str().ok()).unwrap_or(""))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("git http-backend has no pipes"));
    };
    tokio::spawn(async move {
        let stream = futures_util::TryStreamExt::map_err(body.into_data_stream(), io::Error::other);
        // A client that goes away closes the pipe, and git ends.
        let _ = tokio::io::copy(&mut StreamReader::new(stream), &mut stdin).await;
        let _ = stdin.shutdown().await;
        drop(stdin);
        let _ = child.wait().await;
    });
    let mut output = BufReader::new(stdout);
    let mut response = Response::builder().status(StatusCode::OK);
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        let line = line.trim_end();
        let Some((name, value)) = line.split_once(':') else { break };
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse::<u16>().ok()).unwrap_or(500);
            response = response.status(code);
        } else if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response = response.header(name, value);
        }
    }
    response.body(Body::from_stream(ReaderStream::new(output))).map_err(io::Error::other)
}
