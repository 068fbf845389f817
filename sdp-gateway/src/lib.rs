//! x
pub mod php;
