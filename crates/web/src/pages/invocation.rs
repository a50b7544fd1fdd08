//! The list of builds, and the page of one.

use history::reader::{Invocation, Tally};
use history::text::{duration, size, utc};
use history::{Archive, Kind, Page, Record};

use super::{PageError, RECORD_HEADINGS, critical, legend, record_row, swatch, target_link};
use crate::html::{Escaped, Query, facts, live_layout, path, section, table};

/// Builds on one page of the list.
const INVOCATIONS_SHOWN: u32 = 50;

/// Actions in the timeline: those that took longest. More are lines that nobody can tell apart.
const TIMELINE_MAX: u32 = 300;

/// Actions in the list of the slowest ones.
const SLOWEST_SHOWN: usize = 30;

/// Failed actions that are listed.
const FAILED_SHOWN: u32 = 50;

/// Lanes of the timeline; what overlaps more shares the last one.
const LANES_MAX: usize = 64;

pub(crate) fn list(archive: &Archive, before: Option<i64>) -> Result<String, PageError> {
    let page = Page { after: before, limit: INVOCATIONS_SHOWN };
    let invocations = archive.ask(|reader| reader.invocations(page))?;
    let next = match invocations.last() {
        Some(last) if invocations.len() == INVOCATIONS_SHOWN as usize => {
            format!("<p><a href=\"/invocations?before={}\">older ones</a></p>\n", last.last_event)
        }
        _ => String::new(),
    };
    let rows = invocations.iter().map(row);
    let headings = ["invocation", "tool", "principal", "began (UTC)", "took"];
    Ok(live_layout("Invocations", &format!("{}{next}", table(&headings, rows))))
}

fn row(invocation: &Invocation) -> String {
    let Invocation { name, tool, principal, first_us, last_us, .. } = invocation;
    format!(
        "<tr><td><a href=\"/invocation?name={}\">{}</a></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
        Query(name),
        Escaped(name),
        Escaped(tool),
        Escaped(principal),
        utc(*first_us),
        duration(last_us.saturating_sub(*first_us)),
    )
}

pub(crate) fn page(archive: &Archive, name: &str) -> Result<String, PageError> {
    let (invocation, tally, slowest, failed) = archive.ask(|reader| {
        Ok((
            reader.invocation(name)?,
            reader.tally_of(name)?,
            reader.slowest_of(name, TIMELINE_MAX)?,
            reader.failed_of(name, Page::first(FAILED_SHOWN))?,
        ))
    })?;
    let Some(invocation) = invocation else {
        return Err(PageError::NotFound("the history has no invocation of that name".into()));
    };
    let sum = |wanted: &dyn Fn(&Tally) -> bool, of: fn(&Tally) -> u64| -> u64 {
        tally.iter().filter(|it| wanted(it)).map(of).fold(0, u64::saturating_add)
    };
    let ran = |it: &Tally| it.kind == Kind::Execution;
    let executions = sum(&ran, |it| it.events);
    let cached = sum(&|it| ran(it) && it.miss.is_none() && !it.failed, |it| it.events);
    let bytes = sum(&ran, |it| it.output_bytes);
    let took = duration(invocation.last_us.saturating_sub(invocation.first_us));
    let about = facts([
        ("tool", Escaped(&invocation.tool).to_string()),
        ("instance", Escaped(&invocation.instance).to_string()),
        ("principal", Escaped(&invocation.principal).to_string()),
        ("began (UTC)", utc(invocation.first_us)),
        ("took", took),
        ("actions", executions.to_string()),
        ("from the cache", cached.to_string()),
        ("failed", sum(&|it| it.failed, |it| it.events).to_string()),
        ("output files", size(bytes)),
        ("time of commands", duration(sum(&ran, |it| it.run_us))),
    ]);
    let critical = critical::records(&slowest);
    let (path_text, path_rows) =
        critical::text(&critical, invocation.last_us.saturating_sub(invocation.first_us));
    let path_section = format!("{path_text}{}{}", table(&RECORD_HEADINGS, path_rows), legend());
    let failed = table(&RECORD_HEADINGS, failed.iter().map(record_row));
    let slow = table(&RECORD_HEADINGS, slowest.iter().take(SLOWEST_SHOWN).map(record_row));
    let slow = format!("<p>In the order of the time without the queue.</p>\n{slow}");
    let body = [
        about,
        section(
            "timeline",
            "Timeline of the longest actions",
            &timeline(&invocation, &slowest, &critical),
        ),
        section("critical", "Probable critical path", &path_section),
        section("misses", "Misses by reason", &misses(&tally)),
        section("kinds", "By kind of action", &kinds(&tally)),
        section("failed", "Failed", &failed),
        section("slowest", "Slowest", &slow),
    ];
    Ok(live_layout(&format!("Invocation {name}"), &body.concat()))
}

fn misses(tally: &[Tally]) -> String {
    let mut rows: Vec<(&str, Kind, u64)> = Vec::new();
    for it in tally {
        let Some(miss) = it.miss else { continue };
        match rows.iter_mut().find(|(reason, kind, _)| *reason == miss.as_str() && *kind == it.kind)
        {
            Some((.., events)) => *events += it.events,
            None => rows.push((miss.as_str(), it.kind, it.events)),
        }
    }
    rows.sort_by_key(|(.., events)| std::cmp::Reverse(*events));
    let row = |(reason, kind, events): (&str, Kind, u64)| {
        format!("<tr><td>{reason}</td><td>{}</td><td>{events}</td></tr>\n", kind.as_str())
    };
    table(&["reason", "request", "count"], rows.into_iter().map(row))
}

fn kinds(tally: &[Tally]) -> String {
    let mut rows: Vec<(&str, [u64; 4])> = Vec::new();
    for it in tally.iter().filter(|it| it.kind == Kind::Execution) {
        let at = rows.iter().position(|(mnemonic, _)| *mnemonic == it.mnemonic);
        let at = at.unwrap_or_else(|| {
            rows.push((&it.mnemonic, [0; 4]));
            rows.len() - 1
        });
        let hits = if it.miss.is_none() { it.events } else { 0 };
        for (sum, value) in rows[at].1.iter_mut().zip([it.events, hits, it.run_us, it.output_bytes])
        {
            *sum = sum.saturating_add(value);
        }
    }
    rows.sort_by_key(|(_, sums)| std::cmp::Reverse(sums[2]));
    let row = |(mnemonic, [events, hits, run_us, bytes]): (&str, [u64; 4])| {
        format!(
            "<tr><td>{}</td><td>{events}</td><td>{hits}</td><td>{}</td><td>{}</td></tr>\n",
            Escaped(mnemonic),
            duration(run_us),
            size(bytes),
        )
    };
    let headings = ["kind", "actions", "from the cache", "time of commands", "output files"];
    table(&headings, rows.into_iter().map(row))
}

/// When the longest actions ran, one bar each, in as few lanes as they fit in.
fn timeline(invocation: &Invocation, records: &[Record], critical: &[&Record]) -> String {
    let span = invocation.last_us.saturating_sub(invocation.first_us).max(1) as f64;
    let mut bars: Vec<(u64, u64, &Record)> = records
        .iter()
        .filter_map(|record| {
            let queued = record.stages.queued_us.unwrap_or(0);
            let start = record.at_us.saturating_add(queued);
            Some((start, start.saturating_add(record.stages.total_us?), record))
        })
        .collect();
    if bars.is_empty() {
        return "<p>None.</p>\n".to_owned();
    }
    bars.sort_by_key(|(start, ..)| *start);
    let mut lanes: Vec<u64> = Vec::new();
    let mut svg = String::new();
    for (start, end, record) in bars {
        let free = lanes.iter().position(|until| *until <= start);
        let lane = free.unwrap_or_else(|| {
            if lanes.len() < LANES_MAX {
                lanes.push(0);
            }
            lanes.len() - 1
        });
        lanes[lane] = end;
        let percent = |us: u64| 1000.0 * us as f64 / span;
        let x = percent(start.saturating_sub(invocation.first_us)).clamp(0.0, 1000.0);
        let width = percent(end - start).clamp(1.0, 1000.0 - x.min(999.0));
        let origin = &record.origin;
        svg.push_str(&format!(
            "<a href=\"{href}?run={id}\"><rect class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" \
             height=\"8\"/><title>{mnemonic} {target}: {time}</title></a>\n",
            href = path("action", &record.action),
            id = record.id,
            class = match critical.iter().any(|it| it.id == record.id) {
                _ if record.has_failed() => "failed",
                true => "critical",
                false => "run",
            },
            y = lane * 10,
            mnemonic = Escaped(origin.mnemonic.as_str()),
            target = Escaped(origin.target.as_str()),
            time = duration(end - start),
        ));
    }
    format!(
        "<svg class=\"timeline\" role=\"group\" aria-label=\"Timeline\" viewBox=\"0 0 1000 {}\">\n{svg}</svg>\n\
         <p class=\"legend\">The {} actions that took longest, without the queue, over {}: {}</p>\n",
        lanes.len() * 10,
        records.len(),
        duration(span as u64),
        [("run", "action"), ("critical", "on the probable critical path"), ("failed", "failed")]
            .map(swatch)
            .join(" "),
    )
}

/// The runs of a target.
pub(crate) fn target(archive: &Archive, target: &str) -> Result<String, PageError> {
    let records = archive.ask(|reader| reader.of_target(target, Page::first(100)))?;
    if records.is_empty() {
        return Err(PageError::NotFound("the history has nothing of that name".into()));
    }
    let rows = records.iter().map(record_row);
    Ok(live_layout(&format!("Target {target}"), &table(&RECORD_HEADINGS, rows)))
}

/// Targets, as links to their runs.
pub(crate) fn targets(names: &[String]) -> String {
    let rows = names.iter().map(|name| format!("<tr><td>{}</td></tr>\n", target_link(name)));
    table(&["target"], rows)
}
