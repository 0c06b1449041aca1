//! The text of tokens as they come: whole characters only, and nothing that may become a stop string.

/// What has been generated and not yet been given out.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    stops: Vec<String>,
    /// Bytes of a character whose rest is still to come.
    partial: Vec<u8>,
    /// Text that may be the begin of a stop string.
    held: String,
    /// A leading space that belongs to the begin of a text, not to the text.
    strip: bool,
}

/// What a token made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// Text that can be given out.
    pub(crate) text: String,
    /// A stop string came: nothing follows.
    pub(crate) stopped: bool,
}

impl Output {
    /// `strip`: the text's first space is no part of it.
    pub(crate) fn new(stops: Vec<String>, strip: bool) -> Self {
        Self { stops, partial: Vec::new(), held: String::new(), strip }
    }

    /// Takes a token's bytes.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Pushed {
        if self.strip && !bytes.is_empty() {
            self.strip = false;
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.partial.extend_from_slice(bytes);
        let whole = self.whole_characters();
        self.held.push_str(&whole);
        let found = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = found {
            self.partial.clear();
            self.held.truncate(at);
            return Pushed { text: std::mem::take(&mut self.held), stopped: true };
        }
        let rest = self.held.split_off(self.held.len() - self.may_stop());
        Pushed { text: std::mem::replace(&mut self.held, rest), stopped: false }
    }

    /// All that is left: nothing more comes. A character that was cut becomes a replacement character.
    pub(crate) fn finish(&mut self) -> String {
        let cut = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
        std::mem::take(&mut self.held) + &cut
    }

    /// Takes the characters that are whole off the partial bytes, with replacement characters for what can become none.
    fn whole_characters(&mut self) -> String {
        let mut whole = String::new();
        let mut rest = self.partial.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    whole.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    whole.push_str(&String::from_utf8_lossy(valid));
                    let Some(wrong) = error.error_len() else {
                        rest = after;
                        break;
                    };
                    whole.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[wrong..];
                }
            }
        }
        self.partial = rest.to_vec();
        whole
    }

    /// Bytes at the end of what is held that a stop string may begin with.
    fn may_stop(&self) -> usize {
        let begun = |stop: &String| {
            (1..stop.len()).rev().find(|length| stop.is_char_boundary(*length) && self.held.ends_with(&stop[..*length]))
        };
        self.stops.iter().filter_map(begun).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes out after each token, and at the end.
    fn run(stops: &[&str], tokens: &[&[u8]]) -> (Vec<String>, bool) {
        let mut output = Output::new(stops.iter().map(|stop| (*stop).to_owned()).collect(), false);
        let mut texts = Vec::new();
        for token in tokens {
            let pushed = output.push(token);
            texts.push(pushed.text);
            if pushed.stopped {
                assert_eq!(output.finish(), "");
                return (texts, true);
            }
        }
        texts.push(output.finish());
        (texts, false)
    }

    #[test]
    fn characters_come_whole() {
        let (texts, _) = run(&[], &["a\u{e9}".as_bytes(), &[0xe2, 0x82], &[0xac, b'x'], &[0xf0, 0x9f]]);
        assert_eq!(texts, ["aé", "", "€x", "", "\u{fffd}"]);
        // What can become no character is replaced at once.
        assert_eq!(run(&[], &[&[0xff, b'a'], &[0xe2, b'b']]).0, ["\u{fffd}a", "\u{fffd}b", ""]);
    }

    #[test]
    fn stop_strings_are_found_across_tokens_and_never_given_out() {
        assert_eq!(run(&["STOP"], &[b"a S", b"TO", b"P b"]), (vec!["a ".into(), "".into(), "".into()], true));
        assert_eq!(run(&["STOP"], &[b"a S", b"Tx"]), (vec!["a ".into(), "STx".into(), "".into()], false));
        assert_eq!(run(&["STOP"], &[b"a S"]), (vec!["a ".into(), "S".into()], false));
        // The earliest in the text, whichever is named first.
        assert_eq!(run(&["cd", "b"], &[b"abcd"]), (vec!["a".into()], true));
        assert_eq!(run(&["aab"], &[b"a", b"a", b"a", b"b"]), (["", "", "a", ""].map(String::from).to_vec(), true));
        let (texts, stopped) = run(&["é!"], &["x\u{e9}".as_bytes(), b"?"]);
        assert_eq!((texts, stopped), (vec!["x".into(), "é?".into(), "".into()], false));
    }

    #[test]
    fn the_first_space_of_a_whole_text_is_none_of_it() {
        let mut output = Output::new(Vec::new(), true);
        assert_eq!(
            (output.push(b"").text, output.push(b" a").text, output.push(b" b").text),
            ("".into(), "a".into(), " b".into())
        );
    }
}
