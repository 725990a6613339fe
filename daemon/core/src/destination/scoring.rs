//! The dialogue with a server about a few scores. A backend decides each step; delivery makes the requests.

use std::time::Duration;

use bytes::Bytes;
use http::Request;

use super::upload::{self, Answered, Place, Reason};
use crate::{
    score::Score,
    verdict::{Answer, Verdict, judge},
};

/// How many requests one batch may take at most.
pub const MOST_REQUESTS: usize = 8;

/// How long a score waits for its trace to appear at the server.
pub const ABSENT_FOR: Duration = Duration::from_secs(24 * 3600);

/// How a kind of server accepts scores.
pub trait ScoreApi: Sync {
    /// How many scores one batch may have.
    fn most(&self) -> usize;

    /// False for what it has no place for.
    fn takes(&self, _score: &Score) -> bool {
        true
    }

    /// The next step after these answers. There is at least one score.
    fn next(&self, at: &Place<'_>, scores: &[Score], answers: &[Answered]) -> Next;
}

#[derive(Debug)]
pub enum Next {
    /// Make this request.
    Ask(Box<Request<Bytes>>),
    /// Stop: the try has ended.
    End(Reply),
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The server has said of each score, in their order, what became of it.
    Each(Vec<Fate>),
    /// Try again, after this time if the server says so.
    Later(Option<Duration>, String),
    /// Someone has to fix something first.
    Park(String),
    /// The server refuses the batch for one of its scores.
    Refused(String),
    /// The server has no API for scores.
    Unsupported(String),
    /// The server does not have what the scores are of, or not yet.
    Absent(String),
}

/// What became of a score.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Taken,
    /// The server will never accept it.
    Refused(String),
    /// Try again.
    Later(String),
}

/// What becomes of a score that has waited this long for its trace. `is_on_its_way`: some of the trace still waits to be sent.
pub fn absent(waited: Duration, is_on_its_way: bool, why: &str) -> Fate {
    if waited < ABSENT_FOR || is_on_its_way {
        return Fate::Later(why.to_owned());
    }
    Fate::Refused(format!("{why}, after {} hours", ABSENT_FOR.as_secs() / 3600))
}

/// What an answer means for the whole batch if it does not say it of each score; `None` if it is a yes.
pub fn denied(answer: &Answer) -> Option<Reply> {
    Some(match upload::outcome(answer) {
        upload::Outcome::Done => return None,
        upload::Outcome::Later(after, why) => match judge(answer) {
            // A page in place of an answer: someone has to sign in, or the address is another one's.
            Verdict::Park(why) => Reply::Park(why),
            _ => Reply::Later(after, why),
        },
        upload::Outcome::Away(why) => Reply::Later(None, why),
        upload::Outcome::Park(why) => Reply::Park(why),
        upload::Outcome::Never(Reason::Unsupported, why) => Reply::Unsupported(why),
        upload::Outcome::Never(_, why) => Reply::Refused(why),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_that_never_appears_is_waited_for_until_nothing_of_it_is_on_its_way() {
        let hour = Duration::from_secs(3600);
        for (waited, is_on_its_way, is_over) in [
            (Duration::ZERO, false, false),
            (hour * 23, false, false),
            (hour * 24, true, false),
            (hour * 24, false, true),
            (hour * 999, true, false),
        ] {
            let fate = absent(waited, is_on_its_way, "its trace is not there");
            assert_eq!(matches!(&fate, Fate::Refused(why) if why.contains("24 hours")), is_over, "{waited:?} {fate:?}");
        }
    }
}
