//! One action: what it runs, with what, how it went, and what it left.

use std::io::Read as _;

use history::text::{duration, size};
use history::{AskError, Page, Record};
use model::proto::{self, Message as _};
use model::{Digest, DigestFunction};
use store::Store;

use super::directory::{download, listing};
use super::{PageError, RECORD_HEADINGS, message, record_row};
use crate::ansi;
use crate::html::{Escaped, facts, layout, link, section, table};
use crate::pages::stages;
use history::Archive;

/// Runs and lookups that the page lists.
const RECORDS_SHOWN: u32 = 20;

/// Bytes of each stream that the page shows; the rest is a download.
const STREAM_BYTES_SHOWN: u64 = 256 << 10;

/// Outputs that the page lists.
const OUTPUTS_SHOWN: usize = 500;

/// Records of the target in which the run before is looked for.
const TARGET_RECORDS: u32 = 100;

/// The page of `digest`, at the run of that number or at the last one.
pub(crate) fn page(
    archive: &Archive,
    store: &Store,
    digest: &Digest,
    run: Option<i64>,
) -> Result<String, PageError> {
    let records = match archive.ask(|reader| reader.of_action(digest, Page::first(RECORDS_SHOWN))) {
        Err(AskError::Off) => Vec::new(),
        records => records?,
    };
    let chosen = match run {
        Some(id) => archive.ask(|reader| reader.record(id))?.filter(|it| it.action == *digest),
        None => records.iter().find(|record| record.stages.run_us.is_some()).cloned(),
    };
    let chosen = chosen.or_else(|| records.first().cloned());
    let action = read::<proto::Action>(store, digest)?.filter(|action| {
        // Any blob is some message; one with these two is an Action.
        action.command_digest.is_some() && action.input_root_digest.is_some()
    });
    if action.is_none() && records.is_empty() {
        return Err(PageError::NotFound(
            "neither the store nor the history has an Action of that digest".into(),
        ));
    }
    let mut body = format!("<p><code>{}:{digest}</code></p>\n", digest.function());
    if let Some(record) = &chosen {
        body += &section("run", "Run", &run_section(archive, store, record)?);
    }
    body += &match &action {
        Some(action) => of_action(store, digest.function(), action)?,
        None => "<p>The store does not have the Action any more.</p>\n".to_owned(),
    };
    let result = records.iter().chain(&chosen).find_map(|record| record.result.clone());
    if let Some(result) = result.and_then(|bytes| proto::ActionResult::decode(bytes).ok()) {
        body += &section("outputs", "Outputs", &outputs(&result, digest.function()));
        for (id, name, stream) in [
            ("stdout", "Standard output", &result.stdout_digest),
            ("stderr", "Standard error", &result.stderr_digest),
        ] {
            let stream = Digest::from_proto_field(stream.as_ref(), digest.function());
            if let Some(stream) = stream.ok().filter(|stream| stream.size_bytes() > 0) {
                body += &section(id, name, &stream_section(store, &stream, id)?);
            }
        }
    }
    body += &section(
        "runs",
        "Runs and lookups",
        &table(&RECORD_HEADINGS, records.iter().map(record_row)),
    );
    let title = match &chosen {
        Some(record) if !record.origin.mnemonic.is_empty() => {
            format!("{} {}", record.origin.mnemonic, record.origin.target)
        }
        _ => "Action".to_owned(),
    };
    Ok(layout(&title, &body))
}

fn read<M: proto::Message + Default>(
    store: &Store,
    digest: &Digest,
) -> Result<Option<M>, PageError> {
    Ok(message(store, digest)?.and_then(|bytes| M::decode(bytes).ok()))
}

fn run_section(archive: &Archive, store: &Store, record: &Record) -> Result<String, PageError> {
    let origin = &record.origin;
    let (median, before) = archive.ask(|reader| {
        let median = match origin.mnemonic.as_str() {
            "" => None,
            mnemonic => reader.median_run_us(mnemonic)?,
        };
        let before = match origin.target.as_str() {
            "" => Vec::new(),
            target => {
                reader.of_target(target, Page { after: Some(record.id), limit: TARGET_RECORDS })?
            }
        };
        Ok((median, before))
    })?;
    let mut before = before.into_iter().filter(|it| {
        it.action != record.action && it.origin.mnemonic == origin.mnemonic && it.command.is_some()
    });
    // A library has an action for each source: the one before with the same outputs is the same, changed.
    let before = match declared(store, record)? {
        None => before.next(),
        made => {
            let mut same = None;
            for it in before {
                if declared(store, &it)? == made {
                    same = Some(it);
                    break;
                }
            }
            same
        }
    };
    let compare = before.map(|before| {
        format!(
            "<a href=\"/compare?old={}&amp;new={}\">with the last other run of the target</a>",
            query(&before.action),
            query(&record.action),
        )
    });
    let median = median.map(|(us, runs)| {
        format!("{} (of the last {runs} {})", duration(us), Escaped(origin.mnemonic.as_str()))
    });
    let usage = record.usage.map(|usage| {
        format!(
            "{} user, {} system, {} resident, {} read, {} written",
            duration(usage.user_us),
            duration(usage.system_us),
            size(usage.max_resident_bytes),
            size(usage.read_bytes),
            size(usage.written_bytes),
        )
    });
    let inputs = record.inputs.map(|it| format!("{} in {} files", size(it.bytes), it.files));
    let limits = record.limits;
    let limit = |name: &str, value: Option<String>| value.map(|value| format!("{name} {value}"));
    let limits: Vec<String> = [
        limit("timeout", limits.timeout_us.map(duration)),
        limit("memory", limits.memory_bytes.map(size)),
        limit("cores", limits.cpu_cores.map(|it| it.to_string())),
        limit("processes", limits.pids_max.map(|it| it.to_string())),
    ]
    .into_iter()
    .flatten()
    .collect();
    let escaped = |text: &str| Escaped(text).to_string();
    let invocation = origin.invocation.as_str();
    let build = match invocation {
        "" => String::new(),
        name => {
            let query = crate::html::Query(name);
            format!("<a href=\"/invocation?name={query}\">{}</a>", Escaped(name))
        }
    };
    Ok(facts([
        ("outcome", escaped(record.outcome())),
        ("reason of the miss", record.miss.map(|it| it.as_str().to_owned()).unwrap_or_default()),
        ("exit code", record.exit_code.map(|code| code.to_string()).unwrap_or_default()),
        ("message", record.message.as_deref().map(escaped).unwrap_or_default()),
        ("target", escaped(origin.target.as_str())),
        ("configuration", escaped(origin.configuration.as_str())),
        ("invocation", build),
        ("principal", escaped(origin.principal.as_str())),
        ("operation", escaped(&record.operation)),
        ("instance", escaped(&record.instance)),
        ("worker", escaped(&record.worker)),
        ("stages", stages(&record.stages)),
        ("time of the command", record.stages.run_us.map(duration).unwrap_or_default()),
        ("median of its kind", median.unwrap_or_default()),
        ("resources", usage.unwrap_or_default()),
        ("inputs", inputs.unwrap_or_default()),
        ("limits", limits.join(", ")),
        ("compare", compare.unwrap_or_default()),
    ]))
}

/// The outputs that an action declares, sorted; `None` if the store does not have its Command.
fn declared(store: &Store, record: &Record) -> Result<Option<Vec<String>>, PageError> {
    let Some(digest) = &record.command else { return Ok(None) };
    Ok(read::<proto::Command>(store, digest)?.map(|command| declared_by(&command)))
}

/// The outputs that a Command declares, sorted: clients for several versions of the API name them twice.
fn declared_by(command: &proto::Command) -> Vec<String> {
    #[allow(deprecated, reason = "clients of older versions of the API say it there")]
    let paths =
        command.output_paths.iter().chain(&command.output_files).chain(&command.output_directories);
    let paths: std::collections::BTreeSet<&String> = paths.collect();
    paths.into_iter().cloned().collect()
}

/// A digest as the value of a parameter.
fn query(digest: &Digest) -> String {
    crate::html::Query(&format!("{}:{digest}", digest.function())).to_string()
}

fn of_action(
    store: &Store,
    function: DigestFunction,
    action: &proto::Action,
) -> Result<String, PageError> {
    let digest =
        |field: &Option<proto::Digest>| Digest::from_proto_field(field.as_ref(), function).ok();
    let command = match digest(&action.command_digest) {
        Some(digest) => read::<proto::Command>(store, &digest)?,
        None => None,
    };
    let mut html = match &command {
        Some(command) => of_command(action, command),
        None => "<p>The store does not have the Command any more.</p>\n".to_owned(),
    };
    if let Some(root) = digest(&action.input_root_digest) {
        let entries = listing(store, &root)?;
        let entries =
            entries.unwrap_or_else(|| "<p>The store does not have it any more.</p>\n".into());
        html += &section(
            "inputs",
            "Input root",
            &format!("<p>{}</p>\n{entries}", link("directory", &root)),
        );
    }
    Ok(html)
}

fn of_command(action: &proto::Action, command: &proto::Command) -> String {
    let words: Vec<String> = command.arguments.iter().map(|word| chain::shell_word(word)).collect();
    let line = format!("<pre tabindex=\"0\">{}</pre>\n", Escaped(&words.join(" ")));
    let mut html = section("command", "Command", &line);
    let pair = |name: &str, value: &str| {
        format!("<tr><td>{}</td><td>{}</td></tr>\n", Escaped(name), Escaped(value))
    };
    let variables = command.environment_variables.iter().map(|it| pair(&it.name, &it.value));
    html += &section("environment", "Environment", &table(&["name", "value"], variables));
    #[allow(deprecated, reason = "clients of older versions of the API say it there")]
    let platform = action.platform.as_ref().or(command.platform.as_ref());
    let properties = platform.iter().flat_map(|platform| &platform.properties);
    let properties = properties.map(|it| pair(&it.name, &it.value));
    html += &section("platform", "Platform", &table(&["name", "value"], properties));
    let declared: Vec<String> =
        declared_by(command).iter().map(|path| Escaped(path).to_string()).collect();
    let asked = facts([
        ("working directory", Escaped(&command.working_directory).to_string()),
        ("declared outputs", declared.join(", ")),
        (
            "timeout asked for",
            action.timeout.as_ref().map(|it| format!("{} s", it.seconds)).unwrap_or_default(),
        ),
        ("may be cached", if action.do_not_cache { "no" } else { "yes" }.to_owned()),
    ]);
    html + &section("asked", "Asked for", &asked)
}

fn outputs(result: &proto::ActionResult, function: DigestFunction) -> String {
    let digest =
        |field: &Option<proto::Digest>| Digest::from_proto_field(field.as_ref(), function).ok();
    let files = result.output_files.iter().filter_map(|file| {
        let digest = digest(&file.digest)?;
        let (path, bytes) = (Escaped(&file.path), size(digest.size_bytes()));
        let link = download(&digest, &file.path);
        Some(format!("<tr><td>{path}</td><td>{bytes}</td><td>{link}</td></tr>\n"))
    });
    let directories = result.output_directories.iter().filter_map(|directory| {
        let digest = digest(&directory.tree_digest)?;
        let (path, link) = (Escaped(&directory.path), link("blob", &digest));
        Some(format!("<tr><td>{path}/</td><td></td><td>tree {link}</td></tr>\n"))
    });
    let symlinks = result.output_symlinks.iter().map(|it| {
        let (path, target) = (Escaped(&it.path), Escaped(&it.target));
        format!("<tr><td>{path} → {target}</td><td></td><td></td></tr>\n")
    });
    let rows = files.chain(directories).chain(symlinks).take(OUTPUTS_SHOWN);
    table(&["path", "size", "content"], rows)
}

fn stream_section(store: &Store, digest: &Digest, name: &str) -> Result<String, PageError> {
    let Some(file) = store.cas().open(digest)? else {
        return Ok("<p>The store does not have it any more.</p>\n".to_owned());
    };
    let mut bytes = Vec::new();
    // A disk that fails ends the text.
    let _ = file.take(STREAM_BYTES_SHOWN).read_to_end(&mut bytes);
    let rest = digest.size_bytes().saturating_sub(bytes.len() as u64);
    let more = match rest {
        0 => String::new(),
        rest => format!("<p>And {} more.</p>\n", size(rest)),
    };
    let text = ansi::to_html(&bytes);
    Ok(format!(
        "<pre tabindex=\"0\">{text}</pre>\n{more}<p>Download {}</p>\n",
        download(digest, name)
    ))
}
