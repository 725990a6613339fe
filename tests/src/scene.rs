//! A short scenario with two sessions, played again and again from the same start, and what must have arrived at its
//! end, whatever happened to the daemon.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::{
    Answer, Daemon, Home, Request, Server, Span, Story,
    home::Kept,
    server, strace,
    strace::{Order, Point, Thread},
    until,
};

/// The length of the home paths between which databases can be moved.
const CARRIED: usize = 60;

/// The home path in a movable database, and the server's address.
const CARRIED_HOME: &str = "/home/dev/a-home-whose-path-has-the-length-of-another-one-00";
const CARRIED_URL: &str = "http://127.0.0.1:55555";

/// After this time spans are late.
const SOON: Duration = Duration::from_secs(4);

/// One step, and how many spans have arrived at its end.
struct Step {
    happens: fn(&mut Players<'_>),
    spans: usize,
}

/// Two sessions in a home, and a server.
pub struct Scene {
    home: Home,
    address: SocketAddr,
    a: Story,
    b: Story,
    start: Kept,
    steps: &'static [Step],
    turns: usize,
}

struct Players<'a> {
    home: &'a Home,
    env: Vec<(String, String)>,
    a: Story,
    b: Story,
}

impl Players<'_> {
    fn stop_a(&self, answer: &str) {
        self.home.hook(&self.a.stop(answer), &self.env);
    }

    fn stop_b(&self, answer: &str) {
        self.home.hook(&self.b.stop(answer), &self.env);
    }
}

/// A daemon that finds an event in the spool and receives two more turns.
const DAY: &[Step] = &[
    Step { happens: |all| _ = all.a.answer("a1"), spans: 4 },
    Step {
        happens: |all| {
            all.b.turn("q", "b1");
            all.stop_b("b1");
        },
        spans: 6,
    },
    Step {
        happens: |all| {
            all.a.turn("q", "a2");
            all.stop_a("a2");
        },
        spans: 8,
    },
];

/// A daemon that finds undelivered spans, a stored event and an event in the spool, and receives one more turn.
const MORNING_AFTER: &[Step] = &[
    Step {
        happens: |all| {
            all.b.answer("b2");
            all.a.answer("a2");
        },
        spans: 8,
    },
    Step {
        happens: |all| {
            all.a.turn("q", "a3");
            all.stop_a("a3");
        },
        spans: 10,
    },
];

/// What happens to the daemon.
pub enum Fault {
    None,
    /// strace, for one of its threads.
    Strace(Thread, Order),
}

/// What arrived, and when daemons died.
#[derive(Debug, Default)]
pub struct Played {
    pub requests: Vec<Request>,
    /// The number of requests at the death of each daemon but the last.
    pub deaths: Vec<usize>,
    /// How many of these died before they listened.
    pub refusals: usize,
    /// How often a flush was needed for late spans.
    pub asked: usize,
}

/// What must arrive: the bytes of every span, by its ids.
pub type Golden = BTreeMap<(String, String), Vec<u8>>;

impl Scene {
    /// An ordinary day that starts with an empty state directory.
    pub fn day() -> Self {
        let scene = Self::empty(Home::new(), DAY);
        scene.begin(|all| {
            all.a.prompt("q").tool("x");
            all.stop_a("a1");
        })
    }

    /// A start after a kill.
    pub fn recovery() -> Self {
        Self::morning_after(Home::new(), Daemon::kill)
    }

    /// The same with a database of the first version, in `file`.
    pub fn migration(file: &Path) -> Self {
        let scene = Self::empty(Home::of_length(CARRIED), MORNING_AFTER);
        let bytes = fs::read(file).expect("the database of the first version");
        let home = scene.home.path().to_str().expect("UTF-8").to_owned();
        let bytes = replaced(replaced(bytes, CARRIED_HOME, &home), CARRIED_URL, &scene.url());
        let paths = scene.home.paths();
        scene.begin(move |all| {
            all.a.prompt("q").tool("x").answer("a1");
            all.b.prompt("q").tool("x").answer("b1").prompt("q");
            all.a.prompt("q");
            all.stop_a("a2");
            fs::write(&paths.database, bytes).expect("written");
        })
    }

    /// A start with a database that is damaged but has every row readable.
    pub fn salvage() -> Self {
        let mut scene = Self::morning_after(Home::new(), stop);
        let database = scene.home.paths().database;
        let mut bytes = fs::read(&database).expect("a database");
        // The header's number of unused pages.
        bytes[36..40].copy_from_slice(&[0, 0, 1, 0]);
        fs::write(&database, bytes).expect("written");
        scene.start = scene.home.keep();
        scene
    }

    /// The database that [`migration`](Self::migration) takes, as this version writes it.
    pub fn carried_database() -> Vec<u8> {
        let scene = Self::morning_after(Home::of_length(CARRIED), stop);
        let home = scene.home.path().to_str().expect("UTF-8").to_owned();
        let bytes = fs::read(scene.home.paths().database).expect("a database");
        replaced(replaced(bytes, &home, CARRIED_HOME), &scene.url(), CARRIED_URL)
    }

    /// A story of `turns` turns in both sessions.
    pub fn serial(turns: usize) -> Self {
        Self { turns, ..Self::empty(Home::new(), &[]) }.begin(|_| {})
    }

    fn morning_after(home: Home, end: impl FnOnce(Daemon)) -> Self {
        let scene = Self::empty(home, MORNING_AFTER);
        let server = Server::at(scene.address, |_| Answer::ok());
        let daemon = scene.home.daemon();
        scene.begin(|all| {
            all.a.prompt("q").tool("x").answer("a1");
            all.stop_a("a1");
            server.wait_for(4);
            all.home.flush();
            server.change(|_| Answer::never());
            all.b.prompt("q").tool("x").answer("b1");
            all.stop_b("b1");
            server.wait_for_requests(2);
            all.b.prompt("q");
            all.stop_b("b2");
            end(daemon);
            all.a.prompt("q");
            all.stop_a("a2");
        })
    }

    fn empty(home: Home, steps: &'static [Step]) -> Self {
        // Five digits, so that addresses can replace each other.
        let address = until("a port", || Some(server::unused()).filter(|address| address.port() >= 10_000));
        let (a, b) = (Story::new(&home, "work", "a"), Story::new(&home, "work", "b"));
        let start = home.keep();
        let scene = Self { home, address, a, b, start, steps, turns: 0 };
        scene.home.settings("work", &scene.env());
        scene
    }

    fn begin(mut self, happens: impl FnOnce(&mut Players<'_>)) -> Self {
        let mut players = self.players();
        happens(&mut players);
        let Players { a, b, .. } = players;
        (self.a, self.b) = (a, b);
        self.start = self.home.keep();
        self
    }

    fn players(&self) -> Players<'_> {
        Players { home: &self.home, env: self.env(), a: self.a.clone(), b: self.b.clone() }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn env(&self) -> Vec<(String, String)> {
        server::env(&self.url(), "pk-lf-test", "sk-lf-test")
    }

    /// Plays it undisturbed; everything must arrive once.
    pub fn golden(&self) -> Golden {
        let played = if self.turns > 0 { self.play_serial(None) } else { self.play(Fault::None) };
        let spans: Vec<_> = played.requests.iter().flat_map(|request| &request.spans).collect();
        let golden: Golden = spans.iter().map(|span| (span.id(), span.encoded.clone())).collect();
        // A turn has two spans, and two more if there is a tool in it.
        let expect = self.steps.last().map_or(self.turns * 2 + self.turns.div_ceil(4) * 2, |step| step.spans);
        assert_eq!((spans.len(), golden.len()), (expect, expect), "undisturbed, every span arrives once");
        golden
    }

    /// Plays a serial. `kills` gives for each turn whether the daemon runs before the turn, and how long it lives after
    /// the turn or after its start.
    pub fn play_serial(&self, kills: Option<&[(bool, Duration)]>) -> Played {
        self.home.put_back(&self.start);
        let server = Server::at(self.address, |_| Answer::ok());
        let mut life =
            Life { home: &self.home, server: &server, daemon: None, deaths: Vec::new(), refusals: 0, listened: false };
        let mut players = self.players();
        if kills.is_none() {
            life.daemon = Some(self.home.daemon());
        }
        for turn in 0..self.turns {
            let kill = kills.map(|kills| kills[turn]);
            if let Some((is_there, _)) = kill {
                life.daemon = Some(if is_there { self.home.daemon() } else { self.home.spawn_daemon(&[]) });
            }
            let answer = format!("answer {turn}");
            let story = if turn % 2 == 0 { &mut players.a } else { &mut players.b };
            story.prompt("q");
            if turn % 4 == 0 {
                story.tool("x");
            }
            story.answer(&answer);
            self.home.hook(&story.stop(&answer), &players.env);
            match kill {
                Some((_, lives)) => {
                    std::thread::sleep(lives);
                    life.daemon.as_ref().expect("started").signal(Signal::KILL);
                    until("its death", || (!life.lasts()).then_some(()));
                }
                None => self.home.flush(),
            }
        }
        if !life.lasts() {
            life.daemon = Some(self.home.daemon());
        }
        self.home.flush();
        life.stop();
        life.played()
    }

    /// An order that makes `what` happen at `point` when this scene is played.
    pub fn order(&self, point: &Point, what: &str) -> Order {
        Order::inject(&self.home, point, what)
    }

    /// Plays it. A dead daemon is restarted at the next step, and at the end gets time to finish.
    pub fn play(&self, fault: Fault) -> Played {
        self.home.put_back(&self.start);
        let server = Server::at(self.address, |_| Answer::ok());
        let mut life =
            Life { home: &self.home, server: &server, daemon: None, deaths: Vec::new(), refusals: 0, listened: false };
        let (mut engine, mut asked) = (None, 0);
        life.daemon = Some(match &fault {
            Fault::Strace(Thread::Main, order) => strace::on_main(&self.home, order.clone()),
            _ => self.home.spawn_daemon(&[]),
        });
        until("the daemon to listen or to die", || {
            life.listened = UnixStream::connect(self.home.paths().socket).is_ok();
            (life.listened || !life.lasts()).then_some(())
        });
        if let (Fault::Strace(Thread::Engine, order), Some(daemon)) = (fault, &life.daemon) {
            engine = strace::on_engine(daemon, order);
            assert!(engine.is_some(), "the engine can be traced");
        }
        let mut players = self.players();
        for step in self.steps {
            if !life.lasts() {
                life.daemon = Some(self.home.daemon());
            }
            (step.happens)(&mut players);
            let soon = Instant::now() + SOON;
            let mut is_over = || !life.lasts() || !life.deaths.is_empty() || server.spans().len() >= step.spans;
            until("the spans to arrive, or the daemon to die or to be slow", || {
                (is_over() || Instant::now() >= soon).then_some(())
            });
            if !is_over() {
                asked += 1;
                let flushed = self.home.ctl(&["flush", "--timeout", "40s"]).status.success();
                assert!(flushed || !life.lasts(), "it neither delivers nor dies: {}", self.home.log());
            }
        }
        if life.lasts() && life.deaths.is_empty() {
            life.stop();
        }
        if !life.deaths.is_empty() {
            if !life.lasts() {
                life.daemon = Some(self.home.daemon());
            }
            self.home.flush();
            life.stop();
        }
        if let Some(mut strace) = engine {
            strace.wait().expect("strace ends");
        }
        Played { asked, ..life.played() }
    }
}

fn stop(daemon: Daemon) {
    assert!(daemon.terminate().success());
}

/// A daemon until it is killed.
struct Life<'a> {
    home: &'a Home,
    server: &'a Server,
    daemon: Option<Daemon>,
    deaths: Vec<usize>,
    refusals: usize,
    listened: bool,
}

impl Life<'_> {
    fn lasts(&mut self) -> bool {
        let Some(daemon) = &mut self.daemon else { return false };
        let Some(status) = daemon.end() else { return true };
        // A daemon that cannot start reports it, and the service manager restarts it.
        let refused = !self.listened && status.code() == Some(1);
        // A fault ordered for a file can hit the counter that wakes the file watcher, which involves no disk.
        let refused = refused || status.code() == Some(101) && self.home.log().contains("/notify-");
        assert!(refused || status.signal() == Some(9), "the daemon ended with {status}: {}", self.home.log());
        self.refusals += usize::from(refused);
        self.daemon = None;
        self.server.drained();
        self.deaths.push(self.server.requests().len());
        false
    }

    fn played(self) -> Played {
        Played { requests: self.server.requests(), deaths: self.deaths, refusals: self.refusals, asked: 0 }
    }

    /// Asks it to stop; it may be killed while it stops.
    fn stop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else { return };
        daemon.signal(Signal::TERM);
        if !daemon.ended().success() {
            self.daemon = Some(daemon);
            self.lasts();
        }
    }
}

/// The results of many plays.
#[derive(Debug, Default)]
pub struct Tally {
    /// Daemons that died.
    pub deaths: usize,
    /// Daemons that could not start.
    pub refusals: usize,
    /// Plays in which a flush was needed for late spans.
    pub asked: usize,
    /// Plays without such an event.
    pub undisturbed: usize,
    /// Spans that did not arrive.
    pub lost: usize,
    /// Spans that arrived twice without need.
    pub doubled: usize,
    /// Spans that arrived twice because the daemon could not know that they had arrived.
    pub repeated: usize,
    /// Spans that arrived with other bytes than in the undisturbed play.
    pub altered: usize,
    /// What is wrong, in words.
    pub wrong: Vec<String>,
}

impl Tally {
    /// Adds one play, which `what` names.
    pub fn judge(&mut self, golden: &Golden, played: &Played, what: &str) {
        let mut wrong = Vec::new();
        let mut seen = BTreeSet::new();
        let mut latest = BTreeSet::new();
        for (index, request) in played.requests.iter().enumerate() {
            // Spans in flight when a daemon died may come once more, in the first request of the next
            // daemon that sends.
            let may = if played.deaths.contains(&index) { std::mem::take(&mut latest) } else { BTreeSet::new() };
            for span in &request.spans {
                if golden.get(&span.id()) != Some(&span.encoded) {
                    self.altered += 1;
                    wrong.push(format!("{} came otherwise than undisturbed", span.name));
                }
                if seen.insert(span.id()) {
                    continue;
                }
                if may.contains(&span.id()) {
                    self.repeated += 1;
                } else {
                    self.doubled += 1;
                    wrong.push(format!("{} was sent twice", span.name));
                }
            }
            latest = request.spans.iter().map(Span::id).collect();
        }
        let lost = golden.keys().filter(|id| !seen.contains(*id)).count();
        self.lost += lost;
        if lost > 0 {
            wrong.push(format!("{lost} spans are lost"));
        }
        self.wrong.extend(wrong.into_iter().map(|wrong| format!("{what}: {wrong}")));
        self.refusals += played.refusals;
        self.asked += usize::from(played.asked > 0);
        self.deaths += played.deaths.len() - played.refusals;
        self.undisturbed += usize::from(played.deaths.is_empty());
    }

    /// The promised figures.
    pub fn figures(&self) -> String {
        let Self { lost, doubled, altered, repeated, .. } = self;
        format!(
            "spans lost {lost}, doubled {doubled}, altered {altered}; sent again because they were in flight {repeated}"
        )
    }

    /// Fails if anything is wrong.
    ///
    /// # Panics
    /// With what is wrong.
    pub fn assert_right(&self) {
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}

/// Plays `count` times, `at_once` in parallel, each in its own scene.
pub fn play_all(
    at_once: usize,
    count: usize,
    scene: impl Fn() -> Scene + Sync,
    play: impl Fn(&Scene, usize) -> (String, Played) + Sync,
) -> Tally {
    let next = AtomicUsize::new(0);
    let tally = Mutex::new(Tally::default());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                let scene = scene();
                let golden = scene.golden();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let (what, played) = play(&scene, index);
                    tally.lock().expect("no panic elsewhere").judge(&golden, &played, &what);
                }
            });
        }
    });
    tally.into_inner().expect("no panic elsewhere")
}

/// Every point at which something can happen to the scene's daemon.
pub fn points(scene: &Scene) -> Vec<Point> {
    let mut points = Vec::new();
    for thread in [Thread::Main, Thread::Engine] {
        if thread == Thread::Engine && !strace::attaches() {
            crate::skipped("the thread that reads: strace may not attach to it here");
            continue;
        }
        let file = scene.home.path().join("recording");
        scene.play(Fault::Strace(thread, Order::record(&file)));
        points.extend(strace::points(&scene.home, thread, &strace::recorded(&file)));
    }
    points
}

fn replaced(bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "{from} {to}");
    let mut out = bytes;
    let mut at = 0;
    while let Some(found) = out[at..].windows(from.len()).position(|window| window == from.as_bytes()) {
        at += found;
        out[at..at + to.len()].copy_from_slice(to.as_bytes());
        at += to.len();
    }
    out
}
