//! The document, put together.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use sdp_core::{ErrorCode, Problem};
use serde_json::{Map, Value, json};

use super::{
    doc::{Answer, Content, Doc},
    schemas::{Schemas, rename},
    takes::{Body, Kind, MakeSchema},
};
use crate::{
    api::endpoint::Endpoint,
    auth::{COOKIE, Rule},
};

/// The API, in a few words.
const ABOUT: &str = "The control plane of SDP. Errors are RFC 9457 problems with a stable `code`, a sentence to act on \
and the field at fault. Programs send a token in the header `Authorization: Bearer`, browsers the session's cookie; no \
secret is taken from an address. Creating requests take an `Idempotency-Key`, changes `If-Match`.";

pub(super) fn document<'a>(operations: impl Iterator<Item = (&'a Endpoint, &'a Doc)>) -> Value {
    let mut schemas = Schemas::new();
    let problem = schemas.answer(|generator| generator.subschema_for::<Problem>());
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    let mut tags = BTreeSet::new();
    for (endpoint, doc) in operations {
        let operation = operation(&mut schemas, &problem, endpoint, doc);
        tags.insert(tag(endpoint.path));
        paths.entry(endpoint.path).or_default().insert(endpoint.method.as_str().to_lowercase(), operation);
    }
    let (components, renamed) = schemas.finish();
    let mut paths = json!(paths);
    rename_requests(&mut paths, &renamed);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "SDP",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": { "name": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }, { "session": [] }],
        "tags": tags.into_iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http", "scheme": "bearer",
                    "description": "The token of POST /api/login, valid as long as the session, or one of POST /api/tokens.",
                },
                "session": {
                    "type": "apiKey", "in": "cookie", "name": COOKIE,
                    "description": "The cookie of POST /api/login. What changes something must come from a page of this site.",
                },
            },
        },
    })
}

/// Parameters and bodies are read; what is answered keeps its names.
fn rename_requests(paths: &mut Value, renamed: &[(String, String)]) {
    let operations = paths.as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in operations.filter_map(Value::as_object_mut).flat_map(|methods| methods.values_mut()) {
        for part in ["parameters", "requestBody"] {
            if let Some(part) = operation.get_mut(part) {
                rename(part, renamed);
            }
        }
    }
}

fn operation(schemas: &mut Schemas, problem: &Value, endpoint: &Endpoint, doc: &Doc) -> Value {
    let Endpoint { method, path, rule } = endpoint;
    let inputs = &doc.inputs;
    let mut parameters = Vec::new();
    parameters.extend(inputs.path.into_iter().flat_map(|make| fields(schemas, make, "path")));
    parameters.extend(inputs.query.into_iter().flat_map(|make| fields(schemas, make, "query")));
    if inputs.if_match {
        let about = "The `ETag` of what is to be changed: refused with 412 when that has changed meanwhile.";
        parameters.push(header("If-Match", about, json!({ "type": "string", "minLength": 1, "examples": ["*"] })));
    }
    if doc.once {
        let about = "A text of its own for every request, such as a UUID: the same request with the same key is answered \
                     again for a day, and not carried out again.";
        parameters.push(header(
            "Idempotency-Key",
            about,
            json!({ "type": "string", "pattern": "^[!-~]+$", "maxLength": 255 }),
        ));
    }
    let mut operation = json!({
        "operationId": operation_id(method, path),
        "tags": [tag(path)],
        "summary": doc.summary,
        "description": rule.sentence(),
        "x-sdp-rule": rule.as_str(),
        "parameters": parameters,
        "responses": responses(schemas, problem, endpoint, doc),
    });
    if let Some(body) = &inputs.body {
        operation["requestBody"] = request_body(schemas, body, doc.example.as_ref());
    }
    match rule {
        Rule::Anyone => operation["security"] = json!([]),
        Rule::Agent => operation["security"] = json!([{}]),
        _ => {}
    }
    operation
}

fn header(name: &str, about: &str, schema: Value) -> Value {
    json!({ "name": name, "in": "header", "required": false, "description": about, "schema": schema })
}

/// Each field of a type as a parameter.
fn fields(schemas: &mut Schemas, make: MakeSchema, place: &str) -> Vec<Value> {
    let schema = schemas.request(make);
    let required: Vec<_> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let fields = schema["properties"].as_object().into_iter().flatten();
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let about = schema.as_object_mut().and_then(|schema| {
            schema.remove("default");
            schema.remove("description")
        });
        let required = place == "path" || required.contains(&name.as_str());
        let mut parameter = json!({ "name": name, "in": place, "required": required, "schema": there(schema) });
        if let Some(about) = about {
            parameter["description"] = about;
        }
        parameter
    };
    fields.map(parameter).collect()
}

/// What is not there is left out of an address: `null` is a word there.
fn there(mut schema: Value) -> Value {
    let is_null = |schema: &Value| schema["type"] == "null";
    if let Some(choices) = schema["anyOf"].as_array_mut() {
        choices.retain(|choice| !is_null(choice));
        if let [only] = choices.as_slice() {
            return only.clone();
        }
    }
    if let Some(types) = schema["type"].as_array_mut() {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if let Some(fields) = schema.as_object_mut() {
        // Indexing has put them there.
        fields.retain(|name, value| !(value.is_null() && matches!(name.as_str(), "anyOf" | "type")));
    }
    schema
}

fn request_body(schemas: &mut Schemas, body: &Body, example: Option<&Value>) -> Value {
    let content = match &body.kind {
        Kind::Json(make, _) => {
            let mut media = json!({ "schema": schemas.request(*make) });
            if let Some(example) = example {
                media["example"] = example.clone();
            }
            json!({ "application/json": media })
        }
        Kind::Messages => json!({ "application/octet-stream": {} }),
    };
    json!({ "required": body.required, "content": content })
}

fn responses(schemas: &mut Schemas, problem: &Value, endpoint: &Endpoint, doc: &Doc) -> Value {
    let mut responses = Map::new();
    for Answer { status, holds, tagged } in &doc.answers {
        let mut response = json!({ "description": describe(*status) });
        match holds {
            Content::Nothing | Content::WebSocket => {}
            Content::Json(make) => {
                response["content"] = json!({ "application/json": { "schema": schemas.answer(*make) } });
            }
            Content::Text(types) => {
                let schema = json!({ "schema": { "type": "string" } });
                response["content"] = types.iter().map(|kind| ((*kind).to_owned(), schema.clone())).collect();
            }
            Content::Lines(line, last) => {
                let each = [schemas.answer(*line), schemas.answer(*last)];
                let schema = json!({ "description": "Each line; the second of these is the last.", "anyOf": each });
                response["content"] = json!({ "application/x-ndjson": { "schema": schema } });
            }
            Content::Bytes => response["content"] = json!({ "application/octet-stream": {} }),
        }
        if *tagged {
            let about = "The version of it, for `If-Match`.";
            let schema = json!({ "type": "string", "pattern": "^\"[0-9a-f]{32}\"$" });
            response["headers"] = json!({ "ETag": { "description": about, "required": true, "schema": schema } });
        }
        // One that is written in several ways has one status.
        let known = responses.get_mut(&status.to_string()).and_then(|known| known["content"].as_object_mut());
        match (known, response["content"].as_object()) {
            (Some(known), Some(more)) => {
                known.extend(more.clone());
                if let Some(json) = known.get("application/json").cloned() {
                    known.values_mut().for_each(|media| media.clone_from(&json));
                }
            }
            _ => drop(responses.insert(status.to_string(), response)),
        }
    }
    for (status, causes) in problems(endpoint, doc) {
        let causes: Vec<_> = causes.into_iter().collect();
        let mut response = json!({
            "description": causes.join("; "),
            "content": { "application/problem+json": { "schema": problem } },
        });
        if status == 429 {
            let schema = json!({ "type": "integer", "minimum": 1 });
            let about = "After how many seconds to try again.";
            response["headers"] = json!({ "Retry-After": { "description": about, "schema": schema } });
        }
        responses.insert(status.to_string(), response);
    }
    responses.into()
}

fn describe(status: u16) -> &'static str {
    match status {
        101 => "The WebSocket is open",
        201 => "It is made",
        202 => "It has begun",
        204 => "It is done",
        _ => "The answer",
    }
}

/// Every problem that an endpoint can answer, by status.
fn problems(endpoint: &Endpoint, doc: &Doc) -> BTreeMap<u16, BTreeSet<String>> {
    use ErrorCode as E;
    let Doc { inputs, .. } = doc;
    let mut codes = vec![E::BadRequest, E::Internal];
    codes.extend(&doc.problems);
    match endpoint.rule {
        Rule::Anyone => {}
        // Who it is, the hub finds out.
        Rule::Agent => codes.extend([E::NotSignedIn, E::NotAllowed]),
        _ => codes.extend([E::NotSignedIn, E::NotAllowed]),
    }
    if inputs.path.is_some() {
        codes.extend([E::InvalidInput, E::NotFound]);
    }
    if inputs.query.is_some() {
        codes.push(E::InvalidInput);
    }
    if inputs.if_match {
        codes.push(E::Changed);
    }
    if doc.once {
        codes.extend([E::Conflict, E::InvalidInput, E::TooLarge]);
    }
    let mut problems: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
    let mut add = |status: u16, cause: String| {
        problems.entry(status).or_default().insert(cause);
    };
    if let Some(body) = &inputs.body {
        codes.push(E::TooLarge);
        add(408, format!("`{}`: the body did not come in time", E::BadRequest));
        if matches!(body.kind, Kind::Json(..)) {
            codes.push(E::InvalidInput);
            add(415, format!("`{}`: the body is not JSON", E::BadRequest));
        }
    }
    if inputs.upgrade {
        add(426, format!("`{}`: this address speaks WebSocket", E::BadRequest));
    }
    for code in codes {
        add(code.status(), format!("`{code}`: {}", code.title()));
    }
    problems
}

/// `get_sandboxes_name_routes`.
fn operation_id(method: &Method, path: &str) -> String {
    let words = path.split(['/', '{', '}', '.']).filter(|word| !word.is_empty() && *word != "api");
    let words: Vec<_> = std::iter::once(method.as_str().to_lowercase()).chain(words.map(str::to_owned)).collect();
    words.join("_")
}

/// What an endpoint is about.
fn tag(path: &str) -> &str {
    let mut parts = path.trim_start_matches('/').split('/');
    match (parts.next(), parts.next()) {
        (Some("api"), Some("login" | "logout" | "me" | "tokens" | "users")) => "people",
        (Some("api"), Some("openapi.json" | "docs")) | (Some("healthz" | "readyz"), _) => "platform",
        (Some("api"), Some("explain")) => "routes",
        (Some("ws"), Some("agent")) => "agents' connections",
        (Some("ws"), Some("events")) => "events",
        (_, Some(what)) => what,
        _ => "platform",
    }
}
