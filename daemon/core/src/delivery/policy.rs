//! What a verdict leads to: how long to wait before the next try (back-off), smaller batches, parking, dead letters. Pure: time and
//! chance come in as values.

use std::time::Duration;

use super::item::Item;
use crate::{
    destination::Manners,
    verdict::{LONGEST_WAIT, Verdict},
};

/// How often a parked destination is tried.
pub const PROBE: Duration = Duration::from_secs(300);

const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// Attributes are not cut below this many bytes: a span that is still refused has another problem.
const SMALLEST_CUT: usize = 1024;

/// A batch with fewer bytes than this is never unanswered because of its size.
const NEVER_TOO_LARGE: usize = 64 << 10;

/// How long a server may take for a batch after its last byte: for any batch, and for each span more.
const ANSWER_LIMIT: (Duration, Duration) = (Duration::from_secs(90), Duration::from_millis(200));

/// How often that limit is doubled at most: once for each batch in a row that was not answered.
const DOUBLINGS: u32 = 3;

/// A server that takes longer than this to answer gets no larger batches, and one that takes much longer smaller ones.
const SLOW: Duration = Duration::from_secs(3);
const TOO_SLOW: Duration = Duration::from_secs(10);

/// After this many batches that arrived a larger one is tried again, later each time that fails.
const ARRIVALS_BEFORE_GROWTH: u32 = 4;

/// A span that was not answered this often, while smaller ones arrived, is too large for the connection.
const MAX_UNANSWERED: u32 = 2;

/// What an exporter remembers between two batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many spans go into a batch.
    pub spans: Size,
    /// How many bytes of outbox rows.
    pub bytes: Size,
    /// Failed tries in a row.
    pub failures: u32,
    /// Batches in a row that were not answered.
    silences: u32,
    /// A span that was not answered on its own.
    suspect: Option<Suspect>,
}

impl Plan {
    /// For a destination about which nothing is known but what its kind can take.
    pub fn new(manners: Manners) -> Self {
        Self {
            spans: Size::up_to(manners.batch_spans.max(1)),
            bytes: Size::up_to(manners.batch_bytes.max(1)),
            failures: 0,
            silences: 0,
            suspect: None,
        }
    }

    /// How long the server may take for a batch of `spans` after its last byte.
    pub fn answer_limit(&self, spans: usize) -> Duration {
        let (all, each) = ANSWER_LIMIT;
        (all + each * u32::try_from(spans).unwrap_or(u32::MAX)) * (1 << self.silences.min(DOUBLINGS))
    }

    /// How many spans go into the next batch. One under suspicion goes alone.
    pub fn batch(&self) -> usize {
        if self.suspect.is_some() { 1 } else { self.spans.now }
    }

    /// Bytes that the next span must stay below, if one is wanted that shows whether the way is open for smaller ones.
    pub fn smaller_than(&self) -> Option<usize> {
        self.suspect.filter(|suspect| !suspect.smaller_arrived).map(|suspect| suspect.bytes)
    }
}

/// How large a batch may be in one respect, and how large it once was when no answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// At most this much in the next batch.
    pub now: usize,
    most: usize,
    /// Not answered; `usize::MAX` if nothing is known to be too much.
    wall: usize,
    /// How often the wall was met.
    hits: u32,
    /// Batches that have arrived since.
    run: u32,
}

impl Size {
    fn up_to(most: usize) -> Self {
        Self { now: most, most, wall: usize::MAX, hits: 0, run: 0 }
    }

    /// So much was not answered.
    fn halve(&mut self, sent: usize, least: usize) {
        self.run = 0;
        self.now = (sent / 2).max(least);
        if sent > least {
            self.hits = if sent >= self.wall { self.hits.saturating_add(1).min(8) } else { self.hits.max(1) };
            self.wall = sent;
        }
    }

    /// So much has arrived.
    fn arrived(&mut self, sent: usize) {
        if sent >= self.wall {
            (self.wall, self.hits) = (usize::MAX, 0);
        }
        self.run = self.run.saturating_add(1);
        let next = self.now.saturating_mul(2).clamp(1, self.most);
        if next < self.wall || self.run >= ARRIVALS_BEFORE_GROWTH << self.hits {
            self.now = next;
            self.run = 0;
        }
    }
}

/// A large span that was not answered on its own. Whether that is because of its size, smaller ones show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspect {
    bytes: usize,
    /// How often it was not answered right after a smaller one had arrived.
    strikes: u32,
    smaller_arrived: bool,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub spans: usize,
    /// How many of them come before the first one of another trace.
    pub of_one_trace: usize,
    /// Bytes of their rows.
    pub bytes: usize,
    /// From the last byte to the beginning of the answer.
    pub took: Duration,
}

/// What to do with the batch now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Forget it: it has arrived.
    Done,
    /// Keep it and wait.
    Wait(Duration, String),
    /// Keep it and wait for better keys, or [`PROBE`].
    Park(String),
    /// Send again at once, in a smaller piece.
    Split,
    /// It is one span: cut its largest attribute, or bury it if there is nothing left to cut.
    Shrink(String),
    /// It is one span: bury it.
    Bury(String),
}

/// The next step after `verdict` on a batch. `chance` is uniform in 0 … 1.
pub fn next(mut plan: Plan, verdict: Verdict, sent: Sent, chance: f64) -> (Plan, Step) {
    let failures = std::mem::take(&mut plan.failures);
    let step = match verdict {
        Verdict::Delivered => {
            plan.arrived(sent);
            Step::Done
        }
        Verdict::Later(after, why) => {
            plan.failures = failures.saturating_add(1);
            Step::Wait(backoff(failures, chance).max(after.unwrap_or_default()), why)
        }
        Verdict::Silent(why) => {
            if plan.is_too_large(sent) {
                return (plan, Step::Shrink(format!("{why}, and smaller ones arrive")));
            }
            plan.failures = failures.saturating_add(1);
            // What is small goes out again as it was: most likely only the answer was lost.
            if sent.bytes > NEVER_TOO_LARGE || plan.silences > 0 {
                plan.spans.halve(sent.spans, 1);
                plan.bytes.halve(sent.bytes, NEVER_TOO_LARGE);
            }
            plan.silences = plan.silences.saturating_add(1);
            Step::Wait(backoff(failures, chance), why)
        }
        Verdict::Park(why) => Step::Park(why),
        Verdict::Elsewhere(_) if sent.of_one_trace >= sent.spans => {
            plan.spans.arrived(sent.spans);
            Step::Done
        }
        Verdict::Elsewhere(_) => {
            plan.spans.now = sent.of_one_trace.max(1);
            Step::Split
        }
        Verdict::Refused(why) if sent.spans <= 1 => Step::Bury(why),
        Verdict::TooLarge(why) if sent.spans <= 1 => Step::Shrink(why),
        // Every piece that arrives makes the next one larger again.
        Verdict::Refused(_) | Verdict::TooLarge(_) => {
            plan.spans.now = (sent.spans / 2).max(1);
            Step::Split
        }
    };
    (plan, step)
}

impl Plan {
    fn arrived(&mut self, sent: Sent) {
        // What needed the longer wait gets it again.
        if sent.took < ANSWER_LIMIT.0 / 2 {
            self.silences = 0;
        }
        match &mut self.suspect {
            Some(suspect) if sent.bytes < suspect.bytes && suspect.strikes < MAX_UNANSWERED => {
                suspect.smaller_arrived = true
            }
            suspect => *suspect = None,
        }
        if sent.took <= SLOW {
            self.spans.arrived(sent.spans);
            self.bytes.arrived(sent.bytes);
        } else if sent.took > TOO_SLOW {
            self.spans.now = (sent.spans / 2).max(1);
        }
    }

    /// After a batch that was not answered: true if it is one span too large for the way. A server that is away does not make
    /// it so: smaller ones must have arrived before each of several tries.
    fn is_too_large(&mut self, sent: Sent) -> bool {
        if sent.spans > 1 || sent.bytes <= NEVER_TOO_LARGE {
            return false;
        }
        match &mut self.suspect {
            Some(suspect) if sent.bytes >= suspect.bytes => {
                suspect.strikes += u32::from(suspect.smaller_arrived);
                suspect.smaller_arrived = suspect.strikes >= MAX_UNANSWERED;
            }
            suspect => *suspect = Some(Suspect { bytes: sent.bytes, strikes: 0, smaller_arrived: false }),
        }
        let Some(suspect) = &mut self.suspect else { return false };
        if suspect.strikes < MAX_UNANSWERED {
            return false;
        }
        // What is left of it is judged by the same evidence.
        suspect.bytes = NEVER_TOO_LARGE;
        true
    }
}

/// Full jitter: somewhere between nothing and the bound, which doubles from 1 s to 5 min.
pub fn backoff(failures: u32, chance: f64) -> Duration {
    let bound = MIN_BACKOFF.saturating_mul(1u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX)).min(MAX_BACKOFF);
    bound.mul_f64(chance.clamp(0.0, 1.0))
}

/// What is left at `now_ms` of a wait until `next_at_ms` that was promised before a restart, and whether it was the server's
/// wish. Nothing, if it is further ahead than any wait can be: the clock was changed.
pub fn resume(next_at_ms: i64, now_ms: i64) -> (Duration, bool) {
    let left = Duration::from_millis(u64::try_from(next_at_ms.saturating_sub(now_ms)).unwrap_or(0));
    // Our own waits are never longer.
    if left > LONGEST_WAIT { (Duration::ZERO, false) } else { (left, left > MAX_BACKOFF) }
}

/// Cuts the largest text of `item` to half, with a mark that says so. `false` if nothing worth cutting is left.
pub fn shrink(item: &mut Item) -> bool {
    let (mut largest, mut count) = ((SMALLEST_CUT, None), 0);
    item.each_text(&mut |text| {
        if text.len() > largest.0 {
            largest = (text.len(), Some(count));
        }
        count += 1;
    });
    let (_, Some(largest)) = largest else { return false };
    count = 0;
    item.each_text(&mut |text| {
        if count == largest {
            cut(text);
        }
        count += 1;
    });
    true
}

/// Cuts a text to half.
fn cut(text: &mut String) {
    let before = cut_before(text).unwrap_or(text.len());
    let keep = text.floor_char_boundary(text.len() / 2);
    text.truncate(keep);
    text.push_str(&format!(" [TRUNCATED {keep} of {before} bytes]"));
}

/// How long a text was that has been cut already.
fn cut_before(text: &str) -> Option<usize> {
    let (_, mark) = text.rsplit_once(" [TRUNCATED ")?;
    mark.strip_suffix(" bytes]")?.split_once(" of ")?.1.parse().ok()
}

#[cfg(test)]
mod tests;
