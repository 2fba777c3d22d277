//! HTTP dates (RFC 9110 §5.6.7).

const SECONDS_PER_DAY: u64 = 86400;
/// Days of the week from 1970-01-01 on, which was a Thursday.
const WEEKDAYS: [&[u8]; 7] = [b"Thursday", b"Friday", b"Saturday", b"Sunday", b"Monday", b"Tuesday", b"Wednesday"];
const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

/// Length of an IMF-fixdate in bytes.
pub const DATE_BYTES: usize = 29;

/// Last second whose year has four digits: Fri, 31 Dec 9999 23:59:59 GMT.
pub const MAX_UNIX_S: u64 = 253_402_300_799;

/// The date as IMF-fixdate, `Sun, 06 Nov 1994 08:49:37 GMT`. Times after [`MAX_UNIX_S`] become that.
pub fn format(unix_s: u64) -> [u8; DATE_BYTES] {
    let unix_s = unix_s.min(MAX_UNIX_S);
    let (days, second) = ((unix_s / SECONDS_PER_DAY) as u32, (unix_s % SECONDS_PER_DAY) as u32);
    let (year, month, day) = civil_from_days(days);

    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    text[..3].copy_from_slice(&WEEKDAYS[days as usize % 7][..3]);
    two_digits(&mut text[5..7], day);
    text[8..11].copy_from_slice(MONTHS[month as usize - 1]);
    two_digits(&mut text[12..14], year / 100);
    two_digits(&mut text[14..16], year % 100);
    two_digits(&mut text[17..19], second / 3600);
    two_digits(&mut text[20..22], second / 60 % 60);
    two_digits(&mut text[23..25], second % 60);
    text
}

fn two_digits(at: &mut [u8], value: u32) {
    at[0] = b'0' + (value / 10) as u8;
    at[1] = b'0' + (value % 10) as u8;
}

/// Year, month (1–12) and day (1–31) of the day that lies `days` after 1970-01-01, in the proleptic Gregorian calendar.
fn civil_from_days(days: u32) -> (u32, u32, u32) {
    // Years begin on 1 March here, so that a leap day is the last of its year.
    let shifted = days + EPOCH_DAYS as u32;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u32::from(month <= 2), month, day)
}

/// Days from 1970-01-01 to a date of the years 1 to 9999; `None` if there is no such date.
pub(crate) fn days_from_civil(year: u32, month: u32, day: u32) -> Option<i64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let month_days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if year == 0 || !(1..=month_days).contains(&day) {
        return None;
    }
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    let days = year * 365 + year / 4 - year / 100 + year / 400 + day_of_year;
    Some(i64::from(days) - EPOCH_DAYS)
}

/// Reads a date in any of the three formats of RFC 9110 §5.6.7 and returns Unix seconds; dates before 1970 become 0, since
/// no object is older. A two-digit year is taken to lie at most 50 years after `now_unix_s`. `None` for anything else. Whether
/// the weekday fits the date is not checked.
pub fn parse(text: &[u8], now_unix_s: u64) -> Option<u64> {
    let (name, rest) = text.split_at(text.iter().position(|byte| !byte.is_ascii_alphabetic())?);
    let short = WEEKDAYS.iter().any(|weekday| &weekday[..3] == name);
    let mut rest = Fields(rest);
    let (year, month, day, time) = if short && rest.literal(b", ").is_some() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let day = rest.number(2)?;
        rest.literal(b" ")?;
        let month = rest.month()?;
        rest.literal(b" ")?;
        let year = rest.number(4)?;
        rest.literal(b" ")?;
        let time = rest.time()?;
        rest.literal(b" GMT")?;
        (year, month, day, time)
    } else if short {
        // Sun Nov  6 08:49:37 1994
        rest.literal(b" ")?;
        let month = rest.month()?;
        rest.literal(b" ")?;
        let day = if rest.literal(b" ").is_some() { rest.number(1)? } else { rest.number(2)? };
        rest.literal(b" ")?;
        let time = rest.time()?;
        rest.literal(b" ")?;
        (rest.number(4)?, month, day, time)
    } else {
        // Sunday, 06-Nov-94 08:49:37 GMT
        WEEKDAYS.contains(&name).then_some(())?;
        rest.literal(b", ")?;
        let day = rest.number(2)?;
        rest.literal(b"-")?;
        let month = rest.month()?;
        rest.literal(b"-")?;
        let year = full_year(rest.number(2)?, now_unix_s);
        rest.literal(b" ")?;
        let time = rest.time()?;
        rest.literal(b" GMT")?;
        (year, month, day, time)
    };
    if !rest.0.is_empty() {
        return None;
    }
    let days = days_from_civil(year, month, day)?;
    Some(u64::try_from(days).map_or(0, |days| days * SECONDS_PER_DAY + time))
}

/// The year with these last two digits that is at most 50 years in the future (RFC 9110 §5.6.7).
fn full_year(two_digits: u32, now_unix_s: u64) -> u32 {
    let (now, ..) = civil_from_days((now_unix_s.min(MAX_UNIX_S) / SECONDS_PER_DAY) as u32);
    let year = now / 100 * 100 + two_digits;
    match year {
        _ if year > now + 50 => year - 100,
        _ if year + 50 <= now => year + 100,
        _ => year,
    }
}

/// What is left of a date's text.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn literal(&mut self, text: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(text)?;
        Some(())
    }

    fn number(&mut self, digits: usize) -> Option<u32> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        number.iter().try_fold(0, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + u32::from(byte - b'0')))
    }

    /// 1 to 12.
    fn month(&mut self) -> Option<u32> {
        let (name, rest) = self.0.split_first_chunk::<3>()?;
        self.0 = rest;
        MONTHS.iter().position(|month| *month == name).map(|index| index as u32 + 1)
    }

    /// Seconds since midnight. A leap second is allowed.
    fn time(&mut self) -> Option<u64> {
        let hour = self.number(2)?;
        self.literal(b":")?;
        let minute = self.number(2)?;
        self.literal(b":")?;
        let second = self.number(2)?;
        (hour < 24 && minute < 60 && second <= 60).then(|| u64::from(hour * 3600 + minute * 60 + second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE_UNIX_S: u64 = 784_111_777;

    #[test]
    fn the_rfc_example_in_all_three_formats() {
        assert_eq!(&format(EXAMPLE_UNIX_S), b"Sun, 06 Nov 1994 08:49:37 GMT");
        for text in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(parse(text.as_bytes(), 1_000_000_000), Some(EXAMPLE_UNIX_S), "{text}");
        }
    }

    #[test]
    fn borders_of_months_and_years() {
        for (unix_s, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (MAX_UNIX_S, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(core::str::from_utf8(&format(unix_s)), Ok(text));
            assert_eq!(parse(text.as_bytes(), 0), Some(unix_s));
        }
        assert_eq!(format(u64::MAX), format(MAX_UNIX_S));
    }

    #[test]
    fn two_digit_years_lie_at_most_fifty_years_ahead() {
        let now = parse(b"Wed, 01 Jul 2026 00:00:00 GMT", 0).unwrap();
        let year = |digits| full_year(digits, now);
        assert_eq!((year(26), year(76), year(77), year(99), year(0)), (2026, 2076, 1977, 1999, 2000));
        let later = parse(b"Thu, 01 Jul 2060 00:00:00 GMT", 0).unwrap();
        assert_eq!((full_year(10, later), full_year(11, later)), (2110, 2011));
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "Sun",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 GMT ",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "sun, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 29 Feb 1900 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:60:00 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "784111777",
        ] {
            assert_eq!(parse(text.as_bytes(), 0), None, "{text}");
        }
        assert_eq!(parse(b"Mon, 01 Jan 1900 00:00:00 GMT", 0), Some(0));
    }

    proptest! {
        #[test]
        fn written_dates_are_read_back(unix_s in 0..=MAX_UNIX_S) {
            prop_assert_eq!(parse(&format(unix_s), 0), Some(unix_s));
        }

        #[test]
        fn nothing_panics(text in proptest::collection::vec(any::<u8>(), 0..40), now in any::<u64>()) {
            parse(&text, now);
        }
    }
}
