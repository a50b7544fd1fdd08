//! The entitlements of a program, in the two forms that a signature has.
//!
//! The property list is the file in `packaging/macos`, as `codesign` takes it. Since macOS 12 the
//! kernel reads a second form, DER: `[APPLICATION 16] { INTEGER 1, [16] { SEQUENCE { UTF8String key,
//! BOOLEAN TRUE } … } }`, sorted by key.

use anyhow::{Context, Result, ensure};

/// Our entitlements, all of which are of the kind "yes".
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entitlements {
    property_list: String,
    keys: Vec<String>,
}

impl Entitlements {
    /// Reads a property list of nothing but `<key>…</key><true/>`.
    pub(super) fn parse(property_list: &str) -> Result<Self> {
        let (_, rest) = property_list.split_once("<dict>").context("no <dict>")?;
        let (mut rest, _) = rest.split_once("</dict>").context("no </dict>")?;
        let mut keys = Vec::new();
        while let Some(entry) = rest.trim_start().strip_prefix("<key>") {
            let (key, after) = entry.split_once("</key>").context("no </key>")?;
            rest = after.trim_start().strip_prefix("<true/>").context("only <true/> is known")?;
            keys.push(key.to_owned());
        }
        ensure!(rest.trim().is_empty(), "not an entitlement: {}", rest.trim());
        keys.sort();
        Ok(Self { property_list: property_list.to_owned(), keys })
    }

    /// The property list as it was.
    pub(super) fn property_list(&self) -> &[u8] {
        self.property_list.as_bytes()
    }

    /// The names of the entitlements.
    pub(super) fn keys(&self) -> &[String] {
        &self.keys
    }

    /// The second form.
    pub(super) fn der(&self) -> Result<Vec<u8>> {
        const INTEGER: u8 = 0x02;
        const BOOLEAN: u8 = 0x01;
        const UTF8_STRING: u8 = 0x0c;
        const SEQUENCE: u8 = 0x30;
        const APPLICATION_16: u8 = 0x70;
        const CONTEXT_16: u8 = 0xb0;
        let mut entries = Vec::new();
        for key in &self.keys {
            let pair = [value(UTF8_STRING, key.as_bytes())?, value(BOOLEAN, &[0xff])?].concat();
            entries.extend(value(SEQUENCE, &pair)?);
        }
        let version = value(INTEGER, &[1])?;
        value(APPLICATION_16, &[version, value(CONTEXT_16, &entries)?].concat())
    }
}

/// A DER value: tag, length, content.
fn value(tag: u8, content: &[u8]) -> Result<Vec<u8>> {
    // Longer ones have another form, which a handful of entitlements does not need.
    let length = u8::try_from(content.len()).ok().filter(|length| *length < 0x80);
    let length = length.context("too many entitlements for DER's short lengths")?;
    Ok([&[tag, length], content].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = include_str!("../../../packaging/macos/darwin-actiond.entitlements");

    #[test]
    fn ours_is_the_right_to_make_vms() {
        assert_eq!(
            Entitlements::parse(OURS).unwrap().keys(),
            ["com.apple.security.virtualization"]
        );
    }

    #[test]
    fn der_byte_by_byte() {
        let list = "<dict><key>b</key><true/><key>a</key><true/></dict>";
        let der = Entitlements::parse(list).unwrap().der().unwrap();
        let expected = b"\x70\x15\x02\x01\x01\xb0\x10\
                         \x30\x06\x0c\x01a\x01\x01\xff\x30\x06\x0c\x01b\x01\x01\xff";
        assert_eq!(der, expected);
    }

    #[test]
    fn other_values_are_refused() {
        for list in [
            "",
            "<dict><key>a</key><false/></dict>",
            "<dict><key>a</key><string>b</string></dict>",
            "<dict><string>b</string></dict>",
            "<dict><key>a</dict>",
        ] {
            assert!(Entitlements::parse(list).is_err(), "{list}");
        }
    }
}
