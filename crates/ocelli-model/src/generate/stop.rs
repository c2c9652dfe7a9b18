//! The text of a turn as it grows: finds stop strings across token borders, and holds back what might become one.

/// Text of one turn.
#[derive(Clone, Debug, Default)]
pub(super) struct TurnText {
    text: String,
    /// Bytes handed out so far.
    shown: usize,
}

impl TurnText {
    /// Appends text. If one of `stops` is now in it, cuts the text before the first one and returns it.
    pub(super) fn push<'a>(&mut self, piece: &str, stops: &'a [String]) -> Option<&'a String> {
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        let mut from = self.text.len().saturating_sub(longest);
        while !self.text.is_char_boundary(from) {
            from -= 1;
        }
        self.text += piece;
        let found = stops.iter().filter_map(|s| Some((from + self.text[from..].find(s.as_str())?, s)));
        let (at, stop) = found.min_by_key(|(at, s)| (*at, std::cmp::Reverse(s.len())))?;
        self.text.truncate(at);
        Some(stop)
    }

    /// What can be shown now: all but an end that might be the beginning of a stop string.
    pub(super) fn show(&mut self, stops: &[String]) -> String {
        let held = stops.iter().map(|s| overlap(&self.text, s)).max().unwrap_or(0);
        self.show_to(self.text.len() - held)
    }

    /// All that has not been shown, at the end of the turn.
    pub(super) fn show_rest(&mut self) -> String {
        self.show_to(self.text.len())
    }

    fn show_to(&mut self, end: usize) -> String {
        let from = self.shown.min(end);
        self.shown = end.max(self.shown);
        self.text[from..end].to_owned()
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }
}

/// Length of the longest end of `text` that is a beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let ends = stop.char_indices().map(|(i, _)| i).filter(|&i| i > 0).rev();
    ends.into_iter().find(|&i| text.ends_with(&stop[..i])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_string_is_found_across_pieces_and_never_shown() {
        let stops = ["</call>".to_owned(), "\n\n".to_owned()];
        let mut t = TurnText::default();
        let mut shown = String::new();
        let mut found = None;
        for piece in ["a < b", " <", "/ca", "x", "é</c", "all", ">tail"] {
            found = t.push(piece, &stops).cloned();
            shown += &t.show(&stops);
            if found.is_some() {
                break;
            }
        }
        shown += &t.show_rest();
        assert_eq!(found.as_deref(), Some("</call>"));
        assert_eq!(shown, "a < b </caxé");
        assert_eq!(t.into_text(), "a < b </caxé");
    }

    #[test]
    fn the_first_stop_wins() {
        let stops = ["cd".to_owned(), "b".to_owned()];
        let mut t = TurnText::default();
        assert_eq!(t.push("abcd", &stops).unwrap(), "b");
        assert_eq!(t.into_text(), "a");
    }
}
