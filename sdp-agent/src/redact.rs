//! Known secrets kept out of what is written and sent.

use std::{borrow::Cow, fmt};

use async_trait::async_trait;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use sdp_core::{Credentials, EventKind, EventSink, Problem, SinkError};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// What stands in a secret's place.
pub const MASK: &str = "•••";

/// The shortest secret that is masked, in bytes: a shorter one occurs in any text by chance.
const SHORTEST: usize = 4;

/// Replaces secrets in text: as they are, percent-encoded, JSON-escaped, as the token of basic authentication, and in
/// base64 with anything before and after.
///
/// ```
/// use sdp_agent::redact::Redactor;
/// use sdp_core::{Credentials, UserName};
/// let redactor = Redactor::default().credentials(&Credentials::new(UserName::new("ada")?, "s3cr/t".into()));
/// assert_eq!(redactor.text("GET http://ada:s3cr%2Ft@git/ (s3cr/t)"), "GET http://ada:•••@git/ (•••)");
/// # Ok::<(), sdp_core::InvalidName>(())
/// ```
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a form that contains another goes as a whole.
    needles: Vec<SecretString>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} forms)", self.needles.len())
    }
}

impl Redactor {
    /// Masks the password of `credentials`, and the two together as basic authentication sends them.
    pub fn credentials(self, credentials: &Credentials) -> Self {
        let (user, password) = (credentials.username().as_str(), credentials.expose_password());
        let pair = Zeroizing::new(format!("{user}:{password}"));
        let basic = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        self.secret(password).form(&basic)
    }

    /// Masks `secret`.
    pub fn secret(mut self, secret: &str) -> Self {
        // Output comes line by line, so that a secret of several lines is never seen whole.
        for line in secret.lines() {
            let escaped = Zeroizing::new(serde_json::to_string(line).unwrap_or_default());
            let query: Zeroizing<String> =
                Zeroizing::new(url::form_urlencoded::byte_serialize(line.as_bytes()).collect());
            let base64 = Zeroizing::new(STANDARD.encode(line));
            self = self
                .form(line)
                .form(escaped.trim_matches('"'))
                .form(&percent_encoded(line, |byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)))
                .form(&percent_encoded(line, |byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)))
                .form(&percent_encoded(line, |byte| {
                    byte.is_ascii_graphic() && !br#"/:;=@[\]^|?#{}<>"`"#.contains(&byte)
                }))
                .form(&query)
                .form(&base64);
            for core in base64_cores(line) {
                self = self.form(&core).form(&Zeroizing::new(core.replace('+', "-").replace('/', "_")));
            }
        }
        self
    }

    fn form(mut self, form: &str) -> Self {
        let lower = lower_case_escapes(form);
        for form in [form, lower.as_str()] {
            if form.len() >= SHORTEST && !self.needles.iter().any(|needle| needle.expose_secret() == form) {
                self.needles.push(form.into());
            }
        }
        self.needles.sort_by_key(|needle| std::cmp::Reverse(needle.expose_secret().len()));
        self
    }

    /// `text` with every secret masked.
    pub fn text<'a>(&self, text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
        self.needles.iter().fold(text.into(), |text, needle| match text.contains(needle.expose_secret()) {
            true => text.replace(needle.expose_secret(), MASK).into(),
            false => text,
        })
    }

    /// `problem` with every secret in its sentence masked.
    pub fn problem(&self, mut problem: Problem) -> Problem {
        problem.detail = self.text(problem.detail).into_owned();
        problem.holder = problem.holder.map(|holder| self.text(holder).into_owned());
        problem
    }

    /// An event with every secret in its texts masked. Names, which people choose to be seen, and
    /// numbers stay.
    pub fn event(&self, kind: EventKind) -> EventKind {
        let text = |text: String| self.text(text).into_owned();
        match kind {
            EventKind::Log { stage, stream, line } => EventKind::Log { stage, stream, line: text(line) },
            EventKind::State { state, failure } => EventKind::State {
                state,
                failure: failure.map(|mut failure| {
                    failure.reason = text(failure.reason);
                    failure
                }),
            },
            EventKind::Endpoint { host_port, url, instance } => {
                EventKind::Endpoint { host_port, url: text(url), instance: text(instance) }
            }
            EventKind::Route { mut route } => {
                route.value = text(route.value);
                route.default = text(route.default);
                route.effective = route.effective.map(text);
                EventKind::Route { route }
            }
            kind => kind,
        }
    }

    /// A sink that masks before it hands on to `sink`.
    pub fn wrap<S: EventSink>(self, sink: S) -> RedactingSink<S> {
        RedactingSink { redactor: self, sink }
    }
}

/// An [`EventSink`] that masks secrets and hands on to another.
#[derive(Debug)]
pub struct RedactingSink<S> {
    redactor: Redactor,
    sink: S,
}

#[async_trait]
impl<S: EventSink> EventSink for RedactingSink<S> {
    async fn accept(&self, kind: EventKind) -> Result<u64, SinkError> {
        self.sink.accept(self.redactor.event(kind)).await
    }

    fn masked<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        self.sink.masked(self.redactor.text(text))
    }
}

/// What is the same in the base64 of every text with `text` in it, for each of the three places where it may begin in
/// a group.
fn base64_cores(text: &str) -> impl Iterator<Item = Zeroizing<String>> {
    (0..3).filter_map(move |before: usize| {
        let mut bytes = Zeroizing::new(vec![0; before]);
        bytes.extend_from_slice(text.as_bytes());
        let encoded = Zeroizing::new(STANDARD_NO_PAD.encode(&bytes));
        let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        encoded.get(first..end).map(|core| Zeroizing::new(core.to_owned()))
    })
}

fn percent_encoded(text: &str, keep: impl Fn(u8) -> bool) -> Zeroizing<String> {
    use fmt::Write;
    let empty = Zeroizing::new(String::with_capacity(text.len() * 3));
    text.bytes().fold(empty, |mut encoded, byte| {
        if keep(byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").ok();
        }
        encoded
    })
}

/// `%2F` as `%2f`, which some programs write.
fn lower_case_escapes(text: &str) -> Zeroizing<String> {
    let mut escaped = 0;
    let chars = text.chars().map(|c| {
        let digit = escaped > 0;
        escaped = if c == '%' { 2 } else { escaped - i32::from(digit) };
        if digit { c.to_ascii_lowercase() } else { c }
    });
    Zeroizing::new(chars.collect())
}

#[cfg(test)]
mod tests {
    use sdp_core::{
        DeploymentState, ErrorCode, Failure, Stage, UserName,
        testing::{MemorySink, conformance::events},
    };

    use super::*;

    fn redactor(password: &str) -> Redactor {
        Redactor::default().credentials(&Credentials::new(UserName::new("ada").unwrap(), password.into()))
    }

    #[test]
    fn every_usual_form_of_a_password_is_masked() {
        let redactor = redactor("p@ss/w0rd+é \"x\"");
        for text in [
            "p@ss/w0rd+é \"x\"",
            r#"{"password":"p@ss/w0rd+é \"x\""}"#,
            "p%40ss%2Fw0rd%2B%C3%A9%20%22x%22",
            "p%40ss%2fw0rd%2b%c3%a9%20%22x%22",
            "p%40ss%2Fw0rd%2B%C3%A9+%22x%22",
            "p%40ss%2Fw0rd+%C3%A9%20%22x%22",
            &STANDARD.encode("ada:p@ss/w0rd+é \"x\""),
            &STANDARD.encode("p@ss/w0rd+é \"x\""),
        ] {
            let line = format!("before {text} after {text}");
            assert!(redactor.text(&*line).matches(MASK).count() == 2, "{line} became {}", redactor.text(&*line));
        }
    }

    #[test]
    fn a_password_inside_of_base64_is_masked_wherever_it_begins() {
        let redactor = redactor("correct~horse?battery>staple");
        for before in ["", "x", "xy", "xyz", "password="] {
            for after in ["", "\n", "; and so on"] {
                let text = format!("{before}correct~horse?battery>staple{after}");
                for encoded in [STANDARD.encode(&text), STANDARD.encode(&text).replace('+', "-").replace('/', "_")] {
                    let shown = redactor.text(&*encoded).into_owned();
                    assert!(shown.contains(MASK) && shown.len() < before.len() * 2 + after.len() * 2 + 16, "{shown}");
                }
            }
        }
    }

    #[test]
    fn texts_without_secrets_are_not_copied_and_tiny_passwords_mask_nothing() {
        assert!(matches!(redactor("hunter2").text("nothing here"), Cow::Borrowed(_)));
        assert_eq!(redactor("a").text("banana"), "banana");
        assert_eq!(redactor("").text("banana"), "banana");
    }

    #[test]
    fn a_secret_of_several_lines_is_masked_line_by_line() {
        assert_eq!(Redactor::default().secret("first\nsecond").text("first"), MASK);
    }

    #[tokio::test]
    async fn every_text_of_an_event_is_masked_on_its_way() {
        let memory = MemorySink::default();
        let sink = redactor("hunter2").wrap(memory.clone());
        let failure =
            Failure { stage: None, code: ErrorCode::Internal, reason: "hunter2".into(), previous_restored: None };
        sink.accept(EventKind::note(Stage::Source, "as hunter2")).await.unwrap();
        sink.accept(EventKind::State { state: DeploymentState::Failed, failure: Some(failure) }).await.unwrap();
        assert_eq!(sink.masked("as hunter2".into()), format!("as {MASK}"));
        let text = serde_json::to_string(&memory.events()).unwrap();
        assert!(!text.contains("hunter2") && text.matches(MASK).count() == 2, "{text}");
    }

    #[tokio::test]
    async fn a_masking_sink_keeps_the_contract_of_a_sink() {
        let memory = MemorySink::default();
        let sink = redactor("hunter2").wrap(memory.clone());
        events::suite(&sink, async || memory.events()).await;
    }
}
