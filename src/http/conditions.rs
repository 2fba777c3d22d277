//! Conditional requests (RFC 9110 §13): is what the client has, or thinks to be there, still current?

use super::date;
use super::etag;
use super::request::Fields;

/// What the current representation is known by.
#[derive(Clone, Copy, Debug)]
pub struct Validators<'a> {
    /// Its entity tag, with the quotes.
    pub etag: &'a [u8],
    /// Its time of modification, if it has one.
    pub modified_unix_s: Option<u64>,
    /// The time of this response.
    pub now_unix_s: u64,
}

/// What the preconditions of a GET or HEAD say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Proceed,
    /// The client's copy is current: 304.
    NotModified,
    /// A condition for doing anything does not hold: 412.
    Failed,
}

impl Validators<'_> {
    /// Evaluates `If-Match`, `If-Unmodified-Since`, `If-None-Match` and `If-Modified-Since`, in the order of RFC 9110 §13.2.2.
    pub fn judge(&self, fields: &Fields<'_>) -> Verdict {
        let required = self.any_tag(fields, "if-match", etag::matches_strongly);
        if required.or_else(|| self.is_unmodified_since(fields, "if-unmodified-since")) == Some(false) {
            return Verdict::Failed;
        }
        let known = self.any_tag(fields, "if-none-match", etag::matches_weakly);
        if known.or_else(|| self.is_unmodified_since(fields, "if-modified-since")) == Some(true) {
            return Verdict::NotModified;
        }
        Verdict::Proceed
    }

    /// True if the `Range` field counts: there is no `If-Range`, or what it names is exactly what is there (RFC 9110 §13.1.5).
    pub fn range_counts(&self, fields: &Fields<'_>) -> bool {
        let mut values = fields.values("if-range");
        let Some(value) = values.next() else { return true };
        if values.next().is_some() {
            return false;
        }
        if value.ends_with(b"\"") {
            return value == self.etag;
        }
        // A time is a strong validator only if nothing can change any more within the second that it names (§8.8.2.2).
        date::parse(value, self.now_unix_s)
            .is_some_and(|unix_s| self.modified_unix_s == Some(unix_s) && unix_s < self.now_unix_s)
    }

    /// Whether any tag of the field, which may be spread over several lines, matches; `*` matches whatever is there. `None` if there
    /// is no such field.
    fn any_tag(&self, fields: &Fields<'_>, name: &str, matches: fn(&[u8], &[u8]) -> bool) -> Option<bool> {
        let mut values = fields.values(name).peekable();
        values.peek()?;
        Some(values.any(|value| value == b"*" || etag::list(value).any(|tag| matches(tag, self.etag))))
    }

    /// Whether the representation is not younger than the field's date. `None` if there is no such field, no valid one, or no
    /// time of modification.
    fn is_unmodified_since(&self, fields: &Fields<'_>, name: &str) -> Option<bool> {
        let since_unix_s = date::parse(fields.single(name)?, self.now_unix_s)?;
        Some(self.modified_unix_s? <= since_unix_s)
    }
}
