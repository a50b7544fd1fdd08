//! A program that works in a plain directory works in an input root.
//!
//! Each script runs twice in one action, as one user: in the input root, and in a plain directory
//! with the same content. Exit codes, messages, trees and modes have to be the same.
//!
//! Random sequences of system calls and tools run in an input root, and as the same user in a plain
//! directory on the file system of the store, outside of any sandbox. There the results and errnos of
//! every call are compared, and the trees at the end. Inputs belong to root in both, so that the plain
//! directory has the same permissions; the difference to inputs that one owns is a row of
//! `docs/hermeticity.md`. Where rename(2) of an input directory fails with EXDEV, which is a row too, the plain
//! directory lies below an overlay that has the same rule.
//!
//! The random sequences print their seed. `ACTIOND_PARITY_SEEDS` says how many there are (thousands
//! are fine), `ACTIOND_PARITY_FIRST_SEED` with which the first begins.

mod differences;
mod listing;
mod plain;
mod program;
mod random;
mod tools;

use std::process::ExitCode;

use anyhow::ensure;
use differences::{DIFFERENCES, NOT_REFUSED};
use inputroot::StrategyName;
use plain::{Ground, Plain};
use program::Arguments;
use testkit::harness::{self, Case};
use testkit::{Action, Daemon, Kit, Outcome, skip};

/// The number of sequences that always run, for each strategy.
const SEEDS: u64 = 4;
const FIRST_SEED: u64 = 1;
/// Sequences that differ are told up to this number.
const REPORTED_MAX: usize = 10;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let [program::WORD, words @ ..] = &words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return program::main(words);
    }
    let mut cases = Vec::new();
    for strategy in StrategyName::ALL {
        cases.push(Case::new(format!("{strategy}: tools"), move |kit| {
            with_strategy(kit, strategy, tools)
        }));
        cases.push(Case::new(format!("{strategy}: outputs_are_what_was_left"), move |kit| {
            with_strategy(kit, strategy, outputs_are_what_was_left)
        }));
        cases.push(Case::new(format!("{strategy}: random_sequences"), move |kit| {
            let place = kit.daemon().directory();
            with_strategy(kit, strategy, async move |daemon| {
                random_sequences(daemon, Plain::new(place?)?, strategy).await
            })
        }));
        cases.push(Case::new(format!("{strategy}: known_differences"), move |kit| {
            let place = kit.daemon().directory();
            with_strategy(kit, strategy, async move |daemon| {
                known_differences(daemon, Plain::new(place?)?, strategy).await
            })
        }));
    }
    cases.push(Case::new("every_program_of_the_sequences_is_here", |_| async {
        match tools::missing()[..] {
            [] => Ok(()),
            ref missing => skip(format!("not installed, so not compared: {}", missing.join(", "))),
        }
    }));
    harness::run(env!("CARGO_BIN_EXE_linux-actiond"), cases)
}

async fn with_strategy<F>(kit: Kit, strategy: StrategyName, case: F) -> Outcome
where
    F: AsyncFnOnce(Daemon) -> Outcome,
{
    let flag = format!("--input-root-strategy={strategy}");
    match kit.daemon().host_rootfs().flag("--jobs=2").flag(flag).start().await {
        Ok(daemon) => case(daemon).await,
        Err(error) => {
            let words = format!("{error:#}");
            let reason = "no input root strategy works here: ";
            match words.lines().find_map(|line| line.split_once(reason)) {
                Some((_, why)) => skip(why.to_owned()),
                None => Err(error),
            }
        }
    }
}

/// The uses of declared output directories (`out`, `empty`) and inputs (`d/in`).
const TOOLS: &[(&str, &str)] = &[
    (
        "tar with ./",
        "mkdir s; echo x > s/f; chmod 750 s; tar -C s -cf a.tar ./; tar -C out -xpf a.tar",
    ),
    ("cp -a", "mkdir s; echo x > s/f; chmod 700 s; touch -d @9 s; cp -a s/. out"),
    ("cp -a of inputs", "cp -a d out; echo more >> out/d/in; chmod 600 out/d/in"),
    ("install -d -m", "install -d -m 711 out out/sub; install -m 640 d/in out/sub/f"),
    ("chmod", "chmod 700 out; chmod g+w empty d"),
    ("touch -d", "touch -d @5 out empty d .; stat -c %Y out empty d ."),
    ("rm -rf and mkdir", "rm -rf out && mkdir out && echo x > out/f"),
    ("rmdir", "rmdir out empty"),
    ("mv over it", "mkdir n; echo x > n/f; mv -T n out; cat out/f"),
    ("mv away", "mv out elsewhere; mv empty/ out; ls -d out elsewhere"),
    ("a file in its place", "rmdir out; echo x > out; cat out"),
    ("a link in its place", "rmdir out; ln -s d out; ls out/"),
    ("copy, then edit", "cp d/in c && echo x >> c && cat c"),
    ("sed -i on a copy", "cp d/in c && sed -i s/content/changed/ c && cat c"),
    ("sed -i on an input", "sed -i s/content/changed/ d/tool && cat d/tool"),
    ("directories of inputs", "mv d e; mkdir d; mv e/tool d; rm -r e; ls d"),
    ("a tree of inputs in tar", "tar -cf - --sort=name d | tar -tvf - | cut -c1-10"),
    ("umask", "umask 077; mkdir out/m; echo x > out/m/f; umask 022; mkdir out/w"),
    ("set-group-ID", "chmod g+s out; mkdir out/s; stat -c %a out out/s"),
    ("hard links", "echo x > out/a; ln out/a out/b; stat -c %h out/a"),
    ("find -delete", "mkdir -p out/x/y; touch out/x/f; find out -mindepth 1 -delete; ls -A out"),
];

/// Those that need a program that a machine may lack.
const TOOLS_IF_THERE: &[(&str, &str, &str)] = &[
    (
        "python copytree and rmtree",
        "python3",
        "python3 -c \"import shutil; shutil.copytree('d', 'out', dirs_exist_ok=True); \
         shutil.copytree('d', 'n'); shutil.rmtree('n'); shutil.rmtree('empty')\"",
    ),
    (
        "git init",
        "git",
        "HOME=/tmp git -C out init -q && HOME=/tmp git -C out status --porcelain && rm -rf out/.git",
    ),
    (
        "patch",
        "patch",
        "cp d/in c; printf -- '--- c\\n+++ c\\n@@ -1 +1 @@\\n-content\\n+new\\n' | patch -p0",
    ),
    ("rsync", "rsync", "rsync -a d/ out/ && ls out"),
];

/// An action that runs `script` in its input root and in a plain directory, and says whether it
/// saw a difference.
fn both(daemon: &Daemon, script: &str) -> Action {
    let content = "mkdir -p /tmp/plain/out /tmp/plain/empty/deep /tmp/plain/d; cd /tmp/plain; \
        echo content > d/in; echo the content > d/tool; chmod 755 d/tool";
    let tree = "find . -not -name script -not -name a.tar \
        \\( -type f -printf '%P %y %m %s\\n' -o -printf '%P %y %m %l\\n' \\) | sort; \
        find . -type f -not -name script -not -name a.tar | sort | xargs -d '\\n' -r cat";
    let wrapper = format!(
        "export LC_ALL=C; cp script /tmp/script; ({content})\n\
         run() {{ cd $1; sh /tmp/script > $2 2>&1; echo \"exit $?\" >> $2; cd $1; ( {tree} ) >> $2; }}\n\
         ( run /execroot /tmp/here ); ( run /tmp/plain /tmp/there )\n\
         diff -au /tmp/there /tmp/here"
    );
    let action = daemon.client().action(&wrapper).executable("script", script);
    let action = action.executable("d/in", "content\n").executable("d/tool", "the content\n");
    // Executables, because those can be moved under every strategy. Not of one content: to `cp -a` that
    // would be hard links with `bind`.
    action.directory("out").directory("empty/deep")
}

async fn expect_equal(daemon: &Daemon, what: &str, script: &str) -> Outcome {
    let script = format!("chmod 755 /tmp/plain/d/in\n{script}\n");
    let run = both(daemon, &script).run().await?;
    let (exit_code, said) = (run.exit_code()?, run.stdout().await?);
    anyhow::ensure!(
        exit_code == 0,
        "{what}: a plain directory (-) and the input root (+) differ:\n{said}{}",
        run.stderr().await?
    );
    Ok(())
}

async fn tools(daemon: Daemon) -> Outcome {
    // The case that differs, which shows that the comparison works.
    let run = both(&daemon, "echo x >> d/in; echo $?; cat d/in").run().await?;
    let said = run.stdout().await?;
    assert!(
        run.exit_code()? == 1 && said.contains("+/tmp/script: 1: cannot create d/in: "),
        "{said}"
    );
    for (what, script) in TOOLS {
        expect_equal(&daemon, what, script).await?;
    }
    for (what, program, script) in TOOLS_IF_THERE {
        let found = daemon.client().action(&format!("command -v {program} || true")).run().await?;
        if found.stdout().await?.is_empty() {
            eprintln!("SKIPPED: {what}: there is no {program} here");
            continue;
        }
        expect_equal(&daemon, what, script).await?;
    }
    Ok(())
}

/// Scripts, and the outputs that they leave of `out`, which is an empty input directory.
const LEFT: &[(&str, &[&str])] = &[
    ("true", &["directory out"]),
    ("rm -rf out && mkdir out && echo x > out/f", &["directory out"]),
    ("rmdir out", &[]),
    ("rmdir out; echo x > out", &["file out"]),
    ("rmdir out; ln -s d out", &["symlink out"]),
    ("mv out gone; mv d out", &["directory out"]),
    ("mkdir n; echo x > n/f; mv -T n out", &["directory out"]),
];

async fn outputs_are_what_was_left(daemon: Daemon) -> Outcome {
    for (script, expected) in LEFT {
        let action = daemon.client().action(script).directory("out");
        let action = action.executable("d/in", "content\n").output("out");
        let run = action.run().await?;
        let found = run.succeeded().await?.outputs()?;
        let kinds: Vec<_> = found.iter().map(|output| output.split(" ->").next()).collect();
        let expected: Vec<_> = expected.iter().map(|output| Some(*output)).collect();
        assert_eq!(kinds, expected, "{script}");
    }
    let action = daemon.client().action("rmdir out; mv d out; echo y > out/new").directory("out");
    let run = action.executable("d/in", "content\n").output("out").run().await?;
    let root = run.tree("out").await?.root.unwrap_or_default();
    let digests: Vec<_> = root.files.iter().filter_map(|file| file.digest.clone()).collect();
    let names: Vec<_> = root.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["in", "new"]);
    assert_eq!(digests[0].hash, daemon.client().digest("content\n").hex());
    Ok(())
}

/// Runs the program in an input root and in a plain directory, and gives what it said of both.
async fn run_both(
    daemon: &Daemon,
    plain: &Plain,
    strategy: StrategyName,
    ground: Ground,
    seed: Option<u64>,
) -> anyhow::Result<[String; 2]> {
    let of = |scratch: &str| Arguments {
        seed,
        scratch: scratch.to_owned(),
        exact_inputs: !plain::shows_the_store(strategy),
    };
    let there = plain.run(strategy, ground, &of(&plain.scratch()))?;
    let words = of("/tmp").words();
    let words = [format!("./{}", listing::PROGRAM)].into_iter().chain(words);
    let action = daemon.client().bare_action(words).with_programs().do_not_cache();
    let tree = plain.input_tree(&daemon.client(), strategy).await?;
    let run = action.input_root(tree).run().await?;
    let here = run.stdout().await?;
    ensure!(run.exit_code()? == 0, "{here}{}", run.stderr().await?);
    Ok([there, here])
}

async fn random_sequences(daemon: Daemon, plain: Plain, strategy: StrategyName) -> Outcome {
    let first = number("ACTIOND_PARITY_FIRST_SEED", FIRST_SEED)?;
    let mut found = Vec::new();
    for seed in first..first + number("ACTIOND_PARITY_SEEDS", SEEDS)? {
        println!("{strategy}: seed {seed}");
        let [there, here] =
            run_both(&daemon, &plain, strategy, Ground::like(strategy), Some(seed)).await?;
        let Some(text) = difference(&there, &here) else { continue };
        // At once, for a run of thousands takes hours.
        println!(
            "{strategy}: seed {seed}: a plain directory (-) and the input root (+) differ\n{text}"
        );
        found.push(seed);
        if found.len() == REPORTED_MAX {
            break;
        }
    }
    ensure!(found.is_empty(), "{strategy}: the seeds {found:?} show differences, see above");
    Ok(())
}

/// The first line that differs, with all before it.
fn difference(there: &str, here: &str) -> Option<String> {
    let (there, here): (Vec<_>, Vec<_>) = (there.lines().collect(), here.lines().collect());
    let same = there.iter().zip(&here).take_while(|(there, here)| there == here).count();
    let line = |lines: &[&str]| lines.get(same).copied().unwrap_or("(nothing)").to_owned();
    (there != here)
        .then(|| format!("\n{}\n-{}\n+{}", there[..same].join("\n"), line(&there), line(&here)))
}

async fn known_differences(daemon: Daemon, plain: Plain, strategy: StrategyName) -> Outcome {
    let [there, here] = run_both(&daemon, &plain, strategy, Ground::Plain, None).await?;
    for (difference, (there, here)) in DIFFERENCES.iter().zip(there.lines().zip(here.lines())) {
        let call = difference.call;
        if there.ends_with(NOT_REFUSED) {
            assert_eq!(here, there);
            continue;
        }
        assert_eq!(there, format!("{call}: {}", difference.plain), "in a plain directory");
        assert_eq!(here, format!("{call}: {}", difference.here(strategy)), "in an input root");
    }
    Ok(())
}

fn number(variable: &str, default: u64) -> anyhow::Result<u64> {
    std::env::var(variable).map_or(Ok(default), |text| Ok(text.parse()?))
}
