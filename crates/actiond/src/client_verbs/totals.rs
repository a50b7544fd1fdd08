//! The output of `stats`. Pure.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ::proto::actiond::internal::v1::GetTotalsResponse;
use ::proto::actiond::internal::v1::get_totals_response::Total;
use chain::visible;
use events::Miss;
use history::text::{duration, size};
use serde_json::{Value, json};

use super::show::line;

/// The totals as a line of JSON.
pub(super) fn json(answer: &GetTotalsResponse, seconds: u64) -> String {
    let totals: Vec<Value> = answer
        .totals
        .iter()
        .map(|total| {
            json!({
                "mnemonic": total.mnemonic,
                "kind": if total.is_lookup { "lookup" } else { "execution" },
                "miss": Some(&total.miss).filter(|miss| !miss.is_empty()),
                "failed": total.failed,
                "events": total.events,
                "run_us": total.run_us,
                "output_bytes": total.output_bytes,
            })
        })
        .collect();
    line(&json!({
        "seconds": seconds,
        "totals": totals,
        "dropped_records": answer.dropped_records,
        "history_bytes": answer.history_bytes,
    }))
}

/// The totals for people.
pub(super) fn text(answer: &GetTotalsResponse) -> String {
    let history = size(answer.history_bytes);
    let lost = answer.dropped_records;
    let parts = [
        hits(&answer.totals),
        misses(&answer.totals),
        kinds(&answer.totals),
        format!("\nthe history takes {history}; {lost} records were lost\n"),
    ];
    parts.concat()
}

fn hits(totals: &[Total]) -> String {
    let sum = |wanted: &dyn Fn(&Total) -> bool| -> u64 {
        totals.iter().filter(|total| wanted(total)).map(|total| total.events).sum()
    };
    let executions = sum(&|it| !it.is_lookup);
    let cached = sum(&|it| !it.is_lookup && it.miss.is_empty() && !it.failed);
    let failed = sum(&|it| it.failed);
    let (lookups, hits) = (sum(&|it| it.is_lookup), sum(&|it| it.is_lookup && it.miss.is_empty()));
    let share = |part: u64, of: u64| if of == 0 { 0.0 } else { 100.0 * part as f64 / of as f64 };
    format!(
        "executions {executions}: {cached} from the cache ({:.0} %), {failed} failed\n\
         lookups    {lookups}: {hits} hits ({:.0} %)\n",
        share(cached, executions),
        share(hits, lookups),
    )
}

/// The misses by reason, those of lookups beside those of executions: most clients look an action up before they have it
/// executed, so one new action is a miss of both.
fn misses(totals: &[Total]) -> String {
    let mut reasons: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    for total in totals.iter().filter(|total| !total.miss.is_empty()) {
        reasons.entry(&total.miss).or_default()[usize::from(!total.is_lookup)] += total.events;
    }
    if reasons.is_empty() {
        return String::new();
    }
    let mut text = "\nmisses by reason      lookups  executions\n".to_owned();
    for (reason, [lookups, executions]) in &reasons {
        let explained = Miss::ALL.into_iter().find(|miss| miss.as_str() == *reason).map(explained);
        let explained = explained.unwrap_or_default();
        let reason = visible(reason);
        text += format!("  {reason:17} {lookups:>9} {executions:>11}  {explained}").trim_end();
        text.push('\n');
    }
    if reasons.values().any(|counts| counts.iter().all(|count| *count > 0)) {
        text +=
            "A client may look an action up and then have it executed: that is a miss of each.\n";
    }
    text
}

fn explained(miss: Miss) -> &'static str {
    match miss {
        Miss::Absent => "no result of the action is cached",
        Miss::Incomplete => "the store lacks a blob that the result names",
        Miss::OtherEnvironment => "the result is from another root file system",
        Miss::Skipped => "the client asked for no lookup",
        Miss::Uncacheable => "the action asks not to be cached",
        Miss::Failed => "the cache could not be read",
    }
}

fn kinds(totals: &[Total]) -> String {
    let mut kinds: BTreeMap<&str, [u64; 3]> = BTreeMap::new();
    for total in totals.iter().filter(|total| !total.is_lookup) {
        let [actions, cached, run_us] = kinds.entry(&total.mnemonic).or_default();
        *actions += total.events;
        *cached += if total.miss.is_empty() { total.events } else { 0 };
        *run_us = run_us.saturating_add(total.run_us);
    }
    if kinds.is_empty() {
        return String::new();
    }
    let mut text = "\nby kind               actions  from cache    time run\n".to_owned();
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, [_, _, run_us])| Reverse(*run_us));
    for (kind, [actions, cached, run_us]) in kinds {
        let kind = if kind.is_empty() { "(none)".to_owned() } else { visible(kind) };
        text += &format!("  {kind:18} {actions:>8} {cached:>11} {:>11}\n", duration(run_us));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(is_lookup: bool, miss: &str, events: u64) -> Total {
        Total { is_lookup, miss: miss.into(), events, ..Total::default() }
    }

    #[test]
    fn an_action_that_missed_twice_is_explained() {
        let totals = vec![total(true, "absent", 20), total(false, "absent", 20)];
        let text = misses(&totals);
        let row = "  absent                   20          20  no result of the action is cached\n";
        assert!(text.contains(row), "{text}");
        assert!(text.contains("look an action up and then"), "{text}");
        // A newer server may send this.
        let text = misses(&[
            total(true, "absent", 2),
            total(false, "skipped", 1),
            total(true, "\u{1b}", 1),
        ]);
        assert!(!text.contains("look an action up and then") && !text.contains('\u{1b}'), "{text}");
        assert_eq!(misses(&[total(true, "", 3)]), "");
    }
}
