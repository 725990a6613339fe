//! The daemon as a service: its messages to the service manager, and the socket it is passed.

use std::{
    fs::{self, Permissions},
    io::{ErrorKind, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::{UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::Path,
    process::{Command, Stdio},
};

use proto::frame::Frame;
use tests::{
    Home, Server, Story, bins,
    units::{notified, received},
};

#[test]
fn the_manager_is_notified_of_start_and_stop() {
    for _ in 0..5 {
        let home = Home::new();
        let (manager, path) = notified(&home);
        let daemon = home.spawn_daemon(&[("NOTIFY_SOCKET", &path)]);
        assert_eq!(received(&manager), "READY=1");
        assert_eq!(home.status()["daemon"]["pid"], daemon.pid(), "at the first try");
        let mut second = home.spawn_daemon(&[("NOTIFY_SOCKET", &path)]);
        assert_eq!(received(&manager), "STATUS=another daemon of this user is running");
        assert!(second.ended().success());
        assert!(daemon.terminate().success());
        assert_eq!(received(&manager), "STOPPING=1");
        manager.set_nonblocking(true).expect("set");
        assert_eq!(manager.recv(&mut [0]).expect_err("nothing more").kind(), ErrorKind::WouldBlock);
    }
}

#[test]
fn the_daemon_works_if_its_manager_is_gone() {
    let home = Home::new();
    let daemon = home.daemon_with(&[("NOTIFY_SOCKET", "/nonexistent/notify")]);
    assert!(daemon.terminate().success());
}

/// A socket where hooks look for it, as a manager creates it.
fn activated(home: &Home) -> UnixListener {
    let paths = home.paths();
    fs::create_dir_all(&paths.state).expect("made");
    fs::set_permissions(&paths.state, Permissions::from_mode(0o700)).expect("closed");
    UnixListener::bind(&paths.socket).expect("bound")
}

/// The daemon with `socket` passed as by systemd.
fn command_with(home: &Home, socket: impl Into<OwnedFd>) -> Command {
    let mut command = home.command(Path::new("sh"));
    command.args(["-c", r#"exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0""#]).arg(&bins().daemon);
    command.stdin(Stdio::from(socket.into()));
    command
}

#[test]
fn clients_that_connect_before_the_daemon_runs_are_answered() {
    let (home, server) = (Home::new(), Server::new());
    let socket = activated(&home);
    let path = home.paths().socket;
    let inode = || fs::symlink_metadata(&path).expect("there").ino();
    let made = inode();

    // One event only over the queued connection; one whose hook has exited and left a file as well.
    let (mut patient, mut hasty) = (Story::new(&home, "work", "patient"), Story::new(&home, "work", "hasty"));
    patient.turn("q", "a");
    hasty.turn("q", "a");
    let frame = Frame {
        id: "0123456789abcdef".into(),
        fired_ns: 1_763_683_200_000_000_000,
        cut: false,
        env: server.env(),
        payload: patient.stop("a").to_string().into_bytes(),
    };
    let body = frame.encode();
    let mut waiting = UnixStream::connect(&path).expect("queued");
    write!(waiting, "POST /v1/hook HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len())
        .and_then(|()| waiting.write_all(&body))
        .expect("sent");
    home.hook(&hasty.stop("a"), &server.env());
    assert_eq!(home.spooled().len(), 1);

    let daemon = Home::spawn(command_with(&home, socket.try_clone().expect("cloned")));
    let mut answer = String::new();
    waiting.set_read_timeout(Some(tests::TIMEOUT)).expect("set");
    waiting.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    server.wait_for(4);
    home.flush();
    assert_eq!((server.spans().len(), home.spooled().len()), (4, 0));

    // A second daemon is refused by the lock, and leaves the socket to the first.
    assert!(Home::spawn(command_with(&home, socket.try_clone().expect("cloned"))).ended().success());
    assert_eq!(home.status()["daemon"]["pid"], daemon.pid());

    // The socket belongs to the manager: it stays, and serves the next daemon.
    assert!(daemon.terminate().success());
    assert_eq!(inode(), made);
    let daemon = Home::spawn(command_with(&home, socket.try_clone().expect("cloned")));
    assert_eq!((&home.status()["daemon"]["pid"], inode()), (&daemon.pid().into(), made));
    daemon.kill();
    assert_eq!(inode(), made);
}

#[test]
fn an_unreachable_passed_socket_is_replaced() {
    let home = Home::new();
    let socket = activated(&home);
    fs::remove_file(home.paths().socket).expect("removed");
    let mut daemon = Home::spawn(command_with(&home, socket));
    home.wait_for(&mut daemon);
    assert_eq!(home.status()["daemon"]["pid"], daemon.pid());
    assert!(daemon.terminate().success());
    assert!(!home.paths().socket.exists(), "this one was ours to remove");
}

#[test]
fn a_passed_socket_at_another_path_is_refused() {
    let home = Home::new();
    let right = activated(&home);
    let elsewhere = UnixListener::bind(home.path().join("elsewhere")).expect("bound");
    let datagrams = UnixDatagram::bind(home.path().join("datagrams")).expect("bound");
    let (nameless, _peer) = UnixStream::pair().expect("a pair");
    let silent = {
        fs::remove_file(home.paths().socket).expect("removed");
        let unix = rustix::net::AddressFamily::UNIX;
        let socket = rustix::net::socket(unix, rustix::net::SocketType::STREAM, None).expect("a socket");
        let address = rustix::net::SocketAddrUnix::new(&home.paths().socket).expect("short");
        rustix::net::bind(&socket, &address).expect("bound");
        socket
    };
    let file = fs::File::open(&bins().daemon).expect("open");
    let wrong: [(OwnedFd, &str); 5] = [
        (elsewhere.into(), "it is /"),
        (datagrams.into(), "not a valid unix stream socket"),
        (nameless.into(), "it has no path"),
        (silent, "it does not listen"),
        (file.into(), "not a socket"),
    ];
    for (socket, why) in wrong {
        let mut command = command_with(&home, socket);
        let said = home.path().join("said");
        command.stderr(fs::File::create(&said).expect("made"));
        let ended = Home::spawn(command).ended();
        let printed = fs::read_to_string(said).expect("there");
        assert!(
            ended.code() == Some(1) && printed.contains(why) && printed.contains("socket unit"),
            "{why}: {printed}"
        );
        assert!(home.paths().socket.exists(), "{why}");
    }
    drop(right);
}

#[test]
fn sockets_meant_for_another_process_are_left_alone() {
    let home = Home::new();
    let daemon = home.daemon_with(&[("LISTEN_FDS", "1"), ("LISTEN_PID", "1")]);
    assert_eq!(home.status()["daemon"]["pid"], daemon.pid());
}
