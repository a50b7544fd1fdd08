//! `serve` without root: everything works in a user namespace, or the error names the cure.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use testkit::{
    Client, Daemon, DaemonBuilder, Kit, ORDINARY_USER, Outcome, StartAs, eventually, expect_bounds,
    skip,
};
use tonic::transport::Endpoint;

testkit::cases! { env!("CARGO_BIN_EXE_linux-actiond") =>
    an_ordinary_user_runs_actions,
    an_ordinary_user_has_a_socket_beside_the_port,
    actions_of_an_ordinary_user_are_nobodys,
    inputs_of_an_ordinary_user_are_safe,
    what_the_user_has_is_out_of_reach,
    killed_by_force_it_leaves_no_process_and_starts_again,
    limits_of_an_action_hold,
    a_delegated_cgroup_bounds_actions,
    a_delegated_cgroup_is_shared_by_run_and_its_server,
    root_without_its_rights_has_two_ids,
    in_a_container_that_allows_user_namespaces,
    in_a_container_that_allows_none_it_says_so,
    in_a_container_that_lacks_an_option_it_names_it,
    where_there_are_no_user_namespaces_it_says_so,
    the_doctor_tells_what_an_ordinary_user_has,
    files_of_root_are_not_trusted_by_a_server_that_can_not_tell,
    a_port_for_its_owner_knows_no_other_user,
    subordinate_ids_give_actions_a_user_of_their_own,
    the_doctor_tells_of_subordinate_ids,
    what_the_mappers_refuse_is_told,
}

/// No account has it, and none needs to.
const USER: u32 = 47_110;

/// Becomes an ordinary user and executes the rest, through a descriptor: the user may not be able to
/// reach the program by its path.
const AS_USER: &str = "bin=$1; shift; exec 9< \"$bin\"; \
    exec setpriv --reuid=47110 --regid=47110 --clear-groups --inh-caps=-all /proc/self/fd/9 \"$@\"";

/// A directory of the ordinary user's, for a root directory.
struct Home {
    directory: tempfile::TempDir,
}

impl Home {
    fn new(kit: &Kit) -> anyhow::Result<Self> {
        let directory = kit.daemon().directory()?;
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755))?;
        let home = Self { directory };
        std::fs::create_dir(home.path())?;
        chown(home.path(), Some(USER), Some(USER))?;
        Ok(home)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    /// A daemon that `script` starts.
    fn daemon(&self, kit: &Kit, script: &str) -> DaemonBuilder {
        kit.daemon().through(["bash", "-c", script, "as-user"]).root(self.root()).host_rootfs()
    }
}

fn on_the_host(kit: &Kit) -> anyhow::Result<()> {
    kit.only_on_the_host("serve-vm's worker is root in its VM")?;
    Ok(())
}

/// Checks the log's line about the user namespace.
fn expect_log(daemon: &Daemon, text: &str) {
    let log = daemon.log();
    assert!(log.contains(text), "no {text:?} in\n{log}");
}

async fn an_ordinary_user_runs_actions(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let home = Home::new(&kit)?;
    let mut daemon = home.daemon(&kit, AS_USER).start().await?;
    expect_log(&daemon, "in a user namespace of one id");
    let client = daemon.client();
    let action = || {
        client
            .action("cat dir/in link; ./tool; echo made > out/file; mkdir tree; echo t > tree/a; cp dir/in copy")
            .input("dir/in", "an input\n")
            .symlink("link", "dir/in")
            .executable("tool", "#!/bin/sh\necho a tool\n")
            .output("out/file")
            .output("tree")
            .output("copy")
            .output("dir/in")
    };
    let run = action().run().await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "an input\nan input\na tool\n");
    assert_eq!(run.file("out/file").await?, "made\n");
    assert_eq!(run.file("copy").await?, "an input\n");
    assert_eq!(run.file("dir/in").await?, "an input\n");
    assert!(!run.from_cache());
    assert!(action().run().await?.from_cache());
    let mutating = client.action("echo more >> in; cat in").input("in", "first\n").output("in");
    let run = mutating.property("mutates_inputs", "1").run().await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "first\nmore\n");
    assert_eq!(run.file("in").await?, "first\nmore\n");
    daemon.terminate()?;
    let status = daemon.wait()?;
    assert!(status.success(), "{status}\n{}", daemon.log());
    // Gone without trace: the user can delete all of it.
    let gone = as_user(&format!("rm -r '{}'", home.root().display()))?;
    assert!(gone.status.success(), "{}", String::from_utf8_lossy(&gone.stderr));
    Ok(())
}

/// Without --listen, as the user unit starts it. The port's number is fixed, so it is one of a network
/// namespace of its own.
async fn an_ordinary_user_has_a_socket_beside_the_port(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let home = Home::new(&kit)?;
    let script = format!(
        "bin=$1; shift; exec 9< \"$bin\"; exec unshare --net bash -c '
        echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind
        exec setpriv --reuid={USER} --regid={USER} --clear-groups --inh-caps=-all --pdeathsig KILL \
        /proc/self/fd/9 \"$@\"' serving \"$@\""
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script, "as-user"]).arg(kit.binary()).args(["serve", "--http=off"]);
    command.arg("--allow-host-rootfs").arg("--root").arg(home.root());
    command.env("XDG_RUNTIME_DIR", home.path()).env("ACTIOND_CONFIG", "/dev/null");
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let mut log = BufReader::new(child.stderr.take().context("a pipe")?).lines();
    let mut places = Vec::new();
    while places.len() < 2 {
        let Some(line) = log.next().transpose()? else { break };
        places.extend(line.strip_prefix("linux-actiond: serving on ").map(str::to_owned));
    }
    let socket = home.path().join("actiond.sock");
    assert_eq!(places, ["127.0.0.1:8980".to_owned(), format!("unix:{}", socket.display())]);
    assert_eq!(socket.metadata()?.mode() & 0o777, 0o600);
    let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect().await?;
    Client::on(channel).action("true").run().await?.succeeded().await?;
    kill_process(Pid::from_child(&child), Signal::TERM)?;
    assert!(child.wait()?.success());
    assert!(!socket.exists(), "the socket's file is left");
    Ok(())
}

fn as_user(script: &str) -> anyhow::Result<std::process::Output> {
    let id = USER.to_string();
    let user = ["--reuid", &id, "--regid", &id, "--clear-groups", "bash", "-c", script];
    Command::new("setpriv").args(user).output().context("running setpriv")
}

async fn actions_of_an_ordinary_user_are_nobodys(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let home = Home::new(&kit)?;
    let daemon = home.daemon(&kit, AS_USER).start().await?;
    let script = "id -u; id -g; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -d '\\t'; \
        echo $$ > own; ls /proc | grep -c '^[0-9]'; cat /proc/net/dev | grep -c :; \
        echo x > /dev/null && echo null; unshare -U true 2>/dev/null || echo no namespace; \
        touch /etc/x 2>/dev/null || echo no etc; touch /usr/x 2>/dev/null || echo no usr; \
        cat /proc/1/environ 2>/dev/null || echo no init; chmod 700 /dev/null 2>/dev/null || echo no dev";
    let run = daemon.client().action(script).do_not_cache().run().await?;
    let said = run.succeeded().await?.stdout().await?;
    let expected = "65534\n65534\nCapEff:0000000000000000\nCapBnd:0000000000000000\nNoNewPrivs:1\n\
        Seccomp:2\n";
    let rest = said.strip_prefix(expected).with_context(|| said.clone())?;
    // Of processes there are only the shell and those that list them.
    let (processes, rest) = rest.split_once('\n').context("a number")?;
    assert!(processes.parse::<u32>()? <= 3, "{said}");
    assert_eq!(rest, "1\nnull\nno namespace\nno etc\nno usr\nno init\nno dev\n");
    Ok(())
}

/// With one id, an action may change its copies of inputs, and never a blob.
async fn inputs_of_an_ordinary_user_are_safe(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let home = Home::new(&kit)?;
    for strategy in ["tmpfs-overlay", "link-overlay"] {
        let flag = format!("--input-root-strategy={strategy}");
        let started = home.daemon(&kit, AS_USER).flag(flag).start().await;
        let daemon = match started {
            Ok(daemon) => daemon,
            Err(error) if format!("{error:#}").contains("no input root strategy works here") => {
                eprintln!("SKIPPED: {strategy}: {error:#}");
                continue;
            }
            Err(error) => return Err(error),
        };
        let client = daemon.client();
        let attempt = client
            .action(
                "(echo x > in) 2>/dev/null || echo not written; (: > tool) 2>/dev/null || echo not cut; \
                 chmod 777 in tool; echo x > in; echo x > tool; rm in; ln tool in; echo y > in",
            )
            .input("in", "as it was\n")
            .executable("tool", "#!/bin/sh\necho as it was\n");
        let run = attempt.do_not_cache().run().await?;
        assert_eq!(run.succeeded().await?.stdout().await?, "not written\nnot cut\n", "{strategy}");
        let look = client.action("cat in; ./tool; stat -c %a in tool");
        let look =
            look.input("in", "as it was\n").executable("tool", "#!/bin/sh\necho as it was\n");
        let run = look.do_not_cache().run().await?;
        let expected = "as it was\nas it was\n444\n555\n";
        assert_eq!(run.succeeded().await?.stdout().await?, expected, "{strategy}");
    }
    Ok(())
}

/// The mount layout alone keeps an action from what its user may read and write.
async fn what_the_user_has_is_out_of_reach(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let home = Home::new(&kit)?;
    let secret = home.path().join("secret");
    std::fs::write(&secret, "a secret")?;
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600))?;
    chown(&secret, Some(USER), Some(USER))?;
    let daemon = home.daemon(&kit, AS_USER).start().await?;
    let script = format!(
        "for way in '{0}' /proc/1/root'{0}' /proc/1/cwd'{0}' /proc/self/root'{0}' ../../../../'{0}' \
         '{1}/version' /proc/{2}/root'{0}'; do cat $way 2>/dev/null && echo $way; done; \
         ls -A /home /root /var/lib /run 2>/dev/null; kill -9 {2} 2>/dev/null && echo killed; \
         kill -9 1 2>/dev/null; kill -STOP 1 2>/dev/null; echo done",
        secret.display(),
        home.root().display(),
        daemon.pid()
    );
    let run = daemon.client().action(&script).do_not_cache().run().await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "done\n");
    assert_eq!(std::fs::read_to_string(&secret)?, "a secret");
    Ok(())
}

async fn killed_by_force_it_leaves_no_process_and_starts_again(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let home = Home::new(&kit)?;
    let mut daemon = home.daemon(&kit, AS_USER).start().await?;
    let action = |client: testkit::Client| client.action("echo kept > out").output("out");
    action(daemon.client()).run().await?.succeeded().await?;
    let _running = daemon.client().action("exec sleep 3601").start().await?;
    let mut below = Vec::new();
    eventually("the action runs", || {
        below = descendants(daemon.pid())?;
        Ok(below.iter().any(|pid| command_line(*pid).contains("sleep\u{0}3601")))
    })
    .await?;
    daemon.kill()?;
    eventually("its processes are gone", || Ok(!below.iter().any(|pid| is_alive(*pid)))).await?;
    let daemon = daemon.successor().start().await?;
    assert!(action(daemon.client()).run().await?.from_cache());
    let more = daemon.client().action("echo more").do_not_cache().run().await?;
    assert_eq!(more.succeeded().await?.stdout().await?, "more\n");
    Ok(())
}

/// All processes below one, by the table of parents.
fn descendants(of: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents: Vec<(u32, u32)> = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        if let Some(parent) = after_name.split_whitespace().nth(1).and_then(|it| it.parse().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![of];
    let mut next = 0;
    while let Some(above) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, parent)| *parent == above).map(|(pid, _)| *pid));
        next += 1;
    }
    found.remove(0);
    Ok(found)
}

fn command_line(pid: u32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

async fn limits_of_an_action_hold(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let home = Home::new(&kit)?;
    let daemon = home.daemon(&kit, AS_USER).start().await?;
    let fork =
        "for n in $(seq 60); do sleep 60 & done 2>/dev/null; jobs -p | wc -l; kill $(jobs -p)";
    let run = daemon.client().action(fork).property("limits_pids", "20").do_not_cache();
    let run = run.run().await?;
    let said = run.stdout().await?;
    let started: u32 = said.trim().parse().unwrap_or(0);
    assert!(started < 20, "{started} processes of at most 20: {said}");
    Ok(())
}

/// A cgroup that belongs to the ordinary user, as systemd makes them.
struct DelegatedCgroup(PathBuf);

impl DelegatedCgroup {
    fn new(name: &str) -> anyhow::Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let controllers = std::fs::read_to_string(root.join("cgroup.subtree_control"));
        let controllers = controllers.unwrap_or_default();
        if !["memory", "pids"].iter().all(|it| controllers.split_whitespace().any(|is| is == *it)) {
            skip(format!("no cgroup controllers for memory and pids: {controllers:?}"))?;
        }
        let path = root.join(format!("actiond-test-{name}-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        let cgroup = Self(path);
        for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
            chown(cgroup.0.join(file), Some(USER), Some(USER))?;
        }
        Ok(cgroup)
    }
}

impl Drop for DelegatedCgroup {
    fn drop(&mut self) {
        for child in ["actiond-actions", "actiond-daemon", "actiond-run", ""] {
            // The daemon has removed some of it itself.
            let _ = std::fs::remove_dir(self.0.join(child));
        }
    }
}

/// `cargo xtask e2e user` runs it in a VM where this machine has no controllers.
async fn a_delegated_cgroup_bounds_actions(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let cgroup = DelegatedCgroup::new("bounds")?;
    let home = Home::new(&kit)?;
    let script = format!("echo $$ > '{}/cgroup.procs'; {AS_USER}", cgroup.0.display());
    let mut daemon = home.daemon(&kit, &script).start().await?;
    expect_log(&daemon, "cgroups for actions");
    expect_bounds(&daemon.client()).await?;
    daemon.terminate()?;
    assert!(daemon.wait()?.success(), "{}", daemon.log());
    // Sandboxes that are ready for the next action have a cgroup each.
    let is_left = cgroup.0.join("actiond-actions").exists();
    assert!(!is_left, "cgroups of actions are left:\n{}", daemon.log());
    Ok(())
}

/// `run` and its server are in one cgroup at first, which then can't be divided: `systemd-run --user --scope`
/// starts them so.
async fn a_delegated_cgroup_is_shared_by_run_and_its_server(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let cgroup = DelegatedCgroup::new("run")?;
    let home = Home::new(&kit)?;
    let run = |before: &str, words: &str| {
        let script = format!("{before}echo $$ > '{}/cgroup.procs'; {AS_USER}", cgroup.0.display());
        let mut command = Command::new("bash");
        command.args(["-c", &script, "as-user"]).arg(kit.binary());
        command.args(["run", "--log=info", "--", "sh", "-c", words]);
        command.env("ACTIOND_CONFIG", "/dev/null").env("TMPDIR", home.path()).output()
    };
    let said = |output: &std::process::Output| {
        let text = [&output.stdout[..], &output.stderr].concat();
        String::from_utf8_lossy(&text).into_owned()
    };
    let look =
        format!("cat /proc/self/cgroup; cd '{}' && cat */cgroup.controllers", cgroup.0.display());
    let output = run("", &look)?;
    let log = said(&output);
    assert!(output.status.success() && log.contains("cgroups for actions"), "{log}");
    assert!(log.contains("/actiond-run\n"), "the command is elsewhere:\n{log}");
    assert!(log.contains("memory pids"), "no controllers:\n{log}");
    // The next one finds it as it was.
    let left = std::fs::read_dir(&cgroup.0)?.filter_map(Result::ok);
    let left: Vec<_> = left.filter(|it| it.path().is_dir()).map(|it| it.path()).collect();
    assert!(left.is_empty(), "{left:?} are left:\n{log}");
    let enabled = std::fs::read_to_string(cgroup.0.join("cgroup.subtree_control"))?;
    assert_eq!(enabled.trim(), "", "controllers are left");
    // Another's process is left where it is, and the reason told.
    let procs = cgroup.0.join("cgroup.procs");
    let other = format!("sleep 300 > /dev/null 2>&1 & echo $! > '{}'; ", procs.display());
    let output = run(&other, "true")?;
    let log = said(&output);
    let processes = std::fs::read_to_string(&procs)?;
    for process in processes.lines() {
        let process = process.parse().ok().and_then(Pid::from_raw).context("a process")?;
        kill_process(process, Signal::KILL)?;
    }
    assert!(output.status.success() && log.contains("in one with others"), "{log}");
    eventually("the cgroup is empty", || Ok(std::fs::read_to_string(&procs)?.is_empty())).await
}

/// As in a container whose root has no right over the host's namespaces, and may change its user.
async fn root_without_its_rights_has_two_ids(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let weak = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    let daemon = kit.daemon().through(weak).host_rootfs().start().await?;
    expect_log(&daemon, "actions run as a user of their own");
    let client = daemon.client();
    let script = "id -u; stat -c '%u %a' in .; (echo x > in) 2>/dev/null || echo not written; \
        chmod 666 in 2>/dev/null || echo not changed; echo made > out";
    let run = client.action(script).input("in", "x\n").output("out").output("in").run().await?;
    let expected = "65534\n0 644\n65534 755\nnot written\nnot changed\n";
    assert_eq!(run.succeeded().await?.stdout().await?, expected);
    assert_eq!(run.file("out").await?, "made\n");
    assert_eq!(run.file("in").await?, "x\n");
    // A file that became a blob belongs to the server, as in root mode.
    let digest = run.output_file("out")?.digest.clone().context("a digest")?;
    let path = daemon.store()?.join("cas/blobs/sha256").join(&digest.hash[..2]).join(&digest.hash);
    let blob = std::fs::metadata(path)?;
    assert_eq!((blob.uid(), blob.mode() & 0o7777), (0, 0o444));
    Ok(())
}

/// The script that starts a daemon in a bubblewrap container with more `flags`. `$2` is the program, and
/// the root directory is the word after `--root`.
fn in_container(flags: &str, home: &Path) -> String {
    format!(
        "bin=$1; shift; exec setpriv --reuid={USER} --regid={USER} --clear-groups --inh-caps=-all \
         bwrap --unshare-user --unshare-pid --unshare-ipc --ro-bind / / --dev /dev {flags} \
         --bind '{0}' '{0}' \"$bin\" \"$@\"",
        home.display()
    )
}

/// Whether the ordinary user can make such a container, and reach the program in it.
fn ensure_containers(kit: &Kit) -> Outcome {
    let program = kit.binary().display();
    let tried = as_user(&format!(
        "bwrap --unshare-user --unshare-pid --ro-bind / / --dev /dev --proc /proc '{program}' --version"
    ))?;
    if tried.status.success() {
        return Ok(());
    }
    skip(format!("no bubblewrap container: {}", String::from_utf8_lossy(&tried.stderr).trim()))
}

async fn in_a_container_that_allows_user_namespaces(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    ensure_containers(&kit)?;
    let home = Home::new(&kit)?;
    let script = in_container("--proc /proc", &home.path());
    let daemon = home.daemon(&kit, &script).start().await?;
    expect_log(&daemon, "in a user namespace of one id");
    let action = daemon.client().action("cat in; id -u; echo made > out").input("in", "an input\n");
    let run = action.output("out").run().await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "an input\n65534\n");
    assert_eq!(run.file("out").await?, "made\n");
    Ok(())
}

/// Starts a daemon that must not come up, and returns what it says.
fn refusal(builder: DaemonBuilder) -> anyhow::Result<String> {
    let (mut command, _directory) = builder.command()?;
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !said.contains("serving on"), "{said}");
    Ok(said)
}

async fn in_a_container_that_allows_none_it_says_so(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    ensure_containers(&kit)?;
    let home = Home::new(&kit)?;
    let script = in_container("--proc /proc --disable-userns", &home.path());
    let said = refusal(home.daemon(&kit, &script))?;
    for part in ["this machine makes no user namespace", "user.max_user_namespaces"] {
        assert!(said.contains(part), "{said}");
    }
    Ok(())
}

/// The restrictions of Docker and Podman by default.
async fn in_a_container_that_lacks_an_option_it_names_it(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    ensure_containers(&kit)?;
    let home = Home::new(&kit)?;
    let script = in_container("--proc /proc --dev-bind /dev/null /proc/keys", &home.path());
    let said = refused(home.daemon(&kit, &script)).await?;
    assert!(said.contains("Podman") && said.contains("--security-opt unmask=ALL"), "{said}");
    assert!(!said.contains("seccomp=unconfined"), "{said}");
    // All that is not a volume is on an overlay.
    let script = format!(
        "bin=$1; shift; exec 9< \"$bin\"; exec unshare --mount --propagation private bash -c '
        mount -t tmpfs none /mnt && mkdir /mnt/lower /mnt/upper /mnt/work &&
        mount -t overlay none -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work {0} && chmod 777 {0} &&
        exec setpriv --reuid={USER} --regid={USER} --clear-groups --inh-caps=-all /proc/self/fd/9 \"$@\"' \
        on-overlay \"$@\"",
        home.path().display()
    );
    let said = refused(home.daemon(&kit, &script)).await?;
    assert!(said.contains("is on overlayfs") && said.contains("--volume"), "{said}");
    // Root alone, as with --cap-drop=all.
    let script = "bin=$1; shift; exec 9< \"$bin\"; exec setpriv --reuid=47110 --regid=47110 --clear-groups \
        --inh-caps=-all unshare --user --map-root-user setpriv --bounding-set=-all --inh-caps=-all \
        /proc/self/fd/9 \"$@\"";
    let said = refused(home.daemon(&kit, script)).await?;
    assert!(said.contains("--cap-add=SETFCAP"), "{said}");
    Ok(())
}

async fn where_there_are_no_user_namespaces_it_says_so(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let home = Home::new(&kit)?;
    // The setting of a nested namespace, whose root has no rights left.
    let script = "bin=$1; shift; exec 9< \"$bin\"; \
        exec setpriv --reuid=47110 --regid=47110 --clear-groups --inh-caps=-all unshare --user \
        --map-root-user bash -c 'echo 0 > /proc/sys/user/max_user_namespaces; \
        exec setpriv --bounding-set=-all --inh-caps=-all /proc/self/fd/9 \"$@\"' nested \"$@\"";
    let said = refusal(home.daemon(&kit, script))?;
    for part in ["or a user namespace", "sudo sysctl user.max_user_namespaces"] {
        assert!(said.contains(part), "{said}");
    }
    Ok(())
}

async fn the_doctor_tells_what_an_ordinary_user_has(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let home = Home::new(&kit)?;
    let mut doctor = Command::new("bash");
    doctor.args(["-c", AS_USER, "as-user"]).arg(kit.binary()).arg("doctor");
    let output = doctor.arg("--root").arg(home.root()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "in a user namespace",
        "NO   a user of their own for actions",
        "usermod",
        "serve can run here",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    let output = Command::new(kit.binary()).arg("doctor").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("yes  user namespaces for ordinary users"), "{said}");
    Ok(())
}

/// Starts a daemon that must not come up on its root directory, and returns what it says.
async fn refused(builder: DaemonBuilder) -> anyhow::Result<String> {
    match builder.start().await {
        Ok(daemon) => anyhow::bail!("it serves:\n{}", daemon.log()),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// In a user namespace root's files look like those of most other users.
async fn files_of_root_are_not_trusted_by_a_server_that_can_not_tell(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let home = Home::new(&kit)?;
    let file = |name: &str, text: &str| -> anyhow::Result<PathBuf> {
        let path = home.directory.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    let tokens = file("tokens.toml", "")?;
    let flag = format!("--token-file={}", tokens.display());
    let said = refused(home.daemon(&kit, AS_USER).flag(&flag)).await?;
    for part in ["tokens.toml", "in a user namespace can't tell apart", "give it to"] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    chown(&tokens, Some(USER), Some(USER))?;
    let daemon = home.daemon(&kit, AS_USER).flag(&flag).start().await?;
    drop(daemon);

    // The configuration is read before there is a namespace, and again in it.
    let config = file("config.toml", "jobs = 1\n")?;
    let flag = format!("--config={}", config.display());
    let daemon = home.daemon(&kit, AS_USER).flag(&flag).start().await?;
    daemon.signal(Signal::HUP)?;
    let reason = "config.toml belongs to root or to another user";
    eventually("it says that it can't read its configuration", || {
        Ok(daemon.log().contains(reason))
    })
    .await?;
    chown(&config, Some(USER), Some(USER))?;
    std::fs::write(&config, "jobs = 2\n")?;
    daemon.signal(Signal::HUP)?;
    eventually("it reads it", || Ok(daemon.log().contains("jobs"))).await?;
    // The default of the root directory is not another one because the user is root there.
    assert!(!daemon.log().contains("[\"root\""), "{}", daemon.log());
    Ok(())
}

/// All users but its own look alike to the server, so another one can't be named.
async fn a_port_for_its_owner_knows_no_other_user(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let home = Home::new(&kit)?;
    for other in ["1", "65534"] {
        let flag = format!("--tcp-owner-only={other}");
        let said = refused(home.daemon(&kit, AS_USER).flag(flag)).await?;
        assert!(said.contains("--tcp-owner-only=USER needs root"), "{said}");
    }
    let daemon = home.daemon(&kit, AS_USER).flag("--tcp-owner-only").start().await?;
    let connect = |user: u32| -> anyhow::Result<bool> {
        // A server that closes the connection is seen as the end of what it sends; one that does not
        // answers the beginning of HTTP/2 with its settings.
        let script = format!(
            "exec 3<> /dev/tcp/127.0.0.1/{}; printf 'PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n\\0\\0\\0\\4\\0\\0\\0\\0\\0' >&3; \
             timeout 60 head -c 1 <&3 | wc -c",
            daemon.address().port()
        );
        let id = user.to_string();
        let words = ["--reuid", &id, "--regid", &id, "--clear-groups", "bash", "-c", &script];
        let output = Command::new("setpriv").args(words).output().context("running setpriv")?;
        Ok(String::from_utf8_lossy(&output.stdout).trim() == "1")
    };
    assert!(connect(USER)?, "its own user\n{}", daemon.log());
    assert!(!connect(USER + 1)?, "another user");
    assert!(!connect(65_534)?, "nobody");
    Ok(())
}

/// A daemon with subordinate ids, or the reason to skip a case of them.
fn with_subordinate_ids(kit: &Kit, home: &Home) -> anyhow::Result<DaemonBuilder> {
    ensure_mappers()?;
    Ok(kit
        .daemon()
        .through(StartAs::SubordinateIds.words(ORDINARY_USER))
        .root(home.root())
        .host_rootfs())
}

fn ensure_mappers() -> Outcome {
    for program in ["newuidmap", "newgidmap"] {
        if Command::new(program).output().is_err() {
            return skip(format!("{program} is not installed (package uidmap)"));
        }
    }
    Ok(())
}

async fn subordinate_ids_give_actions_a_user_of_their_own(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    let home = Home::new(&kit)?;
    let mut daemon = with_subordinate_ids(&kit, &home)?.start().await?;
    expect_log(&daemon, "actions run as a user of their own");
    let client = daemon.client();
    let script = "id -u; stat -c '%u %a' in .; (echo x > in) 2>/dev/null || echo not written; \
        chmod 666 in 2>/dev/null || echo not changed; mkdir tree; echo made > tree/out";
    let action = || client.action(script).input("in", "x\n").output("tree/out").output("in");
    let run = action().run().await?;
    let expected = "65534\n0 644\n65534 755\nnot written\nnot changed\n";
    assert_eq!(run.succeeded().await?.stdout().await?, expected);
    assert_eq!(run.file("tree/out").await?, "made\n");
    // For the host the action is neither the user nor nobody.
    let _running = client.action("exec sleep 3602").start().await?;
    let mut action_user = None;
    eventually("the action runs", || {
        let sleeper = descendants(daemon.pid())?
            .into_iter()
            .find(|pid| command_line(*pid).starts_with("sleep\u{0}3602"));
        action_user = sleeper.and_then(|pid| std::fs::metadata(format!("/proc/{pid}")).ok());
        Ok(action_user.is_some())
    })
    .await?;
    assert_eq!(action_user.context("its process")?.uid(), 2_000_000);
    // A blob is the user's, whoever made the file.
    let digest = run.output_file("tree/out")?.digest.clone().context("a digest")?;
    let path = daemon.store()?.join("cas/blobs/sha256").join(&digest.hash[..2]).join(&digest.hash);
    let blob = std::fs::metadata(path)?;
    assert_eq!((blob.uid(), blob.mode() & 0o7777), (USER, 0o444));
    daemon.kill()?;
    let mut daemon = daemon.successor().start().await?;
    assert!(
        daemon
            .client()
            .action(script)
            .input("in", "x\n")
            .output("tree/out")
            .output("in")
            .run()
            .await?
            .from_cache()
    );
    daemon.terminate()?;
    let status = daemon.wait()?;
    assert!(status.success(), "{status}\n{}", daemon.log());
    // Also what the killed one left of another user.
    let gone = as_user(&format!("rm -r '{}'", home.root().display()))?;
    assert!(gone.status.success(), "{}", String::from_utf8_lossy(&gone.stderr));
    Ok(())
}

fn doctor_of(kit: &Kit, home: &Home, words: &[std::ffi::OsString]) -> anyhow::Result<String> {
    let mut doctor = Command::new(&words[0]);
    doctor.args(&words[1..]).arg(kit.binary()).arg("doctor").arg("--root").arg(home.root());
    let output = doctor.output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    Ok(said)
}

async fn the_doctor_tells_of_subordinate_ids(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    ensure_mappers()?;
    let home = Home::new(&kit)?;
    let said = doctor_of(&kit, &home, &StartAs::SubordinateIds.words(ORDINARY_USER))?;
    for part in
        ["in a user namespace", "yes  a user of their own for actions", "serve can run here"]
    {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    Ok(())
}

/// The file has ids, and newuidmap or newgidmap does not map them.
async fn what_the_mappers_refuse_is_told(kit: Kit) -> Outcome {
    on_the_host(&kit)?;
    ensure_mappers()?;
    let home = Home::new(&kit)?;
    // A user without an account, whom newuidmap does not serve; ids that are given to the user.
    let script = "set -e; bin=$1; shift; exec 9< \"$bin\"; ids=$(mktemp); echo 47110:2000000:1000 > \"$ids\"; \
        chmod 644 \"$ids\"; for file in /etc/subuid /etc/subgid; do mount --bind \"$ids\" $file; done; rm \"$ids\"; \
        exec setpriv --reuid=47110 --regid=47110 --clear-groups --inh-caps=-all /proc/self/fd/9 \"$@\"";
    let namespace =
        ["unshare", "--mount", "--propagation", "private", "bash", "-c", script, "as-user"];
    let words: Vec<_> = namespace.map(Into::into).to_vec();
    let said = doctor_of(&kit, &home, &words)?;
    for part in [
        "NO   a user of their own for actions  ",
        "  newuidmap and newgidmap refused",
        "/etc/subuid",
    ] {
        assert!(said.contains(part), "no {part:?} in\n{said}");
    }
    let daemon = kit.daemon().through(words).root(home.root()).host_rootfs().start().await?;
    expect_log(&daemon, "in a user namespace of one id");
    let run = daemon.client().action("id -u").do_not_cache().run().await?;
    assert_eq!(run.succeeded().await?.stdout().await?, "65534\n");
    Ok(())
}
