//! Splitting the command line into words: blanks separate, quotes keep together.

use alloc::string::String;

use super::ParamsError;

/// The words of a command line. `'` and `"` keep blanks in a word, may begin and end within it, and hold each other; nothing
/// else has a meaning.
pub(super) struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    pub fn new(line: &'a str) -> Self {
        Self { rest: line }
    }

    /// The next word.
    ///
    /// # Errors
    /// If a quote is not closed; there are no words after that.
    pub fn next(&mut self) -> Result<Option<String>, ParamsError> {
        let line = self.rest.trim_start_matches(is_blank);
        self.rest = "";
        let mut word = None;
        let mut quote = None;
        for (at, character) in line.char_indices() {
            match (quote, character) {
                (Some(open), _) if character == open => quote = None,
                (None, '\'' | '"') => {
                    quote = Some(character);
                    word.get_or_insert_with(String::new);
                }
                (None, _) if is_blank(character) => {
                    self.rest = &line[at..];
                    return Ok(word);
                }
                _ => word.get_or_insert_with(String::new).push(character),
            }
        }
        match quote {
            Some(open) => Err(ParamsError::OpenQuote(open)),
            None => Ok(word),
        }
    }
}

/// Blanks and control characters: a line's end is as good as a blank.
fn is_blank(character: char) -> bool {
    character == ' ' || character.is_ascii_control()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn words(line: &str) -> Result<Vec<String>, ParamsError> {
        let mut words = Words::new(line);
        let mut all = Vec::new();
        while let Some(word) = words.next()? {
            all.push(word);
        }
        Ok(all)
    }

    #[test]
    fn blanks_separate_and_quotes_keep_together() {
        assert_eq!(words("").unwrap(), [""; 0]);
        assert_eq!(words(" -s\t5  -h\n").unwrap(), ["-s", "5", "-h"]);
        assert_eq!(words("-'s' '5 6' a\"b 'c\"d ''").unwrap(), ["-s", "5 6", "ab 'cd", ""]);
        assert_eq!(words("a\\ b").unwrap(), ["a\\", "b"], "a backslash is a letter");
        assert_eq!(words("-h 'a b").unwrap_err(), ParamsError::OpenQuote('\''));
        assert_eq!(words("\"").unwrap_err(), ParamsError::OpenQuote('"'));
    }
}
