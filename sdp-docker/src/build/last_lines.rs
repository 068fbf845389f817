//! The last lines of a command that failed, for its error's sentence.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use sdp_core::LogStream;

/// How many lines a failure quotes.
const LAST_LINES: usize = 10;
/// How many of them are of the standard error output, where there are that many: two pipes are read in no certain
/// order, and what a command says last is often why it failed.
const OF_ERRORS: usize = 5;
/// How much of a line is quoted, in characters.
const LINE_CHARS: usize = 500;

/// The last lines of both outputs, in the order in which they were read.
#[derive(Debug, Default)]
pub(super) struct LastLines {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    read: u64,
    output: VecDeque<(u64, String)>,
    errors: VecDeque<(u64, String)>,
}

impl LastLines {
    /// Keeps a line.
    pub(super) fn push(&self, stream: LogStream, line: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.read += 1;
        let line = (kept.read, line.chars().take(LINE_CHARS).collect());
        let lines = if stream == LogStream::Stderr { &mut kept.errors } else { &mut kept.output };
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// What a failure quotes.
    pub(super) fn quoted(&self) -> Vec<String> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (earlier, errors) = {
            let mut errors: Vec<_> = kept.errors.iter().collect();
            let last = errors.split_off(errors.len().saturating_sub(OF_ERRORS));
            (errors, last)
        };
        let mut others: Vec<_> = kept.output.iter().chain(earlier).collect();
        others.sort_unstable();
        let room = LAST_LINES - errors.len();
        let mut lines = others.split_off(others.len().saturating_sub(room));
        lines.extend(errors);
        lines.sort_unstable();
        lines.into_iter().map(|(_, line)| line.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(lines: &[(LogStream, &str, usize)]) -> String {
        let kept = LastLines::default();
        for (stream, name, times) in lines {
            (1..=*times).for_each(|n| kept.push(*stream, &format!("{name}{n}")));
        }
        kept.quoted().join(" ")
    }

    #[test]
    fn what_was_said_last_is_quoted_and_errors_are_not_pushed_out() {
        let (out, err) = (LogStream::Stdout, LogStream::Stderr);
        assert_eq!(quoted(&[(out, "o", 12)]), "o3 o4 o5 o6 o7 o8 o9 o10 o11 o12");
        assert_eq!(quoted(&[(err, "e", 12)]), "e3 e4 e5 e6 e7 e8 e9 e10 e11 e12");
        assert_eq!(quoted(&[(err, "e", 1), (out, "o", 12)]), "e1 o4 o5 o6 o7 o8 o9 o10 o11 o12");
        assert_eq!(quoted(&[(err, "e", 7), (out, "o", 2)]), "e1 e2 e3 e4 e5 e6 e7 o1 o2");
        assert_eq!(quoted(&[(err, "e", 9), (out, "o", 12)]), "e5 e6 e7 e8 e9 o8 o9 o10 o11 o12");
        assert_eq!(quoted(&[]), "");
    }
}
