//! Spans of time on the command line.

use std::str::FromStr;
use std::time::Duration;

/// A span of time: a number with a unit `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
        let parse = |(unit, seconds): (&str, u64)| {
            let digits = text.strip_suffix(unit).filter(|digits| !digits.starts_with('+'))?;
            digits.parse::<u32>().ok().map(|number| u64::from(number) * seconds)
        };
        let seconds = units.into_iter().find_map(parse);
        seconds
            .map(|seconds| Self(Duration::from_secs(seconds)))
            .ok_or_else(|| "use a number with a unit, such as 90s, 30m, 3h or 1d".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        let check = |text: &str, seconds: Option<u64>| {
            let expected = seconds.map(|seconds| Span(Duration::from_secs(seconds)));
            assert_eq!(text.parse().ok(), expected, "{text}");
        };
        check("0s", Some(0));
        check("90s", Some(90));
        check("30m", Some(1800));
        check("3h", Some(10_800));
        check("7d", Some(604_800));
        for bad in ["", "3", "h", "-1s", "+1s", "1.5h", "3w", "99999999999s"] {
            check(bad, None);
        }
    }
}
