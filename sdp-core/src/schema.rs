//! How the API's description shows what is written otherwise than it is kept, for `#[schemars(with)]`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::{
    model::{
        command::ExecCommand,
        ids::{HostPort, PortRange},
        route::ServiceUrl,
    },
    protocol::CredentialsFrame,
};

/// Defines the schema of a type, written where it is used or by name.
macro_rules! schema {
    ($(#[$doc:meta])* $name:ident, $inline:literal, $schema:tt) => {
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                $inline
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

/// A [`jiff::Timestamp`].
#[derive(Debug)]
pub struct Time;

schema!(Time, true, { "type": "string", "format": "date-time", "examples": ["2026-01-02T03:04:05Z"] });

/// A [`Duration`](std::time::Duration) of [`units`](crate::model::units).
#[derive(Debug)]
pub struct Span;

schema!(Span, true, { "type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$", "maxLength": 20, "examples": ["7d", "30m"] });

/// An [`IpAddr`](std::net::IpAddr).
#[derive(Debug)]
pub struct Address;

schema!(Address, true, { "type": "string", "examples": ["10.0.0.92"] });

schema!(HostPort, false, { "type": "integer", "description": "A host port.", "minimum": 1, "maximum": 65535, "examples": [20005] });

schema!(PortRange, false, {
    "type": "string", "description": "A range of host ports.", "pattern": "^ *[0-9]{1,5} *- *[0-9]{1,5} *$", "examples": ["20000-29999"]
});

schema!(ServiceUrl, false, {
    "type": "string",
    "description": "An http or https URL that a gateway can call, without credentials and fragment.",
    "format": "uri", "pattern": "^https?://[^#@\\s]+$", "maxLength": 2048, "examples": ["http://10.0.0.92:20005"]
});

schema!(ExecCommand, false, {
    "type": "array",
    "description": "A program and its arguments, which no shell reads: 16 KiB in all.",
    "prefixItems": [{ "type": "string", "minLength": 1, "pattern": "^[^\\x00]*$" }],
    "items": { "type": "string", "pattern": "^[^\\x00]*$" },
    "minItems": 1, "maxItems": 256, "examples": [["php", "artisan", "migrate"]]
});

schema!(CredentialsFrame, false, {
    "type": "object",
    "description": "Git credentials: a user and a password or access token.",
    "properties": {
        "username": { "type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f:]+$" },
        "password": { "type": "string", "format": "password" }
    },
    "required": ["username", "password"]
});
