//! The platform that this worker is, against which an action's platform properties are checked.
//!
//! A property such as `OSFamily=windows`, `ISA=arm-a64` or `network=on` asks for a machine. When
//! the worker is another machine, the action would run and its result would be wrong, so the
//! action is refused. A property that means nothing to this server (`Pool`, `cache-silo-key` …) is
//! ignored by default, because clients send what suits a whole fleet of servers.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::property_error::{PropertyError, shown};

/// The number of ignored names that are kept of one action. Real clients send a handful.
const MAX_IGNORED: usize = 16;

/// The treatment of a platform property that this server does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownProperties {
    /// The action runs as if the property were absent.
    #[default]
    Ignore,
    /// The action is refused.
    Refuse,
}

/// A text that is not a mode of [`UnknownProperties`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not ignore or refuse")]
pub struct UnknownPropertiesError;

impl UnknownProperties {
    /// The name of the mode in flags and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ignore => "ignore",
            Self::Refuse => "refuse",
        }
    }
}

impl FromStr for UnknownProperties {
    type Err = UnknownPropertiesError;

    fn from_str(text: &str) -> Result<Self, UnknownPropertiesError> {
        [Self::Ignore, Self::Refuse]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or(UnknownPropertiesError)
    }
}

/// A platform property that the operator declares: `NAME=VALUE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredProperty {
    /// The name; not empty.
    pub name: String,
    /// The value that actions may ask for.
    pub value: String,
}

/// A text that is not a [`DeclaredProperty`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not NAME=VALUE")]
pub struct DeclaredPropertyError;

impl FromStr for DeclaredProperty {
    type Err = DeclaredPropertyError;

    fn from_str(text: &str) -> Result<Self, DeclaredPropertyError> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err(DeclaredPropertyError),
        }
    }
}

/// The worker's platform, as far as platform properties can name it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerPlatform {
    /// The values that the operator declared, by name.
    declared: BTreeMap<String, Vec<String>>,
    unknown: UnknownProperties,
}

/// A kind of property that asks for a machine: its names and the values that fit this worker.
struct Demand {
    /// In lower case; names are compared without regard to case.
    names: &'static [&'static str],
    /// In lower case, likewise.
    fitting: &'static [&'static str],
}

/// The demands that this server understands. Names are those of the REAPI platform lexicon and of
/// the common server implementations.
const DEMANDS: [Demand; 4] = [
    Demand { names: &["osfamily", "os", "os_family", "os-family"], fitting: &["linux"] },
    Demand { names: &["isa", "arch", "cpu_arch", "cpu-arch", "cpuarch"], fitting: ISA },
    // The only network of an action is a loopback of its own.
    Demand {
        names: &["network", "dockernetwork", "requires-network", "requires_network"],
        fitting: ABSENT,
    },
    // No device of the host is in a sandbox.
    Demand {
        names: &["gpu", "gpus", "gpu_count", "gpu-count", "gpu_type", "gpu-type", "requires-gpu"],
        fitting: ABSENT,
    },
];

#[cfg(target_arch = "x86_64")]
const ISA: &[&str] = &["x86-64", "x86_64", "amd64", "x64", "k8"];
#[cfg(target_arch = "aarch64")]
const ISA: &[&str] = &["arm-a64", "aarch64", "arm64", "armv8"];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ISA: &[&str] = &[std::env::consts::ARCH];

const ABSENT: &[&str] = &["off", "none", "no", "false", "0", "disabled", "block"];

impl Demand {
    fn of(name: &str) -> Option<&'static Self> {
        let is_name = |other: &&str| other.eq_ignore_ascii_case(name);
        DEMANDS.iter().find(|demand| demand.names.iter().any(is_name))
    }

    fn fits(&self, value: &str) -> bool {
        // An empty value asks for nothing.
        value.is_empty() || self.fitting.iter().any(|fitting| fitting.eq_ignore_ascii_case(value))
    }
}

impl WorkerPlatform {
    /// A worker that is what this program was built for, and what `declared` adds to that.
    pub fn new(
        declared: impl IntoIterator<Item = DeclaredProperty>,
        unknown: UnknownProperties,
    ) -> Self {
        let mut platform = Self { declared: BTreeMap::new(), unknown };
        for DeclaredProperty { name, value } in declared {
            platform.declared.entry(name).or_default().push(value);
        }
        platform
    }

    /// Checks a property that has no meaning of its own to this server. An ignored name is added
    /// to `ignored`, up to a bound.
    pub(crate) fn check(
        &self,
        name: &str,
        value: &str,
        ignored: &mut Vec<String>,
    ) -> Result<(), PropertyError> {
        let declared = self.declared.get(name);
        if declared.is_some_and(|values| values.iter().any(|declared| declared == value)) {
            return Ok(());
        }
        let demand = Demand::of(name);
        match (demand, declared) {
            (Some(demand), _) if demand.fits(value) => Ok(()),
            (None, None) if self.unknown == UnknownProperties::Ignore => {
                // Short names only: nobody reads a name of megabytes in a log.
                let name = shown(name);
                if ignored.len() < MAX_IGNORED && !ignored.contains(&name) {
                    ignored.push(name);
                }
                Ok(())
            }
            (None, None) => Err(PropertyError::Unknown { name: shown(name) }),
            (demand, declared) => {
                let fitting = demand.into_iter().flat_map(|demand| demand.fitting.iter().copied());
                let declared = declared.into_iter().flatten().map(String::as_str);
                let offered: Vec<&str> = fitting.chain(declared).collect();
                Err(PropertyError::OtherMachine {
                    name: shown(name),
                    value: shown(value),
                    offered: shown(&offered.join(", ")),
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(platform: &WorkerPlatform, name: &str, value: &str) -> Result<Vec<String>, String> {
        let mut ignored = Vec::new();
        platform
            .check(name, value, &mut ignored)
            .map(|()| ignored)
            .map_err(|error| error.to_string())
    }

    fn declared(text: &str) -> DeclaredProperty {
        text.parse().unwrap()
    }

    #[test]
    fn another_machine_is_refused_by_name() {
        let this = WorkerPlatform::default();
        for (name, value) in [
            ("OSFamily", "windows"),
            ("OSFamily", "Darwin"),
            ("os", "macos"),
            ("ISA", "riscv64"),
            ("Arch", "ppc64le"),
            ("ISA", if cfg!(target_arch = "x86_64") { "arm-a64" } else { "x86-64" }),
            ("network", "on"),
            ("dockerNetwork", "standard"),
            ("gpu", "8"),
            ("gpu_type", "nvidia-h100"),
        ] {
            let text = check(&this, name, value).expect_err(name);
            assert!(text.contains(name) && text.contains(value), "{text}");
        }
    }

    #[test]
    fn this_machine_is_accepted() {
        let this = WorkerPlatform::default();
        let isa = if cfg!(target_arch = "x86_64") { "x86-64" } else { "arm-a64" };
        for (name, value) in [
            ("OSFamily", "linux"),
            ("OSFamily", "Linux"),
            ("OSFamily", ""),
            ("ISA", isa),
            ("Arch", std::env::consts::ARCH),
            ("network", "off"),
            ("dockerNetwork", "off"),
            ("gpu", "0"),
        ] {
            assert_eq!(check(&this, name, value), Ok(vec![]), "{name}={value}");
        }
    }

    #[test]
    fn declared_properties_add_to_what_the_worker_is() {
        let platform = WorkerPlatform::new(
            ["Pool=default", "Pool=fast", "gpu=1", "OSFamily=debian"].map(declared),
            UnknownProperties::Ignore,
        );
        for (name, value) in [
            ("Pool", "default"),
            ("Pool", "fast"),
            ("gpu", "1"),
            ("gpu", "0"),
            ("OSFamily", "debian"),
            ("OSFamily", "linux"),
        ] {
            assert_eq!(check(&platform, name, value), Ok(vec![]), "{name}={value}");
        }
        let text = check(&platform, "Pool", "slow").unwrap_err();
        assert!(text.contains("default, fast"), "{text}");
        assert!(check(&platform, "gpu", "2").is_err());
    }

    #[test]
    fn unknown_names_are_ignored_or_refused() {
        let ignore = WorkerPlatform::default();
        assert_eq!(check(&ignore, "cache-silo-key", "x"), Ok(vec!["cache-silo-key".to_owned()]));
        let refuse = WorkerPlatform::new([declared("Pool=x")], UnknownProperties::Refuse);
        let text = check(&refuse, "cache-silo-key", "x").unwrap_err();
        assert!(text.contains("cache-silo-key"), "{text}");
        assert_eq!(check(&refuse, "Pool", "x"), Ok(vec![]));
        assert_eq!(check(&refuse, "OSFamily", "linux"), Ok(vec![]));
    }

    #[test]
    fn what_is_kept_of_ignored_names_is_bounded() {
        let mut ignored = Vec::new();
        let this = WorkerPlatform::default();
        for number in 0..1000 {
            let name = format!("{number}{}", "x".repeat(10_000));
            this.check(&name, "", &mut ignored).unwrap();
            this.check(&name, "", &mut ignored).unwrap();
        }
        assert_eq!(ignored.len(), MAX_IGNORED);
        assert!(ignored.iter().all(|name| name.len() <= 128));
    }

    #[test]
    fn declarations_have_a_name() {
        assert_eq!(declared("a=b=c").value, "b=c");
        assert_eq!(declared("a=").value, "");
        for bad in ["", "a", "=b"] {
            assert_eq!(bad.parse::<DeclaredProperty>(), Err(DeclaredPropertyError), "{bad:?}");
        }
        assert_eq!("refuse".parse(), Ok(UnknownProperties::Refuse));
        assert!("Ignore".parse::<UnknownProperties>().is_err());
    }
}
