//! Debian packages, read and written (deb(5)).

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::ar::{self, Member};
use crate::compression;

/// The only format there is since 1995.
const FORMAT: &[u8] = b"2.";

/// A package that was read.
#[derive(Debug, Clone)]
pub struct Deb {
    /// Its metadata.
    pub control: Control,
    /// Its files, as a tar archive.
    pub files: Vec<u8>,
}

/// The fields that name a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// `Package`.
    pub name: String,
    /// `Version`.
    pub version: String,
    /// `Architecture` as Debian calls it, such as `amd64` or `all`.
    pub architecture: String,
}

impl Deb {
    /// Reads a package.
    ///
    /// # Errors
    /// When the bytes are no package, or a corrupt one.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let members = ar::read(bytes)?;
        let format = members.first().context("it has no members")?;
        let is_deb = format.name == "debian-binary" && format.content.starts_with(FORMAT);
        ensure!(is_deb, "it is no Debian package of format 2");
        let control = unpack(&members, "control.tar")?;
        Ok(Self { control: Control::from_tar(&control)?, files: unpack(&members, "data.tar")? })
    }
}

/// The content of the member of that name, whatever its compression adds to the name.
fn unpack(members: &[Member<'_>], name: &str) -> Result<Vec<u8>> {
    let member = members.iter().find(|member| member.name.starts_with(name));
    let member = member.with_context(|| format!("it has no {name}"))?;
    compression::unpack(member.content).with_context(|| member.name.to_owned())
}

impl Control {
    fn from_tar(bytes: &[u8]) -> Result<Self> {
        let mut archive = tar::Archive::new(bytes);
        for entry in archive.entries()? {
            let entry = entry.context("control.tar")?;
            let is_control = entry.path()?.file_name().is_some_and(|name| name == "control");
            if is_control {
                let text = std::io::read_to_string(entry).context("control")?;
                return Self::parse(&text);
            }
        }
        anyhow::bail!("it has no control file")
    }

    fn parse(text: &str) -> Result<Self> {
        let fields: BTreeMap<&str, &str> =
            text.lines().filter_map(|line| line.split_once(": ")).collect();
        let field = |name| {
            let value = fields.get(name).with_context(|| format!("its control has no {name}"))?;
            Ok::<_, anyhow::Error>(value.trim().to_owned())
        };
        Ok(Self {
            name: field("Package")?,
            version: field("Version")?,
            architecture: field("Architecture")?,
        })
    }
}

/// Writes a package of a control text and files, both as tar archives, with that time in seconds
/// since 1970. Compressed as xz, which every Debian and Ubuntu since 2012 reads.
///
/// # Errors
/// When compressing fails.
pub fn write(control: &[u8], files: &[u8], time_s: u64) -> Result<Vec<u8>> {
    let (control, files) = (pack(control)?, pack(files)?);
    let members = [
        Member { name: "debian-binary", content: b"2.0\n" },
        Member { name: "control.tar.xz", content: &control },
        Member { name: "data.tar.xz", content: &files },
    ];
    ar::write(&members, time_s)
}

fn pack(tar: &[u8]) -> Result<Vec<u8>> {
    use std::io::Write;
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(6))?;
    xz.write_all(tar)?;
    Ok(xz.finish()?)
}
