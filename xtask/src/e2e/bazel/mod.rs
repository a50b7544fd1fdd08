//! Bazel 7.7.1 from Debian testing, which speaks REAPI 2.0.
//!
//! It runs offline: modules that nobody here uses are empty ones of our own, and the rest are those
//! that the Debian packages bring.

mod access;
mod client;
mod cpp;
mod day;
mod downloads;
mod events;
mod eviction;
mod modes;
mod module;
mod package;
mod run;
mod runtimes;
mod socket;
mod stress;
mod tls;

pub(super) use client::Bazel;
pub(super) use stress::generate_inputs as generate_stress_inputs;

use super::{Client, Suite, debian_root::Recipe};

pub(super) const CLIENT: Client = Client {
    name: "bazel",
    recipe: Recipe {
        name: "bazel",
        suites: &["forky", "sid"],
        packages: &[
            "bazel-bootstrap",
            "bazel-platforms",
            "bazel-rules-cc",
            "bazel-rules-java",
            "bazel-rules-license",
            "bazel-rules-python",
            "bazel-rules-shell",
            "bazel-skylib",
            "default-jre-headless",
            "g++",
            "libnetty-tcnative-jni",
        ],
        // A JDK of 350 MB that only Java builds use; Bazel itself runs on the JRE.
        stubs: &["default-jdk-headless"],
    },
    is_optional: false,
    suites: &[
        Suite { name: "stress", run: stress::run },
        Suite { name: "cpp", run: cpp::run },
        Suite { name: "runtimes", run: runtimes::run },
        Suite { name: "access", run: access::run },
        Suite { name: "tls", run: tls::run },
        Suite { name: "run", run: run::run },
        Suite { name: "package", run: package::run },
    ],
    more_suites: &[
        Suite { name: "modes", run: modes::run },
        Suite { name: "day", run: day::run },
        Suite { name: "eviction", run: eviction::run },
        Suite { name: "module", run: module::run },
        Suite { name: "downloads", run: downloads::run },
        Suite { name: "socket", run: socket::run },
    ],
};
