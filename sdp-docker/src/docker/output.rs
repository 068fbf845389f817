//! A container's output, in lines.

use std::collections::VecDeque;

use bollard::{container::LogOutput, errors::Error};
use futures_util::{Stream, StreamExt, stream};
use sdp_core::{DeployError, LogLine, LogLines, LogStream};

use super::engine;

/// Puts the engine's chunks together to lines; each stream's own lines stay whole.
#[derive(Debug, Default)]
struct Lines {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    ready: VecDeque<LogLine>,
}

impl Lines {
    fn push(&mut self, chunk: LogOutput) {
        let (stream, rest) = match chunk {
            LogOutput::StdErr { .. } => (LogStream::Stderr, &mut self.stderr),
            _ => (LogStream::Stdout, &mut self.stdout),
        };
        rest.extend_from_slice(&chunk.into_bytes());
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            self.ready.push_back(log_line(stream, &line[..end]));
        }
    }

    fn finish(&mut self) {
        for (stream, rest) in [(LogStream::Stdout, &mut self.stdout), (LogStream::Stderr, &mut self.stderr)] {
            if !rest.is_empty() {
                self.ready.push_back(log_line(stream, &std::mem::take(rest)));
            }
        }
    }
}

fn log_line(stream: LogStream, bytes: &[u8]) -> LogLine {
    LogLine { stream, line: String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes)).into_owned() }
}

/// The lines of an engine's log stream.
pub(crate) fn lines(
    chunks: impl Stream<Item = Result<LogOutput, Error>> + Send + 'static,
) -> impl Stream<Item = Result<LogLine, DeployError>> + Send + 'static {
    stream::unfold((Box::pin(chunks), Lines::default(), false), async |(mut chunks, mut lines, mut ended)| {
        loop {
            if let Some(line) = lines.ready.pop_front() {
                return Some((Ok(line), (chunks, lines, ended)));
            }
            if ended {
                return None;
            }
            match chunks.next().await {
                Some(Ok(chunk)) => lines.push(chunk),
                Some(Err(error)) => return Some((Err(engine::failed("follow the log")(error)), (chunks, lines, true))),
                None => {
                    lines.finish();
                    ended = true;
                }
            }
        }
    })
}

/// The texts of the lines that come.
pub(crate) async fn texts(mut lines: LogLines) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(line) = lines.next().await {
        texts.extend(line.map(|line| line.line));
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_become_lines_however_they_are_cut() {
        let out = |text: &'static str| Ok(LogOutput::StdOut { message: text.into() });
        let err = |text: &'static str| Ok(LogOutput::StdErr { message: text.into() });
        let chunks = stream::iter([out("a"), err("x\r\ny"), out("b\nc\n\nd"), err("z\n")]);
        let lines: Vec<_> = lines(chunks).map(|line| line.unwrap().line).collect().await;
        assert_eq!(lines, ["x", "ab", "c", "", "yz", "d"]);
    }
}
