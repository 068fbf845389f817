//! The last of what a program printed, for the sentence that says how it ended.

use futures_util::StreamExt;
use sdp_core::{LogLines, LogOptions};

/// So much of it is quoted.
pub(crate) const LAST_LINES: LogOptions = LogOptions { tail: Some(10), follow: false };

/// The texts of the lines that come.
pub(crate) async fn texts(mut lines: LogLines) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(line) = lines.next().await {
        texts.extend(line.map(|line| line.line));
    }
    texts
}
