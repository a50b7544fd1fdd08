//! The metrics, and the Grafana board and the alert rules in `packaging/monitoring` that ask for them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use testkit::proto::RequestMetadata;
use testkit::{Daemon, Kit, Outcome, ReservedAddress, eventually_async};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    every_metric_of_the_board_and_the_rules_is_exported,
    promtool_finds_nothing_wrong,
    a_real_prometheus_answers_every_panel_and_rule,
}

/// The words before the address in the log.
const SAID: &str = "page and metrics on http://";

fn monitoring() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/monitoring")
}

/// The answer to a GET, without its head.
async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0, so that no answer comes in chunks.
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
    ensure!(head.contains(" 200 "), "{path}: {answer}");
    Ok(body.to_owned())
}

/// A server on which every kind of thing happened that a metric counts.
async fn busy(kit: &Kit) -> anyhow::Result<(Daemon, SocketAddr)> {
    kit.only_on_the_host("a guest has no network, and serves no HTTP")?;
    let daemon = kit.daemon().host_rootfs().flag("--http=127.0.0.1:0").start().await?;
    let log = daemon.log();
    let rest = log.split_once(SAID).context("the page is served")?.1;
    let address = rest.split_once('/').context("an address")?.0.parse()?;
    let client = daemon.client();
    let mnemonic = RequestMetadata { action_mnemonic: "Genrule".into(), ..Default::default() };
    for _ in 0..2 {
        client.action("echo hi > out").output("out").sent_by(mnemonic.clone()).run().await?;
    }
    client.action("exit 1").run().await?;
    let request = testkit::proto::GetActionResultRequest {
        action_digest: Some(client.digest(b"none").to_proto()),
        ..Default::default()
    };
    client.action_cache().get_action_result(request).await.expect_err("nothing is cached");
    Ok((daemon, address))
}

/// The expressions of the board's panels.
fn panels() -> anyhow::Result<Vec<(String, String)>> {
    let text = std::fs::read_to_string(monitoring().join("grafana-board.json"))?;
    let board: Value = serde_json::from_str(&text)?;
    let mut expressions = Vec::new();
    for panel in board["panels"].as_array().context("panels")? {
        let title = panel["title"].as_str().context("a title")?;
        for target in panel["targets"].as_array().context("targets")? {
            let expression = target["expr"].as_str().context("an expression")?;
            expressions.push((title.to_owned(), expression.to_owned()));
        }
    }
    ensure!(expressions.len() > 20, "the board was not read right");
    Ok(expressions)
}

/// The names of our metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|it: char| !(it.is_ascii_alphanumeric() || it == '_'));
    words.filter(|word| word.starts_with("actiond_")).map(str::to_owned).collect()
}

async fn every_metric_of_the_board_and_the_rules_is_exported(kit: Kit) -> Outcome {
    let (_daemon, address) = busy(&kit).await?;
    let metrics = get(address, "/metrics").await?;
    let exported: BTreeSet<&str> =
        metrics.lines().filter_map(|line| line.split(['{', ' ']).next()).collect();
    let mut wanted = names(&std::fs::read_to_string(monitoring().join("alerts.yml"))?);
    for (_, expression) in panels()? {
        wanted.extend(names(&expression));
    }
    ensure!(wanted.len() > 20, "{wanted:?}");
    let missing: Vec<_> = wanted.iter().filter(|name| !exported.contains(name.as_str())).collect();
    ensure!(missing.is_empty(), "no server exports {missing:?}:\n{metrics}");
    Ok(())
}

/// Whether a program of Prometheus is installed.
fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

async fn promtool_finds_nothing_wrong(kit: Kit) -> Outcome {
    if !has("promtool") {
        return testkit::skip("promtool is not installed; Debian's package prometheus has it");
    }
    let (daemon, address) = busy(&kit).await?;
    let metrics = get(address, "/metrics").await?;
    let file = daemon.root().join("metrics");
    std::fs::write(&file, metrics)?;
    let checked = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::fs::File::open(&file)?)
        .output()?;
    ensure!(checked.status.success(), "{checked:?}");
    let rules = Command::new("promtool")
        .args(["check", "rules"])
        .arg(monitoring().join("alerts.yml"))
        .output()?;
    ensure!(rules.status.success(), "{rules:?}");
    Ok(())
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

/// The part of an address after `=`, encoded.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

async fn a_real_prometheus_answers_every_panel_and_rule(kit: Kit) -> Outcome {
    if !has("prometheus") {
        return testkit::skip("prometheus is not installed; Debian's package prometheus has it");
    }
    let (daemon, address) = busy(&kit).await?;
    let folder = daemon.root().join("prometheus");
    std::fs::create_dir(&folder)?;
    let reserved = ReservedAddress::new()?;
    let free = reserved.get();
    let rules = monitoring().join("alerts.yml").canonicalize()?;
    let configuration = format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\nrule_files: [{:?}]\n\
         scrape_configs:\n  - job_name: actiond\n    static_configs:\n      - targets: [\"{address}\"]\n",
        rules.display().to_string(),
    );
    std::fs::write(folder.join("prometheus.yml"), configuration)?;
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={free}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let _killed = Killed(child);
    let ask = async |path: String| -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&get(free, &path).await?)?)
    };
    for (title, expression) in panels()? {
        let query = expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
        // It takes a while to start, and two scrapes until there is a rate.
        let answered = async || {
            let answer = ask(format!("/api/v1/query?query={}", encoded(&query))).await;
            Ok(answer
                .is_ok_and(|it| it["data"]["result"].as_array().is_some_and(|it| !it.is_empty())))
        };
        eventually_async(&format!("{title}: {query}"), answered).await?;
    }
    let healthy = async || {
        let answer = ask("/api/v1/rules".to_owned()).await?;
        let rules = answer["data"]["groups"][0]["rules"].as_array().context("rules")?.clone();
        ensure!(rules.len() > 8, "{answer}");
        Ok(rules.iter().all(|rule| rule["health"] == "ok"))
    };
    eventually_async("every rule was evaluated", healthy).await
}
