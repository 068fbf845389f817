//! What others wrote, made fit for a terminal.

/// Text without escape sequences and control characters: a build's output, or a name in it, must not move the cursor
/// or pass for something that SDP says.
pub(crate) fn clean(text: &str) -> String {
    let plain = anstream::adapter::strip_str(text).to_string();
    plain.chars().map(|c| if c.is_control() && c != '\t' && c != '\n' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn colours_and_cursor_movements_are_taken_out_and_text_stays() {
        assert_eq!(clean("\x1b[31mred\x1b[0m \u{e9}\t1\n\x1b]0;title\x07x"), "red \u{e9}\t1\nx");
    }

    proptest! {
        #[test]
        fn no_control_character_is_left(text in any::<String>()) {
            let cleaned = clean(&text);
            prop_assert!(!cleaned.chars().any(|c| c.is_control() && c != '\t' && c != '\n'));
        }
    }
}
