//! The pages in a real browser: `cargo xtask e2e web` names the programs that it takes.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use events::{Event, Finished, InputTotals, Limits, Listener as _, Miss, Origin, Stages};
use testkit::proto::RequestMetadata;
use testkit::{Action, Client, Daemon, Kit, Outcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    people_can_use_the_pages,
    pages_are_there_soon_with_a_long_history,
}

/// The folder with the script and its modules, for which node is on the PATH.
const SCRIPTS: &str = "ACTIOND_TEST_WEB_SCRIPTS";

/// The browser.
const CHROMIUM: &str = "ACTIOND_TEST_CHROMIUM";

/// The folder for pictures of the pages.
const SCREENSHOTS: &str = "ACTIOND_TEST_SCREENSHOTS";

/// The words before the address in the log.
const SAID: &str = "page and metrics on http://";

const LIVE: &str = "//live:one";
const TARGET: &str = "//app:main";
const INVOCATION: &str = "build-2";
const CONTENT: &str = "the second content\n";

fn address(daemon: &Daemon) -> anyhow::Result<SocketAddr> {
    let log = daemon.log();
    let rest = log.split_once(SAID).context("the page is served")?.1;
    Ok(rest.split_once('/').context("an address")?.0.parse()?)
}

async fn start(kit: &Kit) -> anyhow::Result<(Daemon, SocketAddr)> {
    kit.only_on_the_host("a guest has no network, and serves no HTTP")?;
    let daemon = kit.daemon().host_rootfs().flag("--http=127.0.0.1:0").start().await?;
    let address = address(&daemon)?;
    Ok((daemon, address))
}

fn sent_by(action: Action, mnemonic: &str, target: &str, build: &str) -> Action {
    action.sent_by(RequestMetadata {
        action_mnemonic: mnemonic.into(),
        target_id: target.into(),
        tool_invocation_id: build.into(),
        ..RequestMetadata::default()
    })
}

fn compile(client: &Client, content: &str, build: &str) -> Action {
    // Every colour is checked for its contrast.
    let script = "for c in 30 31 32 33 34 35 36 37 90 91 92 93 94 95 96 97; do \
                  printf '\\033[%smcolour %s\\033[0m\\n' $c $c >&2; done; cp src/in out";
    let action = client.action(script).input("src/in", content).output("out");
    sent_by(action.env("NAME", "value"), "CppCompile", TARGET, build)
}

/// Two builds, with runs of every outcome. Returns the action that the browser looks at.
async fn build(client: &Client) -> anyhow::Result<Action> {
    compile(client, "the first content\n", "build-1").run().await?.succeeded().await?;
    let action = compile(client, CONTENT, INVOCATION);
    action.run().await?.succeeded().await?;
    action.run().await?.succeeded().await?;
    sent_by(client.action("exit 3"), "Genrule", "//app:bad", INVOCATION).run().await?;
    Ok(action)
}

/// Ends the process with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn people_can_use_the_pages(kit: Kit) -> Outcome {
    let (Some(scripts), Some(chromium)) = (std::env::var_os(SCRIPTS), std::env::var_os(CHROMIUM))
    else {
        return testkit::skip("no browser is named; `cargo xtask e2e web` does that");
    };
    let (daemon, address) = start(&kit).await?;
    let client = daemon.client();
    let action = build(&client).await?;
    let screenshots = std::env::var_os(SCREENSHOTS).map(PathBuf::from);
    let screenshots = screenshots.unwrap_or_else(|| daemon.root().join("screenshots"));
    std::fs::create_dir_all(&screenshots)?;
    let facts = daemon.root().join("facts.json");
    let chromium = chromium.to_str().context("the path of the browser")?;
    let object = serde_json::json!({
        "url": format!("http://{address}"),
        "chromium": chromium,
        "screenshots": screenshots,
        "invocation": INVOCATION,
        "target": TARGET,
        "action": format!("/action/sha256/{}", action.encode().0),
        "live": LIVE,
        "content": CONTENT,
    });
    std::fs::write(&facts, object.to_string())?;
    let script = Path::new(&scripts).join("pages.mjs");
    let mut node = Command::new("node");
    node.arg(script).arg(&facts).env("HOME", daemon.root());
    let mut node = Killed(node.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
    let mut lines = BufReader::new(node.0.stdout.take().context("a pipe")?).lines();
    let mut next = || -> anyhow::Result<String> {
        Ok(lines.next().context("the script ended; its error is above")??)
    };
    ensure!(next()? == "ready");
    sent_by(client.action("true"), "Genrule", LIVE, "build-3").run().await?;
    ensure!(next()? == "passed");
    Ok(())
}

/// The time of an answer.
async fn time(address: SocketAddr, path: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure!(answer.contains(" 200 OK"), "{path}: {answer}");
    Ok(begun.elapsed())
}

/// The shortest time of some answers: the others may have waited for a machine that is busy.
async fn shortest(address: SocketAddr, path: &str) -> anyhow::Result<Duration> {
    let mut shortest = Duration::MAX;
    for _ in 0..15 {
        shortest = shortest.min(time(address, path).await?);
    }
    Ok(shortest)
}

/// The actions of the history that is short, and yet fills every list of a page.
const FEW: u32 = 2_000;

/// The actions of the long one.
const MANY: u32 = 100_000;

/// How much longer a page may take with [`MANY`] actions than with [`FEW`]. One that reads all of them, or all of a
/// target, takes about fifty times as long; the rest is for a machine that is busy the second time.
const FACTOR_MAX: u32 = 10;

/// Adds records of a long time to the history, as a server writes them.
fn fill(root: &Path, numbers: Range<u32>) -> Outcome {
    let options = history::Options {
        directory: root.join("history"),
        age_max: Duration::from_secs(100 * 365 * 86_400),
        room: Box::new(history::Fixed(1 << 30)),
    };
    let history = history::History::start(options)?;
    for number in numbers {
        history.tell(&Event::Finished(Arc::new(record(number))));
        if number % 1000 == 999 {
            history.flush();
        }
    }
    history.flush();
    ensure!(history.stats().dropped == 0, "{:?}", history.stats());
    Ok(())
}

fn record(number: u32) -> Finished {
    let digest = |text: String| {
        let digest = model::Digest::of(model::DigestFunction::Sha256, text.as_bytes());
        digest.to_string()
    };
    let (target, build) = (number % 100, number / 40);
    let of = |is_known: bool, known: &str, other: String| {
        if is_known { known.into() } else { other.as_str().into() }
    };
    let origin = Origin {
        tool: "bazel 9".into(),
        invocation: of(number < 200, INVOCATION, format!("old-{build}")),
        mnemonic: ["CppCompile", "Genrule", "Javac"][number as usize % 3].into(),
        target: of(target < 10, TARGET, format!("//old:{target}")),
        ..Origin::default()
    };
    let run_us = u64::from(number % 997) * 1000;
    let age = Duration::from_secs(u64::from((MANY - number) / 100));
    Finished {
        operation: format!("operations/old-{number}").into(),
        instance: String::new(),
        digest_function: "sha256",
        action: digest(format!("action {number}")),
        command: Some(digest(format!("command {}", number % 5000))),
        input_root: Some(digest(format!("root {number}"))),
        inputs: Some(InputTotals { files: 7, bytes: u64::from(number) }),
        origin: Arc::new(origin),
        queued_at: SystemTime::now() - age,
        cached: number.is_multiple_of(3),
        miss: (!number.is_multiple_of(3)).then_some(Miss::Absent),
        limits: Limits::default(),
        exit_code: Some(i32::from(number % 50 == 1)),
        error: None,
        stages: Stages { run_us: Some(run_us), total_us: Some(run_us + 900), ..Stages::default() },
        usage: None,
        outputs: 1,
        output_bytes: u64::from(number),
        worker: "here".into(),
        result: None,
    }
}

async fn pages_are_there_soon_with_a_long_history(kit: Kit) -> Outcome {
    let (daemon, _) = start(&kit).await?;
    let action = build(&daemon.client()).await?;
    let paths = [
        "/".to_owned(),
        "/invocations".to_owned(),
        format!("/invocation?name={INVOCATION}"),
        format!("/search?q={TARGET}"),
        "/search?q=//".to_owned(),
        "/search?q=in.c".to_owned(),
        format!("/action/sha256/{}", action.encode().0),
        "/cache".to_owned(),
        "/metrics".to_owned(),
    ];
    let (daemon, few) = times_after(daemon, 0..FEW, &paths).await?;
    let (_daemon, many) = times_after(daemon, FEW..MANY, &paths).await?;
    for (path, (few, many)) in paths.iter().zip(few.into_iter().zip(many)) {
        println!("{path}: {many:.1?} with {MANY} actions in the history, {few:.1?} with {FEW}");
        ensure!(many < few * FACTOR_MAX, "{path} reads too much: {many:?}, {few:?} before");
    }
    Ok(())
}

/// Ends the daemon, adds records to its history, and starts it again. Returns how long the pages take then.
async fn times_after(
    mut daemon: Daemon,
    numbers: Range<u32>,
    paths: &[String],
) -> anyhow::Result<(Daemon, Vec<Duration>)> {
    daemon.terminate()?;
    daemon.wait()?;
    fill(daemon.root(), numbers)?;
    let daemon = daemon.successor().start().await?;
    let address = address(&daemon)?;
    let mut times = Vec::new();
    for path in paths {
        times.push(shortest(address, path).await?);
    }
    Ok((daemon, times))
}
