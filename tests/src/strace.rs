//! strace: records a daemon's system calls, and makes one of them fail or kills the daemon there.
//!
//! strace counts the calls of each thread separately, so a point in a daemon's life is a thread, a call and a number.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal};

use crate::{Daemon, Home, until};

/// The system calls by which a daemon changes anything outside itself, or takes something from there. Those with a
/// question mark do not exist on every architecture.
const CALLS: &str = "accept4,bind,?chmod,connect,fchmod,fchmodat,fchown,fdatasync,flock,fsync,ftruncate,?link,linkat,listen,?mkdir,\
                     mkdirat,openat,pwrite64,pwritev,recvfrom,?rename,renameat,renameat2,sendmsg,sendto,?unlink,unlinkat,write,\
                     writev";

/// False, with a notice, if strace is missing or not permitted.
pub fn works() -> bool {
    let tried = Command::new("strace").args(["-D", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let works = tried.is_ok_and(|status| status.success());
    if !works {
        crate::skipped("there is no strace, or it may not trace");
    }
    works
}

/// False if a running program may not be traced.
pub fn attaches() -> bool {
    let mut sleep = Command::new("sleep").arg("30").spawn().expect("sleep starts");
    let attached = attach(Order(vec!["-o".into(), "/dev/null".into()]), &sleep.id().to_string());
    let _ = sleep.kill();
    let _ = sleep.wait();
    attached.map(|mut strace| strace.wait()).is_some()
}

/// A thread of the daemon that changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thread {
    /// Serves hooks and sends spans.
    Main,
    /// Reads transcripts.
    Engine,
}

/// A system call in a daemon's life.
#[derive(Clone, Debug)]
pub struct Point {
    /// The thread that makes it.
    pub thread: Thread,
    pub call: String,
    /// The number of the call: how many of that name the thread has made, including this one; if `file` is known, to
    /// that file only.
    pub nth: usize,
    /// The file that is written, below the home. How often a thread wakes another one, also by `write`, differs
    /// from run to run.
    pub file: Option<PathBuf>,
}

/// A system call as recorded.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: String,
    /// The text after the name, with strings in hex.
    pub text: String,
    /// False for the end of a call that was interrupted in the record by another thread.
    pub begins: bool,
}

impl Call {
    /// True if a kill before it leaves another state than a kill after it.
    fn matters(&self) -> bool {
        match self.name.as_str() {
            "openat" => self.text.contains("O_CREAT"),
            "write" => self.file().is_some(),
            _ => true,
        }
    }

    /// The file that is written; `None` for other calls, and for what is no file.
    fn file(&self) -> Option<PathBuf> {
        let text = String::from_utf8_lossy(&plain(&self.text)).into_owned();
        let (_, path) = text.split_once('<').filter(|_| self.name == "write")?;
        Some(PathBuf::from(path.split_once('>')?.0)).filter(|path| path.is_absolute())
    }
}

/// The arguments of strace.
#[derive(Clone, Debug)]
pub struct Order(Vec<String>);

impl Order {
    /// Records all calls in `file`.
    pub fn record(file: &Path) -> Self {
        let file = file.display().to_string();
        Self(["-y", "-xx", "-s", "1000000", "-o", &file, "-e", &format!("trace={CALLS}")].map(str::to_owned).into())
    }

    /// Makes `what` (such as `signal=SIGKILL`) happen at `point`, in `home`.
    pub fn inject(home: &Home, Point { call, nth, file, .. }: &Point, what: &str) -> Self {
        let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{what}:when={nth}"));
        let mut order = Vec::from(["-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned));
        if let Some(file) = file {
            order.extend(["-P".to_owned(), home.path().join(file).display().to_string()]);
        }
        Self(order)
    }

    /// Makes every one of `calls` fail with `error`.
    pub fn fail(calls: &str, error: &str) -> Self {
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error={error}"));
        Self(["-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned).into())
    }
}

/// Starts a daemon; `order` is for its main thread.
pub fn on_main(home: &Home, order: Order) -> Daemon {
    home.spawn_daemon_under("strace", &[vec!["-D".to_owned()], order.0].concat())
}

/// Any other program; the order is for its main thread.
pub fn command(home: &Home, Order(order): Order, program: &Path) -> Command {
    let mut command = home.command(Path::new("strace"));
    command.arg("-D").args(order).arg(program);
    command
}

/// Starts a daemon; `order` is for all its threads.
pub fn on_all(home: &Home, order: Order) -> Daemon {
    home.spawn_daemon_under("strace", &[["-D", "-f", "--seccomp-bpf"].map(str::to_owned).into(), order.0].concat())
}

/// The same for something to happen: strace 6.1 does not count all calls with the filter of [`on_all`].
pub fn anywhere(home: &Home, order: Order) -> Daemon {
    home.spawn_daemon_under("strace", &[["-D", "-f"].map(str::to_owned).into(), order.0].concat())
}

/// An order for the engine's thread of a running daemon. `None` if that may not be traced.
pub fn on_engine(daemon: &Daemon, order: Order) -> Option<Child> {
    let tasks = format!("/proc/{}/task", daemon.pid());
    let is_engine = |task: &Path| fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "engine\n");
    let id = until("the engine's thread", || {
        let task = fs::read_dir(&tasks).ok()?.filter_map(Result::ok).find(|task| is_engine(&task.path()))?;
        task.file_name().into_string().ok()
    });
    attach(order, &id)
}

/// An order for all threads of a running daemon. `None` if it may not be traced.
pub fn on_running(daemon: &Daemon, Order(mut order): Order) -> Option<Child> {
    order.push("-f".into());
    attach(Order(order), &daemon.pid().to_string())
}

/// Ends an order; the daemon continues without it.
pub fn end(mut strace: Child) {
    rustix::process::kill_process(Pid::from_child(&strace), Signal::TERM).expect("it takes signals");
    strace.wait().expect("it ends");
}

fn attach(order: Order, id: &str) -> Option<Child> {
    let mut strace = Command::new("strace");
    strace.args(order.0).args(["-p", id]).stderr(Stdio::piped());
    let mut child = strace.spawn().expect("strace starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut said = String::new();
    stderr.read_line(&mut said).expect("strace says something");
    child.stderr = Some(stderr.into_inner());
    if said.contains("attached") {
        return Some(child);
    }
    let _ = child.wait();
    None
}

/// The calls recorded in `file`, of a thread that has ended or of all threads.
pub fn recorded(file: &Path) -> Vec<Call> {
    // If all threads are recorded, each line begins with its thread's id.
    let split = |line: &str| line.bytes().take_while(u8::is_ascii_digit).count();
    let text = until("the recording to end", || {
        let text = fs::read_to_string(file).ok()?;
        let threads: HashSet<&str> = text.lines().map(|line| &line[..split(line)]).collect();
        let ended = text.lines().filter(|line| line.contains("+++ exited")).count();
        (ended > 0 && ended == threads.len() && text.ends_with('\n')).then_some(text)
    });
    let mut calls = Vec::new();
    for line in text.lines() {
        let call = line[split(line)..].trim_start();
        let (begins, call) = call.strip_prefix("<... ").map_or((true, call), |rest| (false, rest));
        let Some((name, text)) = call.split_once(if begins { "(" } else { " resumed>" }) else { continue };
        if name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            calls.push(Call { name: name.to_owned(), text: text.to_owned(), begins });
        }
    }
    calls
}

/// `text` with hex replaced by the bytes it stands for.
pub fn plain(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        out.extend(rest.get(at + 2..at + 4).and_then(|hex| u8::from_str_radix(hex, 16).ok()));
        rest = rest.get(at + 4..).unwrap_or_default();
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// Every point of `thread` that makes a difference, as recorded in `home`.
pub fn points(home: &Home, thread: Thread, calls: &[Call]) -> Vec<Point> {
    let mut counts: HashMap<(&str, Option<PathBuf>), usize> = HashMap::new();
    let mut points = Vec::new();
    for call in calls.iter().filter(|call| call.begins) {
        let file = call.file().and_then(|file| Some(file.strip_prefix(home.path()).ok()?.to_owned()));
        let nth = counts.entry((&call.name, file.clone())).or_default();
        *nth += 1;
        if call.matters() {
            points.push(Point { thread, call: call.name.clone(), nth: *nth, file });
        }
    }
    points
}
