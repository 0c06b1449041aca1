//! A file's bytes and pages, none of which may be larger than what there is memory for.

use std::{
    io::{self, BufReader, Read},
    sync::Arc,
};

use bytes::Bytes;
use orion_proto::{Error as Refused, Result as Checked};
use parquet::{
    column::page::{Page, PageMetadata, PageReader},
    errors::{ParquetError, Result},
    file::{
        metadata::ColumnChunkMetaData,
        reader::{ChunkReader, Length, SerializedPageReader},
    },
};

use super::{
    budget::{MOST, Share},
    thrift::{BINARY, I32, I64, STRUCTURE, Seen, TRUTHS, structure},
};
use crate::journal::{Address, Journal};

/// Bytes of a page's header.
const HEADER: usize = 64 << 10;
/// Bytes of a page.
const PAGE: u64 = 32 << 20;
/// What a value of a dictionary takes beside its bytes.
const ENTRY: u64 = 32;
/// Page types, and encodings of texts that say how much is to be made of little.
const PAGE_TYPES: [i64; 3] = [0, 2, 3];
const ENCODINGS: [i64; 2] = [6, 7];

/// A content that is read wherever it is asked for.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) journal: Arc<dyn Journal>,
    pub(super) address: Address,
    pub(super) length: u64,
}

impl Source {
    /// As many bytes as there are from there on, but no more than so many.
    pub(super) fn some(&self, from: u64, most: usize) -> io::Result<Bytes> {
        self.journal.content(&self.address, from, most).map_err(io::Error::other)
    }
}

impl Length for Source {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Source {
    type T = BufReader<Onwards>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(BufReader::with_capacity(HEADER, Onwards { source: self.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let bytes = self.some(start, length)?;
        match bytes.len() == length {
            true => Ok(bytes),
            false => Err(ParquetError::EOF(format!("it has no {length} bytes at {start}"))),
        }
    }
}

/// A content from a place on.
pub(super) struct Onwards {
    source: Source,
    at: u64,
}

impl Read for Onwards {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.source.length {
            return Ok(0);
        }
        let some = self.source.some(self.at, room.len())?;
        room[..some.len()].copy_from_slice(&some);
        self.at += some.len() as u64;
        Ok(some.len())
    }
}

/// What a page says of itself.
#[derive(Debug, Default)]
struct Header {
    bytes: u64,
    compressed: u64,
    values: u64,
    is_dictionary: bool,
}

fn header(bytes: &[u8]) -> Option<(u64, Header)> {
    let (mut header, mut is_sound) = (Header::default(), true);
    let length = structure(bytes, &mut |fields, seen| {
        if let Seen::Field(kind) = seen {
            is_sound &= is_of_its_type(fields, kind);
        }
        let Seen::Integer(value) = seen else { return };
        let count = u64::try_from(value);
        match fields {
            [1] => {
                is_sound &= PAGE_TYPES.contains(&value);
                header.is_dictionary |= value == 2;
            }
            // Whichever of them is taken where one is there twice.
            [2] => header.bytes = header.bytes.max(count.unwrap_or(u64::MAX)),
            [3] => header.compressed = header.compressed.max(count.unwrap_or(u64::MAX)),
            [5 | 7 | 8, 1] => header.values = header.values.max(count.unwrap_or(u64::MAX)),
            [5, 2] | [8, 4] => is_sound &= !ENCODINGS.contains(&value),
            _ => {}
        }
    })?;
    is_sound.then_some((length as u64, header))
}

/// Whether a field of a page's header is of the type that it must be: the library reads each as that, whatever it says to be, and
/// what was hidden in one would be seen by the library alone.
fn is_of_its_type(fields: &[i16], kind: u8) -> bool {
    match fields {
        [1..=4] | [5, 1..=4] | [7, 1 | 2] | [8, 1..=6] => kind == I32,
        [5..=8] | [5, 5] | [8, 8] => kind == STRUCTURE,
        [7, 3] | [8, 7] | [5, 5, 7 | 8] | [8, 8, 7 | 8] => TRUTHS.contains(&kind),
        [5, 5, 3 | 4] | [8, 8, 3 | 4] => kind == I64,
        [5, 5, 1 | 2 | 5 | 6] | [8, 8, 1 | 2 | 5 | 6] => kind == BINARY,
        _ => true,
    }
}

/// Reads the pages of a column, each looked at before it is unpacked.
pub(super) struct Pages {
    inner: SerializedPageReader<Source>,
    source: Source,
    at: u64,
    end: u64,
    share: Arc<Share>,
}

impl Pages {
    /// Those of a column in a group of so many rows.
    ///
    /// # Errors
    /// INVALID_ARGUMENT where they are not in the file.
    pub(super) fn new(source: Source, column: &ColumnChunkMetaData, rows: usize, share: Arc<Share>) -> Checked<Self> {
        let from = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let range = u64::try_from(from).ok().zip(u64::try_from(column.compressed_size()).ok());
        let end = range.and_then(|(from, length)| from.checked_add(length).map(|end| (from, end)));
        let Some((at, end)) = end.filter(|(_, end)| *end <= source.length && column.file_path().is_none()) else {
            return Err(Refused::invalid(format!("the file does not have its column '{}'", column.column_path())));
        };
        let inner = SerializedPageReader::new(Arc::new(source.clone()), column, rows, None).map_err(super::unread)?;
        Ok(Self { inner, source, at, end, share })
    }

    /// Looks at the next page.
    fn look(&mut self) -> Result<()> {
        if self.at >= self.end {
            return Ok(());
        }
        let bytes = self.source.some(self.at, HEADER)?;
        let wrong = |what: &str| ParquetError::General(format!("the page at {} {what}", self.at));
        let (length, page) = header(&bytes).ok_or_else(|| {
            wrong("is of a kind that is not read: texts must be PLAIN or of a dictionary, and nothing encrypted")
        })?;
        if page.bytes > PAGE || page.compressed > PAGE {
            return Err(wrong(&format!("has more than {PAGE} bytes, write smaller ones")));
        }
        if page.is_dictionary && page.values > page.bytes {
            return Err(wrong("has more values than bytes"));
        }
        let has_room = match page.is_dictionary {
            true => self.share.dictionary(page.bytes + page.values * ENTRY),
            false => self.share.page(page.bytes, page.values),
        };
        if !has_room {
            let why =
                format!("and what is beside it take more than {MOST} bytes of memory, write smaller pages or lists");
            return Err(wrong(&why));
        }
        self.at = self.at.saturating_add(length).saturating_add(page.compressed);
        Ok(())
    }
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.look()?;
        self.inner.get_next_page()
    }

    // Whoever asks for these reads headers that were not looked at.
    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        Err(ParquetError::NYI("pages are read in their order".into()))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        Err(ParquetError::NYI("pages are read in their order".into()))
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        Ok(self.at >= self.end)
    }
}
