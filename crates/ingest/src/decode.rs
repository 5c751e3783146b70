//! Bytes of any supported encoding, as UTF-8, streaming.

use campaign::outcome::fit_to_keep;
use encoding_rs::{Decoder, DecoderResult, Encoding};
use std::io::{self, Read};

const BUFFER: usize = 64 * 1024;

/// What a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charset {
    encoding: &'static Encoding,
    bom: bool,
}

impl Charset {
    /// Tells by the first bytes of a file; a byte order mark wins over what was asked for.
    pub(crate) fn detect(first: &[u8], wanted: Option<&'static Encoding>) -> Self {
        match Encoding::for_bom(first) {
            Some((encoding, _)) => Self { encoding, bom: true },
            None => Self { encoding: wanted.unwrap_or(encoding_rs::UTF_8), bom: false },
        }
    }

    /// As people write it.
    pub(crate) fn name(self) -> String {
        let name = if self.encoding == encoding_rs::WINDOWS_1252 { "Windows-1252" } else { self.encoding.name() };
        if self.bom { format!("{name} with BOM") } else { name.to_owned() }
    }

    fn bom_len(self) -> usize {
        match (self.bom, self.encoding == encoding_rs::UTF_8) {
            (false, _) => 0,
            (true, true) => 3,
            (true, false) => 2,
        }
    }
}

/// Why a file can't be decoded; travels inside an [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("invalid UTF-8 at byte {offset}")]
    NotUtf8 { offset: u64 },
    #[error("invalid {encoding}")]
    Malformed { encoding: &'static str },
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, fault)
    }
}

/// UTF-8 out of whatever is below, without its byte order mark.
pub(crate) struct Decoded<R> {
    inner: R,
    mode: Mode,
    input: Box<[u8]>,
    /// What is in `input`.
    filled: std::ops::Range<usize>,
    end: bool,
    skip: usize,
}

enum Mode {
    Utf8 {
        /// How much of `filled` is known to be valid, from its start.
        valid: usize,
        /// Offset in the file of the start of `filled`.
        offset: u64,
    },
    Other {
        decoder: Decoder,
        encoding: &'static Encoding,
        output: Box<[u8]>,
        ready: std::ops::Range<usize>,
        finished: bool,
        /// Behind what is ready comes what can't be decoded.
        malformed: bool,
    },
}

impl<R: Read> Decoded<R> {
    pub(crate) fn new(inner: R, charset: Charset) -> Self {
        let mode = if charset.encoding == encoding_rs::UTF_8 {
            Mode::Utf8 { valid: 0, offset: charset.bom_len() as u64 }
        } else {
            Mode::Other {
                decoder: charset.encoding.new_decoder_without_bom_handling(),
                encoding: charset.encoding,
                output: vec![0; BUFFER].into_boxed_slice(),
                ready: 0..0,
                finished: false,
                malformed: false,
            }
        };
        let input = vec![0; BUFFER].into_boxed_slice();
        Self { inner, mode, input, filled: 0..0, end: false, skip: charset.bom_len() }
    }

    pub(crate) fn get_ref(&self) -> &R {
        &self.inner
    }

    /// Moves what is left to the front and reads more behind it.
    fn fill(&mut self) -> io::Result<()> {
        self.input.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        while !self.end {
            let n = self.inner.read(&mut self.input[self.filled.end..])?;
            self.end = n == 0;
            self.filled.end += n;
            let skipped = self.skip.min(self.filled.len());
            self.filled.start += skipped;
            self.skip -= skipped;
            if !self.filled.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn read_utf8(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let Mode::Utf8 { valid, offset } = &mut self.mode else { return Ok(0) };
            if *valid > 0 {
                let n = buf.len().min(*valid);
                buf[..n].copy_from_slice(&self.input[self.filled.start..self.filled.start + n]);
                self.filled.start += n;
                *valid -= n;
                *offset += n as u64;
                return Ok(n);
            }
            let (offset, before) = (*offset, self.filled.len());
            self.fill()?;
            if self.filled.is_empty() {
                return Ok(0);
            }
            let found = match std::str::from_utf8(&self.input[self.filled.clone()]) {
                Ok(text) => text.len(),
                Err(error) if error.valid_up_to() > 0 => error.valid_up_to(),
                // A character that is cut by the end of the buffer, not of the file.
                Err(error) if error.error_len().is_none() && self.filled.len() > before => continue,
                Err(_) => return Err(Fault::NotUtf8 { offset }.into()),
            };
            if let Mode::Utf8 { valid, .. } = &mut self.mode {
                *valid = found;
            }
        }
    }

    fn read_other(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Mode::Other { encoding, output, ready, finished, malformed, .. } = &mut self.mode {
                if ready.start < ready.end {
                    let n = buf.len().min(ready.end - ready.start);
                    buf[..n].copy_from_slice(&output[ready.start..ready.start + n]);
                    ready.start += n;
                    return Ok(n);
                }
                if *malformed {
                    return Err(Fault::Malformed { encoding: encoding.name() }.into());
                }
                if *finished {
                    return Ok(0);
                }
            }
            if self.filled.is_empty() {
                self.fill()?;
            }
            let Mode::Other { decoder, output, ready, finished, malformed, .. } = &mut self.mode else { return Ok(0) };
            let (result, read, written) =
                decoder.decode_to_utf8_without_replacement(&self.input[self.filled.clone()], output, self.end);
            self.filled.start += read;
            *ready = 0..written;
            match result {
                DecoderResult::InputEmpty => *finished = self.end,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => *malformed = true,
            }
        }
    }
}

impl<R: Read> Read for Decoded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        match self.mode {
            Mode::Utf8 { .. } => self.read_utf8(buf),
            Mode::Other { .. } => self.read_other(buf),
        }
    }
}

/// A run of bytes as Windows-1252 would have it, at most `max` characters, for showing to a person; without phone numbers.
pub(crate) fn as_windows_1252(bytes: &[u8], max: usize) -> String {
    let mut text = encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned();
    if text.chars().count() > max {
        text = text.chars().take(max).chain(['…']).collect();
    }
    fit_to_keep(&text, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Gives a few bytes at a time, so that characters are cut.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(self.1).min(buf.len());
            buf[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn decoded(bytes: &[u8], step: usize, wanted: Option<&'static Encoding>) -> io::Result<String> {
        let mut text = String::new();
        Decoded::new(Dribble(bytes, step), Charset::detect(&bytes[..bytes.len().min(4)], wanted))
            .read_to_string(&mut text)?;
        Ok(text)
    }

    proptest! {
        #[test]
        fn every_encoding_gives_the_same_text_however_it_is_cut(text in "[^\u{feff}]{0,200}", step in 1usize..9) {
            let mut utf8 = b"\xef\xbb\xbf".to_vec();
            utf8.extend(text.bytes());
            prop_assert_eq!(decoded(text.as_bytes(), step, None).unwrap(), text.clone());
            prop_assert_eq!(decoded(&utf8, step, None).unwrap(), text.clone());
            let le: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_le_bytes).collect();
            let be: Vec<u8> = [0xfeff].into_iter().chain(text.encode_utf16()).flat_map(u16::to_be_bytes).collect();
            prop_assert_eq!(decoded(&le, step, None).unwrap(), text.clone());
            prop_assert_eq!(decoded(&be, step, None).unwrap(), text);
        }
    }

    #[test]
    fn the_first_bad_byte_is_named_by_its_offset() {
        let error = decoded(b"\xef\xbb\xbfgood caf\xe9 bad", 4, None).unwrap_err();
        let fault = error.get_ref().and_then(|e| e.downcast_ref::<Fault>());
        assert!(matches!(fault, Some(Fault::NotUtf8 { offset: 11 })), "{fault:?}");
        assert!(decoded(b"caf\xc3", 2, None).is_err(), "a character cut by the end of the file");
    }

    #[test]
    fn windows_1252_is_read_when_asked_for() {
        let text = decoded(b"caf\xe9 \x80 5", 3, Some(encoding_rs::WINDOWS_1252)).unwrap();
        assert_eq!(text, "café € 5");
    }
}
