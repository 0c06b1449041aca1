//! Rows whose classes have names.

use std::{collections::BTreeSet, path::Path};

use orion_proto::{Error, Result, training::Data};

use super::data::{Columns, Table};
use crate::unservable;

/// What is learnt from, what it is tested with, and the names of all classes in their order.
pub(super) struct Labelled {
    pub(super) train: Classified,
    pub(super) test: Option<Classified>,
    pub(super) labels: Vec<String>,
}

/// Rows, and which of all classes each of theirs is.
pub(super) struct Classified {
    table: Table,
    classes: Vec<u32>,
}

impl Labelled {
    /// `train` and `test` as a plan has them.
    ///
    /// # Errors
    /// FAILED_PRECONDITION or NOT_FOUND naming the file that does not fit.
    pub(super) fn open(data: &Data, columns: &Columns<String>, train: &Path, test: Option<&Path>) -> Result<Self> {
        let (learnt, test) = Table::both(train, test, columns)?;
        let labels = match data.labels.as_slice() {
            [] => found([Some(&learnt), test.as_ref()].into_iter().flatten()),
            named => named.to_vec(),
        };
        if labels.len() < 2 {
            let path = learnt.path().display();
            return Err(unservable(format!("all rows of {path} are of one class, there must be two")));
        }
        let train = Classified::new(learnt, &labels)?;
        let test = test.map(|table| Classified::new(table, &labels)).transpose()?;
        Ok(Self { train, test, labels })
    }
}

impl Classified {
    fn new(table: Table, labels: &[String]) -> Result<Self> {
        let class = |name: &String| {
            labels.iter().position(|label| label == name).map(|at| at as u32).ok_or_else(|| {
                let (path, known) = (table.path().display(), labels.join("', '"));
                unservable(format!("{path} has a row of class '{name}', data.labels has '{known}'"))
            })
        };
        let classes = table.found().iter().map(class).collect::<Result<_>>()?;
        Ok(Self { table, classes })
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// Where it lies.
    pub(super) fn path(&self) -> &Path {
        self.table.path()
    }

    /// What a row has, and which of all classes it is.
    pub(super) fn row(&self, index: usize) -> Result<(Columns<String>, u32)> {
        let (row, class) = self.table.row(index)?;
        Ok((row, self.classes[class as usize]))
    }

    /// That something is wrong with a row.
    pub(super) fn wrong(&self, index: usize, why: &str) -> Error {
        self.table.wrong(index, why)
    }

    pub(super) fn hash(&self, hasher: &mut blake3::Hasher) {
        self.table.hash(hasher);
    }
}

/// The classes of tables: by their numbers where all are numbers, else by their names.
fn found<'a>(tables: impl Iterator<Item = &'a Table>) -> Vec<String> {
    let names: BTreeSet<String> = tables.flat_map(Table::found).cloned().collect();
    let mut names: Vec<String> = names.into_iter().collect();
    let number = |name: &String| name.parse::<i64>().ok();
    if names.iter().all(|name| number(name).is_some()) {
        names.sort_by_key(number);
    }
    names
}
