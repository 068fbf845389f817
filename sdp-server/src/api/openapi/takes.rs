//! What a handler takes of its requests. Its own arguments say so: a handler with an argument that cannot be described
//! cannot be an endpoint.

use axum::extract::{State, WebSocketUpgrade, ws::rejection::WebSocketUpgradeRejection};
use http::{Extensions, HeaderMap};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use sdp_core::Manifest;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::{
    etag::IfMatch,
    extract::{Json, Messages, Optional, Path, Query, SecretJson},
    manifest::Document,
};
use crate::{AppState, auth::SignedIn};

/// Makes the schema of a type.
pub(in crate::api) type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

/// What requests hold.
#[derive(Debug, Default)]
pub(in crate::api) struct Inputs {
    pub(super) path: Option<MakeSchema>,
    pub(super) query: Option<MakeSchema>,
    pub(super) body: Option<Body>,
    pub(super) if_match: bool,
    pub(super) upgrade: bool,
}

/// The body of a request.
#[derive(Debug)]
pub(in crate::api) struct Body {
    pub(super) kind: Kind,
    pub(super) required: bool,
}

/// What a body is.
#[derive(Debug)]
pub(super) enum Kind {
    /// JSON, with what reads an example of it.
    Json(
        MakeSchema,
        #[cfg_attr(not(test), expect(dead_code, reason = "a test reads the examples"))] fn(Value) -> Result<(), String>,
    ),
    /// An agent's messages.
    Messages,
}

impl Body {
    fn json<T: JsonSchema + DeserializeOwned>(required: bool) -> Self {
        let read = |value| serde_json::from_value::<T>(value).map(drop).map_err(|error| error.to_string());
        Self { kind: Kind::Json(|generator| generator.subschema_for::<T>(), read), required }
    }
}

/// One argument of a handler.
pub(in crate::api) trait Takes {
    /// Adds what it takes.
    fn describe(_: &mut Inputs) {}
}

impl Takes for State<AppState> {}
impl Takes for SignedIn {}
impl Takes for HeaderMap {}
impl Takes for Extensions {}

impl<T: JsonSchema + DeserializeOwned> Takes for Json<T> {
    fn describe(inputs: &mut Inputs) {
        inputs.body = Some(Body::json::<T>(true));
    }
}

impl<T: JsonSchema + DeserializeOwned> Takes for SecretJson<T> {
    fn describe(inputs: &mut Inputs) {
        inputs.body = Some(Body::json::<T>(true));
    }
}

impl<T: JsonSchema + DeserializeOwned> Takes for Optional<T> {
    fn describe(inputs: &mut Inputs) {
        inputs.body = Some(Body::json::<Option<T>>(false));
    }
}

impl Takes for Document {
    fn describe(inputs: &mut Inputs) {
        inputs.body = Some(Body::json::<Manifest>(true));
    }
}

impl Takes for Messages {
    fn describe(inputs: &mut Inputs) {
        inputs.body = Some(Body { kind: Kind::Messages, required: true });
    }
}

impl<T: JsonSchema> Takes for Path<T> {
    fn describe(inputs: &mut Inputs) {
        inputs.path = Some(T::json_schema);
    }
}

impl<T: JsonSchema> Takes for Query<T> {
    fn describe(inputs: &mut Inputs) {
        inputs.query = Some(T::json_schema);
    }
}

impl Takes for IfMatch {
    fn describe(inputs: &mut Inputs) {
        inputs.if_match = true;
    }
}

impl Takes for Result<WebSocketUpgrade, WebSocketUpgradeRejection> {
    fn describe(inputs: &mut Inputs) {
        inputs.upgrade = true;
    }
}

/// Every argument of a handler, as axum names them: a marker, then their types.
pub(in crate::api) trait TakesAll {
    /// What they take together.
    fn inputs() -> Inputs;
}

/// Defines it for handlers with so many arguments.
macro_rules! takes_all {
    ($($argument:ident)*) => {
        impl<M, $($argument: Takes),*> TakesAll for (M, $($argument,)*) {
            fn inputs() -> Inputs {
                #[allow(unused_mut, clippy::allow_attributes, reason = "without arguments nothing is added")]
                let mut inputs = Inputs::default();
                $($argument::describe(&mut inputs);)*
                inputs
            }
        }
    };
}

takes_all!();
takes_all!(A);
takes_all!(A B);
takes_all!(A B C);
takes_all!(A B C D);
takes_all!(A B C D E);
takes_all!(A B C D E F);
