//! System calls as words.
//!
//! ```text
//! openat AT '/execroot/input' WRONLY ; write $1 'pwned' 5
//! ```
//!
//! Calls are separated by `;`. An argument is a number, a constant or several
//! with `|` between, a string in quotes (its address, NUL-terminated), `&N` (the
//! address of N zeros), `#hex` (the address of these bytes), or `$k` (the result
//! of the k-th call, from 1). Each call prints a line: its name, and what the
//! kernel said.

use crate::{Outcome, calls, errno, raw};

/// Runs a script to its end, whatever its calls say.
pub(crate) fn run(script: &str) -> Outcome {
    let mut results = Vec::new();
    for call in split(script, ';') {
        let words = split(&call, ' ');
        let (name, arguments) = words.split_first().ok_or("an empty call")?;
        let number = calls::number(name).or_else(|| name.parse().ok());
        let number = number.ok_or_else(|| format!("no such call: {name}"))?;
        let mut values = [0; 6];
        for (value, word) in values.iter_mut().zip(arguments) {
            *value = argument(word, &results)?;
        }
        let result = raw::call(number, values);
        println!("{name} {}", result.map_or_else(errno::name, |value| value.to_string()));
        results.push(result.unwrap_or(-1));
    }
    Ok(())
}

/// Splits outside of quotes; empty parts are dropped.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for character in text.chars() {
        quoted ^= character == '\'';
        match parts.last_mut() {
            Some(_) if character == separator && !quoted => parts.push(String::new()),
            Some(part) => part.push(character),
            None => {}
        }
    }
    let trimmed = parts.into_iter().map(|part| part.trim().to_owned());
    trimmed.filter(|part| !part.is_empty()).collect()
}

fn argument(word: &str, results: &[i64]) -> Result<i64, String> {
    let bad = || format!("not an argument: {word}");
    match word.as_bytes() {
        [b'\'', .., b'\''] => Ok(address(format!("{}\0", &word[1..word.len() - 1]).into_bytes())),
        [b'&', ..] => Ok(address(vec![0; word[1..].parse().map_err(|_| bad())?])),
        [b'#', ..] => Ok(address(bytes(&word[1..]).ok_or_else(bad)?)),
        [b'$', ..] => {
            let index: usize = word[1..].parse().map_err(|_| bad())?;
            results.get(index.wrapping_sub(1)).copied().ok_or_else(bad)
        }
        _ => {
            word.split('|').map(value).try_fold(0, |all, value| Some(all | value?)).ok_or_else(bad)
        }
    }
}

/// Decimal, 0xhexadecimal, 0octal as in C, or by name.
fn value(word: &str) -> Option<i64> {
    let unsigned = |digits, radix| u64::from_str_radix(digits, radix).ok().map(|it| it as i64);
    match word.as_bytes() {
        [b'0', b'x', ..] => unsigned(&word[2..], 16),
        [b'0', _, ..] => unsigned(word, 8),
        _ => word.parse().ok().or_else(|| calls::constant(word)),
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16)).collect::<Option<_>>()?;
    Some(
        digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0, |all, digit| all << 4 | digit) as u8)
            .collect(),
    )
}

/// Where `bytes` are from now on.
fn address(bytes: Vec<u8>) -> i64 {
    bytes.leak().as_mut_ptr() as i64
}

/// Makes calls by the 32-bit table: `NUMBER:ARGUMENT,…`.
#[cfg(target_arch = "x86_64")]
pub(crate) fn run_i386(calls: &str) -> Outcome {
    for call in calls.split(',') {
        let (number, argument) = call.split_once(':').ok_or("NUMBER:ARGUMENT")?;
        let parse = |word: &str| word.parse::<u32>().map_err(|_| format!("not a number: {word}"));
        let result = raw::call_i386(parse(number)?, parse(argument)?);
        let said = if result < 0 { errno::name(-result) } else { result.to_string() };
        println!("{number} {said}");
    }
    Ok(())
}

/// There is no such table here.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn run_i386(calls: &str) -> Outcome {
    for call in calls.split(',') {
        println!("{call} ENOSYS");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_outside_of_quotes() {
        assert_eq!(split("a 'b c;d'  e", ' '), ["a", "'b c;d'", "e"]);
        assert_eq!(split("a 1 ; b ' ; ' 2;", ';'), ["a 1", "b ' ; ' 2"]);
    }

    #[test]
    fn arguments() {
        let check = |word, expected| assert_eq!(argument(word, &[7, 8]).ok(), expected, "{word}");
        check("12", Some(12));
        check("-1", Some(-1));
        check("0", Some(0));
        check("0644", Some(0o644));
        check("0689", None);
        check("0xffffffffffffffff", Some(-1));
        check("AT", Some(-100));
        check("WRONLY|CREAT", Some(0o101));
        check("$2", Some(8));
        check("$3", None);
        check("$0", None);
        check("nonsense", None);
        assert_eq!(bytes("0a0Bff"), Some(vec![10, 11, 255]));
    }
}
