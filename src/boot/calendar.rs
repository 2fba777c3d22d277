//! The PC's clock chip: its registers become seconds since 1970.

use crate::http::date::days_from_civil;

/// Its registers, in the order of time: seconds, minutes, hours, day, month, year of the century.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockRegisters {
    /// 0x00, 0x02, 0x04, 0x07, 0x08 and 0x09.
    pub values: [u8; 6],
    /// Status register B: how the values are written.
    pub status_b: u8,
}

/// Status register B: hours count to 24.
const HOURS_24: u8 = 1 << 1;
/// Status register B: values are binary, not decimal digits.
const BINARY: u8 = 1 << 2;
/// Hours: afternoon, where they count to 12.
const AFTERNOON: u8 = 0x80;

/// The moment in seconds since 1970; `None` if the registers hold no date. Years are those of this century.
pub fn unix_s(registers: ClockRegisters) -> Option<u64> {
    let binary = registers.status_b & BINARY != 0;
    let decode = |value: u8| match binary {
        true => Some(u64::from(value)),
        false if value & 0xf <= 9 && value >> 4 <= 9 => Some(u64::from(value >> 4) * 10 + u64::from(value & 0xf)),
        false => None,
    };
    let [second, minute, hour, day, month, year] = registers.values;
    let (second, minute) = (decode(second)?, decode(minute)?);
    let month = decode(month).filter(|month| (1..=12).contains(month))? as u32;
    let days = days_from_civil(2000 + decode(year)? as u32, month, decode(day)? as u32)?;
    let days = u64::try_from(days).ok()?;
    let hour = match registers.status_b & HOURS_24 != 0 {
        true => decode(hour)?,
        false => {
            let twelve = decode(hour & !AFTERNOON).filter(|hour| (1..=12).contains(hour))?;
            twelve % 12 + if hour & AFTERNOON != 0 { 12 } else { 0 }
        }
    };
    let is_time = second < 60 && minute < 60 && hour < 24;
    is_time.then(|| ((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::date;

    fn decimal(values: [u8; 6]) -> [u8; 6] {
        values.map(|value| ((value / 10) << 4) | (value % 10))
    }

    #[test]
    fn the_ways_to_write_agree() {
        let expected = Some(1_795_355_999);
        for (values, status_b) in [
            ([59, 59, 13, 22, 11, 26], HOURS_24 | BINARY),
            (decimal([59, 59, 13, 22, 11, 26]), HOURS_24),
            ([59, 59, AFTERNOON | 1, 22, 11, 26], BINARY),
            ([0x59, 0x59, AFTERNOON | 1, 0x22, 0x11, 0x26], 0),
        ] {
            assert_eq!(unix_s(ClockRegisters { values, status_b }), expected, "{values:?}");
        }
        let midnight = ClockRegisters { values: [0, 0, 12, 1, 1, 0], status_b: BINARY };
        assert_eq!(unix_s(midnight), Some(946_684_800));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for values in [
            [0x5a, 0, 0, 1, 1, 0],
            [0, 0x60, 0, 1, 1, 0],
            [0, 0, 0x24, 1, 1, 0],
            [0, 0, 0, 0, 1, 0],
            [0, 0, 0, 1, 0x13, 0],
            [0xff; 6],
        ] {
            assert_eq!(unix_s(ClockRegisters { values, status_b: HOURS_24 }), None, "{values:x?}");
        }
    }

    /// HTTP's dates are made by other code, in the other direction.
    #[test]
    fn every_day_of_the_century_is_the_next_one() {
        let mut expected = 946_684_800;
        while expected < 4_102_444_800 {
            let text = date::format(expected);
            let text = core::str::from_utf8(&text).unwrap();
            let number = |range: core::ops::Range<usize>| text[range].parse::<u8>().unwrap();
            const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
            let month = MONTHS.find(&text[8..11]).unwrap() as u8 / 3 + 1;
            let values = [number(23..25), number(20..22), number(17..19), number(5..7), month, number(14..16)];
            assert_eq!(unix_s(ClockRegisters { values, status_b: HOURS_24 | BINARY }), Some(expected), "{text}");
            expected += 86_400 + 3_661;
        }
    }
}
