//! The one place that calls the parser.

use std::thread;

use php_ast::Program;
use php_rs_parser::{ParseOptions, bumpalo::Bump, parse_arena_with};

use super::PhpError;
use super::guards::{MAX_NESTING, line_of};

/// Stack of the parsing thread, in bytes. The parser's own depth limit is sized for 2 MiB in optimised builds;
/// unoptimised ones and the walk over the tree need more. Only what is used is ever backed by memory.
const STACK: usize = 16 << 20;

/// Parses `text` and gives the tree to `read`, on a thread of its own. `text` must be ASCII.
pub(super) fn with_tree<T: Send>(
    text: &str,
    read: impl FnOnce(&Program<'_, '_>) -> Result<T, PhpError> + Send,
) -> Result<T, PhpError> {
    thread::scope(|scope| {
        thread::Builder::new()
            .name("php-parse".into())
            .stack_size(STACK)
            .spawn_scoped(scope, || {
                let arena = Bump::new();
                let parsed = parse_arena_with(&arena, text, &ParseOptions::default().source_map(false));
                if let Some(error) = parsed.errors.iter().min_by_key(|error| error.span().start) {
                    let line = line_of(text.as_bytes(), error.span().start as usize);
                    return Err(match error.code() {
                        "nesting-too-deep" => PhpError::TooDeep { line, limit: MAX_NESTING },
                        _ => PhpError::Syntax { line, message: error.to_string() },
                    });
                }
                read(&parsed.program)
            })
            .map_err(|_| PhpError::ParserFailed)?
            .join()
            .unwrap_or(Err(PhpError::ParserFailed))
    })
}
