//! The names in a client certificate, by which its holder is known.

/// The most names of one kind that are looked at; a certificate of a client has one or two.
const MAX_NAMES: usize = 16;

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    /// A URI of the subject alternative names, such as a SPIFFE id.
    Uri(String),
    /// A DNS name of the subject alternative names.
    Dns(String),
    /// The common name of the subject.
    Common(String),
}

/// The names of a certificate that a CA of the operator has signed: URIs first, then DNS names, then
/// the common name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateNames(Vec<Name>);

impl CertificateNames {
    /// Collects names. `subject` is the DER content of the certificate's subject.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "only TLS has certificates"))]
    pub(crate) fn new<'a>(
        uris: impl Iterator<Item = &'a str>,
        dns_names: impl Iterator<Item = &'a str>,
        subject: &[u8],
    ) -> Self {
        let uris = uris.take(MAX_NAMES).map(|name| Name::Uri(name.to_owned()));
        let dns_names = dns_names.take(MAX_NAMES).map(|name| Name::Dns(name.to_ascii_lowercase()));
        let common = common_name(subject).map(Name::Common);
        Self(uris.chain(dns_names).chain(common).collect())
    }

    /// The names in the order in which they are looked up.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Name> {
        self.0.iter()
    }

    /// A name for the log: short, and in one line.
    pub(crate) fn shown(&self) -> String {
        let name = match self.0.first() {
            Some(Name::Uri(name) | Name::Dns(name) | Name::Common(name)) => name.as_str(),
            None => "(no name)",
        };
        name.chars().take(64).flat_map(char::escape_default).collect()
    }
}

/// Tags of DER (ITU-T X.690, 8.1.2).
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;

/// The object identifier `id-at-commonName` (2.5.4.3) in DER.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// The first common name of a distinguished name (RFC 5280, 4.1.2.4), if it is text in UTF-8 or ASCII:
///
/// ```text
/// RDNSequence ::= SEQUENCE OF SET OF SEQUENCE { type OBJECT IDENTIFIER, value ANY }
/// ```
///
/// `subject` is the content of the outer sequence. webpki parses the certificate but not this part.
fn common_name(subject: &[u8]) -> Option<String> {
    let mut sets = subject;
    while !sets.is_empty() {
        let mut attributes = take(&mut sets, SET)?;
        while !attributes.is_empty() {
            let mut attribute = take(&mut attributes, SEQUENCE)?;
            if take(&mut attribute, OBJECT_IDENTIFIER)? == COMMON_NAME {
                let tag = *attribute.first()?;
                let text = take(&mut attribute, tag)?;
                let is_text = matches!(tag, UTF8_STRING | PRINTABLE_STRING);
                return std::str::from_utf8(text).ok().filter(|_| is_text).map(str::to_owned);
            }
        }
    }
    None
}

/// Takes an element with that tag off the front and returns its content.
fn take<'a>(der: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    let rest = der.strip_prefix(&[tag])?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&length, rest) = rest.split_first()?;
            (usize::from(length), rest)
        }
        0x82 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        // A name of more than 64 KiB, or the indefinite form, which DER does not have.
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    *der = rest;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap();
        let length = match length {
            0..=0x7f => vec![length as u8],
            0x80..=0xff => vec![0x81, length as u8],
            _ => [&[0x82], &length.to_be_bytes()[..]].concat(),
        };
        [&[tag], &*length, content].concat()
    }

    fn attribute(kind: u8, tag: u8, text: &[u8]) -> Vec<u8> {
        let identifier = element(OBJECT_IDENTIFIER, &[0x55, 0x04, kind]);
        element(SET, &element(SEQUENCE, &[identifier, element(tag, text)].concat()))
    }

    #[test]
    fn the_common_name_is_found() {
        let check = |subject: &[u8], expected: Option<&str>| {
            assert_eq!(common_name(subject).as_deref(), expected, "{subject:x?}");
        };
        let organization = attribute(0x0a, UTF8_STRING, b"Org");
        check(&attribute(3, UTF8_STRING, "jürgen".as_bytes()), Some("jürgen"));
        check(&[organization.clone(), attribute(3, PRINTABLE_STRING, b"ci")].concat(), Some("ci"));
        let long = "x".repeat(300);
        check(&attribute(3, UTF8_STRING, long.as_bytes()), Some(&long));
        check(&attribute(3, UTF8_STRING, &[b'y'; 200]), Some(&"y".repeat(200)));
        check(&organization, None);
        check(b"", None);
        // UTF-16, and what is not UTF-8.
        check(&attribute(3, 0x1e, b"\0c\0i"), None);
        check(&attribute(3, UTF8_STRING, b"\xff"), None);
    }

    #[test]
    fn a_broken_subject_has_no_common_name() {
        let whole = attribute(3, UTF8_STRING, b"ci");
        for end in 1..whole.len() {
            assert_eq!(common_name(&whole[..end]), None, "{end}");
        }
        for length in [0x80, 0x83, 0xff] {
            assert_eq!(common_name(&[SET, length, 0, 0, 0, 0]), None, "{length:x}");
        }
    }

    #[test]
    fn a_name_for_the_log_is_one_short_line() {
        let common = |name: &str| CertificateNames(vec![Name::Common(name.to_owned())]).shown();
        assert_eq!(common("ci"), "ci");
        assert_eq!(common("a\nb\u{1b}"), "a\\nb\\u{1b}");
        assert_eq!(common(&"x".repeat(1000)).len(), 64);
        assert_eq!(CertificateNames::default().shown(), "(no name)");
    }
}
