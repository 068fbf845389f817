//! The end of a log, kept in memory for those who follow it closely.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memrchr};

/// How much is kept of one log that is followed.
const KEEP_BYTES: usize = 512 * 1024;

/// The last appends: neighbours in the file, up to its end. Whoever is further behind reads the
/// file.
#[derive(Debug, Default)]
pub(super) struct Recent {
    appends: VecDeque<(u64, Bytes)>,
    bytes: usize,
}

impl Recent {
    /// Takes what was appended at offset `at`.
    pub(super) fn push(&mut self, at: u64, lines: Bytes) {
        if self.end().is_some_and(|end| end != at) {
            self.clear();
        }
        self.bytes += lines.len();
        self.appends.push_back((at, lines));
        while self.bytes > KEEP_BYTES
            && let Some((_, dropped)) = self.appends.pop_front()
        {
            self.bytes -= dropped.len();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whole lines from offset `at`, which is where one begins, on: at most `limit` bytes, or one line
    /// that is longer. None when they are not kept any more, or `at` is the end.
    pub(super) fn from(&self, at: u64, limit: usize) -> Option<Bytes> {
        let first = self.appends.partition_point(|(begin, _)| *begin <= at).checked_sub(1)?;
        let mut kept = self.appends.range(first..).map(|(_, lines)| lines);
        let skip = usize::try_from(at - self.appends[first].0).ok()?;
        let one = kept.next().filter(|lines| skip < lines.len())?.slice(skip..);
        if one.len() > limit {
            let end = memrchr(b'\n', &one[..limit]).or_else(|| memchr(b'\n', &one))?;
            return Some(one.slice(..=end));
        }
        let mut size = one.len();
        let more: Vec<_> = kept
            .take_while(|lines| {
                size += lines.len();
                size <= limit
            })
            .collect();
        if more.is_empty() {
            return Some(one);
        }
        let mut joined = BytesMut::with_capacity(one.len() + more.iter().map(|lines| lines.len()).sum::<usize>());
        joined.extend_from_slice(&one);
        more.into_iter().for_each(|lines| joined.extend_from_slice(lines));
        Some(joined.freeze())
    }

    fn end(&self) -> Option<u64> {
        self.appends.back().map(|(at, lines)| at + lines.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_a_known_offset_comes_in_one_piece() {
        let mut recent = Recent::default();
        for (at, lines) in [(0, "a\n"), (2, "bb\n"), (5, "c\n")] {
            recent.push(at, lines.into());
        }
        assert_eq!(recent.from(0, 100).unwrap(), "a\nbb\nc\n");
        assert_eq!(recent.from(2, 100).unwrap(), "bb\nc\n");
        assert_eq!(recent.from(0, 4).unwrap(), "a\n");
        assert_eq!(recent.from(5, 100).unwrap(), "c\n");
        assert_eq!(recent.from(2, 1).unwrap(), "bb\n", "a line that is longer comes whole");
        assert!(recent.from(7, 100).is_none());
        recent.push(100, "after a repair\n".into());
        assert!(recent.from(0, 100).is_none() && recent.from(100, 100).is_some());
    }

    #[test]
    fn an_append_that_is_larger_than_the_limit_comes_in_parts() {
        let mut recent = Recent::default();
        recent.push(10, "a\nbb\nccc\n".into());
        recent.push(19, "d\n".into());
        assert_eq!(recent.from(10, 6).unwrap(), "a\nbb\n");
        assert_eq!(recent.from(15, 6).unwrap(), "ccc\nd\n");
        assert_eq!(recent.from(15, 2).unwrap(), "ccc\n");
        assert_eq!(recent.from(19, 2).unwrap(), "d\n");
        assert!(recent.from(9, 100).is_none() && recent.from(21, 100).is_none());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut recent = Recent::default();
        for at in 0..100 {
            recent.push(at * 10_000, vec![b'\n'; 10_000].into());
        }
        assert!(
            recent.bytes <= KEEP_BYTES && recent.from(990_000, 20_000).is_some() && recent.from(0, 20_000).is_none()
        );
        recent.push(1_000_000, vec![b'\n'; KEEP_BYTES + 1].into());
        assert!(recent.appends.is_empty() && recent.bytes == 0);
    }
}
