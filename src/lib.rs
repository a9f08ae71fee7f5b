//! AegisAgent's gateway: AI agents ask it before they act. It **decides** (allow,
//! deny, require approval, redact), **records** the decision, and **proves** it with a
//! chain of receipts. All state lives in one SQLite file.
//!
//! # Life of a request
//! ```text
//! socket ─ http::gate      one complete, bounded, strictly framed request, or a rejection
//!        ─ http::server    a worker reads it; a panic becomes a 500 and the worker survives
//!        ─ http::router    path, method, caller, body: in this order
//!        ─ http::authorize decodes the body (domain::json, once) and renders the answer
//!        ─ service         one use case, one write transaction:
//!            store::agents      who asks (looked up again inside the transaction)
//!            store::decisions   was it asked before?
//!            domain::decision   decide(call, facts): pure
//!            store::receipts    append to the chain
//!            store::decisions   record, at the receipt's position
//!            store::approvals   the pending approval, if one is needed
//!        ─ store::commit   batches concurrent writes into one transaction and one sync, then
//!                          sends the answers; no worker waits for the disk
//! ```
//! Nothing is acknowledged before it is synced; nothing that is synced is outside the chain.
//!
//! # Life of a backup
//! [`backup`]: a private partial file → `VACUUM INTO` on a separate connection → sync →
//! check every page, the schema and the chain, in parallel and yielding to traffic →
//! give the manifest and the digest their names → link the backup to its name, never
//! replacing a file → sync the folder → answer.
//!
//! # Startup
//! [`startup`]: lock → [`store::guard`] judges the files by their bytes → read the content
//! without modifying it → compare it with its backups' manifests to see whether the chain is
//! behind them → take a backup if the schema will change → only then set a foreign log aside,
//! record the file's identity and open it with SQLite → [`store::migrate`] → append a restore
//! to the chain → listen.
//!
//! # Invariants
//! 1. An answer is on disk before it is sent: decision, approval and receipt are one
//!    transaction, committed with `synchronous=FULL`.
//! 2. The chain never forks, skips or loses a link. Triggers accept only the successor of
//!    the last receipt and reject UPDATE and DELETE; the head is stored separately, and
//!    [`evidence`] verifies it all.
//! 3. A backup under its final name is complete, verified and synced, and its manifest is
//!    visible whenever the backup is.
//! 4. When in doubt, the gateway refuses to start, leaves every file as it was, and says in
//!    one line what is wrong and what to do: every check that can refuse runs before anything
//!    is written. *Deny* is an outcome; an error is never an allow.
//! 5. A secret is never logged, never shown twice, never stored in plaintext.
//! 6. No input, client or full disk ends the process or makes it misreport its health.
//!
//! # Where things live
//! Dependencies point one way: `main → http → service → {backup, evidence, store, domain}`,
//! `backup → evidence → store → domain`. [`startup`] builds on `backup`, `evidence` and `store`;
//! [`config`] on the guard's and the domain's types; [`token`] on `config`.
//!
//! | Module | Contents |
//! |---|---|
//! | [`domain`] | decisions and proofs: pure, no SQL, no HTTP, no clock |
//! | [`store`] | SQLite: connections, transactions, one file per table, the guard |
//! | [`backup`] | the whole backup path |
//! | [`evidence`] | the verifier for a database, a backup or an export; what witnesses say about a chain |
//! | [`service`] | use cases: one function, one transaction |
//! | [`http`] | the gate, the server, the route table, one handler file per resource |
//! | [`startup`] | from the files as found on disk to an open store |
//! | [`config`] | the only reader of the environment |
//! | [`token`] | the configured operator's token; all others are in the database |
//! | [`notify`] | readiness notification to the service manager |
//! | [`stderr`], `throttle` | log output that never blocks, and failures that are not repeated |
//! | [`clock`], [`entropy`] | time and randomness |
//!
//! | To change … | touch |
//! |---|---|
//! | a rule of the built-in pack | a new version beside the old ones in `domain/policy/builtin.rs`, with its file and its digest; the table test in `domain/decision/tests.rs` |
//! | a column | a new file in `migrations/`, one file of `store/`, the domain type; for a column of evidence, also how the verifier reads older versions, since a restored backup is verified before it is migrated |
//! | what a token's scope may do | `domain/operator.rs`, and the table in `tests/it/operators.rs` |
//! | an endpoint | a line of `http/router.rs`, one handler, one service function, its area's file in `http/openapi/` |
//! | an error a caller can see | a variant of [`service::Error`]; the compiler points to the status map |
//! | a setting | a line of `config/settings.rs`, where `config/mod.rs` reads and shows it, and the README's table |
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
mod throttle;
pub mod token;
