//! The tools that build scripts use, as random steps of a sequence.
//!
//! A tool that a machine lacks ends with 127 in both places, and shows nothing; a case of its own tells which
//! are missing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::listing;

/// The search path of the scripts.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Tools of scripts beside those that every Debian system has.
const PROGRAMS: [&str; 11] =
    ["ar", "cmp", "flock", "gcc", "git", "ld", "patch", "perl", "python3", "rsync", "strip"];

/// The programs of scripts that are not installed here.
pub(crate) fn missing() -> Vec<&'static str> {
    let is_here = |program: &&str| PATH.split(':').any(|it| Path::new(it).join(program).exists());
    PROGRAMS.into_iter().filter(|program| !is_here(program)).collect()
}

/// Shell commands. `{d}` and `{e}` are directories, none in the other; `{f}` and `{g}` are files, `{m}` is
/// a mode, and `$S` is a directory outside of the tree. A tool may print what lists of names and numbers
/// are the same on all file systems.
pub(crate) const SCRIPTS: [&str; 78] = [
    "cp {f} {g}",
    "cp -a {d} {e}",
    "cp -r --preserve=mode,timestamps {d} {e}",
    "cp -l {f} {g}",
    "cp -f {f} {g}",
    "cp --remove-destination {f} {g}",
    "cp --reflink=auto --sparse=always {f} {g}",
    "cp -b {f} {g}",
    "cp -RP {d}/. {e}",
    "cp {f} {g} && echo more >> {g}",
    "mv {f} {g}",
    "mv -T {d} {e}",
    "mv {d} {e}",
    "mv -n {f} {g}",
    "mv --backup=numbered {f} {g}",
    "mv {f} {d}/A; mv {d}/A {d}/a",
    "ln {f} {g}",
    "ln -sr {f} {g}",
    "ln -sfn {d} {g}",
    "install -m {m} {f} {g}",
    "install -d -m {m} {d}/new",
    "install -D -m 640 {f} {d}/x/y",
    "install -C {f} {g}",
    "tar -cf $S/t.tar {d} && tar -C {e} -xpf $S/t.tar; rm -f $S/t.tar",
    "tar --sort=name --mtime=@5 --owner=0 --group=0 -cf {g}.tar {d}; tar -tf {g}.tar | sort; rm -f {g}.tar",
    "tar -C {d} -cf - ./ | tar -C {e} -xf -",
    "tar -C {d} --xattrs -cf - . | tar -C {e} --xattrs --overwrite -xf -",
    "sed -i s/o/0/ {f}",
    "sed -i.bak s/n/m/ {f}",
    "sed s/o/0/ {f} > {g}",
    "printf 'one\\ntwo\\n' > {f} && printf -- '--- x\\n+++ x\\n@@ -1,2 +1,2 @@\\n one\\n-two\\n+2\\n' | patch -s {f}",
    "printf 'one\\n' > {f} && printf -- '--- x\\n+++ x\\n@@ -1 +0,0 @@\\n-one\\n' | patch -E -s {f}",
    "sort -o {f} {f}",
    "echo line | tee -a {f}",
    "split -b 10 {f} {g}. 2> /dev/null; ls {e}; rm -f {g}.*",
    "truncate -s 70000 {f}",
    "dd if={f} of={g} bs=7 conv=notrunc,fsync status=none",
    "dd if=/dev/zero of={f} bs=1 seek=70000 count=1 status=none",
    "touch -r {f} {g}",
    "touch -d @77 {f} {d}",
    "touch -h -d @78 link; touch {d}",
    "chmod -R u+rwX,go-w {d}",
    "chmod {m} {f}",
    "chmod g+s {d}; mkdir {d}/n; stat -c %a {d} {d}/n",
    "chown -R 65534:65534 {d}",
    "chgrp 65534 {f}",
    "find {d} -type f -delete",
    "find {d} -perm -u+x | sort",
    "find {d} -depth -empty -delete",
    "find {d} -type f ! -user 0 -links +1 -printf '%P %n\\n' | sort",
    "rm -rf {d}",
    "rm -f {f}",
    "rm {f} < /dev/null",
    "rmdir -p {d}",
    "mkdir -p -m {m} {d}/x/y",
    "umask 077; mkdir {d}/m; echo x > {d}/m/f",
    "ls -A {d}",
    "stat -c %A {f} && wc -c < {f}",
    "cmp {f} {g}",
    "diff -r {d} {e}",
    "cat {f}",
    "gzip -nkf {f} && gunzip -f {f}.gz",
    "flock -n {f} echo locked",
    "mkdir -p {d}/$(printf 'x/%.0s' $(seq 60)) && find {d}/x | wc -l; rm -rf {d}/x",
    "for i in $(seq 150); do : > {d}/w$i; done; ls {d} | wc -l; rm -f {d}/w*",
    "perl -pi -e s/o/0/ {f}",
    "python3 -c 'import shutil; shutil.copytree(\"{d}\", \"{e}\", dirs_exist_ok=True, symlinks=True)'",
    "python3 -c 'import shutil; shutil.copytree(\"{d}\", \"{e}/t\", symlinks=True); shutil.rmtree(\"{e}/t\"); shutil.move(\"{f}\", \"{g}\")'",
    "python3 -c 'import mmap, os; f = os.open(\"{f}\", os.O_RDWR | os.O_CREAT); os.ftruncate(f, 9000); m = mmap.mmap(f, 9000); m[8000:8005] = b\"hello\"; m.flush(); m.close()'",
    "python3 -c 'import mmap; m = mmap.mmap(open(\"{f}\").fileno(), 0, prot=mmap.PROT_READ); print(m[:9])'",
    "python3 -c 'import tempfile, os; h, n = tempfile.mkstemp(dir=\"{d}\"); os.write(h, b\"x\"); os.replace(n, \"{f}\")'; rm -f {d}/tmp*",
    "git init -q {d} && git -C {d} add -A && git -C {d} commit -q --allow-empty -m x; git -C {d} status --porcelain; git -C {d} ls-files -s; rm -rf {d}/.git",
    "git -c core.fileMode=true diff --no-index --stat {f} {g}",
    "rsync -ac --delete {d}/ {e}/",
    "printf 'int main(void){return 7;}' > $S/m.c && gcc -c $S/m.c -o {f}.o && ld -r {f}.o -o {g}.o && ar rcsD {g}.a {g}.o && ar t {g}.a && gcc {g}.a -o {g} && ./{g}; strip {g}",
    "printf 'int f;' > {f}.c && gcc -fPIC -shared {f}.c -o {g}.so; rm -f {f}.c {g}.so",
    "[ -x $S/mm ] || printf '%s' '#include <fcntl.h>\n#include <stdio.h>\n#include <sys/mman.h>\n#include <unistd.h>\nint main(int c,char**v){int f=open(v[1],O_RDWR|O_CREAT,0644);if(f<0||ftruncate(f,8192))return perror(\"open\"),1;char*m=mmap(0,8192,3,MAP_SHARED,f,0);if(m==MAP_FAILED)return perror(\"mmap\"),1;m[5000]=42;return msync(m,8192,MS_SYNC);}' | gcc -x c - -o $S/mm; $S/mm {f}",
    "cd {d} && find . | sort; cat a b",
];

/// The longest tool output that is shown, in bytes: the whole of a file that grew is of no use to a reader.
const SHOWN_BYTES_MAX: usize = 2000;

/// Ends a tool that hangs; far above what any takes on a machine that does other work.
const TIMEOUT_SECONDS: &str = "600";

/// Whether one of two directories lies in the other, by symlinks too. A tool that copies a tree into itself copies
/// what it lists first, which every file system orders its own way.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let (one, other) = (resolved(Path::new(one)), resolved(Path::new(other)));
    one.starts_with(&other) || other.starts_with(&one)
}

/// The place of a path, of which the end need not exist.
fn resolved(path: &Path) -> PathBuf {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Err(_), Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            resolved(parent).join(name)
        }
        (found, ..) => found.unwrap_or_else(|_| path.to_owned()),
    }
}

/// Runs a script, and says what of its end is the same on all file systems.
pub(crate) fn run(script: &str, scratch: &str) -> String {
    let output = Command::new("timeout")
        .args([TIMEOUT_SECONDS, "sh", "-c", script])
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .env("TZ", "UTC")
        .env("HOME", scratch)
        .env("TMPDIR", scratch)
        .env("S", scratch)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        // Else it tells where it stopped to look for a repository.
        .env("GIT_DISCOVERY_ACROSS_FILESYSTEM", "1")
        .envs(["AUTHOR", "COMMITTER"].into_iter().flat_map(|who| {
            [("NAME", "a"), ("EMAIL", "a@b"), ("DATE", "@5 +0000")]
                .map(|(what, value)| (format!("GIT_{who}_{what}"), value))
        }))
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return format!("{script}: {error}"),
    };
    let stdout = match output.stdout.len() {
        0..=SHOWN_BYTES_MAX => String::from_utf8_lossy(&output.stdout).into_owned(),
        _ => listing::hash(&output.stdout),
    };
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    // Two processes at once complain in any order.
    let is_pipeline = script.contains(" | ");
    // Names of temporary files and process numbers stand before the reason. A part with a slash is a path, not
    // a reason.
    let reasons = stderr.lines().map(|line| line.rsplit(": ").next().unwrap_or_default());
    let reasons = reasons.filter(|reason| !is_pipeline && !reason.contains('/'));
    // Every file system lists a directory in its own order, in which a tool complains.
    let reasons: BTreeSet<_> = reasons.collect();
    format!("{script}: {:?} {stdout:?} {reasons:?}", output.status.code())
}
