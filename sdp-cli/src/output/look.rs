//! Colour and width.

use std::fmt::Display;

use anstyle::{AnsiColor, Style};

/// How much attention something wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    /// As wished.
    Good,
    /// Under way.
    Busy,
    /// Something to look at.
    Warn,
    /// Not as wished.
    Bad,
    /// Beside the point.
    Dim,
    /// The point.
    Strong,
}

/// How things are shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) has_colour: bool,
    /// How many columns there are, where there is an end to them.
    pub(crate) width: Option<usize>,
}

impl Look {
    pub(crate) fn paint(self, tone: Tone, text: impl Display) -> String {
        let style = match tone {
            Tone::Plain => Style::new(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Busy => AnsiColor::Cyan.on_default(),
            Tone::Warn => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default(),
            Tone::Dim => Style::new().dimmed(),
            Tone::Strong => Style::new().bold(),
        };
        let text = text.to_string();
        if self.has_colour && !text.is_empty() { format!("{style}{text}{style:#}") } else { text }
    }
}
