//! A TCP proxy that breaks the connections it carries, for tests of real processes. Linux only.
//!
//!     fault-proxy 127.0.0.1:8003
//!
//! listens on a port of 127.0.0.1 that the system picks, prints `listening ADDRESS`, and passes what connects there on to the
//! target. It takes commands on its standard input, one a line, and answers each with one line: `ok`, or `error` and what would
//! be right. It ends when its input does.
//!
//! | command | from then on |
//! |---|---|
//! | `pass` | all is passed on: what it does at first |
//! | `delay MS` | each direction is so much later, in its order |
//! | `rate BYTES_PER_SECOND` | each direction of each connection carries so much |
//! | `blackhole` | nothing arrives, no end of a connection either; new ones are taken and stay silent |
//! | `half-open` | nothing arrives at the client; with `reverse`, nothing at the target |
//! | `stall` | nothing is read until another command, then all goes on without a loss |
//! | `refuse` | new connections are reset at once, open ones go on |
//! | `reset` | now and once: each open connection is reset, at both ends |
//! | `cut BYTES` | once: each connection that is open now is reset after so many more bytes, both directions counted |
//! | `count` | answers `ok connections N bytes_up N bytes_down N`: those taken, and what was passed on each way, so far |
//!
//! What `blackhole` or `half-open` swallowed is gone: a direction that was open then stays silent for ever, also after `pass`,
//! as behind a router that forgot its connections.

use std::{
    collections::VecDeque,
    io::{self, BufRead, ErrorKind, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::ExitCode,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// How long a read or a write may block before it is looked what was commanded; with a rate, the pause between two reads.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes that are read at once, and how many such pieces wait in one direction.
const PIECE: usize = 16 << 10;
const WAITING: usize = 256;
/// Nothing was read or written for so long.
const LATE: [ErrorKind; 3] = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted];
/// Directions, by the end that they come from.
const UP: usize = 0;
const DOWN: usize = 1;
const COMMANDS: &str = "pass, delay MS, rate BYTES_PER_SECOND, blackhole, half-open, half-open reverse, stall, \
    refuse, reset, cut BYTES, count";

/// What was read, and when it is due.
type Pieces = VecDeque<(Instant, Vec<u8>)>;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Pass,
    Delay(Duration),
    Rate(f64),
    /// Which of the directions.
    Swallow([bool; 2]),
    Stall,
    Refuse,
}

struct Connection {
    /// The client's and the target's.
    ends: [TcpStream; 2],
    /// Directions of which nothing arrives any more.
    swallowed: [AtomicBool; 2],
    /// Bytes until it is reset, both directions together.
    left: AtomicUsize,
}

struct Proxy {
    target: String,
    /// And the connections that are open.
    state: Mutex<(Mode, Vec<Arc<Connection>>)>,
    changed: Condvar,
    /// Bytes passed on in each direction, and connections taken.
    counts: [AtomicU64; 3],
}

/// Resets a connection. Std cannot set SO_LINGER, but on Linux a TCP socket that is connected to an address of no family is
/// reset, and the address of a datagram's unnamed sender is one.
fn reset(stream: &TcpStream) -> io::Result<()> {
    let (from, to) = UnixDatagram::pair()?;
    from.send(&[0])?;
    let (_, nowhere) = to.recv_from(&mut [0])?;
    let socket = UnixDatagram::from(OwnedFd::from(stream.try_clone()?));
    // Some kernels wait for those that read.
    let busy = |_: &u8| matches!(socket.connect_addr(&nowhere), Err(error) if error.kind() == ErrorKind::ResourceBusy);
    (0..200).take_while(busy).for_each(|_| thread::sleep(LOOK / 4));
    Ok(())
}

impl Connection {
    fn reset(&self) -> io::Result<()> {
        self.ends.each_ref().map(reset).into_iter().collect()
    }
}

impl Proxy {
    fn state(&self) -> MutexGuard<'_, (Mode, Vec<Arc<Connection>>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What holds, once nothing is stalled.
    fn mode(&self) -> Mode {
        let moving = self.changed.wait_while(self.state(), |state| state.0 == Mode::Stall);
        moving.unwrap_or_else(PoisonError::into_inner).0
    }

    fn carry(&self, client: TcpStream) -> io::Result<()> {
        let target = match self.mode() {
            Mode::Refuse => return reset(&client),
            _ => TcpStream::connect(&self.target).or_else(|error| reset(&client).and(Err(error)))?,
        };
        let (mut state, left) = (self.state(), AtomicUsize::new(usize::MAX));
        let swallowed = if let Mode::Swallow(ways) = state.0 { ways } else { [false; 2] }.map(AtomicBool::new);
        let connection = Arc::new(Connection { ends: [client, target], swallowed, left });
        state.1.push(connection.clone());
        drop(state);
        thread::scope(|scope| {
            let open = &connection;
            // Of one that broke at one end nothing is left at the other; that may be gone already.
            let _ = [UP, DOWN].map(|way| scope.spawn(move || self.flow(open, way).or_else(|_| open.reset())));
        });
        self.state().1.retain(|open| !Arc::ptr_eq(open, &connection));
        Ok(())
    }

    /// Carries one direction until it ends.
    fn flow(&self, connection: &Connection, way: usize) -> io::Result<()> {
        let (mut from, to) = (&connection.ends[way], &connection.ends[1 - way]);
        to.set_nodelay(true).and(to.set_write_timeout(Some(LOOK)))?;
        let (mut waiting, mut ended, mut buffer) = (Pieces::new(), None::<Option<ErrorKind>>, [0; PIECE]);
        loop {
            let most = if let Mode::Rate(rate) = self.mode() { (rate / 50.0) as usize } else { PIECE };
            let swallowed = connection.swallowed[way].load(SeqCst);
            waiting.retain(|_| !swallowed);
            let wait = waiting.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
            match (wait, ended) {
                (Some(Duration::ZERO), _) => self.pass(connection, way, &mut waiting)?,
                // Nobody is told of the end of one that is swallowed.
                (None, Some(_)) if swallowed => return Ok(()),
                (None, Some(Some(kind))) => return Err(kind.into()),
                (None, Some(None)) => return to.shutdown(Shutdown::Write),
                (Some(wait), _) if ended.is_some() || waiting.len() >= WAITING => thread::sleep(wait.min(LOOK)),
                _ => {
                    from.set_read_timeout(Some(wait.unwrap_or(LOOK).min(LOOK)))?;
                    match from.read(&mut buffer[..most.clamp(1, PIECE)]) {
                        Ok(0) => ended = Some(None),
                        Ok(bytes) => {
                            // It may have been commanded while nothing came.
                            let (delay, pause) = match self.mode() {
                                Mode::Delay(delay) => (delay, Duration::ZERO),
                                Mode::Rate(rate) => (Duration::ZERO, Duration::from_secs_f64(bytes as f64 / rate)),
                                _ => (Duration::ZERO, Duration::ZERO),
                            };
                            thread::sleep(pause);
                            waiting.push_back((Instant::now() + delay, buffer[..bytes].to_vec()));
                        }
                        Err(error) if LATE.contains(&error.kind()) => {}
                        Err(error) => ended = Some(Some(error.kind())),
                    }
                }
            }
        }
    }

    /// Writes what it can of the first piece.
    fn pass(&self, connection: &Connection, way: usize, waiting: &mut Pieces) -> io::Result<()> {
        let Some((_, piece)) = waiting.front_mut() else { return Ok(()) };
        let left = connection.left.load(SeqCst);
        match (&connection.ends[1 - way]).write(&piece[..piece.len().min(left)]) {
            Ok(written) => {
                self.counts[way].fetch_add(written as u64, SeqCst);
                piece.drain(..written);
                if left < usize::MAX && connection.left.fetch_sub(written.min(left), SeqCst) <= written {
                    return Err(ErrorKind::ConnectionReset.into());
                }
            }
            Err(error) if LATE.contains(&error.kind()) => {}
            Err(error) => return Err(error),
        }
        waiting.pop_front_if(|(_, piece)| piece.is_empty());
        Ok(())
    }

    /// Does what a line says; what is answered.
    fn command(&self, line: &str) -> Result<String, String> {
        let wrong = |word: &str| format!("'{word}' in '{line}' must be a whole number, as in: delay 300");
        let number = |word: &str| word.parse::<u32>().map_err(|_| wrong(word));
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut state = self.state();
        match words[..] {
            ["pass"] => state.0 = Mode::Pass,
            ["delay", ms] => state.0 = Mode::Delay(Duration::from_millis(number(ms)?.into())),
            ["rate", rate] if number(rate)? > 0 => state.0 = Mode::Rate(number(rate)?.into()),
            ["blackhole"] => state.0 = Mode::Swallow([true; 2]),
            ["half-open"] => state.0 = Mode::Swallow([false, true]),
            ["half-open", "reverse"] => state.0 = Mode::Swallow([true, false]),
            ["stall"] => state.0 = Mode::Stall,
            ["refuse"] => state.0 = Mode::Refuse,
            // One that is closed already cannot be reset.
            ["reset"] => state.1.iter().for_each(|open| drop(open.reset())),
            ["cut", left] => {
                number(left).map(|left| state.1.iter().for_each(|open| open.left.store(left as usize, SeqCst)))?
            }
            ["count"] => {
                let [up, down, taken] = self.counts.each_ref().map(|count| count.load(SeqCst));
                return Ok(format!("ok connections {taken} bytes_up {up} bytes_down {down}"));
            }
            _ => return Err(format!("'{line}' must be one of: {COMMANDS}")),
        }
        if let Mode::Swallow(ways) = state.0 {
            let open = state.1.iter().flat_map(|open| open.swallowed.iter().zip(ways));
            open.filter(|(_, swallow)| *swallow).for_each(|(swallowed, _)| swallowed.store(true, SeqCst));
        }
        self.changed.notify_all();
        Ok("ok".into())
    }
}

fn serve(target: String) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("listening {}", listener.local_addr()?);
    let (state, counts) = (Mutex::new((Mode::Pass, Vec::new())), [0, 0, 0].map(AtomicU64::new));
    let proxy = Arc::new(Proxy { target, state, changed: Condvar::new(), counts });
    let serving = proxy.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let proxy = serving.clone();
            proxy.counts[2].fetch_add(1, SeqCst);
            // One that is gone before it is carried is nobody's loss.
            thread::spawn(move || drop(proxy.carry(client)));
        }
    });
    for line in io::stdin().lock().lines() {
        let done = proxy.command(&line?);
        println!("{}", done.unwrap_or_else(|wrong| format!("error: {wrong}")));
    }
    Ok(())
}

fn main() -> ExitCode {
    let usage = "it must be given the target's HOST:PORT, as in: fault-proxy 127.0.0.1:8003";
    let target = std::env::args().nth(1).ok_or_else(|| io::Error::other(usage));
    let served = target.and_then(serve).map_err(|error| eprintln!("fault-proxy: {error}"));
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
