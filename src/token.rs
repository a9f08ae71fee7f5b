//! The operator's token: configured, or generated once and kept beside the database.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::{AdminToken, check_token, read_token_file};
use crate::domain::canon::Hash;
use crate::entropy;
use crate::store::error::Refusal;
use crate::store::files;

/// Returns the SHA-256 of the operator's token, generating the token if there is none.
pub fn obtain(token: &AdminToken) -> Result<Hash, Refusal> {
    let text = match token {
        AdminToken::Given(text) => text.clone(),
        AdminToken::Kept(path) => match read_token_file(path) {
            Ok(text) => {
                remove_leftover(path)?;
                kept(path, text)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => make(path)?,
            Err(error) => return Err(Refusal::io("read the operator's token", path)(error)),
        },
    };
    Ok(Hash::of(text.as_bytes()))
}

/// If [`make`] is killed, the token may remain under a second name.
fn remove_leftover(path: &Path) -> Result<(), Refusal> {
    let partial = files::with_suffix(path, ".partial");
    // Check first: the folder of an existing token may be read-only.
    if files::is_taken(&partial).map_err(Refusal::io("look at", &partial))? {
        files::remove_if_there(&partial).map_err(Refusal::io("remove", &partial))?;
    }
    Ok(())
}

fn kept(path: &Path, text: String) -> Result<String, Refusal> {
    check_token(&text).map_err(|expected| {
        Refusal::new(
            format!("{} does not hold {expected}", path.display()),
            "put the token back, or remove the file to generate a new one",
        )
    })?;
    let mode = fs::metadata(path).map_err(Refusal::io("look at", path))?.permissions().mode();
    if mode & 0o077 != 0 {
        log::warn!("{} can be read by others (mode {:04o}); chmod 600 it", path.display(), mode & 0o777);
    }
    Ok(text)
}

/// Generates a token from 256 random bits. Logs the path, never the token.
fn make(path: &Path) -> Result<String, Refusal> {
    let write = || -> io::Result<String> {
        let text = entropy::hex::<32>()?;
        let partial = files::with_suffix(path, ".partial");
        files::remove_if_there(&partial)?;
        let mut file = files::create_private_file(&partial)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        files::publish(&partial, path)?;
        files::remove_if_there(&partial)?;
        Ok(text)
    };
    let text = write().map_err(Refusal::io("write the operator's token to", path))?;
    log::info!("generated the operator's token in {}", path.display());
    Ok(text)
}
