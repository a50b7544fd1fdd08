//! Times and sizes as people read them.

/// A time in microseconds since 1970, as `2026-11-29 13:57:34` in UTC.
pub fn utc(unix_us: u64) -> String {
    let seconds = unix_us / 1_000_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The date that is this many days after the first of January 1970, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin with March here, so that the leap day is the last one.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// A duration in microseconds with three digits and a unit.
pub fn duration(us: u64) -> String {
    match us {
        0..1000 => format!("{us} µs"),
        1000..100_000 => format!("{:.1} ms", us as f64 / 1e3),
        100_000..1_000_000 => format!("{} ms", us / 1000),
        1_000_000..100_000_000 => format!("{:.1} s", us as f64 / 1e6),
        100_000_000..7_200_000_000 => format!("{} min {} s", us / 60_000_000, us / 1_000_000 % 60),
        _ => format!("{} h {} min", us / 3_600_000_000, us / 60_000_000 % 60),
    }
}

/// A size in bytes with three digits and a unit.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    match (unit, value) {
        (0, _) => format!("{bytes} B"),
        (_, value) if value < 9.995 => format!("{value:.2} {}", UNITS[unit]),
        (_, value) if value < 99.95 => format!("{value:.1} {}", UNITS[unit]),
        (_, value) => format!("{value:.0} {}", UNITS[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let check = |seconds: u64, expected: &str| assert_eq!(utc(seconds * 1_000_000), expected);
        // `date --utc --date=@SECONDS '+%F %T'`
        check(0, "1970-01-01 00:00:00");
        check(951_782_399, "2000-02-28 23:59:59");
        check(951_782_400, "2000-02-29 00:00:00");
        check(1_709_251_200, "2024-03-01 00:00:00");
        check(1_796_082_654, "2026-11-30 23:50:54");
        check(4_107_542_400, "2100-03-01 00:00:00");
        assert_eq!(utc(u64::MAX).len(), "584554-01-01 00:00:00".len());
    }

    #[test]
    fn durations_have_a_unit() {
        let check = |us, expected: &str| assert_eq!(duration(us), expected);
        check(0, "0 µs");
        check(1_234, "1.2 ms");
        check(345_678, "345 ms");
        check(2_500_000, "2.5 s");
        check(125_000_000, "2 min 5 s");
        check(7_260_000_000, "2 h 1 min");
    }

    #[test]
    fn sizes_for_people() {
        for (bytes, expected) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "0.98 KiB"),
            (1536, "1.50 KiB"),
            (20 << 30, "20.0 GiB"),
            (999 << 20, "999 MiB"),
            (1023 << 20, "1.00 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }
}
