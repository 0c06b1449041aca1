use std::sync::atomic::Ordering;

use proptest::{prelude::*, sample::Index};
use serde_json::json;

use super::{
    write::{Kind, Writer, Written, column},
    *,
};
use crate::journal::{Batch, Embedded};

/// Each kind, as a value a row and as a list.
fn kinds() -> Vec<(String, Kind, bool)> {
    let all = [Kind::Bool, Kind::Int32, Kind::Int64, Kind::Float, Kind::Double, Kind::Text];
    let both = |kind| [false, true].map(|is_list| (format!("{kind:?} {is_list}"), kind, is_list));
    all.into_iter().flat_map(both).collect()
}

/// What a column of this kind may have in this row.
fn value(kind: Kind, row: usize) -> Value {
    match kind {
        _ if row.is_multiple_of(5) => Value::Null,
        Kind::Bool => (row % 2 == 1).into(),
        Kind::Int32 => (row as i32 * -7).into(),
        Kind::Int64 => (row as i64 * 1_000_000_007).into(),
        Kind::Float => (row as f32 / 4.0).into(),
        Kind::Double => (row as f64 / 3.0).into(),
        Kind::Text => format!("row {row}").into(),
    }
}

fn cell(kind: Kind, is_list: bool, row: usize) -> Value {
    match row % 4 {
        _ if !is_list => value(kind, row),
        0 => Value::Null,
        long => json!((1..long).map(|place| value(kind, row + place)).collect::<Vec<_>>()),
    }
}

/// A file of all kinds, in groups of so many rows.
fn written(rows: usize, group: usize) -> Vec<u8> {
    let kinds = kinds();
    let columns = kinds.iter().map(|(name, kind, is_list)| column(name, *kind, *is_list).unwrap());
    let (fields, mut columns): (Vec<_>, Vec<Box<dyn Written>>) = columns.unzip();
    let mut writer = Writer::new(fields).unwrap();
    for row in 0..rows {
        for (column, (_, kind, is_list)) in columns.iter_mut().zip(&kinds) {
            column.push(&cell(*kind, *is_list, row)).unwrap();
        }
        if row + 1 == rows || (row + 1) % group == 0 {
            writer.group(&columns.iter_mut().map(|column| column.take()).collect::<Vec<_>>()).unwrap();
        }
    }
    writer.close().unwrap();
    writer.take()
}

fn values(file: &Parquet) -> Result<Vec<Value>> {
    (0..file.fields().len()).map(|place| file.value(place)).collect()
}

/// A journal in a folder that has such contents.
struct Contents {
    journal: Arc<dyn Journal>,
    _home: tempfile::TempDir,
}

impl Contents {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let journal = Arc::new(Embedded::open(&home.path().join("jobs.redb")).unwrap());
        Self { journal, _home: home }
    }

    fn open(&self, bytes: &[u8]) -> Result<Parquet> {
        let mut staging = self.journal.stage().unwrap();
        staging.write(bytes).unwrap();
        let staged = staging.finish().unwrap();
        let address = staged.address;
        let batch = Batch { keepers: vec![(address, 1)], staged: vec![staged], ..Batch::default() };
        self.journal.append(self.journal.end().unwrap(), &batch).unwrap();
        Parquet::open(self.journal.clone(), address, bytes.len() as u64)
    }
}

#[test]
fn what_is_written_is_read_wherever_it_begins() {
    let (contents, kinds) = (Contents::new(), kinds());
    let bytes = written(300, 130);
    for first in [1, 2, 65, 130, 131, 299] {
        let mut file = contents.open(&bytes).unwrap();
        assert_eq!(file.rows(), 300);
        for row in (first..=300).step_by(if first == 2 { 7 } else { 1 }) {
            file.go_to(row as u64).unwrap();
            let found = values(&file).unwrap();
            let wanted = kinds.iter().map(|(_, kind, is_list)| cell(*kind, *is_list, row - 1));
            assert_eq!(found, wanted.collect::<Vec<_>>(), "row {row}");
        }
        file.go_to(first as u64).unwrap();
        let wanted = kinds.iter().map(|(_, kind, is_list)| cell(*kind, *is_list, first - 1)).collect::<Vec<_>>();
        assert_eq!(values(&file).unwrap(), wanted, "back at {first}");
        assert!(file.go_to(301).unwrap_err().message.contains("300 rows"));
    }
}

#[test]
fn rows_that_are_kept_are_written_as_they_were() {
    let contents = Contents::new();
    let mut file = contents.open(&written(300, 130)).unwrap();
    let mut writer = Writer::new(file.fields().to_vec()).unwrap();
    let rows: Vec<u64> = (1..=300).filter(|row| row % 3 != 1).collect();
    for (place, row) in rows.iter().enumerate() {
        if place % 64 == 63 || place > 0 && file.leaves_group(*row) {
            writer.group(&file.take()).unwrap();
        }
        file.go_to(*row).unwrap();
        assert!(file.keep() > 0);
    }
    writer.group(&file.take()).unwrap();
    writer.close().unwrap();
    let mut again = contents.open(&writer.take()).unwrap();
    for (place, row) in rows.iter().enumerate() {
        again.go_to(place as u64 + 1).unwrap();
        let wanted = kinds().into_iter().map(|(_, kind, is_list)| cell(kind, is_list, *row as usize - 1));
        let found = values(&again).unwrap();
        assert_eq!(found, wanted.collect::<Vec<_>>(), "row {row}");
    }
}

/// Such as images: many lists of which few fit into memory at once.
#[test]
fn long_lists_are_read_some_at_a_time() {
    let contents = Contents::new();
    let (names, rows, long) = (["a", "b", "c"], 90, 100_000);
    let columns = names.iter().map(|name| column(name, Kind::Float, true).unwrap());
    let (fields, mut columns): (Vec<_>, Vec<Box<dyn Written>>) = columns.unzip();
    let value = |row: usize| Value::Array((0..long).map(|place| json!((row * long + place) as f32)).collect());
    for row in 0..rows {
        columns.iter_mut().for_each(|column| column.push(&value(row)).unwrap());
    }
    let mut writer = Writer::new(fields).unwrap();
    writer.group(&columns.iter_mut().map(|column| column.take()).collect::<Vec<_>>()).unwrap();
    writer.close().unwrap();
    let mut file = contents.open(&writer.take()).unwrap();
    for row in 0..rows {
        file.go_to(row as u64 + 1).unwrap();
        assert!(file.held.load(Ordering::Relaxed) <= budget::MOST / 2);
        if row % 30 == 29 {
            let found = values(&file).unwrap();
            assert_eq!(found, vec![value(row); 3], "row {row}");
        }
    }
}

/// A list of structures in Thrift, each of which is a group of a schema with so many types below it.
fn schema(children: impl Iterator<Item = u8>) -> Vec<u8> {
    let children: Vec<u8> = children.collect();
    let count = children.len();
    // 1: version 1, 2: list of structures, each {4: name "g", 5: num_children}, 3: no rows, 4: no groups of rows.
    let mut footer = vec![0x15, 0x02, 0x19, 0xfc, (count & 0x7f) as u8 | 0x80, (count >> 7) as u8];
    for children in children {
        // A value has a type (FLOAT) and is required, a group is required and has those below it.
        footer.extend(match children {
            0 => vec![0x15, 0x08, 0x25, 0x00, 0x18, 0x01, b'g', 0x00],
            _ => vec![0x35, 0x00, 0x18, 0x01, b'g', 0x15, children * 2, 0x00],
        });
    }
    footer.extend([0x16, 0x00, 0x19, 0x0c, 0x00]);
    let length = u32::try_from(footer.len()).unwrap().to_le_bytes();
    [b"PAR1".as_slice(), &footer, &length, b"PAR1"].concat()
}

/// What decodes it calls itself for each level.
#[test]
fn a_schema_that_is_nested_deep_is_refused_before_it_is_decoded() {
    let contents = Contents::new();
    let error = |bytes: &[u8]| contents.open(bytes).err().map(|error| error.message).unwrap_or_default();
    let deep = schema([1; 10_000].into_iter().chain([0]));
    assert!(error(&deep).contains("nested deeper"), "{}", error(&deep));
    // The library takes an integer of any type for the number of those that are below.
    let hidden: Vec<u8> = deep.iter().map(|byte| if *byte == 0x15 { 0x13 } else { *byte }).collect();
    assert!(!error(&hidden).is_empty());
    assert!(error(&schema([2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0].into_iter())).contains("nested deeper"));
    let wide = error(&schema([3, 0, 0, 0].into_iter()));
    assert!(!wide.contains("nested deeper") && !wide.is_empty(), "{wide}");
}

#[test]
fn what_is_no_file_of_parquet_says_so() {
    let contents = Contents::new();
    let error = |bytes: &[u8]| contents.open(bytes).err().map(|error| error.message).unwrap_or_default();
    assert!(error(b"PAR1").contains("no Parquet"));
    assert!(error(b"id,text\n1,one\n").contains("no Parquet"));
    assert!(error(b"PAR1\x05\x00\x00\x00PARE").contains("encrypted"));
    assert!(error(b"PAR1\xff\xff\xff\x7fPAR1").contains("2147483647 bytes"));
    assert!(error(b"PAR1\x40\x00\x00\x00PAR1").contains("damaged"));
    let bytes = written(10, 10);
    for end in (0..bytes.len() - 1).step_by(97) {
        assert!(!error(&bytes[..end]).is_empty(), "cut at {end}");
    }
}

proptest! {
    /// Whatever is changed in a file, reading it ends, with rows or an error.
    #[test]
    fn damaged_files_are_read_or_refused(at in prop::collection::vec((any::<Index>(), any::<u8>()), 1..6), near_end: bool) {
        let contents = Contents::new();
        let mut bytes = written(200, 80);
        for (index, byte) in at {
            let part = if near_end { bytes.len() * 3 / 4 } else { 0 };
            let place = part + index.index(bytes.len() - part);
            bytes[place] = byte;
        }
        if let Ok(mut file) = contents.open(&bytes) {
            let rows = file.rows().min(1000);
            for row in 1..=rows {
                if file.go_to(row).is_err() {
                    break;
                }
                drop(values(&file));
                file.keep();
            }
        }
    }
}
