//! From a recipe to a kernel that can be booted.
//!
//! The source tree is shared by all kernels of one version, and actiondfs is grafted into it as
//! `fs/actiondfs`; objects lie in a folder per machine and flavour below cargo's target folder, so
//! that a change of actiondfs alone takes seconds. One build at a time: a lock sees to it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use rustix::fs::FlockOperation;

use super::recipe::{Flavour, Recipe};
use crate::arch::Arch;
use crate::{
    process,
    setup::{self, Need},
    workspace,
};

/// The packages to install before a build; the cross compiler is added where one is needed.
const NEEDS: [Need; 6] = [
    Need { program: "make", package: "make", why: "drives the kernel's build" },
    Need { program: "flex", package: "flex", why: "reads Kconfig" },
    Need { program: "bison", package: "bison", why: "reads Kconfig" },
    Need { program: "bc", package: "bc", why: "computes the kernel's time constants" },
    Need { program: "xz", package: "xz-utils", why: "unpacks the kernel's source" },
    Need { program: "zstd", package: "zstd", why: "compresses the kernel" },
];

/// The kernel's build host and time: empty, so that equal inputs give equal
/// kernels.
const ANONYMOUS: [(&str, &str); 4] = [
    ("KBUILD_BUILD_TIMESTAMP", "Sat Jan  1 00:00:00 UTC 2000"),
    ("KBUILD_BUILD_USER", "actiond"),
    ("KBUILD_BUILD_HOST", "actiond"),
    ("KBUILD_BUILD_VERSION", "1"),
];

/// A built kernel in the user's cache.
pub(crate) struct Kernel {
    arch: Arch,
    folder: PathBuf,
}

impl Kernel {
    /// Gives the kernel of the sources as they are, building it if nobody has.
    pub(crate) fn build(arch: Arch, flavour: Flavour) -> Result<Self> {
        install_tools(arch)?;
        let recipe = Recipe::new(arch, flavour)?;
        let folder = workspace::cache()?.join("kernel").join(recipe.name()?);
        let kernel = Self { arch, folder };
        if !kernel.folder.exists() {
            let build = Build::new(&recipe)?;
            build.run()?;
            build.keep(&kernel.folder)?;
        }
        Ok(kernel)
    }

    /// The file that every VMM of this machine boots: bzImage or Image.
    pub(crate) fn image(&self) -> PathBuf {
        self.folder.join(self.arch.image().0)
    }

    /// The file that starts fastest: on x86 the unpacked ELF file, whose PVH entry skips the decompressor.
    pub(crate) fn fastest_image(&self) -> PathBuf {
        match self.arch {
            Arch::X86_64 => self.folder.join("vmlinux"),
            Arch::Aarch64 => self.image(),
        }
    }
}

/// The compiler's checks beside `W=1`: the paths through each function (what smatch does, which
/// is in no Debian). GCC 12 takes members of what stands in a kernel list for uninitialised.
const ANALYZER: &str = "KCFLAGS=-fanalyzer -Wno-analyzer-use-of-uninitialized-value";

/// Compiles actiondfs alone, with extra warnings and under sparse; anything that is said is an error.
pub(super) fn lint(arch: Arch, flavour: Flavour) -> Result<()> {
    install_tools(arch)?;
    setup::ensure(&[Need { program: "sparse", package: "sparse", why: "checks kernel code" }])?;
    let recipe = Recipe::new(arch, flavour)?;
    let build = Build::new(&recipe)?;
    build.graft()?;
    build.configure()?;
    let output = build
        .make()
        .args(["W=1", "C=2", ANALYZER, "fs/actiondfs/"])
        .output()
        .context("cannot run the kernel's make")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() && said.is_empty(), "actiondfs is not clean:\n{said}");
    Ok(())
}

fn install_tools(arch: Arch) -> Result<()> {
    setup::ensure(&NEEDS)?;
    if arch == Arch::Aarch64 && !arch.tool_prefix().is_empty() {
        setup::ensure(&[Need {
            program: "aarch64-linux-gnu-gcc",
            package: "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
            why: "compiles for the other machine",
        }])?;
    }
    // objtool, which checks the x86 kernel's stack frames, is built from it.
    if arch == Arch::X86_64 && !Path::new("/usr/include/gelf.h").exists() {
        setup::install(&["libelf-dev"])?;
    }
    Ok(())
}

/// A build under way; holds the lock.
struct Build<'a> {
    recipe: &'a Recipe,
    /// Objects of this machine and flavour.
    objects: PathBuf,
    _lock: fs::File,
}

impl<'a> Build<'a> {
    fn new(recipe: &'a Recipe) -> Result<Self> {
        let folder = workspace::target().join("kernel");
        let objects = folder.join(format!("{}-{}", recipe.arch.name(), recipe.flavour.name()));
        fs::create_dir_all(&objects)
            .with_context(|| format!("cannot make {}", objects.display()))?;
        let lock = fs::File::create(folder.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        Ok(Self { recipe, objects, _lock: lock })
    }

    fn run(&self) -> Result<()> {
        self.graft()?;
        self.configure()?;
        println!(
            "kernel: building {} {} in {}",
            self.recipe.arch.name(),
            self.recipe.flavour.name(),
            self.objects.display()
        );
        let targets: &[&str] = match self.recipe.arch {
            Arch::X86_64 => &["bzImage", "vmlinux"],
            Arch::Aarch64 => &["Image"],
        };
        process::run(self.make().args(targets))
    }

    /// make, behind whatever else runs on this machine.
    fn make(&self) -> Command {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut make = self.command("nice");
        make.args(["-n", "19", "make", "-s"]).arg(format!("-j{jobs}"));
        make.arg(format!("O={}", self.objects.display()));
        make
    }

    /// Puts actiondfs into the source tree, touching only what differs, so that make sees what
    /// really changed.
    fn graft(&self) -> Result<()> {
        let fs_folder = self.recipe.source.folder().join("fs");
        hook(&fs_folder.join("Kconfig"), "source \"fs/overlayfs/Kconfig\"", KCONFIG_HOOK)?;
        hook(&fs_folder.join("Makefile"), "obj-$(CONFIG_OVERLAY_FS)", MAKEFILE_HOOK)?;

        let folder = fs_folder.join("actiondfs");
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if !self.recipe.actiondfs.iter().any(|file| file.file_name() == path.file_name()) {
                fs::remove_file(&path)?;
            }
        }
        for file in &self.recipe.actiondfs {
            let target = folder.join(file.file_name().expect("a file has a name"));
            let content = fs::read(file)?;
            if fs::read(&target).ok().as_deref() != Some(&content) {
                fs::write(&target, content)
                    .with_context(|| format!("cannot write {}", target.display()))?;
            }
        }
        Ok(())
    }

    /// Lays the fragments over `allnoconfig`, and insists that each of their lines holds.
    fn configure(&self) -> Result<()> {
        let config = self.objects.join(".config");
        let before = fs::read(&config).ok();
        let output = self
            .command("scripts/kconfig/merge_config.sh")
            .args(["-n", "-O"])
            .arg(&self.objects)
            .args(&self.recipe.fragments)
            .output()
            .context("cannot run merge_config.sh")?;
        ensure!(
            output.status.success(),
            "merge_config.sh failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let merged = fs::read_to_string(&config)?;
        for fragment in &self.recipe.fragments {
            let lines = fs::read_to_string(fragment)?;
            let lost = lost_lines(&lines, &merged);
            ensure!(
                lost.is_empty(),
                "these lines of {} do not hold in this kernel (a dependency is missing, or the \
                 option is gone): {}",
                fragment.display(),
                lost.join(", ")
            );
        }
        // An unchanged configuration keeps its time, or make would build everything again.
        if let Some(before) = before.filter(|before| *before == merged.as_bytes()) {
            fs::write(&config, before)?;
        }
        Ok(())
    }

    /// Moves the results to their place in the cache, whole or not at all.
    fn keep(&self, folder: &Path) -> Result<()> {
        let partial = folder.with_extension("partial");
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        let (name, path) = self.recipe.arch.image();
        fs::copy(self.objects.join(path), partial.join(name))?;
        fs::copy(self.objects.join(".config"), partial.join("config"))?;
        if self.recipe.arch == Arch::X86_64 {
            let strip = format!("{}strip", self.recipe.arch.tool_prefix());
            process::run(
                Command::new(strip)
                    .arg("-o")
                    .arg(partial.join("vmlinux"))
                    .arg(self.objects.join("vmlinux")),
            )?;
        }
        fs::rename(&partial, folder).with_context(|| format!("cannot make {}", folder.display()))
    }

    /// A program in the source tree, told which machine to build for.
    fn command(&self, program: &str) -> Command {
        let source = self.recipe.source.folder();
        let path = source.join(program);
        let mut command = Command::new(if path.is_file() { path } else { program.into() });
        command.current_dir(source).env("ARCH", self.recipe.arch.kernel_name());
        if !self.recipe.arch.tool_prefix().is_empty() {
            command.env("CROSS_COMPILE", self.recipe.arch.tool_prefix());
        }
        command.envs(ANONYMOUS);
        command
    }
}

const KCONFIG_HOOK: &str = "source \"fs/actiondfs/Kconfig\"";
const MAKEFILE_HOOK: &str = "obj-$(CONFIG_ACTIONDFS_FS)\t+= actiondfs/";

/// Adds a line after the one that begins with `anchor`, once.
fn hook(path: &Path, anchor: &str, line: &str) -> Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    if text.lines().any(|other| other == line) {
        return Ok(());
    }
    let mut lines: Vec<_> = text.lines().collect();
    let at = lines
        .iter()
        .position(|other| other.starts_with(anchor))
        .with_context(|| format!("{} has no line {anchor}", path.display()))?;
    lines.insert(at + 1, line);
    fs::write(path, lines.join("\n") + "\n")?;
    Ok(())
}

/// The lines of a fragment that are not true of a configuration.
fn lost_lines<'a>(fragment: &'a str, config: &str) -> Vec<&'a str> {
    let holds = |line: &str| match line.strip_prefix("# ") {
        // "is not set" also holds for an option that does not exist for this machine.
        Some(off) => {
            let option = off.trim_end_matches(" is not set");
            !config.lines().any(|other| other.starts_with(&format!("{option}=")))
        }
        None => config.lines().any(|other| other == line),
    };
    fragment
        .lines()
        .filter(|line| {
            line.starts_with("CONFIG_")
                || (line.starts_with("# CONFIG_") && line.ends_with(" is not set"))
        })
        .filter(|line| !holds(line))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_does_not_hold_is_named() {
        let config = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=8\nCONFIG_D=y\n";
        let check =
            |fragment, expected: &[&str]| assert_eq!(lost_lines(fragment, config), expected);
        check("CONFIG_A=y\nCONFIG_C=8\n", &[]);
        check("CONFIG_B=y\n", &["CONFIG_B=y"]);
        check("CONFIG_C=64\n", &["CONFIG_C=64"]);
        check("CONFIG_MISSING=y\n", &["CONFIG_MISSING=y"]);
        check("# CONFIG_B is not set\n# CONFIG_MISSING is not set\n", &[]);
        check("# CONFIG_D is not set\n", &["# CONFIG_D is not set"]);
        check("# A comment about CONFIG_D, which is not set here.\n", &[]);
    }

    #[test]
    fn a_hook_is_set_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("Makefile");
        fs::write(&path, "a\nobj-$(CONFIG_OVERLAY_FS)\t+= overlayfs/\nb\n").unwrap();
        for _ in 0..2 {
            hook(&path, "obj-$(CONFIG_OVERLAY_FS)", MAKEFILE_HOOK).unwrap();
        }
        let expected = format!("a\nobj-$(CONFIG_OVERLAY_FS)\t+= overlayfs/\n{MAKEFILE_HOOK}\nb\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        assert!(hook(&path, "no such line", "x").is_err());
    }
}
