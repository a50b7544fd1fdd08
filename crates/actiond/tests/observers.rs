//! The daemon's listeners for events: the metrics, the page, the event file.

use std::net::SocketAddr;

use anyhow::Context as _;
use testkit::proto::RequestMetadata;
use testkit::{Daemon, Kit, Outcome, eventually_async};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    an_action_is_counted_and_shown,
    a_running_action_is_shown,
    evictions_and_refused_uploads_are_shown,
    the_event_file_has_a_line_for_each_answer,
    an_address_in_use_is_an_error_if_it_was_asked_for,
    an_address_for_others_must_be_asked_for,
    without_http_nothing_listens,
    names_cannot_forge_lines_of_the_log,
    the_page_asks_for_a_token_where_there_are_principals,
}

/// The words before the address in the log.
const SAID: &str = "page and metrics on http://";

async fn with_http(kit: &Kit) -> anyhow::Result<(Daemon, SocketAddr)> {
    with_http_and(kit, &[]).await
}

async fn with_http_and(kit: &Kit, flags: &[&str]) -> anyhow::Result<(Daemon, SocketAddr)> {
    kit.only_on_the_host("a guest has no network, and serves no HTTP")?;
    let daemon = kit.daemon().host_rootfs().flag("--http=127.0.0.1:0");
    let daemon = flags.iter().fold(daemon, |daemon, flag| daemon.flag(flag)).start().await?;
    let address = address_of_page(&daemon)?;
    Ok((daemon, address))
}

fn address_of_page(daemon: &Daemon) -> anyhow::Result<SocketAddr> {
    let log = daemon.log();
    let address =
        log.split_once(SAID).and_then(|(_, rest)| rest.split_once('/')).context(log.clone())?;
    Ok(address.0.parse()?)
}

/// The answer to a GET, with its head.
async fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    get_with(address, path, "").await
}

/// The same with more lines of the request's head.
async fn get_with(address: SocketAddr, path: &str, more: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn origin() -> RequestMetadata {
    RequestMetadata {
        action_mnemonic: "Genrule".into(),
        target_id: "//a:<b>".into(),
        tool_invocation_id: "invocation".into(),
        ..RequestMetadata::default()
    }
}

async fn an_action_is_counted_and_shown(kit: Kit) -> Outcome {
    let (daemon, address) = with_http(&kit).await?;
    let action = || daemon.client().action("echo hi > out").output("out").sent_by(origin());
    assert!(!action().run().await?.from_cache());
    assert!(action().run().await?.from_cache());
    let metrics = get(address, "/metrics").await?;
    for line in [
        r#"actiond_actions_total{mnemonic="Genrule",result="success"} 1"#,
        r#"actiond_actions_total{mnemonic="Genrule",result="cached"} 1"#,
        r#"actiond_action_stage_seconds_count{stage="run"} 1"#,
        "actiond_action_output_bytes_total 3",
        "actiond_actions_running 0",
        "actiond_actions_queued 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    assert!(daemon.log().contains("operation=\"operations/"), "{}", daemon.log());
    let page = get(address, "/").await?;
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(page.contains("//a:&lt;b&gt;") && page.contains("Genrule"), "{page}");
    Ok(())
}

async fn a_running_action_is_shown(kit: Kit) -> Outcome {
    let (daemon, address) = with_http(&kit).await?;
    let stream = daemon.client().action("sleep 600").sent_by(origin()).start().await?;
    let running = async || {
        let metrics = get(address, "/metrics").await?;
        Ok(metrics.lines().any(|line| line == "actiond_actions_running 1"))
    };
    eventually_async("the action is shown to run", running).await?;
    assert!(get(address, "/now").await?.contains("//a:&lt;b&gt;"));
    drop(stream);
    Ok(())
}

/// The value of a metric.
fn value(metrics: &str, name: &str) -> anyhow::Result<u64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| format!("no {name} in {metrics}"))?.parse()?)
}

async fn evictions_and_refused_uploads_are_shown(kit: Kit) -> Outcome {
    let (daemon, address) = with_http_and(&kit, &["--cas-size=16m"]).await?;
    let client = daemon.client();
    let put = async |number: u32, bytes: usize| {
        let content = number.to_le_bytes().repeat(bytes / 4);
        let digest = client.digest(&content);
        client.write(&client.upload_name(&digest), &content, 1 << 20).await
    };
    put(0, 20 << 20).await.expect_err("it can't fit");
    for number in 1..24 {
        put(number, 1 << 20).await?;
    }
    let metrics = get(address, "/metrics").await?;
    assert_eq!(value(&metrics, r#"actiond_store_failed_writes_total{reason="limit"}"#)?, 1);
    assert_eq!(value(&metrics, "actiond_store_limit_bytes")?, 16 << 20);
    assert!(value(&metrics, "actiond_store_used_bytes")? <= 16 << 20);
    // 23 MiB went into 16 MiB, of which the directories take 4.
    let evicted = value(&metrics, "actiond_store_evicted_blobs_total")?;
    assert!((11..=23).contains(&evicted), "{evicted}");
    assert_eq!(value(&metrics, "actiond_store_evicted_bytes_total")?, evicted << 20);
    assert_eq!(value(&metrics, "actiond_store_evicted_leased_blobs_total")?, evicted);
    let page = get(address, "/").await?;
    assert!(page.contains("<dt>writes refused</dt><dd>1</dd>"), "{page}");
    let log = daemon.log();
    assert_eq!(log.matches("refused writes").count(), 1, "{log}");
    assert!(log.contains("evicted blobs before their lease ended"), "{log}");
    Ok(())
}

async fn the_event_file_has_a_line_for_each_answer(kit: Kit) -> Outcome {
    kit.only_on_the_host("the file would be in the guest")?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("events.jsonl");
    let flag = format!("--event-log={}", path.display());
    let mut daemon = kit.daemon().host_rootfs().flag("--http=off").flag(flag).start().await?;
    let client = daemon.client();
    client.action("echo hi > out").output("out").sent_by(origin()).run().await?;
    client.action("exit 3").run().await?;
    daemon.terminate()?;
    assert!(daemon.wait()?.success());
    let text = std::fs::read_to_string(&path)?;
    let lines: Vec<serde_json::Value> =
        text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    assert_eq!(lines.len(), 2, "{text}");
    assert_eq!(lines[0]["origin"]["target"], "//a:<b>");
    assert_eq!(lines[0]["exit_code"], 0);
    assert_eq!(lines[0]["output_bytes"], 3);
    assert!(lines[0]["run_us"].is_u64() && lines[0]["usage"]["user_us"].is_u64(), "{text}");
    assert_eq!(lines[1]["exit_code"], 3);
    Ok(())
}

async fn an_address_in_use_is_an_error_if_it_was_asked_for(kit: Kit) -> Outcome {
    kit.only_on_the_host("a guest serves no HTTP")?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?;
    let (mut command, _root) = kit.daemon().flag(format!("--http={address}")).command()?;
    let output = command.output()?;
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(&format!("--http: listening on {address}")), "{said}");
    Ok(())
}

async fn an_address_for_others_must_be_asked_for(kit: Kit) -> Outcome {
    kit.only_on_the_host("a guest serves no HTTP")?;
    let (mut command, _root) = kit.daemon().flag("--http=0.0.0.0:0").command()?;
    let output = command.output()?;
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("beyond the loopback device"), "{said}");
    Ok(())
}

async fn without_http_nothing_listens(kit: Kit) -> Outcome {
    kit.only_on_the_host("a guest serves no HTTP")?;
    let daemon = kit.daemon().flag("--http=off").start().await?;
    assert!(!daemon.log().contains(SAID), "{}", daemon.log());
    Ok(())
}

/// Arguments, outputs, properties and names of requests are a client's words.
async fn names_cannot_forge_lines_of_the_log(kit: Kit) -> Outcome {
    let daemon = kit.daemon().host_rootfs().flag("--http=off").start().await?;
    let forged = "FORGED-LINE";
    let name = format!("x\n{forged}\r\u{1b}[2J{}", "y".repeat(100_000));
    let client = daemon.client();
    let origin =
        RequestMetadata { action_mnemonic: name.clone(), target_id: name.clone(), ..origin() };
    let under_a_file = format!("input/{}", name.replace('y', "z/"));
    let runs = [
        client.bare_action([name.clone()]).with_programs(),
        client.action("true").working_directory(&name),
        client.action("true").input("input", "x").output(&under_a_file),
        client.action("true").property(&name, "value"),
        client.action("true").property("rootfs", &name),
        client.action("true").env(&name, "value"),
        client.action("exit 1").output(&name),
    ];
    for action in runs {
        // Some are refused, some fail, some end well: what counts is the log.
        let _end = action.sent_by(origin.clone()).run().await;
    }
    client.action("true").run().await?.succeeded().await?;
    let log = daemon.log();
    assert!(!log.contains(['\u{1b}', '\r']), "{log}");
    assert!(!log.lines().any(|line| line.starts_with(forged)), "{log}");
    let longest = log.lines().map(str::len).max().unwrap_or(0);
    assert!(longest < 2000, "{longest} bytes in a line");
    Ok(())
}

async fn the_page_asks_for_a_token_where_there_are_principals(kit: Kit) -> Outcome {
    kit.only_on_the_host("a guest serves no HTTP")?;
    let directory = tempfile::tempdir()?;
    let principals = directory.path().join("principals.toml");
    // `printf %s secret | sha256sum`, and of `builds`
    let text = "\
[[token]]
name = 'reader'
sha256 = '2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b'
rights = ['read']
[[token]]
name = 'builder'
sha256 = '8459419d4cfe6b1acac1499410aacffaf38450db924d1002c9dd1f563d1bda55'
rights = ['execute']
";
    std::fs::write(&principals, text)?;
    let flag = format!("--token-file={}", principals.display());
    let daemon = kit.daemon().flag("--http=127.0.0.1:0").flag(&flag).start().await?;
    let address = address_of_page(&daemon)?;
    for path in ["/", "/metrics", "/now"] {
        let check = async |more: &str, expected: &str| -> Outcome {
            let answer = get_with(address, path, more).await?;
            assert!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{path} {more}: {answer}");
            Ok(())
        };
        check("", "401").await?;
        check("Authorization: Bearer wrong\r\n", "401").await?;
        check("Authorization: Bearer builds\r\n", "401").await?;
        check("Authorization: Bearer secret\r\n", "200").await?;
        // `printf %s anybody:secret | base64`
        check("Authorization: Basic YW55Ym9keTpzZWNyZXQ=\r\n", "200").await?;
    }
    let open = kit.daemon().flag("--http=127.0.0.1:0?anonymous=read").flag(&flag).start().await?;
    let answer = get(address_of_page(&open)?, "/metrics").await?;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(())
}
