//! Taking a backup.

use crate::backup::Finished;
use crate::backup::name::BackupName;

use super::{Error, Gateway};

/// Writes a backup beside live traffic.
pub fn create(gateway: &Gateway, filename: &str) -> Result<Finished, Error> {
    let name = BackupName::parse(filename).map_err(|error| Error::BadRequest(error.to_string()))?;
    let finished = gateway.backups.write(&gateway.store, &*gateway.clock, &name)?;
    log::info!(
        "backup {} of {} bytes in {} ms, head {} {}",
        finished.path.display(),
        finished.size_bytes,
        finished.duration.as_millis(),
        finished.chain.head_seq.unwrap_or(0),
        finished.chain.head_hash
    );
    Ok(finished)
}
