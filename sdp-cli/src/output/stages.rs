//! A deployment's stages on a terminal: a line for each that is over, and one that moves for the one under way.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sdp_core::{Event, EventKind, LogStream, Stage, StageStatus};
use unicode_width::UnicodeWidthChar;

use super::{Look, Tone, clean, short};

const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// How many lines of output are shown of a stage that failed.
const SHOWN: usize = 20;

/// Overwrites the line that moves.
const ERASE: &str = "\r\x1b[2K";

/// What is known of a deployment so far.
#[derive(Debug)]
pub(crate) struct Stages {
    look: Look,
    current: Option<(Stage, Timestamp, Instant)>,
    /// The last lines of output of the stage under way.
    lines: VecDeque<String>,
    /// What SDP said last in this stage.
    note: String,
    frame: usize,
    /// Whether there is a line that moves.
    is_drawn: bool,
}

impl Stages {
    pub(crate) fn new(look: Look) -> Self {
        Self { look, current: None, lines: VecDeque::new(), note: String::new(), frame: 0, is_drawn: false }
    }

    /// Takes an event, and answers what to write for it.
    pub(crate) fn event(&mut self, event: &Event) -> String {
        match &event.kind {
            EventKind::Log { stream, line, .. } => {
                let line = clean(line);
                if *stream == LogStream::Sdp {
                    self.note.clone_from(&line);
                }
                self.lines.push_back(line);
                if self.lines.len() > SHOWN {
                    self.lines.pop_front();
                }
                String::new()
            }
            EventKind::Source { branch, commit } => {
                self.note = format!("{branch} at {}", commit.short());
                String::new()
            }
            EventKind::Endpoint { url, .. } => {
                self.note.clone_from(url);
                String::new()
            }
            EventKind::Stage { stage, status: StageStatus::Started } => {
                self.current = Some((*stage, event.at, Instant::now()));
                self.lines.clear();
                self.note.clear();
                String::new()
            }
            EventKind::Stage { stage, status } => self.ended(*stage, *status, event.at),
            _ => String::new(),
        }
    }

    fn ended(&mut self, stage: Stage, status: StageStatus, at: Timestamp) -> String {
        let began = self.current.take().filter(|(current, ..)| *current == stage).map(|(_, began, _)| began);
        let took = began.map(|began| at.duration_since(began).unsigned_abs()).unwrap_or_default();
        let (mark, tone) = match status {
            StageStatus::Done => ("✔", Tone::Good),
            StageStatus::Skipped => ("-", Tone::Dim),
            _ => ("✘", Tone::Bad),
        };
        let mut text = self.erased();
        let line = self.stage_line(mark, tone, stage, took, &self.note);
        text.push_str(&line);
        text.push('\n');
        if tone == Tone::Bad {
            for line in &self.lines {
                text.push_str(&format!("  {}\n", self.look.paint(Tone::Dim, line)));
            }
        }
        text
    }

    /// The line that moves, a step on.
    pub(crate) fn moved(&mut self) -> String {
        let mut text = self.erased();
        self.frame += 1;
        let frame = FRAMES[self.frame % FRAMES.len()];
        let line = match &self.current {
            Some((stage, _, since)) => {
                let told = self.lines.back().map_or(self.note.as_str(), String::as_str);
                self.stage_line(frame, Tone::Busy, *stage, since.elapsed(), told)
            }
            None => format!("{} waiting", self.look.paint(Tone::Busy, frame)),
        };
        text.push_str(&line);
        self.is_drawn = true;
        text
    }

    /// Takes the line that moves away.
    pub(crate) fn erased(&mut self) -> String {
        if std::mem::take(&mut self.is_drawn) { ERASE.into() } else { String::new() }
    }

    fn stage_line(&self, mark: &str, tone: Tone, stage: Stage, took: Duration, told: &str) -> String {
        let took = short(took);
        let head = format!("{} {stage:<7} {took:>7}  ", self.look.paint(tone, mark));
        // Mark, spaces, stage and time, of which all but a very long time have the same width.
        let used = 2 + 8 + took.len().max(7) + 2;
        // The last column is left free: some terminals begin a line after it.
        let room = self.look.width.map_or(usize::MAX, |width| width.saturating_sub(used + 1));
        let told = fitting(told, room);
        format!("{head}{}", self.look.paint(Tone::Dim, told)).trim_end().to_owned()
    }
}

/// As much of the first line as fits.
fn fitting(text: &str, room: usize) -> String {
    let mut left = room;
    let line = text.lines().next().unwrap_or_default().replace('\t', " ");
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    line.chars().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use sdp_core::{BranchName, CommitId};

    use super::*;

    fn told(kinds: impl IntoIterator<Item = EventKind>) -> String {
        let mut stages = Stages::new(Look { has_colour: false, width: Some(60) });
        let mut text = String::new();
        for (seq, kind) in (1..).zip(kinds) {
            let at = Timestamp::UNIX_EPOCH + Duration::from_millis(seq * 250);
            text.push_str(&stages.event(&Event { seq, at, kind }));
        }
        text
    }

    fn stage(stage: Stage, status: StageStatus) -> EventKind {
        EventKind::Stage { stage, status }
    }

    fn printed(stage: Stage, line: &str) -> EventKind {
        EventKind::Log { stage, stream: LogStream::Stdout, line: line.into() }
    }

    #[test]
    fn stages_are_told_when_they_are_over() {
        let branch: BranchName = "feature/greeting".parse().unwrap();
        let commit: CommitId = "cb696477e455e05dc2ff208f81af21f212dc0645".parse().unwrap();
        let text = told([
            stage(Stage::Source, StageStatus::Started),
            EventKind::Source { branch, commit },
            stage(Stage::Source, StageStatus::Done),
            stage(Stage::Build, StageStatus::Started),
            printed(Stage::Build, "\x1b[31mundefined\x1b[0m: x"),
            printed(Stage::Build, &"long ".repeat(30)),
            EventKind::note(Stage::Build, "and what SDP says is cut to the width of the terminal"),
            stage(Stage::Build, StageStatus::Failed),
            stage(Stage::Routes, StageStatus::Skipped),
        ]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "✔ source    500ms  feature/greeting at cb696477e455");
        assert_eq!(lines[1], "✘ build      1.0s  and what SDP says is cut to the width of");
        assert_eq!(lines[2], "  undefined: x", "of what failed, the output is shown");
        assert!(lines.last().unwrap().starts_with("- routes"), "{text}");
    }

    #[test]
    fn the_line_that_moves_is_written_over() {
        let mut stages = Stages::new(Look { has_colour: false, width: Some(40) });
        assert_eq!(stages.moved(), "⠙ waiting");
        assert_eq!(stages.moved(), format!("{ERASE}⠹ waiting"));
        stages.event(&Event { seq: 1, at: Timestamp::UNIX_EPOCH, kind: stage(Stage::Build, StageStatus::Started) });
        let text = stages.moved();
        assert!(text.starts_with(&format!("{ERASE}⠸ build")), "{text:?}");
        assert_eq!(stages.erased(), ERASE);
        assert_eq!(stages.erased(), "");
    }
}
