//! The description of the API, OpenAPI 3.1, made from the endpoints' declarations and the types they carry.

mod doc;
mod document;
mod page;
mod schemas;
mod takes;

use axum::response::IntoResponse;
use bytes::Bytes;
use http::header;

pub(super) use self::{
    doc::Doc,
    page::{page, script, style},
    takes::TakesAll,
};
use super::endpoint::Served;

/// The document as it is served.
pub(super) fn document(served: &[Served]) -> Bytes {
    let operations = served.iter().map(|served| (&served.endpoint, &served.doc));
    document::document(operations).to_string().into()
}

/// Serves the document.
pub(super) async fn json() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], super::DOCUMENT.clone())
}
