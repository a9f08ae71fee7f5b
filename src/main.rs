//! `aegis-gateway`: arguments, settings, log, store, server, shutdown. Wiring only.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::panic;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use aegis_gateway::clock::{Clock, SystemClock};
use aegis_gateway::config::Config;
use aegis_gateway::http::server::{Server, ServerConfig};
use aegis_gateway::notify::{self, State};
use aegis_gateway::service::limits::Limits;
use aegis_gateway::service::{Gateway, health, housekeeping};
use aegis_gateway::startup::{self, Options, Started};
use aegis_gateway::stderr;
use aegis_gateway::store::guard::{Guard, Layout};
use aegis_gateway::store::{Store, files};
use aegis_gateway::token;

const HELP: &str = "\
aegis-gateway: decides, records and proves what AI agents may do

Usage: aegis-gateway [--check-config | healthcheck | --help | --version]

  (nothing)        run the gateway
  --check-config   check the settings and print them; touches nothing
  healthcheck      ask the running gateway whether it is ready

Settings, by environment:
  AEGIS_BIND_ADDR         where to listen                      127.0.0.1:8080
  AEGIS_DB_PATH           the database file                    db/aegisagent.db
  AEGIS_BACKUP_DIR        where backups are written            backups
  AEGIS_ADMIN_TOKEN       the operator's token                 (made at first start)
  AEGIS_ADMIN_TOKEN_FILE  a file that holds it                 (admin.token beside the database)
  AEGIS_WORKERS           threads that handle requests         16
  AEGIS_MAX_BODY_BYTES    largest request body                 1048576
  AEGIS_AUTH_FAILURES_PER_MINUTE  requests without a valid token from one address, 0: no limit  60
  AEGIS_AUTHORIZE_PER_SECOND      authorizations of one agent, 0: no limit                      0
  AEGIS_APPROVAL_TTL_SECS  how long an approval can be given and used  1800
  AEGIS_WAL_CHOICE        replay:ID or set-aside:ID, where a start was refused in doubt
  AEGIS_ACCEPT_ROLLBACK   a head's hash, or empty, where a start was refused behind a backup
  AEGIS_PRE_MIGRATION_BACKUP  on or off: a backup before the schema changes  on
  RUST_LOG                off, error, warn, info, debug, trace info

Exit status: 0 stopped cleanly (or ready); 1 failed while running (or not ready);
2 usage or a bad setting; 3 the database was refused, and every file left as it was.
";

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const REFUSED: u8 = 3;

/// How long requests in flight may take to finish after SIGTERM.
const SHUTDOWN_MAX: Duration = Duration::from_secs(8);
/// How long `healthcheck` waits.
const HEALTHCHECK_MAX: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        [] => with_config(run),
        ["--check-config"] => with_config(|config| print(&format!("{config}\nthe settings are valid\n"))),
        ["healthcheck"] => with_config(healthcheck),
        ["--help" | "-h"] => print(HELP),
        ["--version" | "-V"] => print(concat!("aegis-gateway ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => fail(USAGE, "unknown arguments; see --help"),
    }
}

fn with_config(then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    match Config::from_env() {
        Ok(config) => then(config),
        Err(error) => fail(USAGE, &error.to_string()),
    }
}

fn run(config: Config) -> ExitCode {
    keep_freed_memory();
    start_log(&config.log_filter);
    for name in &config.unknown {
        log::warn!("{name} is not a setting of this program");
    }
    let signals = match catch_signals() {
        Ok(signals) => signals,
        Err(error) => return fail(FAILED, &format!("cannot catch signals: {error}")),
    };
    // Found taken before a start has written anything; who connects meanwhile waits.
    let listener = match TcpListener::bind(config.bind_addr) {
        Ok(listener) => listener,
        Err(error) => {
            let line = format!("AEGIS_BIND_ADDR={}: cannot listen: {error}", config.bind_addr);
            return fail(USAGE, &line);
        }
    };
    let clock = Arc::new(SystemClock);
    let options = Options {
        database: &config.db_path,
        backups: &config.backup_dir,
        wal_choice: config.wal_choice,
        accept_rollback: config.accept_rollback.as_deref(),
        pre_migration_backup: config.pre_migration_backup,
    };
    let started = match startup::start(&options, clock.as_ref()) {
        Ok(started) => started,
        Err(refusal) => return fail(REFUSED, &refusal.to_string()),
    };
    serve(&config, clock, listener, started, signals)
}

fn serve(
    config: &Config,
    clock: Arc<SystemClock>,
    listener: TcpListener,
    started: Started,
    mut signals: Signals,
) -> ExitCode {
    let Started { store, guard, backups } = started;
    let operator = match token::obtain(&config.admin_token) {
        Ok(operator) => operator,
        Err(refusal) => return stop(&store, guard, fail(USAGE, &refusal.to_string())),
    };
    let limits = Limits::new(config.auth_failures_per_minute, config.authorize_per_second);
    let gateway = Gateway::new(store, clock, backups, operator).with_limits(limits);
    let gateway = Arc::new(gateway.with_approval_ttl(config.approval_ttl_seconds));
    let server = match listen(config, listener, &gateway, &guard) {
        Ok(server) => server,
        Err(error) => {
            let status = fail(FAILED, &format!("cannot start to serve: {error}"));
            return stop(&gateway.store, guard, status);
        }
    };
    log::info!("aegis-gateway {} listens on {}", env!("CARGO_PKG_VERSION"), server.local_addr());
    notify::tell(config.notify_socket.as_ref(), State::Ready);
    if let Some(signal) = signals.forever().next() {
        log::info!("stopping on signal {signal}; a second one ends at once");
        notify::tell(config.notify_socket.as_ref(), State::Stopping);
    }
    gateway.store.end_long_work();
    let report = server.shutdown(Instant::now() + SHUTDOWN_MAX);
    log::info!("finished {} requests, cut {}", report.finished, report.cut);
    health::stop(&gateway);
    housekeeping::stop(&gateway);
    stop(&gateway.store, guard, ExitCode::SUCCESS)
}

fn listen(
    config: &Config,
    listener: TcpListener,
    gateway: &Arc<Gateway>,
    guard: &Guard,
) -> io::Result<Server> {
    health::start(Arc::clone(gateway))?;
    housekeeping::start(Arc::clone(gateway))?;
    let sockets = files::with_suffix(&guard.layout().database, ".sockets");
    let workers =
        ServerConfig { workers: config.workers, body_bytes_max: config.body_bytes_max, sockets: &sockets };
    let server = Server::start(gateway, listener, workers)?;
    guard.publish_address(&server.local_addr().to_string())?;
    Ok(server)
}

/// Leaves the database closed, without a log beside it, and the lock free.
fn stop(store: &Store, guard: Guard, status: ExitCode) -> ExitCode {
    if let Err(error) = store.close() {
        return fail(FAILED, &format!("{error}; nothing that was acknowledged is lost"));
    }
    match guard.release() {
        Ok(()) => status,
        Err(error) => fail(FAILED, &format!("cannot record how the database was left: {error}")),
    }
}

/// The first SIGTERM, SIGINT or SIGHUP is for the iterator; the second ends the
/// process. SIGXFSZ would end it when a file reaches its size limit: caught, the
/// write fails instead.
fn catch_signals() -> io::Result<Signals> {
    let again = Arc::new(AtomicBool::new(false));
    let mut ends = vec![SIGTERM, SIGINT];
    if !hangup_is_ignored() {
        ends.push(SIGHUP);
    }
    for &signal in &ends {
        flag::register_conditional_shutdown(signal, i32::from(FAILED), Arc::clone(&again))?;
        flag::register(signal, Arc::clone(&again))?;
    }
    flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    Signals::new(ends)
}

/// Started by nohup(1), the gateway goes on when its terminal goes away.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}

/// Makes glibc keep what is freed instead of giving it back page by page: every
/// transaction frees some, and the next one would fault it in again. Freeing one
/// large block raises its thresholds to that size (mallopt(3), M_MMAP_THRESHOLD);
/// the block is never touched, so it takes no memory. Other allocators do not mind.
fn keep_freed_memory() {
    const LARGER_THAN_WHAT_IS_FREED_OFTEN: usize = 8 << 20;
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGER_THAN_WHAT_IS_FREED_OFTEN)));
}

fn start_log(filter: &str) {
    env_logger::Builder::new()
        .parse_filters(filter)
        .format(|line, record| {
            let level = record.level().as_str().to_ascii_lowercase();
            writeln!(line, "{} {level} {}", SystemClock.now(), record.args())
        })
        .target(env_logger::Target::Pipe(Box::new(stderr::Log::default())))
        .init();
    panic::set_hook(Box::new(|panic| log::error!("{}", panic.to_string().replace('\n', " "))));
}

/// Asks `/readyz` of the running gateway. With port 0, the port stands in the lock file.
fn healthcheck(config: Config) -> ExitCode {
    match ask_readiness(&config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => fail(FAILED, &format!("not ready: {reason}")),
    }
}

fn ask_readiness(config: &Config) -> Result<(), String> {
    let address = running_address(config)?;
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, HEALTHCHECK_MAX)?;
        stream.set_read_timeout(Some(HEALTHCHECK_MAX))?;
        stream.set_write_timeout(Some(HEALTHCHECK_MAX))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(1 << 16).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("{address}: {error}"))?;
    if answer.starts_with("HTTP/1.1 200 ") {
        return Ok(());
    }
    Err(answer.lines().last().unwrap_or("no answer").to_owned())
}

fn running_address(config: &Config) -> Result<SocketAddr, String> {
    let mut address = config.bind_addr;
    if address.port() == 0 {
        let lock = Layout::of(&config.db_path).map_err(|refusal| refusal.to_string())?.lock;
        let text =
            std::fs::read_to_string(&lock).map_err(|_| "no gateway runs on this database".to_owned())?;
        address = text.parse().map_err(|_| format!("{} holds no address", lock.display()))?;
    }
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Ok(address)
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(FAILED),
    }
}

/// Says why in one line. The only way this program ends otherwise than well.
fn fail(status: u8, message: &str) -> ExitCode {
    // Not `eprintln!`, which panics where standard error is full: the status must hold.
    stderr::say(&format!("aegis-gateway: {message}"));
    ExitCode::from(status)
}
