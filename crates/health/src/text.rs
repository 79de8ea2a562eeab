//! Texts from outside, cut to a length.

use std::sync::Arc;

/// The longest text that is kept, in bytes.
const LONGEST: usize = 256;

/// `text`, cut to 256 bytes at a character's boundary, without control characters.
pub(crate) fn bounded(text: &str) -> Arc<str> {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let visible = |c: char| if c.is_control() { ' ' } else { c };
    let mut cut: String = text[..end].chars().map(visible).collect();
    if end < text.len() {
        cut.push('…');
    }
    cut.into()
}

#[cfg(all(test, not(mesh_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_stays_on_its_line() {
        assert_eq!(&*bounded("refused"), "refused");
        assert_eq!(&*bounded("a\r\nb"), "a  b");
        let long = bounded(&"é".repeat(1_000));
        assert!(long.len() <= LONGEST + '…'.len_utf8(), "{}", long.len());
        assert!(long.ends_with("é…"));
    }
}
