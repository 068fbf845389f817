//! The end of a log, kept in memory for those who follow it closely.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

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

    /// Whole appends from offset `at` on, at most `limit` bytes; none when `at` is not where one
    /// that is kept begins, or that one is larger.
    pub(super) fn from(&self, at: u64, limit: usize) -> Option<Bytes> {
        let first = self.appends.binary_search_by_key(&at, |(begin, _)| *begin).ok()?;
        let mut size = 0;
        let fitting = self.appends.range(first..).map(|(_, lines)| lines).take_while(|lines| {
            size += lines.len();
            size <= limit
        });
        let mut fitting = fitting.collect::<Vec<_>>().into_iter();
        let (one, more) = (fitting.next()?, fitting.as_slice());
        if more.is_empty() {
            return Some(one.clone());
        }
        let mut joined = BytesMut::with_capacity(one.len() + more.iter().map(|lines| lines.len()).sum::<usize>());
        joined.extend_from_slice(one);
        more.iter().for_each(|lines| joined.extend_from_slice(lines));
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
        for (at, limit) in [(1, 100), (7, 100), (2, 2)] {
            assert!(recent.from(at, limit).is_none(), "{at} {limit}");
        }
        recent.push(100, "after a repair\n".into());
        assert!(recent.from(0, 100).is_none() && recent.from(100, 100).is_some());
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
