//! The platform properties (REAPI) by which an action describes its environment.
//!
//! A known property whose value can't be read is refused, because an action that runs with another
//! limit than it asked for gives a wrong result. So is a misspelled limit. Other properties are
//! checked against the [`WorkerPlatform`].

use std::str::FromStr;

use crate::byte_size::ByteSize;
use crate::platform::WorkerPlatform;
use crate::property_error::{PropertyError, shown};
use crate::proto;

/// The names of the memory limit, in bytes with an optional suffix. In each list the first name is
/// the one that works everywhere: Bazel reads a dot in `exec_properties` as the end of an exec
/// group's name, and drops the property or fails.
const MEMORY: [&str; 5] =
    ["limits_memory", "limits.memory.bytes", "memory", "memory_bytes", "resources:memory:bytes"];
/// The names of the processor limit, in whole cores.
const CPU: [&str; 5] = ["limits_cpu", "limits.cpu.cores", "cpu", "cores", "resources:cpu:cores"];
/// The names of the limit of processes and threads.
const PIDS: [&str; 4] = ["limits_pids", "limits.pids.max", "pids.max", "pids"];

/// Linux's highest `CONFIG_NR_CPUS`; more cores than that are no limit but a mistake.
const MAX_CPU_CORES: u32 = 8192;
/// Linux's `PID_MAX_LIMIT`.
const MAX_PIDS: u32 = 4 << 20;

/// The settings that an action's platform properties ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// `mutates_inputs`: the action may change its inputs, in a view of its own.
    pub mutates_inputs: bool,
    /// `rootfs`: the root file system that brings the tools, `host` for the operator's.
    pub rootfs: Option<String>,
    /// `container-image`: the image that is the root file system, such as `docker://NAME`.
    pub container_image: Option<String>,
    /// `libc`: the C library to run with.
    pub libc: Option<String>,
    /// `requires-bash`: the action needs a shell and the usual programs beside its C library.
    pub requires_bash: bool,
    /// The limits of the action.
    pub limits: Limits,
    /// The names of properties that have no meaning to this server, the first few, each cut to
    /// 128 characters.
    pub ignored: Vec<String>,
}

/// An action's limits on the machine's resources. `None` leaves only the server's own bounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// The most memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// The most processor time, in cores.
    pub cpu_cores: Option<u32>,
    /// The most processes and threads at a time.
    pub pids_max: Option<u32>,
}

impl Properties {
    /// Reads the properties that an action asks for and checks them against `worker`; without a
    /// platform, nothing is asked for.
    pub fn parse(
        platform: Option<&proto::Platform>,
        worker: &WorkerPlatform,
    ) -> Result<Self, PropertyError> {
        let mut properties = Self::default();
        let mut mutates_inputs = None;
        let mut requires_bash = None;
        for property in platform.iter().flat_map(|platform| &platform.properties) {
            let known = Known { name: &property.name, value: &property.value };
            match known.name {
                "mutates_inputs" => known.set(&mut mutates_inputs, known.boolean()?)?,
                "rootfs" => known.set(&mut properties.rootfs, known.choice())?,
                "container-image" => known.set(&mut properties.container_image, known.choice())?,
                "requires-bash" => known.set(&mut requires_bash, known.presence()?)?,
                "libc" => known.set(&mut properties.libc, known.choice())?,
                _ if properties.limits.apply(&known)? => {}
                name => {
                    refuse_unknown_limit(name)?;
                    worker.check(name, known.value, &mut properties.ignored)?;
                }
            }
        }
        properties.mutates_inputs = mutates_inputs.unwrap_or(false);
        properties.requires_bash = requires_bash.unwrap_or(false);
        Ok(properties)
    }
}

impl Limits {
    /// The limits in a platform that can be read.
    pub(crate) fn declared(platform: Option<&proto::Platform>) -> Self {
        let mut limits = Self::default();
        for property in platform.iter().flat_map(|platform| &platform.properties) {
            let known = Known { name: &property.name, value: &property.value };
            // The action is refused when it is to run.
            let _ = limits.apply(&known);
        }
        limits
    }

    /// Takes `property` if it is a limit, and tells whether it is one.
    fn apply(&mut self, property: &Known<'_>) -> Result<bool, PropertyError> {
        let is_one_of = |names: &[&str]| names.contains(&property.name);
        if is_one_of(&MEMORY) {
            property.set(&mut self.memory_bytes, Some(property.bytes()?))?;
        } else if is_one_of(&CPU) {
            property.set(&mut self.cpu_cores, Some(property.count(MAX_CPU_CORES)?))?;
        } else if is_one_of(&PIDS) {
            property.set(&mut self.pids_max, Some(property.count(MAX_PIDS)?))?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }
}

/// Refuses a name that begins with `limit` and is no limit: the action would run without the limit
/// that it asks for.
fn refuse_unknown_limit(name: &str) -> Result<(), PropertyError> {
    let begins_with_limit =
        name.get(..5).is_some_and(|prefix| prefix.eq_ignore_ascii_case("limit"));
    if !begins_with_limit {
        return Ok(());
    }
    // As long as an error shows, which bounds the comparison too.
    let name = shown(name);
    let lower = name.to_ascii_lowercase().replace('.', "_");
    let likeness = |other: &&str| strsim::jaro_winkler(&lower, other);
    let suggestion =
        [MEMORY[0], CPU[0], PIDS[0]].into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    Err(PropertyError::UnknownLimit { name, suggestion: suggestion.unwrap_or(MEMORY[0]) })
}

/// A property whose value is about to be read.
struct Known<'a> {
    name: &'a str,
    value: &'a str,
}

impl Known<'_> {
    /// Stores a value, unless it contradicts the one that is there; "nothing" contradicts nothing.
    fn set<T: PartialEq>(
        &self,
        place: &mut Option<T>,
        value: Option<T>,
    ) -> Result<(), PropertyError> {
        if place.is_some() && value.is_some() && *place != value {
            return Err(PropertyError::Contradiction {
                name: self.name.to_owned(),
                value: self.shown_value(),
            });
        }
        if value.is_some() {
            *place = value;
        }
        Ok(())
    }

    fn boolean(&self) -> Result<Option<bool>, PropertyError> {
        match self.value.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(Some(true)),
            "" | "0" | "false" | "no" | "off" => Ok(Some(false)),
            _ => Err(self.refuse("a truth value (true or false)")),
        }
    }

    /// A truth value of a property that is usually sent without one, to say yes.
    fn presence(&self) -> Result<Option<bool>, PropertyError> {
        if self.value.is_empty() { Ok(Some(true)) } else { self.boolean() }
    }

    /// A name, where the empty one and `none` stand for no choice at all.
    fn choice(&self) -> Option<String> {
        (!matches!(self.value, "" | "none")).then(|| self.value.to_owned())
    }

    fn bytes(&self) -> Result<u64, PropertyError> {
        let size = self.value.parse().ok().filter(|&ByteSize(bytes)| bytes > 0);
        size.map(|ByteSize(bytes)| bytes)
            .ok_or_else(|| self.refuse("a size in bytes (such as 268435456, 256m or 2Gi)"))
    }

    fn count(&self, max: u32) -> Result<u32, PropertyError> {
        parse_digits(self.value)
            .filter(|count| (1..=max).contains(count))
            .ok_or_else(|| self.refuse("a whole number between 1 and what Linux allows"))
    }

    fn refuse(&self, expected: &'static str) -> PropertyError {
        PropertyError::Value { name: self.name.to_owned(), value: self.shown_value(), expected }
    }

    fn shown_value(&self) -> String {
        shown(self.value)
    }
}

/// Reads decimal digits and nothing else: the standard parser would take a plus sign too.
fn parse_digits<T: FromStr>(text: &str) -> Option<T> {
    let only_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    only_digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(properties: &[(&str, &str)]) -> Result<Properties, PropertyError> {
        let properties = properties
            .iter()
            .map(|(name, value)| proto::platform::Property {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect();
        Properties::parse(Some(&proto::Platform { properties }), &WorkerPlatform::default())
    }

    #[test]
    fn nothing_is_asked_for_by_default() {
        assert_eq!(Properties::parse(None, &WorkerPlatform::default()), Ok(Properties::default()));
        assert_eq!(parse(&[]), Ok(Properties::default()));
    }

    #[test]
    fn unknown_properties_are_ignored_by_name() {
        let properties = parse(&[("OSFamily", "linux"), ("Pool", "x"), ("Pool", "y")]).unwrap();
        assert_eq!(properties.ignored, ["Pool"]);
        assert_eq!(Properties { ignored: vec![], ..properties }, Properties::default());
    }

    #[test]
    fn another_machine_is_refused() {
        for (name, value) in [("OSFamily", "windows"), ("network", "on"), ("gpu", "8")] {
            let error = parse(&[("libc", "x"), (name, value)]).unwrap_err();
            assert!(matches!(error, PropertyError::OtherMachine { .. }), "{error}");
        }
    }

    #[test]
    fn a_misspelled_limit_is_refused_with_the_right_one() {
        let check = |name: &str, expected: &str| {
            let error = parse(&[(name, "1")]).unwrap_err();
            let PropertyError::UnknownLimit { suggestion, .. } = &error else { panic!("{error}") };
            assert_eq!(*suggestion, expected, "{name}");
            assert!(error.to_string().contains(expected), "{error}");
        };
        check("limit_memory", "limits_memory");
        check("limits_mem", "limits_memory");
        check("limits_memory_bytes", "limits_memory");
        check("Limits_CPU", "limits_cpu");
        check("limits.cpus", "limits_cpu");
        check("limits.cpu.core", "limits_cpu");
        check("limits_pid", "limits_pids");
        check("limits.memory.byte", "limits_memory");
        let huge = "limit".repeat(1 << 18);
        assert!(parse(&[(&huge, "1")]).unwrap_err().to_string().len() < 500);
    }

    #[test]
    fn memory() {
        let check = |value, expected| {
            for name in MEMORY {
                let limit = parse(&[(name, value)]).map(|p| p.limits.memory_bytes);
                assert_eq!(limit.ok(), expected, "{name}={value}");
            }
        };
        let is = |bytes: u64| Some(Some(bytes));
        check("1", is(1));
        check("268435456", is(1 << 28));
        check("4k", is(4 << 10));
        check("128M", is(128 << 20));
        check("128Mi", is(128 << 20));
        check("2G", is(2 << 30));
        check("2gi", is(2 << 30));
        check("1t", is(1 << 40));
        for bad in [
            "",
            "0",
            "0k",
            "-1",
            "+1",
            "1.5G",
            "1GB",
            "M",
            " 1",
            "1 ",
            "0x10",
            "١",
            "99999999999999999999",
            "18446744073709551615G",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn cores_and_processes() {
        for name in CPU {
            let cores = |value| parse(&[(name, value)]).map(|p| p.limits.cpu_cores).ok();
            assert_eq!(cores("2"), Some(Some(2)));
            assert_eq!(cores("8192"), Some(Some(8192)));
            for bad in ["", "0", "-1", "1.5", "8193", "2k", "max"] {
                assert_eq!(cores(bad), None, "{bad}");
            }
        }
        for name in PIDS {
            let pids = |value| parse(&[(name, value)]).map(|p| p.limits.pids_max).ok();
            assert_eq!(pids("64"), Some(Some(64)));
            for bad in ["", "0", "-1", "max", "4194305"] {
                assert_eq!(pids(bad), None, "{bad}");
            }
        }
    }

    #[test]
    fn a_shell_is_asked_for_by_the_name_alone() {
        let requires = |value| parse(&[("requires-bash", value)]).map(|p| p.requires_bash);
        for (value, expected) in [("", true), ("true", true), ("1", true), ("0", false)] {
            assert_eq!(requires(value), Ok(expected));
        }
        assert!(requires("zsh").is_err());
        assert!(!parse(&[]).unwrap().requires_bash);
    }

    #[test]
    fn truth_values() {
        let mutates = |value| parse(&[("mutates_inputs", value)]).map(|p| p.mutates_inputs);
        for value in ["1", "true", "yes", "on", "True", "ON"] {
            assert_eq!(mutates(value), Ok(true));
        }
        for value in ["", "0", "false", "no", "off"] {
            assert_eq!(mutates(value), Ok(false));
        }
        let message = mutates("maybe").unwrap_err().to_string();
        assert!(message.contains("mutates_inputs") && message.contains("maybe"));
    }

    #[test]
    fn root_file_systems() {
        let properties = parse(&[("libc", "glibc2.31"), ("rootfs", "host")]).unwrap();
        assert_eq!(properties.libc.as_deref(), Some("glibc2.31"));
        assert_eq!(properties.rootfs.as_deref(), Some("host"));
        for value in ["", "none"] {
            assert_eq!(parse(&[("libc", value)]).unwrap().libc, None);
        }
    }

    #[test]
    fn a_property_may_be_repeated_but_not_contradicted() {
        assert!(parse(&[("memory", "1k"), ("limits.memory.bytes", "1024")]).is_ok());
        assert!(parse(&[("cpu", "1"), ("cores", "2")]).is_err());
        assert!(parse(&[("libc", "a"), ("libc", "b")]).is_err());
        assert!(parse(&[("mutates_inputs", "1"), ("mutates_inputs", "0")]).is_err());
    }

    #[test]
    fn an_error_does_not_carry_a_huge_value() {
        let error = parse(&[("memory", &"9".repeat(1 << 20))]).unwrap_err();
        assert!(error.to_string().len() < 500);
    }

    #[test]
    fn declared_limits_are_those_that_can_be_read() {
        let property = |name: &str, value: &str| proto::platform::Property {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let properties = vec![
            property("Pool", "x"),
            property("limits_memory", "2Gi"),
            property("cores", "4"),
            property("limits_pids", "no number"),
        ];
        let limits = Limits::declared(Some(&proto::Platform { properties }));
        let expected = Limits { memory_bytes: Some(2 << 30), cpu_cores: Some(4), pids_max: None };
        assert_eq!(limits, expected);
        assert_eq!(Limits::declared(None), Limits::default());
    }
}
