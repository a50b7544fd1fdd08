//! An `ActionResult` in its encoded form, which is never decoded as a whole.
//!
//! A result of a few megabytes can be a million empty submessages, which take a hundred times as much
//! memory once they are decoded. One pass over the bytes of a result finds what the server has to
//! know of it, and blobs are put inside of it by copying its fields.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::digest::Digest;
use crate::digest_error::DigestError;
use crate::digest_function::DigestFunction;
use crate::result::References;
use crate::wire::{Reader, Span, Value, WireError};

/// Field numbers of `ActionResult`.
mod field {
    pub(super) const OUTPUT_FILES: u32 = 2;
    pub(super) const OUTPUT_DIRECTORIES: u32 = 3;
    pub(super) const EXIT_CODE: u32 = 4;
    pub(super) const STDOUT_RAW: u32 = 5;
    pub(super) const STDOUT_DIGEST: u32 = 6;
    pub(super) const STDERR_RAW: u32 = 7;
    pub(super) const STDERR_DIGEST: u32 = 8;
    /// `output_file_symlinks`, `output_directory_symlinks` and `output_symlinks`.
    pub(super) const SYMLINKS: [u32; 3] = [10, 11, 12];
    /// `path`, `digest` and `contents` of an `OutputFile`.
    pub(super) const FILE_PATH: u32 = 1;
    pub(super) const FILE_DIGEST: u32 = 2;
    pub(super) const FILE_CONTENTS: u32 = 5;
    /// `tree_digest` and `root_directory_digest` of an `OutputDirectory`.
    pub(super) const TREE_DIGEST: u32 = 3;
    pub(super) const ROOT_DIRECTORY_DIGEST: u32 = 5;
}

/// An encoded `ActionResult`, and what a server has to know of it. A clone shares the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedResult {
    message: Bytes,
    /// The length of the message without the fields that [`EncodedResult::with_fields`] added.
    own_bytes: usize,
    exit_code: i32,
    outputs: u64,
    output_bytes: u64,
}

/// Why bytes are not an `ActionResult` with good digests.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResultError {
    /// It is 4 GiB or larger.
    #[error("the result takes {0} bytes")]
    TooLarge(usize),
    /// It is not a protobuf message.
    #[error("the result is not a protobuf message")]
    Wire(#[from] WireError),
    /// A known field has the wire type of something else.
    #[error("field {0} of the result has the wrong type")]
    FieldType(u32),
    /// A digest is there twice; readers differ in what they make of that.
    #[error("field {0} of the result is repeated")]
    RepeatedField(u32),
    /// A digest is missing or malformed.
    #[error("a digest of the result")]
    Digest(#[from] DigestError),
}

/// A blob that a result names and that can be put inside of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// The standard output.
    Stdout,
    /// The standard error.
    Stderr,
    /// The output file of that path.
    File(&'a str),
}

impl EncodedResult {
    /// Encodes a result that was made here.
    pub fn of(result: &crate::proto::ActionResult) -> Self {
        let files = result.output_files.iter().filter_map(|file| file.digest.as_ref());
        let symlinks = result.output_symlinks.len();
        let message: Bytes = result.encode_to_vec().into();
        Self {
            own_bytes: message.len(),
            message,
            exit_code: result.exit_code,
            outputs: (result.output_files.len() + result.output_directories.len() + symlinks)
                as u64,
            output_bytes: files
                .fold(0, |sum, digest| sum.saturating_add_signed(digest.size_bytes.max(0))),
        }
    }

    /// Reads a result, and lists the blobs that it names by digests of `function`.
    ///
    /// # Errors
    /// [`ResultError`] for bytes that are not a result with good digests.
    pub fn parse(
        message: Bytes,
        function: DigestFunction,
    ) -> Result<(Self, References), ResultError> {
        if u32::try_from(message.len()).is_err() {
            return Err(ResultError::TooLarge(message.len()));
        }
        let mut scan = Scan { message: &message, function, ..Scan::default() };
        scan.result()?;
        let Scan { exit_code, outputs, output_bytes, mut references, .. } = scan;
        references.tidy();
        let own_bytes = message.len();
        Ok((Self { message, own_bytes, exit_code, outputs, output_bytes }, references))
    }

    /// The encoded `ActionResult`.
    pub fn message(&self) -> &Bytes {
        &self.message
    }

    /// The encoded `ActionResult` without the fields that [`EncodedResult::with_fields`] added.
    pub fn own_message(&self) -> &[u8] {
        &self.message[..self.own_bytes]
    }

    /// The exit code of the command.
    pub fn exit_code(&self) -> i32 {
        self.exit_code
    }

    /// The number of output files, directories and symlinks.
    pub fn outputs(&self) -> u64 {
        self.outputs
    }

    /// The size of all output files, in bytes.
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes
    }

    /// The same result with more fields behind the others: encoded ones of `ActionResult` that it
    /// lacks.
    pub fn with_fields(self, fields: &[u8]) -> Self {
        if fields.is_empty() {
            return self;
        }
        let mut message = BytesMut::with_capacity(self.message.len() + fields.len());
        message.extend_from_slice(&self.message);
        message.extend_from_slice(fields);
        Self { message: message.freeze(), ..self }
    }

    /// The same result with blobs inside, where `content` has them. It is asked for the streams
    /// first and then for the files, if their content is not inside already.
    ///
    /// # Errors
    /// [`ResultError`] for a result that [`EncodedResult::parse`] refuses, and the errors of
    /// `content`.
    pub fn with_contents<E: From<ResultError>>(
        &self,
        function: DigestFunction,
        mut content: impl FnMut(Part<'_>, &Digest) -> Result<Option<Bytes>, E>,
    ) -> Result<Self, E> {
        let message = &self.message[..];
        let [stdout, stderr] = streams(message)?;
        let mut streams = BytesMut::new();
        for (part, raw, stream) in
            [(Part::Stdout, field::STDOUT_RAW, stdout), (Part::Stderr, field::STDERR_RAW, stderr)]
        {
            if let Some(span) = stream.digest.filter(|_| !stream.is_inside) {
                let asked = content(part, &digest(message, span, function)?)?;
                asked.iter().for_each(|bytes| put_bytes(&mut streams, raw, bytes));
            }
        }
        let mut filled = BytesMut::with_capacity(message.len() + streams.len());
        let mut reader = Reader::new(message);
        loop {
            let start = reader.at();
            let Some(read) = reader.next_field().map_err(ResultError::from)? else { break };
            let asked = match read {
                (field::OUTPUT_FILES, Value::Bytes(span)) => {
                    let file = File::read(message, span)?;
                    match file.path_to_fill(message) {
                        Some(path) => content(Part::File(path), &file.digest(message, function)?)?
                            .map(|contents| (span, contents)),
                        None => None,
                    }
                }
                _ => None,
            };
            match asked {
                Some((span, contents)) => put_file(&mut filled, span.of(message), &contents),
                None => filled.extend_from_slice(&message[start..reader.at()]),
            }
        }
        filled.extend_from_slice(&streams);
        let own_bytes = filled.len();
        Ok(Self { message: filled.freeze(), own_bytes, ..self.clone() })
    }
}

/// The standard output and the standard error of a result.
fn streams(message: &[u8]) -> Result<[Stream; 2], ResultError> {
    let [mut stdout, mut stderr] = [Stream::default(); 2];
    let mut reader = Reader::new(message);
    while let Some(read) = reader.next_field()? {
        match read {
            (field::STDOUT_RAW, Value::Bytes(span)) => stdout.is_inside = span.len > 0,
            (field::STDERR_RAW, Value::Bytes(span)) => stderr.is_inside = span.len > 0,
            (field::STDOUT_DIGEST, Value::Bytes(span)) => stdout.digest = Some(span),
            (field::STDERR_DIGEST, Value::Bytes(span)) => stderr.digest = Some(span),
            _ => {}
        }
    }
    Ok([stdout, stderr])
}

/// Appends a field of bytes.
fn put_bytes(buffer: &mut BytesMut, number: u32, bytes: &[u8]) {
    encode_key(number, WireType::LengthDelimited, buffer);
    encode_varint(bytes.len() as u64, buffer);
    buffer.put_slice(bytes);
}

/// Appends an `OutputFile` with `contents` behind its other fields.
fn put_file(buffer: &mut BytesMut, file: &[u8], contents: &[u8]) {
    let contents_bytes = contents.len() as u64;
    let field_bytes =
        key_len(field::FILE_CONTENTS) + encoded_len_varint(contents_bytes) + contents.len();
    encode_key(field::OUTPUT_FILES, WireType::LengthDelimited, buffer);
    encode_varint((file.len() + field_bytes) as u64, buffer);
    buffer.put_slice(file);
    put_bytes(buffer, field::FILE_CONTENTS, contents);
}

/// A stream of a result.
#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    is_inside: bool,
    digest: Option<Span>,
}

/// An `OutputFile`, where it lies in the message.
#[derive(Debug, Clone, Copy, Default)]
struct File {
    path: Option<Span>,
    digest: Option<Span>,
    has_contents: bool,
}

impl File {
    fn read(message: &[u8], span: Span) -> Result<Self, ResultError> {
        let mut file = Self::default();
        let mut reader = Reader::within(message, span);
        while let Some((number, value)) = reader.next_field()? {
            match (number, value) {
                (field::FILE_PATH, Value::Bytes(span)) => file.path = Some(span),
                (field::FILE_DIGEST, Value::Bytes(span)) => once(&mut file.digest, span, number)?,
                (field::FILE_CONTENTS, Value::Bytes(span)) => file.has_contents = span.len > 0,
                (field::FILE_PATH | field::FILE_DIGEST | field::FILE_CONTENTS, _) => {
                    return Err(ResultError::FieldType(number));
                }
                _ => {}
            }
        }
        Ok(file)
    }

    fn digest(self, message: &[u8], function: DigestFunction) -> Result<Digest, ResultError> {
        digest(message, self.digest.ok_or(DigestError::Missing)?, function)
    }

    /// The path, if the contents are not inside and the path is text.
    fn path_to_fill(self, message: &[u8]) -> Option<&str> {
        let path = self.path.filter(|_| !self.has_contents)?;
        str::from_utf8(path.of(message)).ok()
    }
}

/// One pass over a result.
#[derive(Debug)]
struct Scan<'a> {
    message: &'a [u8],
    function: DigestFunction,
    exit_code: i32,
    outputs: u64,
    output_bytes: u64,
    references: References,
}

impl Default for Scan<'_> {
    fn default() -> Self {
        Self {
            message: &[],
            function: DigestFunction::Sha256,
            exit_code: 0,
            outputs: 0,
            output_bytes: 0,
            references: References::default(),
        }
    }
}

impl Scan<'_> {
    fn result(&mut self) -> Result<(), ResultError> {
        let (mut stdout, mut stderr) = (None, None);
        let mut reader = Reader::new(self.message);
        while let Some((number, value)) = reader.next_field()? {
            match (number, value) {
                (field::OUTPUT_FILES, Value::Bytes(span)) => self.file(span)?,
                (field::OUTPUT_DIRECTORIES, Value::Bytes(span)) => self.directory(span)?,
                (field::EXIT_CODE, Value::Varint(code)) => self.exit_code = code as i32,
                (field::STDOUT_DIGEST, Value::Bytes(span)) => once(&mut stdout, span, number)?,
                (field::STDERR_DIGEST, Value::Bytes(span)) => once(&mut stderr, span, number)?,
                (number, Value::Bytes(_)) if field::SYMLINKS.contains(&number) => self.outputs += 1,
                (
                    field::OUTPUT_FILES
                    | field::OUTPUT_DIRECTORIES
                    | field::EXIT_CODE
                    | field::STDOUT_DIGEST
                    | field::STDERR_DIGEST,
                    _,
                ) => return Err(ResultError::FieldType(number)),
                _ => {}
            }
        }
        for span in [stdout, stderr].into_iter().flatten() {
            self.references.blobs.push(digest(self.message, span, self.function)?);
        }
        Ok(())
    }

    fn file(&mut self, span: Span) -> Result<(), ResultError> {
        let digest = File::read(self.message, span)?.digest(self.message, self.function)?;
        self.outputs += 1;
        self.output_bytes = self.output_bytes.saturating_add(digest.size_bytes());
        self.references.blobs.push(digest);
        Ok(())
    }

    /// An output directory names its tree, its root directory, or both.
    fn directory(&mut self, span: Span) -> Result<(), ResultError> {
        let (mut tree, mut root) = (None, None);
        let mut reader = Reader::within(self.message, span);
        while let Some((number, value)) = reader.next_field()? {
            match (number, value) {
                (field::TREE_DIGEST, Value::Bytes(span)) => once(&mut tree, span, number)?,
                (field::ROOT_DIRECTORY_DIGEST, Value::Bytes(span)) => {
                    once(&mut root, span, number)?;
                }
                (field::TREE_DIGEST | field::ROOT_DIRECTORY_DIGEST, _) => {
                    return Err(ResultError::FieldType(number));
                }
                _ => {}
            }
        }
        self.outputs += 1;
        if tree.is_some() || root.is_none() {
            let tree = tree.ok_or(DigestError::Missing)?;
            self.references.trees.push(digest(self.message, tree, self.function)?);
        }
        if let Some(root) = root {
            self.references.root_directories.push(digest(self.message, root, self.function)?);
        }
        Ok(())
    }
}

fn once(field: &mut Option<Span>, span: Span, number: u32) -> Result<(), ResultError> {
    match field.replace(span) {
        Some(_) => Err(ResultError::RepeatedField(number)),
        None => Ok(()),
    }
}

fn digest(message: &[u8], span: Span, function: DigestFunction) -> Result<Digest, ResultError> {
    let (mut hash, mut size_bytes) = (&[][..], 0);
    let mut reader = Reader::within(message, span);
    while let Some((number, value)) = reader.next_field()? {
        match (number, value) {
            (1, Value::Bytes(span)) => hash = span.of(message),
            (2, Value::Varint(size)) => size_bytes = size,
            (1 | 2, _) => return Err(ResultError::FieldType(number)),
            _ => {}
        }
    }
    Ok(Digest::parse_hex_bytes(function, hash, size_bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;
    use crate::result::referenced_digests;

    const FUNCTION: DigestFunction = DigestFunction::Blake3;

    fn digest_of(content: &str) -> Option<proto::Digest> {
        Some(Digest::of(FUNCTION, content.as_bytes()).to_proto())
    }

    fn file(path: &str, content: &str, inside: &str) -> proto::OutputFile {
        proto::OutputFile {
            path: path.into(),
            digest: digest_of(content),
            contents: inside.to_owned().into(),
            is_executable: true,
            ..Default::default()
        }
    }

    fn sample() -> proto::ActionResult {
        let directory = |path: &str, tree, root| proto::OutputDirectory {
            path: path.into(),
            tree_digest: tree,
            root_directory_digest: root,
            ..Default::default()
        };
        proto::ActionResult {
            output_files: vec![file("a", "A", ""), file("b", "BB", "BB"), file("c", "", "")],
            output_symlinks: vec![Default::default()],
            output_directories: vec![
                directory("both", digest_of("tree"), digest_of("root")),
                directory("root", None, digest_of("other root")),
            ],
            exit_code: -3,
            stdout_digest: digest_of("out"),
            stderr_digest: digest_of("err"),
            stderr_raw: "err".to_owned().into(),
            execution_metadata: Some(Default::default()),
            ..Default::default()
        }
    }

    fn parse(bytes: Vec<u8>) -> Result<(EncodedResult, References), ResultError> {
        EncodedResult::parse(bytes.into(), FUNCTION)
    }

    #[test]
    fn a_result_is_read_as_the_generated_code_reads_it() {
        for result in [sample(), proto::ActionResult::default()] {
            let (parsed, references) = parse(result.encode_to_vec()).unwrap();
            assert_eq!(parsed, EncodedResult::of(&result));
            assert_eq!(references, referenced_digests(&result, FUNCTION).unwrap());
            assert_eq!(parsed.exit_code(), result.exit_code);
        }
        let (parsed, _) = parse(sample().encode_to_vec()).unwrap();
        assert_eq!((parsed.outputs(), parsed.output_bytes()), (6, 3));
    }

    #[test]
    fn contents_are_put_where_they_belong() {
        let contents = |part: Part<'_>| match part {
            Part::Stdout => "out",
            Part::File("a") => "A",
            Part::File("c") => "",
            other => panic!("{other:?} is inside already"),
        };
        let filled =
            EncodedResult::of(&sample()).with_contents::<ResultError>(FUNCTION, |part, digest| {
                let content = contents(part);
                assert_eq!(*digest, Digest::of(FUNCTION, content.as_bytes()));
                Ok(Some(content.to_owned().into()))
            });
        let expected = proto::ActionResult {
            output_files: vec![file("a", "A", "A"), file("b", "BB", "BB"), file("c", "", "")],
            stdout_raw: "out".to_owned().into(),
            ..sample()
        };
        let decoded = proto::ActionResult::decode(filled.unwrap().message().clone()).unwrap();
        assert_eq!(decoded, expected);
    }

    #[test]
    fn without_contents_nothing_changes() {
        let result = EncodedResult::of(&sample());
        let same = result.with_contents::<ResultError>(FUNCTION, |_, _| Ok(None)).unwrap();
        assert_eq!(same, result);
    }

    #[test]
    fn what_is_no_result_is_refused() {
        let check = |bytes: &[u8], expected| assert_eq!(parse(bytes.to_vec()), Err(expected));
        check(&[0xff; 20], ResultError::Wire(WireError::Varint));
        check(&[0x12, 200], ResultError::Wire(WireError::Varint));
        check(&[0x12, 2, 1], ResultError::Wire(WireError::Length));
        check(&[0x10, 1], ResultError::FieldType(2));
        check(&[0x12, 0], ResultError::Digest(DigestError::Missing));
        check(&[0x1a, 0], ResultError::Digest(DigestError::Missing));
        check(&[0x32, 0], ResultError::Digest(DigestError::HashLength(0)));
        check(&[0x32, 0, 0x32, 0], ResultError::RepeatedField(6));
        check(&[0x12, 4, 0x12, 0, 0x12, 0], ResultError::RepeatedField(2));
    }
}
