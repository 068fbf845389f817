//! What is printed in chunks, in lines.

use std::collections::VecDeque;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use sdp_core::{DeployError, LogLine, LogStream, MAX_LINE_BYTES};

/// Puts chunks together to lines; each stream's own lines stay whole.
#[derive(Debug, Default)]
struct Lines {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    ready: VecDeque<LogLine>,
}

impl Lines {
    fn push(&mut self, stream: LogStream, chunk: &[u8]) {
        let rest = if stream == LogStream::Stderr { &mut self.stderr } else { &mut self.stdout };
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            rest.extend_from_slice(piece);
            let is_whole = rest.pop_if(|byte| *byte == b'\n').is_some();
            while rest.len() > MAX_LINE_BYTES {
                let after = rest.split_off(char_start(rest, MAX_LINE_BYTES));
                self.ready.push_back(log_line(stream, &std::mem::replace(rest, after)));
            }
            if is_whole {
                self.ready.push_back(log_line(stream, &std::mem::take(rest)));
            }
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

/// The last position up to `at` where a character may begin.
fn char_start(bytes: &[u8], at: usize) -> usize {
    (at.saturating_sub(3)..=at).rev().find(|at| bytes[*at] & 0xc0 != 0x80).unwrap_or(at)
}

fn log_line(stream: LogStream, bytes: &[u8]) -> LogLine {
    LogLine { stream, line: String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes)).into_owned() }
}

/// The lines of chunks.
pub(crate) fn lines(
    chunks: impl Stream<Item = Result<(LogStream, Bytes), DeployError>> + Send + 'static,
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
                Some(Ok((stream, chunk))) => lines.push(stream, &chunk),
                Some(Err(error)) => return Some((Err(error), (chunks, lines, true))),
                None => {
                    lines.finish();
                    ended = true;
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn chunks_become_lines_however_they_are_cut() {
        let out = |text: &'static str| Ok((LogStream::Stdout, text.into()));
        let err = |text: &'static str| Ok((LogStream::Stderr, text.into()));
        let chunks = stream::iter([out("a"), err("x\r\ny"), out("b\nc\n\nd"), err("z\n")]);
        let lines: Vec<_> = lines(chunks).map(|line| line.unwrap().line).collect().await;
        assert_eq!(lines, ["x", "ab", "c", "", "yz", "d"]);
    }

    #[tokio::test]
    async fn nobody_waits_for_the_end_of_an_endless_line() {
        let mut out = Lines::default();
        for _ in 0..5 {
            out.push(LogStream::Stdout, "é".repeat(MAX_LINE_BYTES / 4).as_bytes());
            out.push(LogStream::Stdout, b"x");
        }
        assert!(out.stdout.len() <= MAX_LINE_BYTES);
        out.push(LogStream::Stdout, b"\n");
        let lines: Vec<_> = out.ready.into_iter().map(|line| line.line).collect();
        assert_eq!(lines.concat(), ("é".repeat(MAX_LINE_BYTES / 4) + "x").repeat(5), "no character is torn");
        assert!(lines.len() == 3 && lines.iter().all(|line| line.len() <= MAX_LINE_BYTES));
    }
}
