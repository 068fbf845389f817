//! What an endpoint's declaration says for people and programs that read the description of the API.

use schemars::JsonSchema;
use sdp_core::ErrorCode;
use serde_json::Value;

use super::takes::{Inputs, MakeSchema};

/// The description of one endpoint.
#[derive(Debug, Default)]
pub(in crate::api) struct Doc {
    /// What it does, in a sentence.
    pub(super) summary: &'static str,
    pub(super) inputs: Inputs,
    pub(super) answers: Vec<Answer>,
    /// Problems besides those that its inputs and its rule bring along.
    pub(super) problems: Vec<ErrorCode>,
    pub(super) example: Option<Value>,
    pub(super) once: bool,
}

/// An answer without a problem.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) holds: Content,
    /// Whether it has an `ETag`.
    pub(super) tagged: bool,
}

/// What an answer holds.
#[derive(Debug)]
pub(super) enum Content {
    Nothing,
    Json(MakeSchema),
    /// Text of one of these types.
    Text(&'static [&'static str]),
    /// Lines of JSON, and another last.
    Lines(MakeSchema, MakeSchema),
    Bytes,
    /// Another protocol.
    WebSocket,
}

impl Doc {
    pub(in crate::api) fn of(inputs: Inputs) -> Self {
        let upgrades = inputs.upgrade;
        let mut doc = Self { inputs, ..Self::default() };
        if upgrades {
            doc.answer(101, Content::WebSocket, false);
        }
        doc
    }

    fn answer(&mut self, status: u16, holds: Content, tagged: bool) {
        self.answers.push(Answer { status, holds, tagged });
    }

    pub(in crate::api) fn says(&mut self, summary: &'static str) {
        self.summary = summary;
    }

    pub(in crate::api) fn json<T: JsonSchema>(&mut self, status: u16, tagged: bool) {
        self.answer(status, Content::Json(|generator| generator.subschema_for::<T>()), tagged);
    }

    pub(in crate::api) fn nothing(&mut self, status: u16) {
        self.answer(status, Content::Nothing, false);
    }

    pub(in crate::api) fn text(&mut self, types: &'static [&'static str]) {
        self.answer(200, Content::Text(types), false);
    }

    pub(in crate::api) fn lines<Line: JsonSchema, Last: JsonSchema>(&mut self) {
        let [line, last]: [MakeSchema; 2] =
            [|generator| generator.subschema_for::<Line>(), |generator| generator.subschema_for::<Last>()];
        self.answer(200, Content::Lines(line, last), false);
    }

    pub(in crate::api) fn bytes(&mut self) {
        self.answer(200, Content::Bytes, false);
    }

    pub(in crate::api) fn fails(&mut self, codes: &[ErrorCode]) {
        self.problems.extend(codes);
    }

    pub(in crate::api) fn example(&mut self, body: Value) {
        self.example = Some(body);
    }

    /// Whether the example can be read, and there is one where there is a body of JSON.
    #[cfg(test)]
    pub(in crate::api) fn check_example(&self) -> Result<(), String> {
        use super::takes::{Body, Kind};
        match (&self.inputs.body, &self.example) {
            (Some(Body { kind: Kind::Json(_, read), .. }), Some(example)) => read(example.clone()),
            (Some(Body { kind: Kind::Json(..), .. }), None) => Err("there is no example of its body".into()),
            (_, Some(_)) => Err("there is an example of no body".into()),
            _ => Ok(()),
        }
    }

    pub(in crate::api) fn once(&mut self) {
        self.once = true;
    }
}
