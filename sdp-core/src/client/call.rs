//! A request, before it is sent.

use std::fmt;

use bytes::Bytes;
use http::Method;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use uuid::Uuid;

use super::Version;

const JSON: &str = "application/json";

/// What may stand in a segment of a path as it is.
const PLAIN: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What is sent, as often as it is sent.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// The path below the server's address, with its query.
    pub(super) path: String,
    pub(super) body: Bytes,
    pub(super) content_type: Option<&'static str>,
    pub(super) accept: &'static str,
    pub(super) if_match: Option<Version>,
    /// The `Idempotency-Key`, the same however often it is sent.
    pub(super) key: Option<String>,
    /// Whether carrying it out twice is as good as once.
    pub(super) repeatable: bool,
    /// Whether the token goes with it.
    pub(super) signed: bool,
}

/// Text as one segment of a path.
pub(super) fn segment(text: impl AsRef<str>) -> String {
    match text.as_ref() {
        // These would climb.
        "." => "%2E".into(),
        ".." => "%2E%2E".into(),
        text => utf8_percent_encode(text, &PLAIN).to_string(),
    }
}

impl Call {
    fn new(method: Method, path: impl Into<String>) -> Self {
        let repeatable = matches!(method, Method::GET | Method::PUT | Method::DELETE);
        Self {
            method,
            path: path.into(),
            body: Bytes::new(),
            content_type: None,
            accept: JSON,
            if_match: None,
            key: None,
            repeatable,
            signed: true,
        }
    }

    /// Reads.
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    /// Sets something to what the body says.
    pub(super) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    /// Changes something.
    pub(super) fn patch(path: impl Into<String>) -> Self {
        Self::new(Method::PATCH, path)
    }

    /// Deletes.
    pub(super) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    /// Does something, once.
    pub(super) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    /// Creates something: the server carries it out once, however often it is sent.
    pub(super) fn create(path: impl Into<String>) -> Self {
        Self { key: Some(Uuid::now_v7().to_string()), repeatable: true, ..Self::post(path) }
    }

    /// Carrying it out twice is as good as once.
    pub(super) fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    /// The token does not go with it.
    pub(super) fn unsigned(self) -> Self {
        Self { signed: false, ..self }
    }

    /// With such a query, if there is something in it.
    pub(super) fn query(mut self, query: &impl Serialize) -> Self {
        // The queries are plain structs of texts and numbers, which can always be written.
        let text = serde_urlencoded::to_string(query).unwrap_or_default();
        if !text.is_empty() {
            self.path.push('?');
            self.path.push_str(&text);
        }
        self
    }

    /// With a body.
    pub(super) fn json(self, body: &impl Serialize) -> Self {
        // The bodies are plain structs with text keys, which can always be written.
        let text = serde_json::to_vec(body).unwrap_or_default();
        self.body(JSON, text)
    }

    pub(super) fn body(self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), content_type: Some(content_type), ..self }
    }

    /// Wants an answer of another type than JSON.
    pub(super) fn accept(self, accept: &'static str) -> Self {
        Self { accept, ..self }
    }

    /// Only if what is there has this version. Sent again, it would find its own change.
    pub(super) fn if_match(self, version: Option<&Version>) -> Self {
        Self { repeatable: self.repeatable && version.is_none(), if_match: version.cloned(), ..self }
    }
}

/// Method and path: queries may hold what a request carries.
impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path.split('?').next().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_is_as_good_done_twice_is_repeated() {
        for call in [Call::get("/"), Call::put("/"), Call::delete("/"), Call::create("/"), Call::post("/").repeatable()]
        {
            assert!(call.repeatable, "{call}");
        }
        assert!(!Call::post("/").repeatable && !Call::patch("/").repeatable);
        let version = None;
        assert!(Call::put("/").if_match(version).repeatable);
    }

    #[test]
    fn two_creations_have_keys_of_their_own() {
        assert_ne!(Call::create("/").key, Call::create("/").key);
    }

    proptest! {
        #[test]
        fn a_segment_never_ends_or_leaves_its_place_and_reads_back(text in "\\PC{1,40}") {
            let written = segment(&text);
            prop_assert!(!written.contains(['/', '?', '#', ' ', '\\']) && written != "." && written != "..");
            let read = percent_encoding::percent_decode_str(&written).decode_utf8().unwrap();
            prop_assert_eq!(read.as_ref(), text);
        }
    }
}
