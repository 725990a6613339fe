//! What a server's answer, or its absence, means for the batch that was sent.

use std::time::Duration;

mod words;

pub use words::words;

/// The outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An HTTP response.
    Response {
        status: u16,
        /// `Retry-After`, as sent.
        retry_after: Option<String>,
        /// `Date`, as sent: a date in `Retry-After` is relative to the server's clock.
        date: Option<String>,
        /// Spans the server said it did not take, and why (OTLP partial success).
        rejected: Option<(u64, String)>,
        /// Why a 2xx does not come from a receiver: what answered instead, or the error it reports.
        denial: Option<String>,
        /// The first few hundred characters, for people.
        body: String,
    },
    /// No connection: refused, timed out, no such host. Nothing was sent.
    Unreachable(String),
    /// No answer after at least part of the batch was sent: reset, closed or silent.
    Silent(String),
    /// The destination is a directory, and someone has to fix something before files can be written.
    Unwritable(String),
    /// The server's certificate is not trusted.
    Untrusted(String),
    /// Nothing was sent: the batch is larger than the exporter allows.
    NotSent,
}

/// The consequence for the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server has it.
    Delivered,
    /// Try again, after this time if the server says so.
    Later(Option<Duration>, String),
    /// Try again, possibly smaller: the batch went unanswered and may be too much for the connection or the server.
    Silent(String),
    /// Time alone will not fix it: wrong keys, wrong address, untrusted certificate. Keep everything and probe now and then.
    Park(String),
    /// Some of it is not acceptable; the rest may be.
    Refused(String),
    TooLarge(String),
    /// The server stores one of its traces elsewhere already: that trace counts as delivered, the rest was not taken.
    Elsewhere(String),
}

/// The longest `Retry-After` that is respected.
pub const LONGEST_WAIT: Duration = Duration::from_secs(3600);

pub fn judge(answer: &Answer) -> Verdict {
    let (status, retry_after, date, denial, body) = match answer {
        Answer::Silent(why) => return Verdict::Silent(why.clone()),
        Answer::Unreachable(why) => return Verdict::Later(None, why.clone()),
        Answer::Unwritable(why) => return Verdict::Park(why.clone()),
        Answer::Untrusted(why) => {
            return Verdict::Park(format!(
                "the TLS connection cannot be trusted: {why} (NODE_EXTRA_CA_CERTS names further authorities)"
            ));
        }
        Answer::NotSent => return Verdict::TooLarge("larger than one request may be".into()),
        Answer::Response { status, retry_after, date, denial, body, .. } => (*status, retry_after, date, denial, body),
    };
    let said = if body.is_empty() { format!("HTTP {status}") } else { format!("HTTP {status}: {}", words(body)) };
    match status {
        200..=299 => {
            denial.as_ref().map_or(Verdict::Delivered, |why| Verdict::Park(format!("HTTP {status}, but {why}")))
        }
        429 | 503 => Verdict::Later(retry_after.as_deref().and_then(|text| wait(text, date.as_deref())), said),
        408 | 425 | 500..=599 => Verdict::Later(None, said),
        401 | 403 => Verdict::Park(format!("{said} (check the public and secret key)")),
        300..=399 => {
            Verdict::Park(format!("{said} (redirects are not followed: set the base URL to the final address)"))
        }
        413 => Verdict::TooLarge(said),
        400 | 422 => Verdict::Refused(said),
        _ => Verdict::Park(format!("{said} (check the base URL)")),
    }
}

/// `Retry-After`: seconds or an HTTP date. `None` if it is neither, or in the past.
fn wait(text: &str, date: Option<&str>) -> Option<Duration> {
    let text = text.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().map_or(LONGEST_WAIT, Duration::from_secs)
    } else {
        let until = httpdate::parse_http_date(text).ok()?;
        let now = date.and_then(|date| httpdate::parse_http_date(date).ok())?;
        until.duration_since(now).ok()?
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, retry_after: Option<&str>) -> Answer {
        Answer::Response {
            status,
            retry_after: retry_after.map(str::to_owned),
            date: Some("Fri, 20 Nov 2026 20:00:00 GMT".into()),
            rejected: None,
            denial: None,
            body: String::new(),
        }
    }

    #[test]
    fn each_answer_has_one_meaning() {
        let kind = |verdict: &Verdict| match verdict {
            Verdict::Delivered => "delivered",
            Verdict::Later(..) => "later",
            Verdict::Silent(_) => "silent",
            Verdict::Park(_) => "park",
            Verdict::Refused(_) => "refused",
            Verdict::TooLarge(_) => "too large",
            Verdict::Elsewhere(_) => "elsewhere",
        };
        for (status, expect) in [
            (200, "delivered"),
            (202, "delivered"),
            (207, "delivered"),
            (301, "park"),
            (307, "park"),
            (400, "refused"),
            (401, "park"),
            (403, "park"),
            (404, "park"),
            (405, "park"),
            (408, "later"),
            (413, "too large"),
            (422, "refused"),
            (425, "later"),
            (429, "later"),
            (500, "later"),
            (501, "later"),
            (502, "later"),
            (503, "later"),
            (504, "later"),
        ] {
            assert_eq!(kind(&judge(&response(status, None))), expect, "{status}");
        }
        assert_eq!(kind(&judge(&Answer::Unreachable("refused".into()))), "later");
        assert_eq!(kind(&judge(&Answer::Silent("reset".into()))), "silent");
        assert_eq!(kind(&judge(&Answer::Untrusted("expired".into()))), "park");
        assert_eq!(kind(&judge(&Answer::NotSent)), "too large");
    }

    #[test]
    fn a_2xx_that_does_not_come_from_a_receiver_parks() {
        for status in [200, 202, 203, 299] {
            let mut answer = response(status, None);
            if let Answer::Response { denial, .. } = &mut answer {
                *denial = Some("a web page answered".into());
            }
            assert_eq!(judge(&answer), Verdict::Park(format!("HTTP {status}, but a web page answered")));
        }
    }

    #[test]
    fn a_sensible_retry_after_is_respected() {
        for (status, text, expect) in [
            (429, "7", Some(7)),
            (503, "0", Some(0)),
            (429, "Fri, 20 Nov 2026 20:01:00 GMT", Some(60)),
            (429, "Fri, 20 Nov 2026 19:00:00 GMT", None),
            (429, "soon", None),
            (429, "-5", None),
            (429, "1000000000", Some(3600)),
            (429, "99999999999999999999999", Some(3600)),
            (500, "7", None),
        ] {
            match judge(&response(status, Some(text))) {
                Verdict::Later(wait, _) => assert_eq!(wait.map(|w| w.as_secs()), expect, "{text}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn partial_success_is_not_retried() {
        let answer = Answer::Response {
            status: 200,
            retry_after: None,
            date: None,
            rejected: Some((3, "no".into())),
            denial: None,
            body: String::new(),
        };
        assert_eq!(judge(&answer), Verdict::Delivered);
    }
}
