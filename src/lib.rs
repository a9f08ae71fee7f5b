//! AegisAgent's gateway: AI agents ask it before they act. It **decides** (allow,
//! deny, require approval, redact), **records** the decision, and **proves** it by a
//! chain of receipts. All of it lies in one SQLite file.
//!
//! # The way of a request
//! ```text
//! socket ─ http::gate      one whole, bounded, strictly framed request, or a refusal
//!        ─ http::server    a worker reads it; a panic is a 500, and the worker lives
//!        ─ http::router    path, method, caller, body: in this order
//!        ─ http::authorize decodes (domain::json, once), and shows the answer
//!        ─ service         one use case, one write transaction:
//!            store::agents      who asks (looked up again inside the transaction)
//!            store::decisions   was it asked before?
//!            domain::decision   decide(call, facts): pure
//!            store::receipts    append to the chain
//!            store::decisions   record, at the receipt's position
//!            store::approvals   what waits for a person
//!        ─ store::commit   shares a transaction and a sync with whoever waits too, and
//!                          sends the answer; no worker waits for the disk
//! ```
//! Nothing is acknowledged before it is synced; nothing that is synced is outside the chain.
//!
//! # The way of a backup
//! [`backup`]: a private partial file → `VACUUM INTO` on a connection of its own → synced →
//! every page, the schema and the chain checked, side by side and giving way to traffic →
//! its manifest and digest get their names → linked to its own, never over another → folder
//! synced → answered.
//!
//! # The way of a start
//! [`startup`]: lock → [`store::guard`] judges the files by their bytes → the content is
//! read without touching it → the manifests of its backups say whether it is behind what
//! they have seen → a backup, if the schema is to change → only then is a foreign log set
//! aside, the file's identity recorded, and SQLite let in → [`store::migrate`] → a restore
//! is appended to the chain → listen.
//!
//! # Invariants
//! 1. An answer is on disk before it is sent: decision, approval and receipt are one
//!    transaction, committed with `synchronous=FULL`.
//! 2. The chain never forks, skips or loses a link: triggers that let a receipt follow the
//!    last one only, and against UPDATE and DELETE; the head beside the chain, and
//!    [`evidence`] to check.
//! 3. A backup under its final name is whole, verified and synced, or it is not there; and
//!    whoever sees it sees its manifest.
//! 4. In doubt the gateway refuses, leaves every file as it was, and says in one line
//!    what is wrong and what to do: whatever can refuse a start comes before what writes.
//!    *Deny* is an outcome; an error is never an allow.
//! 5. A secret is never logged, never shown twice, never stored in clear.
//! 6. No input, client or full disk ends the process or makes it lie about its health.
//!
//! # What lives where
//! Arrows run one way: `main → http → service → {backup, evidence, store, domain}`,
//! `backup → evidence → store → domain`. [`startup`] stands on `backup`, `evidence` and `store`;
//! [`config`] on the guard's and the domain's types, [`token`] on `config`.
//!
//! | Module | What it is |
//! |---|---|
//! | [`domain`] | what is decided and proven: pure, no SQL, no HTTP, no clock |
//! | [`store`] | SQLite: connections, transactions, one file a table, the guard |
//! | [`backup`] | the whole backup path |
//! | [`evidence`] | the verifier, for a database, a backup or an export; what witnesses say of a chain |
//! | [`service`] | use cases: one function, one transaction |
//! | [`http`] | the gate, the server, the table of routes, a handler file a resource |
//! | [`startup`] | from the files as they lie there to an open store |
//! | [`config`] | the only reader of the environment |
//! | [`token`] | the configured operator's token; the others are in the database |
//! | [`notify`] | readiness, told to the service manager |
//! | [`stderr`] | the log's way out, which holds nobody up |
//! | [`clock`], [`entropy`] | time and randomness |
//!
//! | A change of … | touches |
//! |---|---|
//! | a rule of deciding | `domain/policy/builtin.json`, and the table test in `domain/decision.rs` |
//! | a column | a new file in `migrations/`, one file of `store/`, the domain type; a column of evidence also in how the verifier reads older versions, since a restored backup is verified before it is migrated |
//! | what a token's scope may do | `domain/operator.rs`, and the table in `tests/it/operators.rs` |
//! | an endpoint | a line of `http/router.rs`, one handler, one service function, its area's file in `http/openapi/` |
//! | an error a caller can see | a variant of [`service::Error`]; the compiler shows the status map |
//! | a setting | `config.rs`, and the README's table |
//! | the receipt's members | a new format version beside the old one, and a new golden file |
//! | what a chain says of a restore | `domain/restore.rs`, which a start writes by and the verifier reads by |

pub mod backup;
pub mod clock;
pub mod config;
pub mod domain;
pub mod entropy;
pub mod evidence;
pub mod http;
pub mod notify;
pub mod service;
pub mod startup;
pub mod stderr;
pub mod store;
mod sync;
pub mod token;
