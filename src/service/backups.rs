//! Taking, listing and fetching backups.

use std::io;

use serde_json::json;

use crate::backup::Finished;
use crate::backup::fetch::{Fetch, Opened};
use crate::backup::list::Listed;
use crate::backup::name::BackupName;
use crate::domain::audit::{Event, EventType};
use crate::store::audit;

use super::operators::Actor;
use super::{Error, Gateway, Page};

/// Takes a backup while traffic continues.
pub fn create(gateway: &Gateway, actor: Actor, filename: &str) -> Result<Finished, Error> {
    let name = BackupName::parse(filename).map_err(|error| Error::BadRequest(error.to_string()))?;
    let written = gateway.backups.write(&gateway.store, &*gateway.clock, &name);
    let finished = written.map_err(|error| Error::of_backup(error, gateway.backups.folder()))?;
    log::info!(
        "backup {} of {} bytes in {} ms, head {} {}",
        finished.path.display(),
        finished.size_bytes,
        finished.duration.as_millis(),
        finished.chain.head_seq.unwrap_or(0),
        finished.chain.head_hash
    );
    if let Err(error) = record_event(gateway, &actor, &name, &finished) {
        // The backup is complete and stays; reporting a failure would be wrong.
        let (name, actor) = (name.as_str(), actor.name().escape_debug());
        log::error!("cannot record the audit event of backup {name} by {actor}: {error}");
    }
    Ok(finished)
}

/// The token was valid when the backup began. The event is written even if the token has
/// expired since, because the backup exists.
fn record_event(
    gateway: &Gateway,
    actor: &Actor,
    name: &BackupName,
    finished: &Finished,
) -> Result<(), Error> {
    let now = gateway.now();
    let head = json!({ "seq": finished.chain.head_seq, "receipt_hash": finished.chain.head_hash });
    let details = json!({
        "filename": name.as_str(),
        "size_bytes": finished.size_bytes,
        "sha256": finished.sha256.to_string(),
        "head": head,
    });
    let event = actor.event(EventType::AdminAction, Some("backup"), details, now)?;
    let event = Event { resource: Some(name.as_str().to_owned()), ..event };
    gateway.store.write(move |tx| Ok(audit::insert(tx, &event)?))
}

/// The backups in the folder, newest first, preceded by the one in progress, if any.
pub fn list(gateway: &Gateway, page: Page) -> Result<Vec<Listed>, Error> {
    let listed = gateway.backups.list().map_err(unreadable(gateway))?;
    let (offset, limit) = (page.offset as usize, page.limit as usize);
    Ok(listed.into_iter().skip(offset).take(limit).collect())
}

/// Opens a backup, a manifest or a digest for reading.
pub fn fetch(gateway: &Gateway, name: &str) -> Result<Opened, Error> {
    match gateway.backups.fetch(name).map_err(unreadable(gateway))? {
        Fetch::Opened(opened) => Ok(opened),
        Fetch::Missing => Err(Error::NotFound("there is no such backup".to_owned())),
        Fetch::Busy => Err(Error::Busy("too many backups are being fetched".to_owned())),
    }
}

fn unreadable(gateway: &Gateway) -> impl Fn(io::Error) -> Error {
    |source| Error::BackupFolder { folder: gateway.backups.folder().to_owned(), source }
}
