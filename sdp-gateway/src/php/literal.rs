//! PHP string literals: reading them from the syntax tree, writing them as text.

use php_ast::{Expr, ExprKind, StringPart};

/// The bytes of the string that `expr` denotes, when it is a plain literal in any quotes.
pub(super) fn string_value(expr: &Expr<'_, '_>) -> Option<Vec<u8>> {
    match &expr.kind {
        ExprKind::String(value) => Some(value.as_bytes().to_vec()),
        ExprKind::Nowdoc { value, .. } => Some(value.as_bytes().to_vec()),
        ExprKind::InterpolatedString(parts) | ExprKind::Heredoc { parts, .. } => {
            let mut value = Vec::new();
            for part in parts.iter() {
                let StringPart::Literal(text) = part else { return None };
                value.extend_from_slice(text.as_bytes());
            }
            Some(value)
        }
        ExprKind::Parenthesized(inner) => string_value(inner),
        _ => None,
    }
}

/// `value` as a single-quoted PHP string, which knows two escapes only and interpolates nothing.
pub(crate) fn single_quoted(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for char in value.chars() {
        if matches!(char, '\'' | '\\') {
            quoted.push('\\');
        }
        quoted.push(char);
    }
    quoted.push('\'');
    quoted
}
