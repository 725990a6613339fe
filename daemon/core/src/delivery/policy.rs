//! What follows from a verdict: back-off, smaller batches, parking, dead letters. Time and randomness come in as values.

use std::time::Duration;

use super::item::Item;
use crate::{
    destination::Manners,
    verdict::{LONGEST_WAIT, Verdict},
};

/// How often a parked destination is tried again.
pub const PROBE: Duration = Duration::from_secs(300);

const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// Texts are not cut below this many bytes: a span that is still refused has another problem.
const SMALLEST_CUT: usize = 1024;

/// Below this size, in bytes, the size of a batch is never the reason for a missing answer.
const NEVER_TOO_LARGE: usize = 64 << 10;

/// How long a server may take to answer after the last byte: for any batch, plus for each span.
const ANSWER_LIMIT: (Duration, Duration) = (Duration::from_secs(90), Duration::from_millis(200));

/// How often that limit doubles at most: once for each unanswered batch in a row.
const DOUBLINGS: u32 = 3;

/// A server slower than this gets no larger batches, and one slower than the second limit gets smaller ones.
const SLOW: Duration = Duration::from_secs(3);
const TOO_SLOW: Duration = Duration::from_secs(10);

/// After this many delivered batches a larger one is tried again; later each time that fails.
const ARRIVALS_BEFORE_GROWTH: u32 = 4;

/// A span that went unanswered this often, while smaller ones arrived, is too large for the connection.
const MAX_UNANSWERED: u32 = 2;

/// What a worker remembers between two batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The batch size in spans.
    pub spans: Size,
    /// The batch size in bytes of outbox rows.
    pub bytes: Size,
    /// Failed tries in a row.
    pub failures: u32,
    /// Unanswered batches in a row.
    silences: u32,
    /// A span that went unanswered on its own.
    suspect: Option<Suspect>,
}

impl Plan {
    /// For a destination of which only its kind's limits are known.
    pub fn new(manners: Manners) -> Self {
        Self {
            spans: Size::up_to(manners.batch_spans.max(1)),
            bytes: Size::up_to(manners.batch_bytes.max(1)),
            failures: 0,
            silences: 0,
            suspect: None,
        }
    }

    /// How long the server may take to answer a batch of `spans` after the last byte.
    pub fn answer_limit(&self, spans: usize) -> Duration {
        let (all, each) = ANSWER_LIMIT;
        (all + each * u32::try_from(spans).unwrap_or(u32::MAX)) * (1 << self.silences.min(DOUBLINGS))
    }

    /// How many spans go into the next batch: one if that one is under suspicion.
    pub fn batch(&self) -> usize {
        if self.suspect.is_some() { 1 } else { self.spans.now }
    }

    /// Set while a suspect needs proof that smaller spans arrive: the next span must be smaller than this, in bytes.
    pub fn smaller_than(&self) -> Option<usize> {
        self.suspect.filter(|suspect| !suspect.smaller_arrived).map(|suspect| suspect.bytes)
    }
}

/// The batch limit in one unit, and the size that last went unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The limit of the next batch.
    pub now: usize,
    most: usize,
    /// The size that went unanswered; `usize::MAX` if none did.
    wall: usize,
    /// How often the wall was hit.
    hits: u32,
    /// Batches delivered since.
    run: u32,
}

impl Size {
    fn up_to(most: usize) -> Self {
        Self { now: most, most, wall: usize::MAX, hits: 0, run: 0 }
    }

    /// A batch of `sent` went unanswered.
    fn halve(&mut self, sent: usize, least: usize) {
        self.run = 0;
        self.now = (sent / 2).max(least);
        if sent > least {
            self.hits = if sent >= self.wall { self.hits.saturating_add(1).min(8) } else { self.hits.max(1) };
            self.wall = sent;
        }
    }

    /// A batch of `sent` was delivered.
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

/// A large span that went unanswered on its own. Smaller spans show whether its size is the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspect {
    bytes: usize,
    /// How often it went unanswered right after a smaller one had arrived.
    strikes: u32,
    smaller_arrived: bool,
}

/// The batch that was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub spans: usize,
    /// How many spans come before the first one of another trace.
    pub of_one_trace: usize,
    /// Bytes of their outbox rows.
    pub bytes: usize,
    /// From the last byte sent to the first byte of the answer.
    pub took: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Acknowledge it.
    Done,
    /// Keep it and wait.
    Wait(Duration, String),
    /// Keep it and wait for other keys, or for [`PROBE`].
    Park(String),
    /// Send a smaller part of it at once.
    Split,
    /// It is a single span: cut its largest text, or make it a dead letter if nothing is left to cut.
    Shrink(String),
    /// It is a single span: make it a dead letter.
    Bury(String),
}

/// The next step after `verdict`. `chance` is uniform in 0 … 1.
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
            // A small batch goes out unchanged: most likely only the answer was lost.
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
        // Every delivered part lets the next one grow again.
        Verdict::Refused(_) | Verdict::TooLarge(_) => {
            plan.spans.now = (sent.spans / 2).max(1);
            Step::Split
        }
    };
    (plan, step)
}

impl Plan {
    fn arrived(&mut self, sent: Sent) {
        // A batch that needed the longer limit keeps it.
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

    /// After an unanswered batch: true if it is a single span too large for the connection. A server that is down does not
    /// prove that: smaller spans must have arrived before each of several tries.
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
        // Its remainder is judged by the same evidence.
        suspect.bytes = NEVER_TOO_LARGE;
        true
    }
}

/// Full jitter: uniform between zero and a bound that doubles from 1 s to 5 min.
pub fn backoff(failures: u32, chance: f64) -> Duration {
    let bound = MIN_BACKOFF.saturating_mul(1u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX)).min(MAX_BACKOFF);
    bound.mul_f64(chance.clamp(0.0, 1.0))
}

/// What is left at `now_ms` of a wait until `next_at_ms` from before a restart, and whether the server asked for it. Zero if it
/// is longer than any wait can be: the clock has changed.
pub fn resume(next_at_ms: i64, now_ms: i64) -> (Duration, bool) {
    let left = Duration::from_millis(u64::try_from(next_at_ms.saturating_sub(now_ms)).unwrap_or(0));
    // Back-off is never longer.
    if left > LONGEST_WAIT { (Duration::ZERO, false) } else { (left, left > MAX_BACKOFF) }
}

/// Cuts the largest text of `item` in half, with a mark that says so. `false` if nothing worth cutting is left.
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

/// Cuts a text in half.
fn cut(text: &mut String) {
    let before = cut_before(text).unwrap_or(text.len());
    let keep = text.floor_char_boundary(text.len() / 2);
    text.truncate(keep);
    text.push_str(&format!(" [TRUNCATED {keep} of {before} bytes]"));
}

/// The original length of a text that was cut before.
fn cut_before(text: &str) -> Option<usize> {
    let (_, mark) = text.rsplit_once(" [TRUNCATED ")?;
    mark.strip_suffix(" bytes]")?.split_once(" of ")?.1.parse().ok()
}

#[cfg(test)]
mod tests;
