//! Contents as rows, in pieces of at most one MiB.

use bytes::{Bytes, BytesMut};
use orion_proto::{Code, Error, Result};

use super::{Postgres, append::number, unreachable};
use crate::journal::{Address, Staged, Staging, contents::Place};

/// Bytes of a piece, but for the last.
const PIECE: usize = 1 << 20;
/// What is on its way in is forgotten an hour after its last piece.
const SWEEP: &str = "DELETE FROM orion_contents WHERE address IN (
    SELECT address FROM orion_contents WHERE staged IS NOT NULL GROUP BY address HAVING max(staged) < now() - interval '1 hour'
)";
const WRITE: &str = "INSERT INTO orion_contents (address, place, bytes, staged) VALUES ($1, $2, $3, now())";
const READ: &str = "SELECT substr(bytes, $3, $4) FROM orion_contents WHERE address = $1 AND place = $2";

const COUNT: &str = "SELECT count(*) FROM orion_contents WHERE address = $1";
const REMOVE: &str = "DELETE FROM orion_contents WHERE address = $1 AND staged IS NOT NULL";

struct Writing {
    journal: Postgres,
    key: [u8; 16],
    is_whole: bool,
    place: i32,
    piece: Vec<u8>,
    hash: blake3::Hasher,
}

impl Postgres {
    pub(super) fn begin_content(&self) -> Result<Box<dyn Staging>> {
        self.wait(sqlx::query(SWEEP).execute(&self.reads)).map_err(unreachable)?;
        let (key, hash) = (rand::random(), blake3::Hasher::new());
        Ok(Box::new(Writing { journal: self.clone(), key, is_whole: false, place: 0, piece: Vec::new(), hash }))
    }

    fn has_content(&self, address: &Address) -> Result<bool> {
        let found: Vec<(i64,)> = self.rows(sqlx::query_as(COUNT).bind(address.to_vec()))?;
        Ok(found != [(0,)])
    }

    pub(super) fn read_content(&self, address: &Address, from: u64, most: usize) -> Result<Bytes> {
        let mut bytes = BytesMut::new();
        while bytes.len() < most {
            let at = from.saturating_add(bytes.len() as u64);
            let (place, within) = (at / PIECE as u64, at % PIECE as u64);
            let query = sqlx::query_as(READ).bind(address.to_vec()).bind(i32::try_from(place).unwrap_or(i32::MAX));
            let query =
                query.bind(number(within).saturating_add(1) as i32).bind((most - bytes.len()).min(PIECE) as i32);
            let rows: Vec<(Vec<u8>,)> = self.rows(query)?;
            match rows.first() {
                // An end that is none would be taken for the file's.
                None if place == 0 || !self.has_content(address)? => {
                    let name = blake3::Hash::from_bytes(*address);
                    return Err(Error::new(Code::Internal, format!("content {name} is not in the journal's database")));
                }
                // A last piece that is full is followed by none.
                Some((piece,)) if !piece.is_empty() => bytes.extend_from_slice(piece),
                _ => break,
            }
        }
        Ok(bytes.freeze())
    }
}

impl Writing {
    fn flush(&mut self) -> Result<()> {
        let query = sqlx::query(WRITE).bind(self.key.to_vec()).bind(self.place).bind(std::mem::take(&mut self.piece));
        self.journal.wait(query.execute(&self.journal.reads)).map_err(unreachable)?;
        let next = self.place.checked_add(1);
        self.place = next.ok_or_else(|| Error::new(Code::ResourceExhausted, "it has too many pieces"))?;
        Ok(())
    }
}

impl Staging for Writing {
    fn write(&mut self, mut piece: &[u8]) -> Result<()> {
        self.hash.update(piece);
        while !piece.is_empty() {
            let (some, rest) = piece.split_at(piece.len().min(PIECE - self.piece.len()));
            self.piece.extend_from_slice(some);
            piece = rest;
            if self.piece.len() == PIECE {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<Staged> {
        // An empty content is one empty piece.
        if !self.piece.is_empty() || self.place == 0 {
            self.flush()?;
        }
        let count: Vec<(i64,)> = self.journal.rows(sqlx::query_as(COUNT).bind(self.key.to_vec()))?;
        if count != [(i64::from(self.place),)] {
            return Err(Error::new(Code::Unavailable, "it took too long, and part of it was swept: send it again"));
        }
        self.is_whole = true;
        let (address, bytes) = (*self.hash.finalize().as_bytes(), self.hash.count());
        Ok(Staged { address, bytes, place: Place::Rows(self.key) })
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.is_whole && self.place > 0 {
            let (reads, key) = (self.journal.reads.clone(), self.key.to_vec());
            self.journal.runtime.handle().spawn(async move {
                // What cannot be removed is swept.
                let _ = sqlx::query(REMOVE).bind(key).execute(&reads).await;
            });
        }
    }
}
