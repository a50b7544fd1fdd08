//! The report: text for people, JSON for programs, JUnit for CI servers, Markdown for the docs.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::areas::Selected;
use crate::check::{Verdict, Weight};
use crate::run::Checked;

/// All verdicts on one server.
#[derive(Serialize)]
pub(crate) struct Report {
    server: String,
    passed: usize,
    failed: usize,
    skipped: usize,
    checks: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    area: &'static str,
    name: &'static str,
    /// The place in the specification.
    clause: &'static str,
    /// The sentence there.
    says: &'static str,
    weight: Weight,
    verdict: Word,
    /// The reason of a failure or a skip.
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: String,
    took_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Passed,
    Failed,
    Skipped,
}

impl Word {
    fn text(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "FAILED",
            Self::Skipped => "skipped",
        }
    }
}

impl Line {
    fn new(checked: Checked) -> Self {
        let Selected { area, check } = checked.check;
        let (verdict, reason) = match checked.verdict {
            Verdict::Passed => (Word::Passed, String::new()),
            Verdict::Failed(reason) => (Word::Failed, reason),
            Verdict::Skipped(reason) => (Word::Skipped, reason),
        };
        let clause = check.clause;
        Self {
            area,
            name: check.name,
            clause: clause.at,
            says: clause.says,
            weight: clause.weight,
            verdict,
            reason,
            took_ms: u64::try_from(checked.took.as_millis()).unwrap_or(u64::MAX),
        }
    }

    fn seconds(&self) -> f64 {
        Duration::from_millis(self.took_ms).as_secs_f64()
    }
}

impl Report {
    pub(crate) fn new(server: String, checked: Vec<Checked>) -> Self {
        let checks: Vec<_> = checked.into_iter().map(Line::new).collect();
        let count = |word| checks.iter().filter(|line| line.verdict == word).count();
        let (passed, failed) = (count(Word::Passed), count(Word::Failed));
        Self { server, passed, failed, skipped: count(Word::Skipped), checks }
    }

    /// Whether something was proved and no clause is broken; in a strict reading none that says SHOULD
    /// either.
    pub(crate) fn is_good(&self, strict: bool) -> bool {
        let binds = |line: &Line| strict || line.weight == Weight::Must;
        let broken = |line: &Line| line.verdict == Word::Failed && binds(line);
        self.passed > 0 && !self.checks.iter().any(broken)
    }

    /// A line for each check, then those that failed with their clauses, then the sums.
    pub(crate) fn to_text(&self) -> String {
        let mut text = String::new();
        for line in &self.checks {
            let name = format!("{}/{}", line.area, line.name);
            let _ = writeln!(text, "{:<8} {name}", line.verdict.text());
            if line.verdict == Word::Skipped {
                let _ = writeln!(text, "         {}", line.reason);
            }
        }
        for line in self.checks.iter().filter(|line| line.verdict == Word::Failed) {
            let _ = writeln!(
                text,
                "\nFAILED {}/{} ({})\n  {}: \"{}\"\n  {}",
                line.area,
                line.name,
                weight_text(line.weight),
                line.clause,
                line.says,
                line.reason
            );
        }
        let _ =
            writeln!(text, "\n{} of {} checks: {}", self.server, self.checks.len(), self.sums());
        text
    }

    fn sums(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }

    pub(crate) fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// A test suite per area.
    pub(crate) fn to_junit(&self) -> String {
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
        for area in self.areas() {
            let lines: Vec<_> = self.checks.iter().filter(|line| line.area == area).collect();
            let count = |word| lines.iter().filter(|line| line.verdict == word).count();
            let _ = writeln!(
                xml,
                "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\">",
                escape(area),
                lines.len(),
                count(Word::Failed),
                count(Word::Skipped)
            );
            for line in lines {
                xml.push_str(&case(line));
            }
            xml.push_str("  </testsuite>\n");
        }
        xml + "</testsuites>\n"
    }

    /// A table of the sums of each area, then one of the checks that did not pass.
    pub(crate) fn to_markdown(&self) -> String {
        let mut text =
            String::from("| area | checks | passed | failed | skipped |\n|---|--:|--:|--:|--:|\n");
        let row = |text: &mut String, name: &str, lines: &[&Line]| {
            let count = |word| lines.iter().filter(|line| line.verdict == word).count();
            let (passed, failed) = (count(Word::Passed), count(Word::Failed));
            let all = lines.len();
            let _ = writeln!(
                text,
                "| {name} | {all} | {passed} | {failed} | {} |",
                count(Word::Skipped)
            );
        };
        for area in self.areas() {
            let lines: Vec<_> = self.checks.iter().filter(|line| line.area == area).collect();
            row(&mut text, area, &lines);
        }
        row(&mut text, "all", &self.checks.iter().collect::<Vec<_>>());
        let others: Vec<_> =
            self.checks.iter().filter(|line| line.verdict != Word::Passed).collect();
        if !others.is_empty() {
            text.push_str("\n| check | verdict | clause | reason |\n|---|---|---|---|\n");
        }
        for line in others {
            let _ = writeln!(
                text,
                "| {}/{} | {} ({}) | `{}` | {} |",
                line.area,
                line.name,
                line.verdict.text(),
                weight_text(line.weight),
                line.clause,
                cell(&line.reason)
            );
        }
        text
    }

    fn areas(&self) -> Vec<&'static str> {
        let mut areas: Vec<_> = self.checks.iter().map(|line| line.area).collect();
        areas.dedup();
        areas
    }
}

fn case(line: &Line) -> String {
    let head = format!(
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
        escape(line.area),
        escape(line.name),
        line.seconds()
    );
    let inner = match line.verdict {
        Word::Passed => return head + "/>\n",
        Word::Failed => {
            let text = format!("{}: \"{}\"\n{}", line.clause, line.says, line.reason);
            format!("<failure message=\"{}\">{}</failure>", escape(line.clause), escape(&text))
        }
        Word::Skipped => format!("<skipped message=\"{}\"/>", escape(&line.reason)),
    };
    format!("{head}>{inner}</testcase>\n")
}

/// The checks with their clauses.
pub(crate) fn list(checks: &[Selected]) -> String {
    let line = |it: &Selected| {
        let clause = it.check.clause;
        let weight = weight_text(clause.weight);
        format!("{}\n    {} ({weight}): \"{}\"\n", it.full_name(), clause.at, clause.says)
    };
    let sum = format!("{} checks\n", checks.len());
    checks.iter().map(line).chain([sum]).collect()
}

fn weight_text(weight: Weight) -> &'static str {
    match weight {
        Weight::Must => "must",
        Weight::Should => "should",
    }
}

/// Text of a server in XML: without the control characters that XML has no way to write.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() => escaped.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Text of a server in a cell of a Markdown table.
fn cell(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::areas;

    fn report(verdicts: &[Verdict]) -> Report {
        let checks = areas::select(None).zip(verdicts).map(|(check, verdict)| Checked {
            check,
            verdict: verdict.clone(),
            took: Duration::from_millis(1500),
        });
        Report::new("http://server".to_owned(), checks.collect())
    }

    #[test]
    fn a_skip_is_counted_and_proves_nothing() {
        let skipped = report(&[Verdict::Skipped("no".into()), Verdict::Skipped("no".into())]);
        assert_eq!((skipped.passed, skipped.failed, skipped.skipped), (0, 0, 2));
        assert!(!skipped.is_good(false));
        assert!(report(&[Verdict::Passed, Verdict::Skipped("no".into())]).is_good(true));
        assert!(!report(&[Verdict::Passed, Verdict::Failed("x".into())]).is_good(true));
    }

    #[test]
    fn text_names_the_clause_of_a_failure() {
        let text = report(&[Verdict::Passed, Verdict::Failed("seen".into())]).to_text();
        let clause = areas::select(None).nth(1).unwrap().check.clause;
        assert!(text.contains(clause.says) && text.contains("seen"), "{text}");
        assert!(text.ends_with("2 checks: 1 passed, 1 failed, 0 skipped\n"), "{text}");
    }

    #[test]
    fn junit_escapes_what_servers_say() {
        let reason = "<a & \"b\"> \u{1b}[0m";
        let xml = report(&[Verdict::Skipped(reason.into()), Verdict::Failed(reason.into())]);
        let xml = xml.to_junit();
        let escaped = "&lt;a &amp; &quot;b&quot;&gt; \u{fffd}[0m";
        assert!(xml.contains(&format!("<skipped message=\"{escaped}\"/>")), "{xml}");
        assert!(xml.contains("tests=\"2\" failures=\"1\" skipped=\"1\""), "{xml}");
        assert!(xml.contains("time=\"1.500\""), "{xml}");
        assert!(!xml.contains('\u{1b}'));
    }

    #[test]
    fn json_has_every_check() {
        let report = report(&[Verdict::Passed, Verdict::Failed("seen".into())]);
        let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
        assert_eq!(json["passed"], 1);
        assert_eq!(json["checks"][1]["verdict"], "failed");
        assert_eq!(json["checks"][1]["reason"], "seen");
    }

    #[test]
    fn markdown_keeps_its_columns() {
        let text = report(&[Verdict::Failed("a | b\nc".into())]).to_markdown();
        assert!(text.contains("a \\| b c |"), "{text}");
        assert!(text.contains("| all | 1 | 0 | 1 | 0 |"), "{text}");
    }
}
