//! The report: findings in a table, then what to do about those that are bad.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The weight of a feature's absence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weight {
    /// `serve` can't run.
    Needed,
    /// `serve` runs, with something lost.
    Wanted,
    /// At least one of the findings of this weight must be present.
    OneOf,
}

/// One feature.
#[derive(Debug)]
pub(crate) struct Finding {
    /// The text that is looked for.
    pub(crate) feature: String,
    /// The finding, or the reason for its absence.
    pub(crate) state: Result<String, String>,
    pub(crate) weight: Weight,
    /// The cost of its absence.
    pub(crate) cost: &'static str,
    /// The cure.
    pub(crate) remedy: Cow<'static, str>,
}

/// Whether `serve` could run.
pub(crate) fn can_serve(findings: &[Finding]) -> bool {
    let needed = |finding: &&Finding| finding.weight == Weight::Needed;
    let one_of = |finding: &&Finding| finding.weight == Weight::OneOf;
    findings.iter().filter(needed).all(|finding| finding.state.is_ok())
        && (findings.iter().filter(one_of).any(|finding| finding.state.is_ok())
            || !findings.iter().any(|finding| one_of(&finding)))
}

/// The report as text, for the verb `serve`, as it is called on this host.
pub(crate) fn render(findings: &[Finding], serve: &str) -> String {
    let width = findings.iter().map(|finding| finding.feature.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { feature, state, .. } in findings {
        let (mark, detail) = match state {
            Ok(detail) => ("yes", detail),
            Err(detail) => ("NO ", detail),
        };
        let line = format!("{mark}  {feature:width$}  {detail}");
        // Writing to a String can't fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    for finding in findings.iter().filter(|finding| finding.state.is_err()) {
        let _ = write!(text, "\n{}\n", advice(finding));
    }
    let verdict = if can_serve(findings) { "can" } else { "can't" };
    let _ = writeln!(text, "\n{serve} {verdict} run here");
    text
}

fn advice(Finding { feature, cost, remedy, .. }: &Finding) -> String {
    format!("{feature}\n  without it: {cost}\n  to get it:  {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use Weight::{Needed, OneOf, Wanted};

    fn finding(feature: &str, weight: Weight, here: bool) -> Finding {
        let state = if here { Ok("fine".to_owned()) } else { Err("gone".to_owned()) };
        Finding {
            feature: feature.to_owned(),
            state,
            weight,
            cost: "cost",
            remedy: "remedy".into(),
        }
    }

    #[test]
    fn what_serve_needs() {
        let check = |findings: &[(Weight, bool)], expected| {
            let findings: Vec<_> =
                findings.iter().map(|&(weight, here)| finding("f", weight, here)).collect();
            assert_eq!(can_serve(&findings), expected);
        };
        check(&[], true);
        check(&[(Needed, true), (Wanted, false)], true);
        check(&[(Needed, true), (Needed, false)], false);
        check(&[(OneOf, false), (OneOf, true)], true);
        check(&[(OneOf, false), (OneOf, false)], false);
    }

    #[test]
    fn only_what_is_absent_gets_advice() {
        let findings = [finding("one", Needed, true), finding("longer", Wanted, false)];
        let expected = "\
yes  one     fine
NO   longer  gone

longer
  without it: cost
  to get it:  remedy

serve can run here
";
        assert_eq!(render(&findings, "serve"), expected);
    }
}
