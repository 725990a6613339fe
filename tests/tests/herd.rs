//! However many daemons are started, and however they die, exactly one listens.

use std::fs;

use tests::{Daemon, Home, Server, Story, eventually, tries};

/// How many sockets listen at the home's address; `None` if the system does not report it.
fn listeners(home: &Home) -> Option<usize> {
    const ACCEPTS: &str = "00010000";
    let socket = home.paths().socket.to_str().expect("UTF-8").to_owned();
    let sockets = fs::read_to_string("/proc/net/unix").ok()?;
    let fields = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    Some(fields.filter(|fields| fields.get(3) == Some(&ACCEPTS) && fields.last() == Some(&&*socket)).count())
}

#[test]
fn of_fifty_daemons_started_at_once_one_listens_and_the_others_exit_with_success() {
    const HERD: usize = 50;
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let rounds = tries(4, 40);
    for round in 0..rounds {
        let mut herd: Vec<Daemon> = Vec::new();
        let mut killed = 0;
        for number in 0..HERD {
            herd.push(home.spawn_daemon(&[]));
            // In every second round some are killed at arbitrary moments: they may hold the lock and the socket.
            if round % 2 == 1 && number % 6 == 5 {
                herd.remove(number / 3 - killed).kill();
                killed += 1;
            }
        }
        let ended = |daemon: &mut Daemon| match daemon.end() {
            Some(status) => {
                assert!(status.success(), "round {round}: {status}");
                true
            }
            None => false,
        };
        eventually("all but one to end", || {
            herd.retain_mut(|daemon| !ended(daemon));
            herd.len() <= 1
        });
        // If the one with the lock was killed, the others may have exited already. The next one finds its remains.
        let daemon = match herd.pop() {
            Some(mut daemon) => {
                home.wait_for(&mut daemon);
                daemon
            }
            None => {
                assert!(killed > 0, "round {round}: nobody is left");
                home.daemon()
            }
        };
        assert_eq!(home.status()["daemon"]["pid"], daemon.pid());
        assert!(listeners(&home).is_none_or(|count| count == 1), "round {round}: {:?} listen", listeners(&home));
        let mut story = Story::new(&home, "work", &format!("s-{round}"));
        story.turn("q", "a");
        home.hook(&story.stop("a"), &server.env());
        home.flush();
        assert_eq!(server.spans().len(), 2 * (round + 1));
        daemon.kill();
        assert!(listeners(&home).is_none_or(|count| count == 0));
    }
    assert!(!home.log().contains("ERROR"), "{}", home.log());
}

#[test]
fn a_daemon_removes_no_socket_but_its_own() {
    let home = Home::new();
    let socket = home.paths().socket;
    let daemon = home.daemon();
    fs::remove_file(&socket).expect("removed");
    let other = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    assert!(daemon.terminate().success());
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok(), "the other's socket is gone");
    drop(other);
}
