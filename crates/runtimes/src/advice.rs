//! Words for an action whose root lacks what it needs: which platform property gives it that, of those
//! that this server honours.

use model::Properties;

use crate::{HOST, Runtimes};

/// The most names of one kind in a piece of advice. A server with more has a list of its own.
const MAX_NAMES: usize = 8;

/// A part that an action's root lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// The loader of a C library.
    Libc,
    /// A shell or another program outside of the input root.
    Programs,
}

impl Runtimes {
    /// Says what to ask for beside `properties`. `None` if they name a root that should have it.
    pub fn advice(&self, properties: &Properties, lack: Lack) -> Option<String> {
        if properties.rootfs.is_some() || properties.container_image.is_some() {
            return None;
        }
        let choices = match (lack, &properties.libc) {
            (Lack::Libc, Some(_)) => return None,
            (Lack::Libc, None) => self.libraries().into_iter().chain(self.roots()).collect(),
            (Lack::Programs, libc) => {
                self.shell(properties, libc.is_some()).into_iter().chain(self.roots()).collect()
            }
        };
        Some(worded(choices, lack))
    }

    fn libraries(&self) -> Option<String> {
        listed(self.libc_names()).map(|names| format!("`libc` ({names})"))
    }

    fn shell(&self, properties: &Properties, has_library: bool) -> Option<String> {
        let has_shell = match &properties.libc {
            Some(name) => self.libc.get(name).is_some_and(|it| it.with_shell.is_some()),
            None => self.libc.values().any(|library| library.with_shell.is_some()),
        };
        let text = if has_library {
            "`requires-bash` (a shell and its tools)"
        } else {
            "`requires-bash` (a C library, a shell and its tools)"
        };
        (has_shell && !properties.requires_bash).then(|| text.to_owned())
    }

    fn roots(&self) -> Vec<String> {
        let host =
            self.host.is_some().then(|| format!("`rootfs={HOST}` (this server's toolchains)"));
        let images = self.images.names(MAX_NAMES + 1);
        let images = listed(images.iter().map(String::as_str));
        let images = images.map(|names| format!("`container-image` ({names})"));
        host.into_iter().chain(images).collect()
    }
}

fn worded(choices: Vec<String>, lack: Lack) -> String {
    if !choices.is_empty() {
        return format!("set one of the platform properties {}", choices.join(", "));
    }
    let what = match lack {
        Lack::Libc => "C library",
        Lack::Programs => "programs",
    };
    format!(
        "this server has no {what} for actions; its operator can start it with --runtime-root, \
         --runtime-image or --allow-host-rootfs, or import an image"
    )
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut names: Vec<_> = names.take(MAX_NAMES + 1).collect();
    if names.len() > MAX_NAMES {
        names.truncate(MAX_NAMES);
        names.push("…");
    }
    (!names.is_empty()).then(|| names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::images::ImageViews;
    use crate::{Library, Rootfs};

    /// Two libraries, one with a shell, the host, and an image.
    fn everything() -> Runtimes {
        let view = || Arc::new(Rootfs::bare());
        let libc = [
            ("glibc2.31".to_owned(), Library { alone: view(), with_shell: Some(view()) }),
            ("glibc2.36".to_owned(), Library { alone: view(), with_shell: None }),
        ];
        Runtimes {
            bare: view(),
            of_input_root: view(),
            host: Some(view()),
            libc: libc.into(),
            images: images(&["debian:12"]),
            _image: None,
        }
    }

    fn nothing() -> Runtimes {
        Runtimes { host: None, libc: BTreeMap::new(), images: images(&[]), ..everything() }
    }

    fn images(names: &[&str]) -> ImageViews {
        let images = ImageViews::default();
        names.iter().for_each(|name| images.set((*name).to_owned(), Rootfs::bare()));
        images
    }

    #[test]
    fn what_the_server_has_is_named() {
        let check = |properties: Properties, lack, expected: Option<&str>| {
            assert_eq!(everything().advice(&properties, lack).as_deref(), expected);
        };
        let libc = |name: &str| Properties { libc: Some(name.to_owned()), ..Properties::default() };
        let roots = "`rootfs=host` (this server's toolchains), `container-image` (debian:12)";
        let libraries =
            format!("set one of the platform properties `libc` (glibc2.31, glibc2.36), {roots}");
        check(Properties::default(), Lack::Libc, Some(&libraries));
        let shell = format!(
            "set one of the platform properties `requires-bash` (a C library, a shell and its tools), {roots}"
        );
        check(Properties::default(), Lack::Programs, Some(&shell));
        let shell = format!(
            "set one of the platform properties `requires-bash` (a shell and its tools), {roots}"
        );
        check(libc("glibc2.31"), Lack::Programs, Some(&shell));
        let no_shell = format!("set one of the platform properties {roots}");
        check(libc("glibc2.36"), Lack::Programs, Some(&no_shell));
        let has_shell = Properties { requires_bash: true, ..libc("glibc2.31") };
        check(has_shell, Lack::Programs, Some(&no_shell));
        check(libc("glibc2.31"), Lack::Libc, None);
        let rootfs = Properties { rootfs: Some("host".to_owned()), ..Properties::default() };
        check(rootfs, Lack::Programs, None);
        let image = Properties { container_image: Some("x".to_owned()), ..Properties::default() };
        check(image, Lack::Libc, None);
    }

    #[test]
    fn a_server_that_has_nothing_names_the_flags() {
        for lack in [Lack::Libc, Lack::Programs] {
            let advice = nothing().advice(&Properties::default(), lack).unwrap();
            assert!(advice.contains("--runtime-root"), "{advice}");
        }
    }

    #[test]
    fn long_lists_are_cut() {
        let names: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        let listed = listed(names.iter().map(String::as_str)).unwrap();
        assert_eq!(listed, "0, 1, 2, 3, 4, 5, 6, 7, …");
    }
}
