//! The pages about past actions.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use testkit::proto::RequestMetadata;
use testkit::{Action, Daemon, Kit, Outcome};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    a_build_is_shown_with_its_actions,
    an_action_is_shown_down_to_its_inputs,
    a_run_is_compared_with_the_one_before,
    what_clients_and_actions_say_is_text,
    a_search_finds_digests_and_targets,
    what_is_not_there_is_a_page_that_says_so,
    the_store_and_the_machine_are_shown,
    pages_are_for_those_who_may_read_everything,
}

/// The words before the address in the log.
const SAID: &str = "page and metrics on http://";

/// A page, and where it was asked for.
struct Site(SocketAddr);

impl Site {
    async fn of(kit: &Kit, flags: &[&str]) -> anyhow::Result<(Daemon, Self)> {
        kit.only_on_the_host("a guest has no network, and serves no HTTP")?;
        let daemon = kit.daemon().host_rootfs().flag("--http=127.0.0.1:0");
        let daemon = flags.iter().fold(daemon, |daemon, flag| daemon.flag(flag)).start().await?;
        let log = daemon.log();
        let rest = log.split_once(SAID).context("the page is served")?.1;
        let address = rest.split_once('/').context("an address")?.0.parse()?;
        Ok((daemon, Self(address)))
    }

    /// The answer to a GET, with its head.
    async fn answer(&self, path: &str, more: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.0).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{more}\r\n", self.0);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The page at `path`.
    async fn page(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.answer(path, "").await?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        Ok(answer)
    }
}

fn sent_by(action: Action, mnemonic: &str, target: &str, build: &str) -> Action {
    action.sent_by(RequestMetadata {
        action_mnemonic: mnemonic.into(),
        target_id: target.into(),
        tool_invocation_id: build.into(),
        ..RequestMetadata::default()
    })
}

/// The address of the action's page.
fn path(action: &Action) -> String {
    format!("/action/sha256/{}", action.encode().0)
}

/// All of `expected` is in the page.
fn has(page: &str, expected: &[&str]) -> Outcome {
    for text in expected {
        ensure!(page.contains(text), "{text}\n{page}");
    }
    Ok(())
}

async fn a_build_is_shown_with_its_actions(kit: Kit) -> Outcome {
    let (daemon, site) = Site::of(&kit, &[]).await?;
    let client = daemon.client();
    let good = || sent_by(client.action("echo hi > out").output("out"), "Genrule", "//a:b", "b 1");
    good().run().await?;
    good().run().await?;
    sent_by(client.action("exit 3"), "CppCompile", "//a:bad", "b 1").run().await?;
    let list = site.page("/invocations").await?;
    has(&list, &["<a href=\"/invocation?name=b%201\">b 1</a>"])?;
    let page = site.page("/invocation?name=b%201").await?;
    has(
        &page,
        &[
            "<dt>actions</dt><dd>3</dd>",
            "<dt>from the cache</dt><dd>1</dd>",
            "<dt>failed</dt><dd>1</dd>",
            "<tr><td>absent</td><td>execution</td><td>2</td></tr>",
            "<tr><td>Genrule</td><td>2</td><td>1</td>",
            "exit 3 (miss: absent)",
            "<svg class=\"timeline\"",
            "Probable critical path",
            "<title>Genrule //a:b: ",
            &format!("<a href=\"{}?run=", path(&good())),
        ],
    )
}

async fn an_action_is_shown_down_to_its_inputs(kit: Kit) -> Outcome {
    let (daemon, site) = Site::of(&kit, &[]).await?;
    let client = daemon.client();
    let script = "printf '\\033[31mred\\033[0m <b>\\n' >&2; cat src/in; cp src/in 'o ut'";
    let action = client.action(script).input("src/in", "content\n").executable("run me", "#!");
    let action = action.output("o ut").env("NAME", "it's").property("limits_pids", "77");
    let action = sent_by(action, "Genrule", "//a:b", "b");
    action.run().await?.succeeded().await?;
    let page = site.page(&path(&action)).await?;
    has(
        &page,
        &[
            "<h1>Genrule //a:b</h1>",
            "<tr><td>NAME</td><td>it&#39;s</td></tr>",
            "<tr><td>limits_pids</td><td>77</td></tr>",
            "<dt>limits</dt><dd>processes 77</dd>",
            "<dt>median of its kind</dt>",
            "<span class=\"ansi1\">red</span> &lt;b&gt;",
            "<tr><td>o ut</td><td>8 B</td>",
            "run me <small>executable</small>",
            "src/</a>",
        ],
    )?;
    // The command line is quoted for a shell, and that for HTML.
    has(&page, &["cp src/in &#39;\\&#39;&#39;o ut&#39;\\&#39;&#39;"])?;
    let directory = page.split("href=\"/directory/").nth(2).context("a link to src")?;
    let directory = directory.split_once('"').context("its end")?.0;
    let listing = site.page(&format!("/directory/{directory}")).await?;
    has(&listing, &["<tr><td>in</td><td>8 B</td>"])?;
    let blob =
        listing.split("href=\"").find(|it| it.starts_with("/blob/")).context("a download")?;
    let answer = site.page(blob.split_once('"').context("its end")?.0).await?;
    let answer_lower = answer.to_lowercase();
    for header in [
        "content-type: application/octet-stream",
        "content-disposition: attachment; filename*=utf-8''in",
        "content-length: 8",
        "x-content-type-options: nosniff",
    ] {
        ensure!(answer_lower.contains(header), "{header}\n{answer}");
    }
    ensure!(answer.ends_with("\r\n\r\ncontent\n"), "{answer}");
    Ok(())
}

async fn a_run_is_compared_with_the_one_before(kit: Kit) -> Outcome {
    let (daemon, site) = Site::of(&kit, &[]).await?;
    let client = daemon.client();
    let action = |content: &str| {
        let action = client.action("cat src/in > out").input("src/in", content).output("out");
        sent_by(action, "Genrule", "//a:b", "b")
    };
    action("1").run().await?;
    action("22").run().await?;
    let page = site.page(&path(&action("22"))).await?;
    let link = page.split("href=\"").find(|it| it.starts_with("/compare?")).context("a link")?;
    let link = link.split_once('"').context("its end")?.0.replace("&amp;", "&");
    let differences = site.page(&link).await?;
    has(
        &differences,
        &["<td>input</td><td>src/in</td><td class=\"bad\">file ", "/1</td>", "/2</td>"],
    )?;
    ensure!(!site.page(&path(&action("1"))).await?.contains("/compare?"), "it was the first");
    Ok(())
}

async fn what_clients_and_actions_say_is_text(kit: Kit) -> Outcome {
    let (daemon, site) = Site::of(&kit, &[]).await?;
    let client = daemon.client();
    let hostile = "<script>alert(1)</script>\"'><img src=x onerror=y>&\u{1b}[2J\u{202e}";
    let script = "cat hostile; cat hostile >&2; exit 1 # ";
    let action = |more: &str| {
        let action = client.action(&format!("{script}{hostile}")).input("hostile", hostile);
        let action = action.input(&hostile.replace('/', "_"), more).env("A", hostile);
        let action = action.property(hostile, hostile).symlink("link", hostile);
        sent_by(action.output(&hostile.replace('/', "_")), hostile, hostile, hostile)
    };
    action("1").run().await?;
    action("2").run().await?;
    let list = site.page("/invocations").await?;
    let link = |page: &str, start: &str| {
        let found = page.split("href=\"").find(|it| it.starts_with(start));
        let found =
            found.and_then(|it| it.split_once('"')).map(|(link, _)| link.replace("&amp;", "&"));
        found.with_context(|| format!("no link to {start} in {page}"))
    };
    let invocation = link(&list, "/invocation?")?;
    let page = site.page(&invocation).await?;
    let target = link(&page, "/search?")?;
    let shown = site.page(&path(&action("2"))).await?;
    let compare = link(&shown, "/compare?")?;
    let directory = link(&shown, "/directory/")?;
    let mut seen = vec![list, page, shown];
    for path in ["/", "/now", "/search?q=%3Cscript%3E", &target, &compare, &directory] {
        seen.push(site.page(path).await?);
    }
    for page in seen {
        for markup in ["<script>alert", "<img", "onerror=y>", "\u{1b}", "\u{202e}"] {
            ensure!(!page.contains(markup), "{markup}: {page}");
        }
        ensure!(page.contains("script-src 'self'"), "{page}");
    }
    Ok(())
}

async fn a_search_finds_digests_and_targets(kit: Kit) -> Outcome {
    let (daemon, site) = Site::of(&kit, &[]).await?;
    let client = daemon.client();
    let action = sent_by(client.action("true"), "Genrule", "//pkg:target", "b");
    action.run().await?;
    let digest = action.encode().0;
    let query = digest.to_string().replace('/', "%2F");
    let answer = site.answer(&format!("/search?q={query}"), "").await?;
    ensure!(answer.starts_with("HTTP/1.1 303 "), "{answer}");
    has(&answer.to_lowercase(), &[&format!("location: {}", path(&action))])?;
    has(
        &site.page("/search?q=//pkg:target").await?,
        &["<h1>Target //pkg:target</h1>", &path(&action)],
    )?;
    has(&site.page("/search?q=%2F%2Fpkg").await?, &["<a href=\"/search?q=%2F%2Fpkg%3Atarget\">"])?;
    let copy = client.action("echo hi > made.txt").output("made.txt");
    let copy = sent_by(copy, "Genrule", "//pkg:other", "b");
    copy.run().await?.succeeded().await?;
    let found = site.page("/search?q=made.tx").await?;
    has(&found, &["<h2 id=\"outputs\">Actions with such an output", &path(&copy)])?;
    ensure!(!found.contains(&path(&action)), "{found}");
    let reader = client.action("cat src/deep/read.txt").input("src/deep/read.txt", "content");
    let reader = sent_by(reader, "Genrule", "//pkg:reader", "b");
    reader.run().await?.succeeded().await?;
    for text in ["read.tx", "deep%2Fread.txt"] {
        let found = site.page(&format!("/search?q={text}")).await?;
        has(&found, &["<td>src/deep/read.txt</td>", &path(&reader), "/blob/sha256/"])?;
    }
    // Short words are in the name of every file, and names of directories are none of files.
    ensure!(!site.page("/search?q=re").await?.contains("<td>src"), "too short");
    ensure!(!site.page("/search?q=deep").await?.contains("<td>src"), "a directory");
    has(&site.page("/search?q=nothing").await?, &["<p>None.</p>"])
}

async fn what_is_not_there_is_a_page_that_says_so(kit: Kit) -> Outcome {
    let (_daemon, site) = Site::of(&kit, &["--history-days=0"]).await?;
    let hash = "0".repeat(64);
    for (path, status) in [
        (format!("/action/sha256/{hash}/5"), "404"),
        (format!("/directory/sha256/{hash}/5"), "404"),
        (format!("/blob/sha256/{hash}/5"), "404"),
        ("/action/md5/00/1".to_owned(), "404"),
        ("/action/sha256/nonsense/1".to_owned(), "404"),
        ("/action/sha256/..%2f..%2fetc%2fpasswd/1".to_owned(), "404"),
        ("/compare?old=x&new=y".to_owned(), "404"),
        ("/invocations".to_owned(), "503"),
        ("/search?q=a".to_owned(), "503"),
    ] {
        let answer = site.answer(&path, "").await?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    let answer = site.answer("/invocations", "").await?;
    has(&answer, &["--history-days"])
}

async fn the_store_and_the_machine_are_shown(kit: Kit) -> Outcome {
    let (daemon, site) = Site::of(&kit, &[]).await?;
    let client = daemon.client();
    for _ in 0..2 {
        client.action("true").run().await?;
    }
    let page = site.page("/cache").await?;
    has(&page, &["<dt>executions from the cache</dt><dd>1 of 2 (50 %)</dd>", "<td>blobs</td>"])?;
    for (name, length) in [("small", 10), ("large", 100_000), ("medium", 5_000)] {
        let action = client.action("true").input("src/in", vec![b'x'; length]);
        sent_by(action, "Genrule", &format!("//pkg:{name}"), "b").run().await?.succeeded().await?;
    }
    let page = site.page("/cache").await?;
    let at = |name: &str| page.find(&format!("//pkg:{name}</a>")).context(name.to_owned());
    ensure!(at("large")? < at("medium")? && at("medium")? < at("small")?, "{page}");
    has(&site.page("/doctor").await?, &["serve can run here"])
}

async fn pages_are_for_those_who_may_read_everything(kit: Kit) -> Outcome {
    let directory = tempfile::tempdir()?;
    let principals = directory.path().join("principals.toml");
    // `printf %s secret | sha256sum`, and of `builds`
    let text = "\
[[token]]
name = 'reader'
sha256 = '2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b'
rights = ['read']
[[token]]
name = 'some'
sha256 = '8459419d4cfe6b1acac1499410aacffaf38450db924d1002c9dd1f563d1bda55'
rights = ['none']
instances = { main = ['read'] }
";
    std::fs::write(&principals, text)?;
    let flag = format!("--token-file={}", principals.display());
    let (daemon, site) = Site::of(&kit, &[&flag]).await?;
    let action = daemon.client().with_instance("other").action("true");
    action.run().await?;
    for path in ["/invocations", "/search?q=a", "/cache", "/doctor", &path(&action)] {
        let check = async |more: &str, expected: &str| -> Outcome {
            let answer = site.answer(path, more).await?;
            ensure!(answer.starts_with(&format!("HTTP/1.1 {expected}")), "{path} {more}: {answer}");
            Ok(())
        };
        check("", "401").await?;
        check("Authorization: Bearer wrong\r\n", "401").await?;
        check("Authorization: Bearer builds\r\n", "403").await?;
        check("Authorization: Bearer secret\r\n", "200").await?;
    }
    Ok(())
}
