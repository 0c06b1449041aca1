//! A job's file, read piece by piece: what was read is held until what follows it is asked for.

use std::{io, sync::Arc};

use bytes::Bytes;
use orion_proto::Result;

use super::{decide::ReadLines, large, parquet::Parquet};
use crate::journal::{Address, Journal};

/// Bytes that are read at once.
const AT_A_TIME: usize = 256 << 10;

/// A content, and the piece of it that was read last.
pub(super) struct Reader {
    journal: Arc<dyn Journal>,
    address: Address,
    length: u64,
    from: u64,
    held: Bytes,
}

impl Reader {
    pub(super) fn new(journal: Arc<dyn Journal>, address: Address, length: u64) -> Self {
        Self { journal, address, length, from: 0, held: Bytes::new() }
    }

    /// How many bytes the file has.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// The bytes from there on, as many as are held and at least so many, where the file has them.
    ///
    /// # Errors
    /// INTERNAL where it cannot be read.
    pub(super) fn piece(&mut self, from: u64, least: usize) -> Result<Bytes> {
        let least = least.min(usize::try_from(self.length.saturating_sub(from)).unwrap_or(usize::MAX));
        let place = from.checked_sub(self.from).and_then(|place| usize::try_from(place).ok());
        if let Some(rest) = place.and_then(|place| self.held.get(place..))
            && rest.len() >= least
        {
            return Ok(self.held.slice_ref(rest));
        }
        self.held = self.journal.content(&self.address, from, least.max(AT_A_TIME))?;
        self.from = from;
        Ok(self.held.clone())
    }

    /// The file as one of Parquet.
    ///
    /// # Errors
    /// As [`Parquet::open`].
    pub(super) fn parquet(&self) -> Result<Parquet> {
        Parquet::open(self.journal.clone(), self.address, self.length)
    }

    /// Takes the large rows out of what was read of it as a table.
    ///
    /// # Errors
    /// As of [`Journal::stage`].
    pub(super) fn apart(&self, read: &mut ReadLines) -> Result<()> {
        large::rows_apart(&*self.journal, read)
    }

    /// The file from there on.
    pub(super) fn from(&mut self, at: u64) -> Stream<'_> {
        Stream { reader: self, at }
    }
}

/// A file from a place on.
pub(super) struct Stream<'r> {
    reader: &'r mut Reader,
    at: u64,
}

impl io::Read for Stream<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.reader.length {
            return Ok(0);
        }
        let piece = self.reader.piece(self.at, 1).map_err(io::Error::other)?;
        let some = piece.len().min(room.len());
        room[..some].copy_from_slice(&piece[..some]);
        self.at += some as u64;
        Ok(some)
    }
}
