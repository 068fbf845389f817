//! A template: a saved shape, to make sandboxes from.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    names::{TemplateName, UserName},
    shape::Shape,
    units,
};

/// A template as the control plane knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(schemars::JsonSchema))]
pub struct Template {
    /// Its name.
    pub name: TemplateName,
    /// Who made it.
    pub owner: UserName,
    /// When it was saved last.
    #[cfg_attr(feature = "openapi", schemars(with = "crate::schema::Time"))]
    pub saved_at: Timestamp,
    /// What sandboxes made from it begin with.
    #[serde(flatten)]
    pub shape: Shape,
    /// How long they live, unless their maker says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::duration_option")]
    #[cfg_attr(feature = "openapi", schemars(with = "Option<crate::schema::Span>"))]
    pub expires_in: Option<Duration>,
}
