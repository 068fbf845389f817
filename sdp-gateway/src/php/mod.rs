//! The lossless patch of a PHP configuration file: bytes in, bytes out, no I/O.
//!
//! A gateway's configuration is an ordinary PHP program, and this module treats it as one: it is parsed, the entries
//! `<service>_url` are found in the syntax tree, and only the bytes of the values that change are replaced. What it
//! understands as an entry of the service `shop`:
//!
//! | written as | example |
//! | --- | --- |
//! | an element of an array literal, however deeply nested | `return ['shop_url' => 'http://…'];`, `$config = array('services' => array('shop_url' => …))` |
//! | an assignment to an index | `$config['shop_url'] = 'http://…';`, `$config['services']['shop_url'] = …` |
//! | a constant | `define('shop_url', …)`, `define('SHOP_URL', …)`, `const SHOP_URL = …;` |
//!
//! The value may be any expression: a string in any quotes, heredoc or nowdoc, a call, a concatenation. It is replaced
//! whole, by a single-quoted string.
//!
//! Keys are compared exactly. Constants may also be written in upper case, because PHP's constants usually are; such
//! a constant counts only where the file has no entry with the exact key, so that
//! `define('SHOP_URL', '…'); $config['shop_url'] = SHOP_URL;` has one entry, the second. An element or index whose
//! value is itself an array literal is a group, not an entry. Class constants are not entries.
//!
//! For routing per request a value can be wrapped instead of replaced: see [`ConfigFile::wrapped`].
//!
//! Parsing happens on a thread of its own with a known stack: neither deep nesting nor a defect of the parser can
//! take the process down.

mod config_file;
mod entries;
mod error;
mod guards;
mod literal;
mod parse;
mod recent;
mod wrapper;

pub use config_file::{ConfigFile, Entry};
pub use error::{PhpError, Unreplaceable};
pub(crate) use literal::single_quoted;
