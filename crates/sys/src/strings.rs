//! Many C strings in one piece of memory: argument vectors and environments.

use std::ffi::CStr;

/// An ordered list of C strings; two allocations however many there are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Strings {
    /// Each string with its terminator, one after the other.
    bytes: Vec<u8>,
    /// The start of each.
    starts: Vec<u32>,
}

impl Strings {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// The strings whose terminated bytes stand one after the other in `bytes`;
    /// `None` if the last is not terminated or there are more than 4 GiB.
    pub fn from_terminated(bytes: Vec<u8>) -> Option<Self> {
        if bytes.last().is_some_and(|&last| last != 0) || u32::try_from(bytes.len()).is_err() {
            return None;
        }
        let mut starts = Vec::new();
        let mut start = 0;
        for string in bytes.split_inclusive(|&byte| byte == 0) {
            starts.push(start);
            start += string.len() as u32;
        }
        Some(Self { bytes, starts })
    }

    /// Appends a string.
    pub fn push(&mut self, string: &CStr) {
        self.starts.push(self.bytes.len() as u32);
        self.bytes.extend_from_slice(string.to_bytes_with_nul());
    }

    /// Every string with its terminator, one after the other.
    pub fn as_terminated(&self) -> &[u8] {
        &self.bytes
    }

    /// The strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        // Each start is followed by a terminator, as the constructors saw to.
        self.starts
            .iter()
            .filter_map(|&start| CStr::from_bytes_until_nul(self.bytes.get(start as usize..)?).ok())
    }

    /// Number of strings.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The address of each string, and 0 at the end; right until `self` is
    /// changed or dropped, not when it is moved.
    pub(crate) fn addresses(&self) -> Vec<usize> {
        let base = self.bytes.as_ptr() as usize;
        self.starts.iter().map(|&start| base + start as usize).chain([0]).collect()
    }
}

/// As the bytes of [`Strings::as_terminated`].
impl serde::Serialize for Strings {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.bytes)
    }
}

impl<'de> serde::Deserialize<'de> for Strings {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?.to_vec();
        Self::from_terminated(bytes)
            .ok_or_else(|| serde::de::Error::custom("an unterminated string"))
    }
}

impl<'a> FromIterator<&'a CStr> for Strings {
    fn from_iter<I: IntoIterator<Item = &'a CStr>>(strings: I) -> Self {
        let mut list = Self::new();
        strings.into_iter().for_each(|string| list.push(string));
        list
    }
}

impl std::fmt::Debug for Strings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_survive_the_way_through_bytes() {
        let list: Strings = [c"cc", c"", c"-c"].into_iter().collect();
        let read = Strings::from_terminated(list.as_terminated().to_vec());
        assert_eq!(read.as_ref(), Some(&list));
        assert_eq!(list.iter().collect::<Vec<_>>(), [c"cc", c"", c"-c"]);
    }

    #[test]
    fn an_unterminated_string_is_refused() {
        assert_eq!(Strings::from_terminated(b"cc\0-c".to_vec()), None);
        assert_eq!(Strings::from_terminated(Vec::new()), Some(Strings::new()));
    }
}
