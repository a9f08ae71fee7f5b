//! All versions of all policies, and the sets that were in force. Rows are only ever added;
//! the last version of a policy is the current one.
//!
//! Documents are checked against the hashes under which they were put in force: rules that
//! were changed in the database decide nothing and are an error.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row};

use crate::domain::policy::builtin::Pack;
use crate::domain::policy::set::{Member, Policy, read_list, split_tag};
use crate::domain::policy::{LANGUAGE, PolicySet, builtin, document};
use crate::domain::time::Timestamp;
use crate::domain::words;

use super::column;
use super::commit::Tx;
use super::error::Error;
use super::known::Known;

words! {
    /// Status of a version.
    Status {
        /// It is in force.
        Active = "active",
        /// A later version exists.
        Superseded = "superseded",
        /// It is the last version, and the policy is not in force.
        Disabled = "disabled",
    }
}

/// A version as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// UUID.
    pub id: String,
    /// The policy it is a version of.
    pub policy_key: String,
    /// 1, 2, …
    pub version: i64,
    /// Display name.
    pub name: String,
    /// The language of the body.
    pub language: String,
    /// Its status.
    pub status: Status,
    /// The document, as received.
    pub body: String,
    /// Why it was disabled.
    pub reason: Option<String>,
    /// The name of the token that created it.
    pub created_by: String,
    /// When it was created.
    pub created_at: String,
}

const COLUMNS: &str = "v.id, v.policy_key, v.version, v.name, v.language, v.disabled, v.body, v.reason, \
     v.created_by, v.created_at, \
     v.version < (SELECT max(version) FROM policy_versions WHERE policy_key = v.policy_key)";

/// Records a version, which must be the next one of its policy.
pub fn insert(tx: &mut Tx<'_>, version: &Version) -> Result<(), Error> {
    tx.changes_registry();
    tx.connection()
        .prepare_cached(
            "INSERT INTO policy_versions (id, policy_key, version, name, language, disabled, body, reason, \
             created_by, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )
        .and_then(|mut insert| {
            insert.execute(rusqlite::params![
                version.id,
                version.policy_key,
                version.version,
                version.name,
                version.language,
                version.status == Status::Disabled,
                version.body,
                version.reason,
                version.created_by,
                version.created_at,
            ])
        })
        .map_err(Error::cannot("record a policy"))
        .and_then(Error::unless_one("record a policy"))
}

/// Puts a set in force, from the next decision on.
pub fn append_set(tx: &mut Tx<'_>, set: PolicySet, now: Timestamp) -> Result<(), Error> {
    tx.changes_registry();
    tx.connection()
        .prepare_cached("INSERT INTO policy_sets (tag, list, created_at) VALUES (?1, ?2, ?3)")
        .and_then(|mut insert| insert.execute((set.tag(), set.list(), now.to_string())))
        .map_err(Error::cannot("record which policies are in force"))
        .and_then(Error::unless_one("record which policies are in force"))?;
    tx.compiled().keep(Arc::new(set));
    Ok(())
}

/// The policies in force, from the cache if possible.
pub fn known(tx: &Tx<'_>) -> Result<Arc<PolicySet>, Error> {
    let connection = tx.connection();
    let find = || {
        let (pack, members) = (builtin::in_force(), in_force(connection)?);
        tx.compiled().set_or(pack, &members, || load(connection, pack, &members))
    };
    match tx.known() {
        Some(known) => known.policies_or(find),
        None => find(),
    }
}

/// The same for a reader, which does not fill the cache: its view may predate a change that
/// was committed, and the cache cleared for it, before it got here.
pub(super) fn known_or_loaded(known: &Known, view: &Connection) -> Result<Arc<PolicySet>, Error> {
    match known.policies() {
        Some(policies) => Ok(policies),
        None => {
            let (pack, members) = (builtin::in_force(), in_force(view)?);
            known.compiled().set_or(pack, &members, || load(view, pack, &members))
        }
    }
}

/// The set that a decision names, with the pack in force at the time.
pub fn find_set(tx: &Tx<'_>, tag: &str) -> Result<Arc<PolicySet>, Error> {
    let connection = tx.connection();
    let unknown = || Error::Corrupt(format!("no policies are recorded under {tag:?}"));
    let (pack, digits) = split_tag(tag);
    let pack = builtin::find(pack).ok_or_else(unknown)?;
    let members = match digits {
        Some(digits) => members(&find_list(connection, digits)?.ok_or_else(unknown)?)?,
        None => Vec::new(),
    };
    tx.compiled().set_or(pack, &members, || load(connection, pack, &members))
}

/// The list with these digits. It is stored once, under the pack of the program that put it
/// in force, and stays in force under later packs.
fn find_list(connection: &Connection, digits: &str) -> Result<Option<String>, Error> {
    for pack in builtin::released() {
        let tag = format!("{}+{digits}", pack.version);
        let list = connection
            .prepare_cached("SELECT list FROM policy_sets WHERE tag = ?1 LIMIT 1")
            .and_then(|mut row| row.query_row([tag], |row| row.get(0)).optional())
            .map_err(Error::cannot("find the policies of a decision"))?;
        if list.is_some() {
            return Ok(list);
        }
    }
    Ok(None)
}

fn in_force(connection: &Connection) -> Result<Vec<Member>, Error> {
    let list: Option<String> = connection
        .prepare_cached("SELECT list FROM policy_sets ORDER BY seq DESC LIMIT 1")
        .and_then(|mut row| row.query_row([], |row| row.get(0)).optional())
        .map_err(Error::cannot("read which policies are in force"))?;
    list.map_or(Ok(Vec::new()), |list| members(&list))
}

fn members(list: &str) -> Result<Vec<Member>, Error> {
    read_list(list).ok_or_else(|| Error::Corrupt("a list of policies cannot be read".to_owned()))
}

fn load(connection: &Connection, pack: &Arc<Pack>, members: &[Member]) -> Result<PolicySet, Error> {
    let policies = members.iter().map(|member| load_one(connection, member));
    Ok(PolicySet::beside(pack, policies.collect::<Result<_, Error>>()?))
}

fn load_one(connection: &Connection, member: &Member) -> Result<Policy, Error> {
    let Member { policy_key, version, sha256 } = member;
    let body: Option<String> = connection
        .prepare_cached(
            "SELECT body FROM policy_versions WHERE policy_key = ?1 AND version = ?2 AND language = ?3",
        )
        .and_then(|mut row| row.query_row((policy_key, version, LANGUAGE), |row| row.get(0)).optional())
        .map_err(Error::cannot("read a policy"))?;
    let wrong =
        |what: String| Error::Corrupt(format!("version {version} of the policy {policy_key:?} {what}"));
    let body = body.ok_or_else(|| wrong("is in force but missing".to_owned()))?;
    let document = document::parse(&body).map_err(|error| wrong(format!("cannot be read: {error}")))?;
    if document.sha256 != *sha256 {
        return Err(wrong("is not the one that was put in force".to_owned()));
    }
    Ok(Policy::new(policy_key, *version, document, body.len()))
}

/// The last version of a policy.
pub fn find_last(connection: &Connection, policy_key: &str) -> Result<Option<Version>, Error> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM policy_versions v WHERE policy_key = ?1 ORDER BY version DESC LIMIT 1"
        ))
        .and_then(|mut row| row.query_row([policy_key], from_row).optional())
        .map_err(Error::cannot("find a policy"))
}

/// The last version of each policy, most recently changed first.
pub fn list(connection: &Connection, limit: u32, offset: u32) -> Result<Vec<Version>, Error> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM policy_versions v WHERE v.seq IN \
             (SELECT max(seq) FROM policy_versions GROUP BY policy_key) \
             ORDER BY v.seq DESC LIMIT ?1 OFFSET ?2"
        ))
        .and_then(|mut rows| rows.query_map((limit, offset), from_row)?.collect())
        .map_err(Error::cannot("list policies"))
}

/// Size of the listed documents, in bytes, above which a list of versions ends early.
const LISTED_BYTES_MAX: usize = 8 << 20;

/// Versions of a policy, newest first; fewer than `limit` if they are large.
pub fn versions(
    connection: &Connection,
    policy_key: &str,
    limit: u32,
    offset: u32,
) -> Result<Vec<Version>, Error> {
    version_rows(connection, policy_key, limit, offset)
        .map_err(Error::cannot("list the versions of a policy"))
}

fn version_rows(
    connection: &Connection,
    policy_key: &str,
    limit: u32,
    offset: u32,
) -> rusqlite::Result<Vec<Version>> {
    let mut rows = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM policy_versions v WHERE policy_key = ?1 \
         ORDER BY version DESC LIMIT ?2 OFFSET ?3"
    ))?;
    let (mut listed, mut bytes) = (Vec::new(), 0);
    for version in rows.query_map((policy_key, limit, offset), from_row)? {
        let version = version?;
        bytes += version.body.len();
        listed.push(version);
        if bytes > LISTED_BYTES_MAX {
            break;
        }
    }
    Ok(listed)
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<Version> {
    let (superseded, disabled) = (row.get(10)?, column::exact_flag(row, 5)?);
    let status = match (superseded, disabled) {
        (true, _) => Status::Superseded,
        (false, true) => Status::Disabled,
        (false, false) => Status::Active,
    };
    Ok(Version {
        id: row.get(0)?,
        policy_key: row.get(1)?,
        version: row.get(2)?,
        name: row.get(3)?,
        language: row.get(4)?,
        status,
        body: row.get(6)?,
        reason: row.get(7)?,
        created_by: row.get(8)?,
        created_at: row.get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::guard::Layout;
    use crate::store::{Store, connection, files, migrate};

    const NOW: Timestamp = Timestamp::from_micros(1_780_000_000_000_000);
    const BODY: &str = r#"{"rules":[{"id":"r","effect":"redact","when":{},"redact_fields":["pin"]}]}"#;

    fn version() -> Version {
        Version {
            id: "v".to_owned(),
            policy_key: "p".to_owned(),
            version: 1,
            name: "n".to_owned(),
            language: LANGUAGE.to_owned(),
            status: Status::Active,
            body: BODY.to_owned(),
            reason: None,
            created_by: "operator".to_owned(),
            created_at: NOW.to_string(),
        }
    }

    #[test]
    fn a_set_is_found_with_the_pack_that_decided_whichever_it_was_put_in_force_beside() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        files::create_private_file(&path).expect("created");
        migrate::create(&mut connection::creator(&path).expect("it opens"), NOW).expect("made");
        let store = Store::open(&Layout::of(&path).expect("a layout"), NOW).expect("it opens");
        let policy = || Policy::new("p", 1, document::parse(BODY).expect("a document"), BODY.len());
        let pack = |version| builtin::find(version).expect("a pack");
        store
            .write(move |tx| {
                insert(tx, &version())?;
                append_set(tx, PolicySet::beside(pack("builtin-0"), vec![policy()]), NOW)
            })
            .expect("written");
        let fields = move |tag: String| {
            store.write(move |tx| {
                let set = find_set(tx, &tag)?;
                assert_eq!(set.tag(), tag);
                let names = ["read_redacted", "credential_read_redacted", "p/r"];
                Ok::<_, Error>(set.fields_of(names.into_iter()))
            })
        };
        for (version, own) in
            [("builtin-0", &["old"][..]), ("builtin-1", &["api_key", "password", "secret", "token"])]
        {
            assert_eq!(fields(version.to_owned()).expect("found"), own);
            let both = PolicySet::beside(pack(version), vec![policy()]).tag().to_owned();
            assert_eq!(fields(both).expect("found"), [own, &["pin"]].concat());
        }
        for unknown in ["builtin-9", "builtin-1+000000000000", "builtin-9+000000000000"] {
            let found = fields(unknown.to_owned());
            assert!(matches!(found, Err(Error::Corrupt(_))), "{unknown}: {found:?}");
        }
    }
}
