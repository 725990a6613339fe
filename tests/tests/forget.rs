//! What the user forgets is deleted and does not come back.

use tests::{Answer, Home, Server, Story};

#[test]
fn forget_deletes_the_traces_of_a_session_for_good() {
    let (home, server) = (Home::new(), Server::new());
    home.settings("work", &server.env());
    let daemon = home.daemon();
    let (mut gone, mut kept) = (Story::new(&home, "work", "gone"), Story::new(&home, "work", "kept"));
    // More than one request can name.
    for _ in 0..101 {
        gone.turn("q", "a");
    }
    gone.turn("q2", "a2");
    kept.turn("q", "a");
    home.hook(&gone.stop("a2"), &server.env());
    home.hook(&kept.stop("a"), &server.env());
    server.wait_for(206);
    home.flush();

    let asked = home.ctl(&["forget", "gone"]);
    assert_eq!((asked.status.code(), server.spans().len()), (Some(2), 206), "{asked:?}");
    let path = gone.path.to_str().expect("UTF-8");
    let done = home.ctl(&["forget", "--yes", path]);
    let printed = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && printed.contains("102 traces of session gone"), "{done:?}");
    assert_eq!(server.spans().len(), 206, "the server deletes in its own time");
    server.work();
    let left = server.spans();
    assert!(left.len() == 2 && left.iter().all(|span| span.get("session.id") == "kept"), "{left:?}");

    let replayed = home.ctl_with(&["replay", path], &server.env());
    assert!(replayed.status.success(), "{replayed:?}");
    assert!(daemon.terminate().success());
    let _daemon = home.daemon();
    gone.turn("q3", "a3");
    home.hook(&gone.stop("a3"), &server.env());
    assert_eq!(server.wait_for(4).len(), 4);
    home.flush();
    assert_eq!(server.spans().len(), 4, "only what was said since");
}

#[test]
fn forget_drops_waiting_spans_and_names_a_server_that_is_down() {
    let (home, server) = (Home::new(), Server::answering(|_| Answer::status(503)));
    home.settings("work", &server.env());
    let _daemon = home.daemon();
    let mut story = Story::new(&home, "work", "s");
    story.turn("q", "a");
    home.hook(&story.stop("a"), &server.env());
    home.status_until("the spans to wait", |status| status["outbox"]["pending"] == 2);
    let away = home.ctl(&["forget", "--yes", "s"]);
    let printed = String::from_utf8_lossy(&away.stderr);
    assert!(away.status.code() == Some(1) && printed.contains("503"), "{away:?}");
    assert_eq!(home.status()["outbox"]["pending"], 0);
    server.change(|_| Answer::ok());
    let done = home.ctl(&["forget", "--yes", "s"]);
    assert!(done.status.success(), "{done:?}");
    home.flush();
    assert_eq!(server.spans(), []);
    // A session that the daemon has not read yet is not sent either.
    let mut unread = Story::new(&home, "work", "unread");
    unread.turn("q", "a");
    assert!(home.ctl(&["forget", "--yes", "unread"]).status.success());
    assert!(home.ctl(&["backfill", "--yes"]).status.success());
    home.hook(&unread.stop("a"), &server.env());
    home.flush();
    assert_eq!(server.spans(), []);
    std::fs::write(&unread.path, "").expect("emptied");
    assert_eq!(home.ctl(&["forget", "--yes", "unread"]).status.code(), Some(1), "nothing to delete");
    let nowhere = home.ctl(&["forget", "--yes", "nobody"]);
    assert_eq!(nowhere.status.code(), Some(1), "{nowhere:?}");
}
