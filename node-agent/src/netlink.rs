//! A netlink message's attributes, read in place.
//!
//! Written by hand because ten thousand peers are read every second: the crate's own iterator checks
//! each attribute several times over.

use netlink_packet_core::{DecodeError, NLA_TYPE_MASK};

/// Bytes of an attribute's header.
const HEADER_BYTES: usize = 4;

/// Each attribute's kind and value. Ends after the first that is malformed.
pub(crate) fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes(bytes)
}

#[derive(Debug, Clone)]
pub(crate) struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<(u16, &'a [u8]), DecodeError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut self.0);
        let Some([l, l2, k, k2]) = bytes.first_chunk().copied() else {
            return Some(Err("an attribute that is cut short".into()));
        };
        let length = usize::from(u16::from_ne_bytes([l, l2]));
        let Some(value) = bytes.get(HEADER_BYTES..length) else {
            return Some(Err("an attribute of an impossible length".into()));
        };
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Ok((u16::from_ne_bytes([k, k2]) & NLA_TYPE_MASK, value)))
    }
}

pub(crate) fn find(bytes: &[u8], wanted: u16) -> Result<Option<&[u8]>, DecodeError> {
    for attribute in attributes(bytes) {
        let (kind, value) = attribute?;
        if kind == wanted {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// A value of exactly so many bytes.
#[inline]
pub(crate) fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], DecodeError> {
    value
        .try_into()
        .map_err(|_| format!("a value of {} bytes, not {N}", value.len()).into())
}

/// Without the zero at its end. What is no text is none of our names.
pub(crate) fn text(value: &[u8]) -> &str {
    let value = value.strip_suffix(&[0]).unwrap_or(value);
    std::str::from_utf8(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::NlasIterator;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case::cut(&[8, 0, 1], 0)]
    #[case::too_long(&[9, 0, 1, 0, 7, 7, 7, 7], 0)]
    #[case::shorter_than_its_header(&[3, 0, 1, 0], 0)]
    #[case::after_a_whole_one(&[4, 0, 1, 0, 9, 9], 1)]
    fn what_is_malformed_ends_it(#[case] bytes: &[u8], #[case] whole: usize) {
        let read: Vec<_> = attributes(bytes).collect();
        assert_eq!(read.len(), whole + 1);
        assert!(read[..whole].iter().all(Result::is_ok) && read[whole].is_err());
    }

    proptest! {
        #[test]
        fn the_crates_iterator_reads_the_same(
            values in prop::collection::vec((0_u16..NLA_TYPE_MASK, prop::collection::vec(any::<u8>(), 0..9)), 0..9),
            garbage in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = Vec::new();
            for (kind, value) in &values {
                crate::netfilter::attribute(&mut bytes, *kind, value);
            }
            let read: Vec<_> = attributes(&bytes).map(|it| it.unwrap()).collect();
            let theirs: Vec<_> = NlasIterator::new(&bytes).map(|it| {
                let it = it.unwrap();
                (it.kind(), it.value().to_vec())
            }).collect();
            prop_assert_eq!(read.len(), theirs.len());
            for ((kind, value), theirs) in read.iter().zip(&theirs) {
                prop_assert_eq!((*kind, *value), (theirs.0, theirs.1.as_slice()));
            }
            let _ = attributes(&garbage).count();
        }
    }
}
