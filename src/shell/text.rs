//! How things are written for people: digests, sizes, durations, dates, names.

use core::fmt;
use smoltcp::time::Duration;

/// Lower-case hexadecimal.
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Bytes that may be anything, for a terminal: control characters and what is not UTF-8 become `?`.
pub struct Name<'a>(pub &'a [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for chunk in self.0.utf8_chunks() {
            for character in chunk.valid().chars() {
                f.write_char(if character.is_control() { '?' } else { character })?;
            }
            if !chunk.invalid().is_empty() {
                f.write_char('?')?;
            }
        }
        Ok(())
    }
}

/// A size in bytes, with the unit that suits it.
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        let digits = [1, 2, 2, 2];
        let exponent = (1..=UNITS.len()).rev().find(|exponent| self.0 >> (10 * exponent) > 0);
        match exponent {
            None => write!(f, "{} B", self.0),
            Some(exponent) => {
                let (unit, digits) = (UNITS[exponent - 1], digits[exponent - 1]);
                let scale = 10u128.pow(digits);
                let scaled = (u128::from(self.0) * scale) >> (10 * exponent);
                write!(f, "{}.{:0width$} {unit}", scaled / scale, scaled % scale, width = digits as usize)
            }
        }
    }
}

/// `1 days 2:03:04`; the days only from one on.
pub struct Uptime(pub Duration);

impl fmt::Display for Uptime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.secs();
        let (days, seconds) = (seconds / 86400, seconds % 86400);
        if days > 0 {
            write!(f, "{days} days ")?;
        }
        write!(f, "{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
    }
}

/// A point in time as `Nov 22, 2026 08:01`, in UTC.
pub struct Date(pub u64);

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

/// Year, month (from 0), day of the month (from 1) of a day counted from 1970-01-01 (the usual days-to-civil arithmetic).
fn civil(day: u64) -> (u64, usize, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = (shifted_month + 2) % 12;
    (year_of_era + era * 400 + u64::from(month < 2), month as usize, day)
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0 / 86400);
        write!(f, "{} {day:2}, {year} {:02}:{:02}", MONTHS[month], self.0 / 3600 % 24, self.0 / 60 % 60)
    }
}

/// As C's `%c`: `Sun Nov 22 08:01:02 2026`, in UTC.
pub struct LongDate(pub u64);

impl fmt::Display for LongDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil(self.0 / 86400);
        let weekday = WEEKDAYS[(self.0 / 86400 % 7) as usize];
        let (hour, minute, second) = (self.0 / 3600 % 24, self.0 / 60 % 60, self.0 % 60);
        write!(f, "{weekday} {} {day:2} {hour:02}:{minute:02}:{second:02} {year}", MONTHS[month])
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn sizes_keep_their_fraction() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1984, "1.9 KiB"),
            (7057, "6.8 KiB"),
            (1 << 20, "1.00 MiB"),
            (1_600_000, "1.52 MiB"),
            (u64::MAX, "16777215.99 TiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(LongDate(0).to_string(), "Thu Jan  1 00:00:00 1970");
        assert_eq!(LongDate(951_825_600).to_string(), "Tue Feb 29 12:00:00 2000");
        assert_eq!(Date(1_795_334_462).to_string(), "Nov 22, 2026 08:01");
        assert_eq!(LongDate(4_107_542_400).to_string(), "Mon Mar  1 00:00:00 2100");
    }

    #[test]
    fn names_are_fit_for_a_terminal() {
        assert_eq!(Name(b"a\x1b[31m\xff\xc3\xa4").to_string(), "a?[31m?\u{e4}");
        assert_eq!(Hex(&[0, 0xab]).to_string(), "00ab");
        assert_eq!(Uptime(Duration::from_secs(2 * 86400 + 3723)).to_string(), "2 days 1:02:03");
    }
}
