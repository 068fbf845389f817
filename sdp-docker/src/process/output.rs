//! A program's output, from the file that it writes to.

use std::{
    io::{self, SeekFrom},
    path::Path,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use sdp_core::{DeployError, LogLine, LogLines, LogOptions, LogStream, MAX_LINE_BYTES};
use tokio::{
    fs::File,
    io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader},
};

use super::system::ProcessId;

/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(200);

/// How much is read at once on the way back to the last lines.
const BLOCK_BYTES: u64 = 64 * 1024;

/// The lines of a file; followed, they go on until `process` has ended.
pub(crate) async fn lines(
    path: &Path,
    options: LogOptions,
    process: Option<ProcessId>,
) -> Result<LogLines, DeployError> {
    let mut file = File::open(path).await.map_err(failed)?;
    if let Some(tail) = options.tail {
        let start = tail_start(&mut file, tail).await.map_err(failed)?;
        file.seek(SeekFrom::Start(start)).await.map_err(failed)?;
    }
    let state = Some((BufReader::new(file), Vec::new(), process.filter(|_| options.follow)));
    let lines = stream::unfold(state, async |state| {
        let (mut reader, mut line, process) = state?;
        loop {
            let runs = process.is_some_and(ProcessId::runs);
            let room = (MAX_LINE_BYTES + 1 - line.len()) as u64;
            match (&mut reader).take(room).read_until(b'\n', &mut line).await {
                Err(error) => return Some((Err(failed(error)), None)),
                Ok(_) if line.last() == Some(&b'\n') => line.truncate(line.len() - 1),
                Ok(_) if line.len() > MAX_LINE_BYTES => {}
                Ok(_) if runs => {
                    tokio::time::sleep(POLL).await;
                    continue;
                }
                Ok(_) if line.is_empty() => return None,
                Ok(_) => {}
            }
            // A character that a cut would tear begins the next line.
            let torn = match line.len() > MAX_LINE_BYTES {
                true => line.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len()),
                false => 0,
            };
            let next = line.split_off(line.len() - torn);
            let text = String::from_utf8_lossy(&line).into_owned();
            let line = LogLine { stream: LogStream::Stdout, line: text };
            return Some((Ok(line), Some((reader, next, process))));
        }
    });
    Ok(lines.boxed())
}

fn failed(source: io::Error) -> DeployError {
    DeployError::Io { action: "read a program's output".into(), source }
}

/// Where the last lines of a file begin, so many; the end of one that is not ended yet counts.
async fn tail_start(file: &mut File, lines: u32) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0)).await?;
    let (mut at, mut left, mut block) = (end, lines, Vec::new());
    while at > 0 && left > 0 {
        let from = at.saturating_sub(BLOCK_BYTES);
        file.seek(SeekFrom::Start(from)).await?;
        block.clear();
        (&mut *file).take(at - from).read_to_end(&mut block).await?;
        for newline in memchr::memrchr_iter(b'\n', &block) {
            let start = from + newline as u64 + 1;
            // The last line's own end begins no line.
            if start < end {
                left -= 1;
            }
            if left == 0 {
                return Ok(start);
            }
        }
        at = from;
    }
    Ok(if lines == 0 { end } else { 0 })
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;

    use super::*;

    async fn read(content: &[u8], tail: Option<u32>) -> Vec<String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let lines = lines(file.path(), LogOptions { tail, follow: false }, None).await.unwrap();
        lines.map_ok(|line| line.line).try_collect().await.unwrap()
    }

    #[tokio::test]
    async fn the_last_lines_are_found_wherever_they_begin() {
        assert_eq!(read(b"", Some(3)).await, [""; 0]);
        assert_eq!(read(b"a\nb\nc\n", None).await, ["a", "b", "c"]);
        assert_eq!(read(b"a\nb\nc\n", Some(2)).await, ["b", "c"]);
        assert_eq!(read(b"a\nb\nc", Some(2)).await, ["b", "c"]);
        assert_eq!(read(b"a\nb\n", Some(0)).await, [""; 0]);
        assert_eq!(read(b"a\nb\n", Some(9)).await, ["a", "b"]);
        assert_eq!(read(b"\n\n\n", Some(2)).await, ["", ""]);
        let long = format!("first\n{}\nlast\n", "x".repeat(MAX_LINE_BYTES));
        assert_eq!(read(long.as_bytes(), Some(2)).await, ["x".repeat(MAX_LINE_BYTES).as_str(), "last"]);
        let many: String = (0..40_000).map(|at| format!("line {at}\n")).collect();
        let tail = read(many.as_bytes(), Some(30_000)).await;
        assert_eq!((tail.len(), tail[0].as_str()), (30_000, "line 10000"));
    }

    #[tokio::test]
    async fn an_endless_line_is_told_in_pieces_and_no_character_is_torn() {
        let long = "é".repeat(MAX_LINE_BYTES);
        let lines = read(long.as_bytes(), None).await;
        assert!(lines.len() == 2 || lines.len() == 3, "{}", lines.len());
        assert_eq!(lines.concat(), long);
    }
}
