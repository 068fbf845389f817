//! The schemas of what requests and answers hold, by name.
//!
//! A type can look different in a request, where what has a default may be left out. Where it does, the request's
//! schema has another name.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};

use super::takes::MakeSchema;

/// Where schemas are found by name.
const PLACE: &str = "#/components/schemas/";

/// Collects schemas.
pub(super) struct Schemas {
    requests: SchemaGenerator,
    answers: SchemaGenerator,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings = || {
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = "/components/schemas".into();
                settings.meta_schema = None;
            })
        };
        let requests = settings().for_deserialize().into_generator();
        Self { requests, answers: settings().for_serialize().into_generator() }
    }

    /// The schema of something in a request.
    pub(super) fn request(&mut self, make: MakeSchema) -> Value {
        make(&mut self.requests).to_value()
    }

    /// The schema of something in an answer.
    pub(super) fn answer(&mut self, make: MakeSchema) -> Value {
        make(&mut self.answers).to_value()
    }

    /// Every schema by name, and the names that requests have to use for those that look different there.
    pub(super) fn finish(mut self) -> (Map<String, Value>, Vec<(String, String)>) {
        let mut all = self.answers.take_definitions(true);
        let mut requests = self.requests.take_definitions(true);
        let mut renamed: Vec<(String, String)> = Vec::new();
        // What refers to one that is renamed looks different by that.
        loop {
            let differs = |(name, schema): &(&String, &Value)| {
                renamed.iter().all(|(old, _)| old != *name) && all.get(*name).is_some_and(|other| other != *schema)
            };
            let new: Vec<_> = requests.iter().filter(differs).map(|(name, _)| name.clone()).collect();
            if new.is_empty() {
                break;
            }
            let new: Vec<_> = new.into_iter().map(|name| (name.clone(), format!("{name}Input"))).collect();
            requests.values_mut().for_each(|schema| rename(schema, &new));
            renamed.extend(new);
        }
        for (name, schema) in requests {
            let name = renamed.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new.clone());
            all.insert(name, schema);
        }
        (all, renamed)
    }
}

/// Makes references use other names.
pub(super) fn rename(value: &mut Value, names: &[(String, String)]) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get_mut("$ref")
                && let Some((_, new)) = names.iter().find(|(old, _)| reference.strip_prefix(PLACE) == Some(old))
            {
                *reference = format!("{PLACE}{new}");
            }
            fields.values_mut().for_each(|value| rename(value, names));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| rename(value, names)),
        _ => {}
    }
}
