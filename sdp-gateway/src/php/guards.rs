//! What is refused before the parser sees the text, and the text the parser sees instead.

use php_lexer::{Lexer, TokenKind};

use super::PhpError;

/// Largest file that is parsed, in bytes. Real configurations have a few thousand.
const MAX_BYTES: usize = 1 << 20;

/// Deepest bracket nesting that is parsed, in levels.
pub(super) const MAX_NESTING: usize = 500;

/// Stands for every byte outside ASCII. To PHP such bytes are letters; no keyword, escape sequence or number
/// contains a `z`, so the text keeps its structure and every offset.
const PLACEHOLDER: u8 = b'z';

/// The text as the parser may see it: ASCII only, same length, same structure. Refuses what it could misread.
pub(super) fn parseable(bytes: &[u8]) -> Result<String, PhpError> {
    if bytes.len() > MAX_BYTES {
        return Err(PhpError::TooLarge { bytes: bytes.len(), limit: MAX_BYTES });
    }
    let text: String = bytes.iter().map(|&byte| char::from(if byte.is_ascii() { byte } else { PLACEHOLDER })).collect();
    check_tokens(bytes, &text)?;
    Ok(text)
}

/// The line of `offset`, from 1, counted as PHP does: `\n`, `\r\n` and a lone `\r` each end one.
pub(super) fn line_of(bytes: &[u8], offset: usize) -> usize {
    1 + lines_between(bytes, 0, offset)
}

/// How many lines end between two offsets.
pub(super) fn lines_between(bytes: &[u8], from: usize, to: usize) -> usize {
    let ends_line = |at: usize| match bytes.get(at) {
        Some(b'\n') => true,
        Some(b'\r') => bytes.get(at + 1) != Some(&b'\n'),
        _ => false,
    };
    (from..to.min(bytes.len())).filter(|&at| ends_line(at)).count()
}

fn check_tokens(bytes: &[u8], text: &str) -> Result<(), PhpError> {
    let mut lexer = Lexer::new(text);
    let mut depth = 0usize;
    loop {
        let token = lexer.next_token();
        let start = token.span.start as usize;
        let raw = bytes.get(start..token.span.end as usize).unwrap_or_default();
        match token.kind {
            // What follows `__halt_compiler();` is data.
            TokenKind::Eof | TokenKind::HaltCompiler => return Ok(()),
            TokenKind::LeftParen | TokenKind::LeftBracket | TokenKind::LeftBrace | TokenKind::HashBracket => {
                depth += 1;
                if depth > MAX_NESTING {
                    return Err(PhpError::TooDeep { line: line_of(bytes, start), limit: MAX_NESTING });
                }
            }
            TokenKind::RightParen | TokenKind::RightBracket | TokenKind::RightBrace => {
                depth = depth.saturating_sub(1);
            }
            TokenKind::InlineHtml => {
                if let Some(at) = raw.windows(2).position(|pair| pair == b"<?") {
                    return Err(PhpError::ShortTag { line: line_of(bytes, start + at) });
                }
            }
            TokenKind::Heredoc | TokenKind::Nowdoc => {
                let first_line = raw.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
                // Two labels that differ only in such letters would look alike to the parser.
                if !first_line.is_ascii() {
                    return Err(PhpError::HeredocLabel { line: line_of(bytes, start) });
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_outside_ascii_keep_the_length_and_become_letters() {
        assert_eq!(parseable("<?php // é\u{1F600}".as_bytes()).as_deref(), Ok("<?php // zzzzzz"));
        assert_eq!(parseable(b"<?php '\xff\xfe';").as_deref(), Ok("<?php 'zz';"));
    }

    #[test]
    fn short_tags_are_refused_only_where_they_could_open_code() {
        assert_eq!(parseable(b"<?php $a = '<?xml';\n// <? \n"), Ok("<?php $a = '<?xml';\n// <? \n".into()));
        assert_eq!(parseable(b"\n<? $a = 1;"), Err(PhpError::ShortTag { line: 2 }));
        assert_eq!(parseable(b"<?php $a = 1; ?>\n\n<?xml"), Err(PhpError::ShortTag { line: 3 }));
        assert!(parseable(b"<?php $a = 1; ?>\n<?= $a ?>").is_ok());
        assert!(parseable(b"<?php __halt_compiler(); <? ((((").is_ok());
    }

    #[test]
    fn nesting_counts_brackets_of_code_only() {
        let nested = |levels: usize| format!("<?php return {}1{};", "[".repeat(levels), "]".repeat(levels));
        assert!(parseable(nested(500).as_bytes()).is_ok());
        assert_eq!(parseable(nested(501).as_bytes()), Err(PhpError::TooDeep { line: 1, limit: 500 }));
        let hidden = format!("<?php return {};", "[ ')))]]]' /* ))) */ , ".repeat(501));
        assert_eq!(parseable(hidden.as_bytes()), Err(PhpError::TooDeep { line: 1, limit: 500 }));
        let quoted = format!("<?php return '{}'; // {}", "[".repeat(900), "(".repeat(900));
        assert!(parseable(quoted.as_bytes()).is_ok());
    }

    #[test]
    fn lines_are_counted_as_php_counts_them() {
        let text = b"a\nb\r\nc\rd";
        assert_eq!([0, 2, 5, 7].map(|offset| line_of(text, offset)), [1, 2, 3, 4]);
    }

    #[test]
    fn a_heredoc_label_outside_ascii_is_refused() {
        let text = "<?php\n$a = <<<É\nx\nÉ;\n";
        assert_eq!(parseable(text.as_bytes()), Err(PhpError::HeredocLabel { line: 2 }));
    }
}
