//! `ETag` and `If-Match`: the version of what was read, and the one that is to be changed.

use std::marker::PhantomData;

use axum::{
    extract::FromRequestParts,
    response::{AppendHeaders, IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use sdp_core::ErrorCode;
use serde::Serialize;

use crate::{
    ApiError,
    store::{Expected, Version, to_json},
};

/// An answer with the version of what it holds, which is a `T` in JSON.
pub(super) struct Tagged<T> {
    status: StatusCode,
    version: Version,
    json: String,
    of: PhantomData<T>,
}

impl<T: Serialize> Tagged<T> {
    /// Something as it is, versioned by all of it.
    pub(super) fn of(value: T) -> Self {
        let json = to_json(&value);
        Self { status: StatusCode::OK, version: Version::of_json(&json), json, of: PhantomData }
    }

    /// Something of this version.
    pub(super) fn new(version: Version, value: T) -> Self {
        Self { status: StatusCode::OK, version, json: to_json(&value), of: PhantomData }
    }

    /// The same, of something that was just made.
    pub(super) fn created(self) -> Self {
        Self { status: StatusCode::CREATED, ..self }
    }
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let tag = format!("\"{}\"", self.version.as_str());
        let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        (self.status, kind, AppendHeaders([(header::ETAG, tag)]), self.json).into_response()
    }
}

/// The header `If-Match`.
pub(super) struct IfMatch(pub(super) Expected);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let headers: Vec<_> = parts.headers.get_all(header::IF_MATCH).iter().collect();
        if headers.is_empty() {
            return Ok(Self(Expected::ANY));
        }
        let mut versions = Vec::new();
        for text in headers {
            let text = text.to_str().ok().filter(|text| !text.trim().is_empty()).ok_or_else(malformed)?;
            for tag in text.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
                match (tag, tag.strip_prefix("W/")) {
                    ("*", _) => return Ok(Self(Expected::ANY)),
                    // A weak one never matches.
                    (_, Some(_)) => versions.push(Version::from(String::new())),
                    // Some clients take the quotes off.
                    _ => versions.push(Version::from(tag.trim_matches('"').to_owned())),
                }
            }
        }
        Ok(Self(Expected::one_of(versions)))
    }
}

fn malformed() -> ApiError {
    let sentence =
        "the header `If-Match` holds what the header `ETag` had, or `*`; leave it out to change whatever there is";
    ApiError::new(ErrorCode::BadRequest, sentence).field("If-Match")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(headers: &[&str]) -> Result<Expected, ApiError> {
        let mut request = http::Request::new(());
        for text in headers {
            request.headers_mut().append(header::IF_MATCH, text.parse().unwrap());
        }
        IfMatch::from_request_parts(&mut request.into_parts().0, &()).await.map(|IfMatch(expected)| expected)
    }

    #[tokio::test]
    async fn tags_are_read_from_lists_and_repeated_headers() {
        let versions =
            |tags: &[&str]| Expected::one_of(tags.iter().map(|tag| Version::from(tag.to_string())).collect());
        assert_eq!(read(&[]).await.unwrap(), Expected::ANY);
        assert_eq!(read(&["\"a\", \"b\"", "\"c\""]).await.unwrap(), versions(&["a", "b", "c"]));
        assert_eq!(read(&["\"a\", *"]).await.unwrap(), Expected::ANY);
        assert_eq!(read(&["a"]).await.unwrap(), versions(&["a"]));
        assert_eq!(read(&["W/\"a\""]).await.unwrap(), versions(&[""]), "which matches nothing");
        assert_eq!(read(&[","]).await.unwrap(), versions(&[]), "nor does this");
        for text in ["", " "] {
            assert_eq!(read(&[text]).await.unwrap_err().0.status, 400, "{text}");
        }
    }
}
