//! The page as HTML. Pure: from a snapshot to text.

use std::sync::Arc;
use std::time::Duration;

use events::{Finished, Origin};
use history::text::{duration, size};
use history::{Live, Snapshot};

use crate::fact::Fact;
use crate::html::{Escaped, NAVIGATION};
use crate::pages::{legend, stages, target_link};

/// The style sheet; dark and light follow the system, and narrow screens scroll tables.
pub(crate) const STYLE: &str = include_str!("page.css");

/// Keeps pages current while they are visible.
pub(crate) const SCRIPT: &str = include_str!("page.js");

/// The whole page.
pub(crate) fn page(version: &str, now: &Snapshot, store: &[Fact]) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>actiond</title>\n<link rel=\"stylesheet\" href=\"/page.css\">\n\
         <script src=\"/page.js\" defer></script>\n</head>\n<body>\n\
         <header><h1>actiond</h1><p>version {version}</p>{NAVIGATION}</header>\n\
         <main data-live=\"now\">\n{now}</main>\n</body>\n</html>\n",
        version = Escaped(version),
        now = fragment(now, store),
    )
}

/// The part of the page that changes.
pub(crate) fn fragment(now: &Snapshot, store: &[Fact]) -> String {
    let mut html = String::new();
    facts(&mut html, store);
    let Snapshot { running, queued, recent } = now;
    let columns = ["action", "target", "for", "others took"];
    section(&mut html, "Running", running.len(), &columns, |html| {
        for live in running {
            let took = median_run(&live.origin, recent);
            live_row(html, live, live.started.unwrap_or(live.queued).elapsed(), took);
        }
    });
    section(&mut html, "Queued", queued.len(), &columns, |html| {
        for live in queued.iter().take(QUEUED_SHOWN) {
            live_row(html, live, live.queued.elapsed(), median_run(&live.origin, recent));
        }
    });
    let columns = ["action", "target", "result", "stages", "time", "outputs"];
    section(&mut html, "Recent", recent.len(), &columns, |html| {
        for finished in recent {
            finished_row(html, finished);
        }
    });
    if !recent.is_empty() {
        html.push_str(&legend());
    }
    html
}

/// Queued actions that the page lists; it counts all of them.
const QUEUED_SHOWN: usize = 100;

fn facts(html: &mut String, store: &[Fact]) {
    html.push_str(
        "<section aria-labelledby=\"store\"><h2 id=\"store\">Store and machine</h2>\n<dl>\n",
    );
    for Fact { name, value } in store {
        let (name, value) = (Escaped(name), Escaped(value));
        html.push_str(&format!("<div><dt>{name}</dt><dd>{value}</dd></div>\n"));
    }
    html.push_str("</dl></section>\n");
}

fn section(
    html: &mut String,
    title: &str,
    count: usize,
    columns: &[&str],
    rows: impl FnOnce(&mut String),
) {
    let id = title.to_lowercase();
    html.push_str(&format!(
        "<section aria-labelledby=\"{id}\"><h2 id=\"{id}\">{title} <small>{count}</small></h2>\n"
    ));
    if count == 0 {
        html.push_str("<p>None.</p></section>\n");
        return;
    }
    html.push_str("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>");
    for column in columns {
        html.push_str(&format!("<th scope=\"col\">{column}</th>"));
    }
    html.push_str("</tr></thead><tbody>\n");
    rows(html);
    html.push_str("</tbody></table></div></section>\n");
}

/// The median time of the commands of recent actions of the same kind: about what this one will take.
fn median_run(origin: &Origin, recent: &[Arc<Finished>]) -> Option<Duration> {
    let same = recent.iter().filter(|it| !it.cached && it.origin.mnemonic == origin.mnemonic);
    let mut times: Vec<u64> = same.filter_map(|it| it.stages.run_us).collect();
    times.sort_unstable();
    times.get(times.len() / 2).map(|us| Duration::from_micros(*us))
}

fn live_row(html: &mut String, live: &Live, time: Duration, took: Option<Duration>) {
    html.push_str(&format!(
        "<tr>{}<td>{}</td><td>{}</td></tr>\n",
        named_action(live.digest_function, &live.action, &live.origin),
        text(time),
        took.map(text).unwrap_or_default(),
    ));
}

fn finished_row(html: &mut String, finished: &Finished) {
    let (class, result) = match (&finished.error, finished.exit_code) {
        (Some(failure), _) => ("bad", failure.message.to_string()),
        (None, Some(0)) if finished.cached => ("cached", "cached".to_owned()),
        (None, Some(0)) => ("good", "exit 0".to_owned()),
        (None, Some(code)) => ("bad", format!("exit {code}")),
        (None, None) => ("bad", "no exit code".to_owned()),
    };
    let total = finished.stages.total_us.map(duration);
    html.push_str(&format!(
        "<tr>{named}<td class=\"{class}\">{result}</td><td>{stages}</td><td>{total}</td>\
         <td>{outputs} ({bytes})</td></tr>\n",
        named = named_action(finished.digest_function, &finished.action, &finished.origin),
        result = Escaped(&result),
        stages = stages(&finished.stages),
        total = total.unwrap_or_default(),
        outputs = finished.outputs,
        bytes = size(finished.output_bytes),
    ));
}

fn named_action(function: &str, action: &str, origin: &Origin) -> String {
    let short: String = action.chars().take(12).collect();
    let action = Escaped(action);
    let name = if origin.mnemonic.is_empty() { "action" } else { origin.mnemonic.as_str() };
    format!(
        "<td title=\"{action}\">{} <a href=\"/action/{function}/{action}\"><code>{}</code></a></td><td>{}</td>",
        Escaped(name),
        Escaped(&short),
        target_link(origin.target.as_str()),
    )
}

fn text(time: Duration) -> String {
    duration(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use events::{Failure, Limits, Stages};

    use super::*;

    const HOSTILE: &str = "<script>alert('x')</script>\" onload=\"y&";

    #[test]
    fn what_clients_say_is_text() {
        let origin = Arc::new(Origin {
            principal: HOSTILE.into(),
            tool: HOSTILE.into(),
            invocation: HOSTILE.into(),
            mnemonic: HOSTILE.into(),
            target: HOSTILE.into(),
            configuration: HOSTILE.into(),
            trace: None,
        });
        let live = Live {
            operation: HOSTILE.into(),
            instance: HOSTILE.into(),
            digest_function: "sha256",
            action: HOSTILE.into(),
            origin: Arc::clone(&origin),
            queued: Instant::now(),
            started: Some(Instant::now()),
        };
        let finished = Finished {
            operation: "operations/1".into(),
            instance: HOSTILE.into(),
            digest_function: "sha256",
            action: HOSTILE.into(),
            command: None,
            input_root: None,
            inputs: None,
            origin,
            queued_at: SystemTime::now(),
            cached: false,
            miss: None,
            limits: Limits::default(),
            exit_code: None,
            error: Some(Failure { kind: "invalid", step: None, message: HOSTILE.into() }),
            stages: Stages { inputs_us: Some(1), run_us: Some(3), ..Stages::default() },
            usage: None,
            outputs: 0,
            output_bytes: 0,
            worker: HOSTILE.into(),
            result: None,
        };
        let queued = Live { started: None, ..live.clone() };
        assert_eq!(median_run(&live.origin, &[]), None);
        let recent = [Arc::new(finished.clone())];
        assert_eq!(median_run(&live.origin, &recent), Some(Duration::from_micros(3)));
        assert_eq!(median_run(&Origin::default(), &recent), None, "another kind");
        let now = Snapshot {
            running: vec![live],
            queued: vec![queued],
            recent: vec![Arc::new(finished)],
        };
        let fact = Fact { name: "blobs", value: HOSTILE.into() };
        let html = page(HOSTILE, &now, &[fact]);
        assert!(!html.contains("<script>alert"), "{html}");
        assert!(!html.contains("\" onload"), "{html}");
        assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot; onload"));
        assert!(html.contains("inputs 1 µs, run 3 µs"), "{html}");
        assert!(html.contains("x=\"25.00\" width=\"75.00\""), "{html}");
    }

    #[test]
    fn an_idle_server_says_so() {
        let html = fragment(&Snapshot::default(), &[]);
        assert_eq!(html.matches("<p>None.</p>").count(), 3, "{html}");
    }
}
