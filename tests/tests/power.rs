//! A power cut at any moment: the database is never corrupt, and lost spans come again.
//!
//! The daemon's writes are recorded. After each of them the disk can be in many states: every sector that was not
//! synced may be written, or not, or partly, in any order. A daemon is started on such disks.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tests::{
    Answer, Home, Random, Request, Server, Story,
    home::Kept,
    scene::Golden,
    server,
    strace::{self, Call, Order, plain},
    tries, until,
};

/// How many disks are tried in parallel.
const AT_ONCE: usize = 4;

const SECTOR: usize = 512;

/// Something that changes the possible states of the disk, or what must survive.
#[derive(Debug)]
enum Event {
    Write(String, usize, Vec<u8>),
    Cut(String, usize),
    Sync(String),
    Create(String),
    Remove(String),
    SyncDirectory,
    /// A hook got the answer that its event is stored.
    Acked,
    /// The daemon read that a batch was accepted.
    Delivered,
}

/// The events among `calls` that concern the database.
fn events(calls: &[Call]) -> Vec<Event> {
    let name = |hex: &str| {
        let path = String::from_utf8_lossy(&plain(hex)).into_owned();
        let name = Path::new(&path).file_name()?.to_str()?;
        name.starts_with("state.db").then(|| name.to_owned())
    };
    let file = |text: &str| text.split_once('<').and_then(|(_, rest)| name(rest.split_once('>')?.0));
    let number = |text: &str| text.trim().split([')', ' ', ',']).next().and_then(|number| number.parse::<usize>().ok());
    let mut events = Vec::new();
    for Call { name: call, text, begins } in calls {
        let mut quoted = text.split('"');
        let (before, data, behind) = (quoted.next().unwrap_or_default(), quoted.next(), quoted.next());
        let data = data.unwrap_or_default();
        events.extend(match (call.as_str(), begins) {
            ("pwrite64", true) => file(before).map(|file| {
                let offset = behind.and_then(|rest| number(rest.rsplit_once(", ")?.1)).expect("an offset");
                Event::Write(file, offset, plain(data))
            }),
            ("ftruncate", true) => file(text).map(|file| {
                Event::Cut(file, text.split_once(">, ").and_then(|(_, rest)| number(rest)).expect("a length"))
            }),
            ("fsync" | "fdatasync", true) => match file(text) {
                Some(file) => Some(Event::Sync(file)),
                None => String::from_utf8_lossy(&plain(text)).contains("/cc-langfuse>").then_some(Event::SyncDirectory),
            },
            ("openat", true) if text.contains("O_CREAT") => name(data).map(Event::Create),
            ("unlink" | "unlinkat", true) => name(data).map(Event::Remove),
            ("pwritev" | "rename" | "renameat" | "renameat2", true) if name(data).is_some() => {
                panic!("{call} is not foreseen")
            }
            ("sendto" | "writev" | "write" | "sendmsg", _) if plain(data).starts_with(b"HTTP/1.1 204") => {
                Some(Event::Acked)
            }
            ("recvfrom", _) if plain(data).starts_with(b"HTTP/1.1 200") => Some(Event::Delivered),
            _ => None,
        });
    }
    events
}

/// A file: its safe content, and what happened to it since.
#[derive(Clone, Default)]
struct File {
    safe: Vec<u8>,
    since: Vec<Change>,
    /// Its name is in the directory, and synced.
    named: bool,
    safely_named: bool,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Cut(usize),
}

/// What a power cut does to everything that was not synced.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Kept,
    Dropped,
    Torn,
}

impl File {
    fn now(&self) -> Vec<u8> {
        let mut content = self.safe.clone();
        for change in &self.since {
            match change {
                Change::Cut(length) => content.resize(*length, 0),
                Change::Write(at, bytes) => {
                    content.resize(content.len().max(at + bytes.len()), 0);
                    content[*at..at + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
        content
    }

    fn after(&self, fate: Fate, random: &mut Random) -> Option<Vec<u8>> {
        if !self.named && !self.safely_named {
            return None;
        }
        let (named, content) = match fate {
            Fate::Kept => (self.named, self.now()),
            Fate::Dropped => (self.safely_named, self.safe.clone()),
            Fate::Torn => {
                let coin = random.below(2) == 0;
                (if coin { self.named } else { self.safely_named }, self.torn(random))
            }
        };
        named.then_some(content)
    }

    /// Every sector in a state that it had since it was last synced, or partly so; the same for the length.
    fn torn(&self, random: &mut Random) -> Vec<u8> {
        let mut lengths = vec![self.safe.len()];
        let mut touched: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, change) in self.since.iter().enumerate() {
            let length = lengths[index];
            match change {
                Change::Cut(to) => {
                    lengths.push(*to);
                    for sector in to / SECTOR..length.div_ceil(SECTOR) {
                        touched.entry(sector).or_default().push(index);
                    }
                }
                Change::Write(at, bytes) => {
                    lengths.push(length.max(at + bytes.len()));
                    for sector in at / SECTOR..(at + bytes.len()).div_ceil(SECTOR) {
                        touched.entry(sector).or_default().push(index);
                    }
                }
            }
        }
        let mut content = self.safe.clone();
        let longest = *lengths.iter().max().unwrap_or(&0);
        content.resize(longest.div_ceil(SECTOR) * SECTOR, 0);
        for (sector, changes) in touched {
            let start = sector * SECTOR;
            let place = &mut content[start..start + SECTOR];
            let mut moments = vec![place.to_vec()];
            for index in changes {
                let mut next = moments[moments.len() - 1].clone();
                match &self.since[index] {
                    Change::Cut(to) => next[to.saturating_sub(start).min(SECTOR)..].fill(0),
                    Change::Write(at, bytes) => {
                        let (from, to) = (start.max(*at), (start + SECTOR).min(at + bytes.len()));
                        next[from - start..to - start].copy_from_slice(&bytes[from - at..to - at]);
                    }
                }
                moments.push(next);
            }
            let mut any = || random.below(moments.len() as u64) as usize;
            let (one, other) = (any(), any());
            place.copy_from_slice(&moments[one]);
            if random.below(4) == 0 {
                let tear = random.below(SECTOR as u64) as usize;
                place[tear..].copy_from_slice(&moments[other][tear..]);
            }
        }
        content.truncate(lengths[random.below(lengths.len() as u64) as usize]);
        content
    }
}

/// The files of the database after some events.
#[derive(Clone, Default)]
struct Disk(BTreeMap<String, File>);

impl Disk {
    fn happen(&mut self, event: &Event) {
        match event {
            Event::Write(name, at, bytes) => self.file(name).since.push(Change::Write(*at, bytes.clone())),
            Event::Cut(name, length) => self.file(name).since.push(Change::Cut(*length)),
            Event::Create(name) => {
                let file = self.file(name);
                if !file.named {
                    file.since.push(Change::Cut(0));
                }
                file.named = true;
            }
            Event::Remove(name) => self.file(name).named = false,
            Event::Sync(name) => {
                let file = self.file(name);
                file.safe = file.now();
                file.since.clear();
                file.safely_named = file.named;
            }
            Event::SyncDirectory => {
                for file in self.0.values_mut() {
                    file.safely_named = file.named;
                }
                // A file created later under that name is another one.
                self.0.retain(|_, file| file.named);
            }
            Event::Acked | Event::Delivered => {}
        }
    }

    fn file(&mut self, name: &str) -> &mut File {
        self.0.entry(name.to_owned()).or_default()
    }
}

/// A home in which a daemon was recorded.
struct Recorded {
    home: Home,
    address: SocketAddr,
    end: Kept,
    a: Story,
    b: Story,
    /// The disk at the start of the recording.
    disk: Disk,
    events: Vec<Event>,
    /// How many turns came before the recording.
    earlier: usize,
    requests: Vec<Request>,
    /// The spans of each turn.
    turns: Vec<Golden>,
    /// Including the turns after the cut.
    golden: Golden,
}

/// How many turns are recorded.
const TURNS: usize = 10;

/// The database's log is written back when it is longer than 4096 pages of 1 KiB, and then restarts from its beginning.
const FRAME: u64 = 1024 + 24;
const ALMOST_FULL: u64 = 3_950 * FRAME;

impl Recorded {
    /// Records a daemon from its first write on, or one that finds a log almost `full`.
    fn new(full: bool) -> Self {
        let (home, address) = (Home::new(), server::unused());
        let server = Server::at(address, |_| Answer::ok());
        home.settings("work", &server.env());
        let (a, b) = (Story::new(&home, "work", "a"), Story::new(&home, "work", "b"));
        let (end, golden) = (home.keep(), Golden::new());
        let mut recorded = Self {
            home,
            address,
            end,
            a,
            b,
            disk: Disk::default(),
            events: Vec::new(),
            earlier: 0,
            requests: Vec::new(),
            turns: Vec::new(),
            golden,
        };
        if full {
            recorded.fill_log(&server);
        }
        let file = recorded.home.path().join("recording");
        let daemon = strace::on_all(&recorded.home, Order::record(&file));
        let socket = recorded.home.paths().socket;
        until("the daemon to listen", || std::os::unix::net::UnixStream::connect(&socket).ok());
        (0..TURNS).for_each(|_| recorded.turn(&server, 1));
        // A daemon that is asked to stop does not wait for answers in flight.
        recorded.home.flush();
        assert!(daemon.terminate().success());
        recorded.events = events(&strace::recorded(&file));
        fs::remove_file(&file).expect("removed");
        recorded.end = recorded.home.keep();
        recorded.requests = server.requests();
        let _daemon = recorded.home.daemon();
        recorded.go_on(&server);
        let spans = server.spans();
        recorded.golden = spans.iter().map(|span| (span.id(), span.encoded.clone())).collect();
        let expect = recorded.turns.len() * 4 + 4;
        assert_eq!((spans.len(), recorded.golden.len()), (expect, expect), "undisturbed, every span arrives once");
        let acked = |event: &Event| matches!(event, Event::Acked);
        let (first, last) = (recorded.events.iter().position(acked), recorded.events.iter().rposition(acked));
        let between = &recorded.events[first.expect("an answer")..last.expect("an answer")];
        let written_back = between.iter().any(|event| matches!(event, Event::Write(name, ..) if name == "state.db"));
        assert_eq!(written_back, full, "the log is written back between turns if it is full");
        recorded
    }

    /// A daemon fills the log and is killed.
    fn fill_log(&mut self, server: &Server) {
        let log = self.home.paths().database.with_extension("db-wal");
        let daemon = self.home.daemon();
        self.turn(server, 3_400_000);
        while fs::metadata(&log).expect("a log").len() < ALMOST_FULL {
            self.turn(server, 1);
        }
        self.home.flush();
        daemon.kill();
        for path in [log, self.home.paths().database] {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let safe = fs::read(path).expect("readable");
            self.disk.0.insert(name, File { safe, since: Vec::new(), named: true, safely_named: true });
        }
        self.earlier = self.turns.len();
    }

    fn turn(&mut self, server: &Server, output: usize) {
        let turn = self.turns.len();
        let answer = format!("answer {turn}");
        let story = if turn % 3 == 1 { &mut self.b } else { &mut self.a };
        story.prompt("q").tool(&"x".repeat(output)).answer(&answer);
        self.home.hook(&story.stop(&answer), &server.env());
        let spans = server.wait_for(4 * (turn + 1));
        self.turns.push(spans[4 * turn..].iter().map(|span| (span.id(), span.encoded.clone())).collect());
    }

    /// The user continues both sessions.
    fn go_on(&self, server: &Server) {
        for mut story in [self.a.clone(), self.b.clone()] {
            story.turn("and now", "later");
            self.home.hook(&story.stop("later"), &server.env());
        }
        self.home.flush();
    }

    fn answers(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::Delivered)).count()
    }

    /// Starts a daemon on a possible disk after the first `count` events.
    fn try_one(&self, count: usize, fate: Fate, random: &mut Random, tally: &mut Tally) {
        let mut disk = self.disk.clone();
        self.events[..count].iter().for_each(|event| disk.happen(event));
        let number = |wanted: fn(&Event) -> bool| self.events[..count].iter().filter(|event| wanted(event)).count();
        let acked = self.earlier + number(|event| matches!(event, Event::Acked));
        let delivered = self.requests.len() - self.answers() + number(|event| matches!(event, Event::Delivered));

        self.home.put_back(&self.end);
        let state = self.home.paths().state;
        for entry in fs::read_dir(&state).expect("the state directory").map(|entry| entry.expect("an entry")) {
            if entry.file_name().to_string_lossy().starts_with("state.db") {
                fs::remove_file(entry.path()).expect("removed");
            }
        }
        for (name, file) in &disk.0 {
            if let Some(content) = file.after(fate, random) {
                fs::write(state.join(name), content).expect("written");
            }
        }

        let server = Server::at(self.address, |_| Answer::ok());
        let daemon = self.home.daemon();
        self.home.flush();
        let before: Vec<_> = self.requests[..delivered].iter().flat_map(|request| &request.spans).collect();
        let arrived: BTreeSet<_> =
            before.iter().map(|span| span.id()).chain(server.spans().iter().map(|span| span.id())).collect();
        let behind = self.turns[..acked].iter().any(|turn| turn.keys().any(|id| !arrived.contains(id)));
        self.go_on(&server);
        assert!(daemon.terminate().success());

        let mut seen = BTreeSet::new();
        for span in before.into_iter().chain(&server.spans()) {
            tally.repeated += usize::from(!seen.insert(span.id()));
            if self.golden.get(&span.id()) != Some(&span.encoded) {
                tally.wrong.push(format!("{count} events, {fate:?}: {} came otherwise than undisturbed", span.name));
            }
        }
        let lost = self.golden.len() - seen.len();
        if lost > 0 {
            tally.wrong.push(format!("{count} events, {fate:?}: {lost} spans are lost"));
        }
        let aside = |name: &str| name.starts_with("corrupt-");
        if fs::read_dir(&state)
            .expect("there")
            .any(|entry| aside(&entry.expect("an entry").file_name().to_string_lossy()))
        {
            tally.corrupt += 1;
            tally.wrong.push(format!("{count} events, {fate:?}: the database was corrupt"));
        }
        tally.disks += 1;
        tally.lost += lost;
        tally.behind += usize::from(behind);
    }
}

#[derive(Default)]
struct Tally {
    disks: usize,
    corrupt: usize,
    lost: usize,
    /// Disks on which something acknowledged was missing until the session's next event.
    behind: usize,
    repeated: usize,
    wrong: Vec<String>,
}

#[test]
fn what_the_database_loses_in_a_power_cut_comes_again() {
    if !strace::works() {
        return;
    }
    let started = Instant::now();
    let tally = Mutex::new(Tally::default());
    let written = AtomicUsize::new(0);
    let disks = tries(180, 6_000);
    std::thread::scope(|scope| {
        for worker in 0..AT_ONCE {
            let (tally, written) = (&tally, &written);
            scope.spawn(move || {
                let recorded = Recorded::new(worker % 2 == 1);
                let all = &recorded.events;
                written.fetch_add(all.len(), Ordering::Relaxed);
                for seed in (worker..disks).step_by(AT_ONCE) {
                    // Spread evenly over the events, with every kind of fate everywhere.
                    let count = (seed * all.len() / disks).min(all.len() - 1) + 1;
                    let fate = [Fate::Torn, Fate::Dropped, Fate::Torn, Fate::Kept][seed / AT_ONCE % 4];
                    let mut one = Tally::default();
                    recorded.try_one(count, fate, &mut Random::new(seed as u64), &mut one);
                    let mut tally = tally.lock().unwrap();
                    tally.disks += one.disks;
                    tally.corrupt += one.corrupt;
                    tally.lost += one.lost;
                    tally.behind += one.behind;
                    tally.repeated += one.repeated;
                    tally.wrong.extend(one.wrong);
                }
            });
        }
    });
    let Tally { disks, corrupt, lost, behind, repeated, wrong } = tally.into_inner().unwrap();
    tests::say(&format!(
        "power cut: {disks} disks over {} events, corrupt: {corrupt}, spans lost: {lost}, spans sent again with the same bytes: \
         {repeated}, disks on which something acknowledged came only with its session's next event: {behind}; {:.0?}",
        written.into_inner(),
        started.elapsed(),
    ));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
