//! The lossless patch, judged by the real PHP.

mod judge;
mod patch;
mod properties;
