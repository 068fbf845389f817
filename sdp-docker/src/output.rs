//! The last of what a program printed, for the sentence that says how it ended.

use std::collections::VecDeque;

use futures_util::StreamExt;
use sdp_core::{LogLines, LogOptions};

/// How many lines of it are quoted.
const QUOTED: usize = 10;

/// That much of an instance's output.
pub(crate) const LAST_LINES: LogOptions = LogOptions { tail: Some(QUOTED as u32), follow: false };

/// The texts of the last lines that come, up to the first that cannot be read.
pub(crate) async fn texts(mut lines: LogLines) -> Vec<String> {
    let mut texts = VecDeque::new();
    while let Some(Ok(line)) = lines.next().await {
        // A line that is too long comes as several.
        if texts.len() == QUOTED {
            texts.pop_front();
        }
        texts.push_back(line.line);
    }
    texts.into()
}
