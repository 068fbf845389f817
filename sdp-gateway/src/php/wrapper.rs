//! The expression that a value is wrapped into so that it can be chosen per request.
//!
//! It is an expression and nothing else: no statement is added to the file, and no name to the scope of its code. The
//! constant is there once a wrapper has read the table. The first that is certain to be evaluated does it, and those
//! whose turn may come before it: in functions, and after a condition. The others are short, because PHP without
//! OPcache compiles all of them in every request. What goes wrong with the table, a file that is missing, cannot be
//! parsed or throws, comes to no routes, and so to the value itself, which is evaluated only then and in its own
//! scope. `try` needs a function around it, hence the closure. The path is taken from the file's own directory: in a
//! container the checkout lies elsewhere. Needs PHP 7.0 or newer.

use php_ast::{Expr, ExprKind};

const CONSTANT: &str = "((\\defined('SDP_ROUTES') ? \\SDP_ROUTES : ";
const BEFORE_TABLE: &str = "(static function ($file) { try { return @\\is_file($file) ? include $file : []; } catch \
                            (\\Throwable $error) { return []; } })(__DIR__ . '";
const AFTER_TABLE: &str = "')";
const NO_TABLE: &str = "[]";
const BEFORE_SERVICE: &str = ")['";
const BEFORE_VALUE: &str = "'] ?? (";
const AFTER_VALUE: &str = "))";

/// `value` wrapped so that the PHP file at `table`, relative to the file's directory, can give another for `service`.
/// Without `table`, only if that was read before.
pub(super) fn around(table: Option<&str>, service: &str, value: &[u8]) -> Vec<u8> {
    // Before PHP 7.3 the end of a heredoc had to have a line of its own.
    let line = if value.windows(3).any(|three| three == b"<<<") { "\n" } else { "" };
    let read = table.map_or(NO_TABLE.to_owned(), |table| [BEFORE_TABLE, table, AFTER_TABLE].concat());
    let before = [CONSTANT, &read, BEFORE_SERVICE, service, BEFORE_VALUE].concat();
    [before.as_bytes(), value, line.as_bytes(), AFTER_VALUE.as_bytes()].concat()
}

/// The value in the wrapper `expr` of `service`; none when `expr` is no wrapper. `bytes` is the whole file.
pub(super) fn inner<'a, 'arena, 'src>(
    bytes: &[u8],
    service: &str,
    expr: &'a Expr<'arena, 'src>,
) -> Option<&'a Expr<'arena, 'src>> {
    let end = expr.span.end as usize;
    let text = bytes.get(expr.span.start as usize..end)?.strip_prefix(CONSTANT.as_bytes())?;
    let text = match text.strip_prefix(BEFORE_TABLE.as_bytes()) {
        Some(text) => {
            let in_path = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
            let path = text.iter().take_while(|byte| in_path(byte)).count();
            text.get(path..)?.strip_prefix(AFTER_TABLE.as_bytes())?
        }
        None => text.strip_prefix(NO_TABLE.as_bytes())?,
    };
    let text = text.strip_prefix([BEFORE_SERVICE, service, BEFORE_VALUE].concat().as_bytes())?;
    let ExprKind::Parenthesized(whole) = &expr.kind else { return None };
    let ExprKind::NullCoalesce(either) = &whole.kind else { return None };
    let ExprKind::Parenthesized(value) = &either.right.kind else { return None };
    // The value is the one after the text above, and nothing but an end of line follows it.
    let between = bytes.get(value.span.end as usize..end)?;
    let whole = value.span.start as usize == end - text.len() && matches!(between, b"))" | b"\n))");
    whole.then_some(value)
}
