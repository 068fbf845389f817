//! How an endpoint is declared: method, path, rule and handler together. The router takes nothing else, so that there
//! is no endpoint without a rule.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    handler::Handler,
    middleware,
    routing::{MethodFilter, MethodRouter, on},
};
use http::Method;
use schemars::JsonSchema;
use sdp_core::ErrorCode;
use serde_json::Value;

use super::{
    idempotency::{self, Holds},
    openapi::{Doc, TakesAll},
};
use crate::{AppState, auth::Rule};

/// What is declared of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The method. `GET` answers `HEAD` as well.
    pub method: Method,
    /// The path, with `{parameters}`.
    pub path: &'static str,
    /// Who may use it.
    pub rule: Rule,
}

/// An endpoint with what answers it.
pub(super) struct Served {
    pub(super) endpoint: Endpoint,
    handler: MethodRouter<AppState>,
    /// Whether it takes an `Idempotency-Key`, and what its answers hold.
    once: Option<Holds>,
    pub(super) doc: Doc,
}

fn serve<H, T>(method: Method, filter: MethodFilter, path: &'static str, rule: Rule, handler: H) -> Served
where
    H: Handler<T, AppState>,
    T: TakesAll + 'static,
{
    let doc = Doc::of(T::inputs());
    Served { endpoint: Endpoint { method, path, rule }, handler: on(filter, handler), once: None, doc }
}

/// Defines a function for each method.
macro_rules! methods {
    ($($name:ident = $method:ident;)*) => {
        $(pub(super) fn $name<H, T>(path: &'static str, rule: Rule, handler: H) -> Served
        where
            H: Handler<T, AppState>,
            T: TakesAll + 'static,
        {
            serve(Method::$method, MethodFilter::$method, path, rule, handler)
        })*
    };
}

methods! {
    get = GET;
    post = POST;
    put = PUT;
    patch = PATCH;
    delete = DELETE;
}

impl Served {
    /// Takes bodies up to this size.
    pub(super) fn up_to(mut self, bytes: usize) -> Self {
        self.handler = self.handler.layer(DefaultBodyLimit::max(bytes));
        self
    }

    /// Takes an `Idempotency-Key`.
    pub(super) fn once(mut self, holds: Holds) -> Self {
        self.once = Some(holds);
        self.doc.once();
        self
    }

    /// Says what it does.
    pub(super) fn says(mut self, summary: &'static str) -> Self {
        self.doc.says(summary);
        self
    }

    /// Answers JSON.
    pub(super) fn json<T: JsonSchema>(mut self, status: u16) -> Self {
        self.doc.json::<T>(status, false);
        self
    }

    /// Answers JSON with an `ETag`.
    pub(super) fn tagged<T: JsonSchema>(mut self, status: u16) -> Self {
        self.doc.json::<T>(status, true);
        self
    }

    /// Answers nothing but a status.
    pub(super) fn nothing(mut self, status: u16) -> Self {
        self.doc.nothing(status);
        self
    }

    /// Answers text of one of these types.
    pub(super) fn text(mut self, types: &'static [&'static str]) -> Self {
        self.doc.text(types);
        self
    }

    /// Answers lines of JSON, and another last.
    pub(super) fn lines<Line: JsonSchema, Last: JsonSchema>(mut self) -> Self {
        self.doc.lines::<Line, Last>();
        self
    }

    /// Answers bytes.
    pub(super) fn bytes(mut self) -> Self {
        self.doc.bytes();
        self
    }

    /// Can answer these problems, besides those that its arguments and its rule bring along.
    pub(super) fn fails(mut self, codes: &[ErrorCode]) -> Self {
        self.doc.fails(codes);
        self
    }

    /// Can answer whatever problem an agent has.
    pub(super) fn asks_agent(self) -> Self {
        let own = [ErrorCode::NotSignedIn, ErrorCode::RateLimited, ErrorCode::Changed];
        let codes: Vec<_> = ErrorCode::ALL.iter().copied().filter(|code| !own.contains(code)).collect();
        self.fails(&codes)
    }

    /// Takes such a body.
    pub(super) fn example(mut self, body: Value) -> Self {
        self.doc.example(body);
        self
    }

    /// Adds it to a router, behind the guard of its rule.
    pub(super) fn mount(self, router: Router<AppState>, state: &AppState) -> Router<AppState> {
        let Self { endpoint: Endpoint { path, rule, .. }, mut handler, once, .. } = self;
        if let Some(holds) = once {
            let layer = middleware::from_fn_with_state((state.clone(), holds), idempotency::once);
            handler = handler.route_layer(layer);
        }
        let guard = middleware::from_fn_with_state((state.clone(), rule), crate::auth::guard);
        router.route(path, handler.route_layer(guard))
    }
}
