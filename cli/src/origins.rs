//! What a command knows of origins.

use std::{path::PathBuf, sync::Arc};

use clap::Args;
use orion_net::origin::Origins;

use crate::Failure;

/// Where models come from that no node has.
#[derive(Args, Clone, Debug)]
pub(crate) struct OriginFlags {
    /// File of endpoints, keys and CDNs of buckets and web servers; docs/origins.md lists its keys
    #[arg(long, env = "ORION_ORIGINS", value_name = "FILE")]
    origins: Option<PathBuf>,
}

impl OriginFlags {
    /// Reads it, beside what the environment says.
    pub(crate) fn read(&self) -> Result<Arc<Origins>, Failure> {
        let read = self.origins.as_deref().map_or_else(|| Ok(Origins::default()), Origins::from_file);
        Ok(Arc::new(read?))
    }
}
