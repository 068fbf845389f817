//! Lines of output, known from how they are written.
//!
//! Nearly all that an agent sends is output, and agents write all of it with the same serializer. To see that a line is
//! just what that writes takes a third of the time of reading it as JSON of any form.

use jiff::Timestamp;
use memchr::memchr;

use crate::model::{deployment::Stage, event::LogStream};

/// Whether `line` is the event `seq`, a line of output, written as agents write it. What is written otherwise may still be
/// one.
pub(super) fn is_output(seq: u64, line: &str) -> bool {
    text_of(seq, line).is_some_and(is_string)
}

/// What stands in the quotes of the event's `line`.
fn text_of(seq: u64, line: &str) -> Option<&str> {
    let (number, rest) = until(b',', line.strip_prefix(r#"{"seq":"#)?)?;
    let (at, rest) = until(b'"', rest.strip_prefix(r#""at":""#)?)?;
    let (stage, rest) = until(b'"', rest.strip_prefix(r#","type":"log","stage":""#)?)?;
    let (stream, rest) = until(b'"', rest.strip_prefix(r#","stream":""#)?)?;
    let text = rest.strip_prefix(r#","line":""#)?.strip_suffix(r#""}"#)?;
    let known = number.starts_with(|digit| matches!(digit, '1'..='9'))
        && number.parse() == Ok(seq)
        && Stage::ALL.iter().any(|known| known.as_str() == stage)
        && LogStream::ALL.iter().any(|known| known.as_str() == stream)
        && at.parse::<Timestamp>().is_ok();
    known.then_some(text)
}

/// What stands before `end`, and after it.
fn until(end: u8, text: &str) -> Option<(&str, &str)> {
    let at = memchr(end, text.as_bytes())?;
    Some((&text[..at], &text[at + 1..]))
}

/// Whether a JSON string can have this between its quotes.
fn is_string(text: &str) -> bool {
    // Not `any`, which looks at one byte after the other.
    let is_plain = text.bytes().fold(true, |plain, byte| plain & (byte >= b' ') & (byte != b'"') & (byte != b'\\'));
    is_plain || serde_json::from_str::<String>(&format!("\"{text}\"")).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::event::{Event, EventKind};

    fn written(seq: u64, stage: usize, stream: usize, line: String) -> String {
        let at = Timestamp::from_microsecond(1_767_322_645_678_901).unwrap();
        let kind = EventKind::Log { stage: Stage::ALL[stage], stream: LogStream::ALL[stream], line };
        serde_json::to_string(&Event { seq, at, kind }).unwrap()
    }

    #[test]
    fn what_is_written_otherwise_or_wrong_is_not_taken_for_output() {
        let line = written(7, 1, 0, "made".into());
        assert!(is_output(7, &line));
        for (from, to) in [
            ("7,", "07,"),
            ("7,", "+7,"),
            ("7,", "8,"),
            ("7,", ","),
            ("2026-01-02", "2026-02-30"),
            ("log", "note"),
            ("build", "lunch"),
            ("stdout", "stdin"),
            ("made", "ma\u{1}de"),
            ("made", r#"ma"de"#),
            ("made", r"ma\de"),
            ("made", r"ma\ud800de"),
            ("made\"}", r#"made\"}"#),
            ("made\"}", "made\"} "),
            ("made\"}", "made\"}}"),
            ("made\"", "7"),
        ] {
            let changed = line.replace(from, to);
            assert!(changed != line && !is_output(7, &changed), "{changed}");
        }
        let ends_early = written(7, 1, 0, "made".into()).replace("made", "\"}");
        assert!(!is_output(7, &ends_early));
    }

    proptest! {
        #[test]
        fn everything_that_agents_write_is_known(
            seq in 1_u64.., stage in 0_usize..5, stream in 0_usize..3, text in any::<String>()
        ) {
            prop_assert!(is_output(seq, &written(seq, stage, stream, text)));
        }

        /// However a line was changed: what is taken for output reads as output.
        #[test]
        fn nothing_else_is_taken_for_it(
            text in "[a-z\"\\\\}{u0-9\u{0}-\u{1f}é]{0,12}",
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<char>(), any::<bool>()), 0..3),
        ) {
            let mut line: Vec<char> = written(7, 1, 0, "made".into()).replace("made", &text).chars().collect();
            for (at, with, replace) in changes {
                let at = at.index(line.len());
                if replace { line[at] = with } else { line.insert(at, with) }
            }
            let line: String = line.into_iter().collect();
            if is_output(7, &line) {
                let event: Event = serde_json::from_str(&line).unwrap();
                prop_assert!(event.seq == 7 && matches!(event.kind, EventKind::Log { .. }), "{line}");
            }
        }
    }
}
