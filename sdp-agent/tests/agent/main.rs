//! The whole agent on doubles, against a scripted control plane.

mod link;
mod recovery;
mod support;
mod work;
