//! The table of all checks, by area.
//!
//! A new check is a function in its area's module and a line in that module's `CHECKS`.

mod action_cache;
mod asset;
mod byte_stream;
mod capabilities;
mod cas;
mod compression;
mod deflate_brotli;
mod digest_functions;
mod execution;
mod get_tree;
mod inputs;
mod operations;
mod outputs;
mod policies;
mod splitting;
mod timeouts;

use crate::check::Check;

/// The checks of one part of the API.
pub(crate) struct Area {
    pub(crate) name: &'static str,
    /// In the groups of its files.
    pub(crate) checks: &'static [&'static [Check]],
}

/// All areas, in the order of the specification.
pub(crate) const AREAS: &[Area] = &[
    Area { name: "capabilities", checks: &[capabilities::CHECKS] },
    Area { name: "cas", checks: cas::CHECKS },
    Area { name: "byte_stream", checks: byte_stream::CHECKS },
    Area { name: "digest_functions", checks: &[digest_functions::CHECKS] },
    Area { name: "compression", checks: &[compression::CHECKS, deflate_brotli::CHECKS] },
    Area { name: "get_tree", checks: &[get_tree::CHECKS] },
    Area { name: "splitting", checks: &[splitting::CHECKS] },
    Area { name: "action_cache", checks: action_cache::CHECKS },
    Area { name: "execution", checks: execution::CHECKS },
    Area { name: "timeouts", checks: &[timeouts::CHECKS] },
    Area { name: "policies", checks: &[policies::CHECKS] },
    Area { name: "inputs", checks: &[inputs::CHECKS] },
    Area { name: "outputs", checks: outputs::CHECKS },
    Area { name: "operations", checks: &[operations::CHECKS] },
    Area { name: "asset", checks: &[asset::CHECKS] },
];

/// A check with its area's name.
#[derive(Clone, Copy)]
pub(crate) struct Selected {
    pub(crate) area: &'static str,
    pub(crate) check: &'static Check,
}

/// The checks whose `area/name` contains `pattern`.
pub(crate) fn select(pattern: Option<&str>) -> impl Iterator<Item = Selected> {
    AREAS
        .iter()
        .flat_map(|area| {
            let checks = area.checks.iter().copied().flatten();
            checks.map(|check| Selected { area: area.name, check })
        })
        .filter(move |selected| {
            pattern.is_none_or(|pattern| selected.full_name().contains(pattern))
        })
}

impl Selected {
    /// `area/name`.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.area, self.check.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;
    use prost_types::{DescriptorProto, FileDescriptorSet};

    use super::*;

    /// The files whose comments checks quote.
    const SPECIFICATION: [&str; 4] = [
        include_str!(
            "../../../../proto/remote-apis/build/bazel/remote/execution/v2/remote_execution.proto"
        ),
        include_str!(
            "../../../../proto/remote-apis/build/bazel/remote/asset/v1/remote_asset.proto"
        ),
        include_str!("../../../../proto/googleapis/google/bytestream/bytestream.proto"),
        include_str!("../../../../proto/googleapis/google/longrunning/operations.proto"),
    ];

    /// The words of all comments, as one line.
    fn comments() -> String {
        let lines = SPECIFICATION.iter().flat_map(|file| file.lines());
        let comments = lines.filter_map(|line| line.trim_start().strip_prefix("//"));
        comments.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_quotation_is_in_the_specification() {
        let comments = comments();
        let wrong: Vec<_> = select(None)
            .filter(|it| !comments.contains(it.check.clause.says))
            .map(|it| format!("{}: {}", it.full_name(), it.check.clause.says))
            .collect();
        assert!(wrong.is_empty(), "not in the .proto files:\n{}", wrong.join("\n"));
    }

    #[test]
    fn every_place_is_in_the_specification() {
        let places = places();
        let wrong: Vec<_> = select(None)
            .filter(|it| !places.contains(it.check.clause.at))
            .map(|it| format!("{}: {}", it.full_name(), it.check.clause.at))
            .collect();
        assert!(wrong.is_empty(), "no such place:\n{}", wrong.join("\n"));
    }

    /// The names of all services, methods, messages, fields and enumerations, without packages.
    fn places() -> BTreeSet<String> {
        let files = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap().file;
        let mut places = BTreeSet::new();
        for file in files {
            for service in file.service {
                let name = service.name().to_owned();
                places.extend(service.method.iter().map(|it| format!("{name}.{}", it.name())));
                places.insert(name);
            }
            for message in file.message_type {
                add(&message, "", &mut places);
            }
        }
        places
    }

    fn add(message: &DescriptorProto, prefix: &str, places: &mut BTreeSet<String>) {
        let name = format!("{prefix}{}", message.name());
        let inner = format!("{name}.");
        places.extend(message.field.iter().map(|field| format!("{inner}{}", field.name())));
        places.extend(message.enum_type.iter().map(|one| format!("{inner}{}", one.name())));
        for nested in &message.nested_type {
            add(nested, &inner, places);
        }
        places.insert(name);
    }

    #[test]
    fn names_are_unique() {
        let names: Vec<_> = select(None).map(|it| it.full_name()).collect();
        let unique: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), unique.len());
    }

    #[test]
    fn a_pattern_selects() {
        assert!(select(Some("capabilities/")).all(|it| it.area == "capabilities"));
        assert_eq!(select(Some("no such check")).count(), 0);
    }
}
