//! A whole transcript → the spans a replay of it would send, without daemon or database.

use std::path::Path;

use crate::{
    dialect::{OutSpan, langfuse::Shared},
    hook::Options,
    redact::{Counts, Rules},
    trace,
    transcript::{
        lines::{Line, Lines},
        reader::{CHUNK, Transcript, Unreadable},
        record,
    },
    turn::{Assembler, Scope, Turn},
};

/// Reads the transcript at `path` and hands the spans of each turn, root first, to `each`.
///
/// # Errors
/// If the file cannot be read.
pub fn turns(
    path: &Path,
    session_id: &str,
    options: &Options,
    rules: &Rules,
    mut each: impl FnMut(Vec<OutSpan>),
) -> Result<(), Unreadable> {
    let mut file = Transcript::open(path)?;
    let mut lines = Lines::at(0);
    let mut assembler = Assembler::new(session_id, 0);
    let mut buffer = vec![0; CHUNK];
    let mut tell = |turn: &Turn| {
        let mut shared = Shared::new(turn, session_id, options);
        let redactor = (!options.unredacted).then(|| &**rules);
        let mut counts = Counts::new();
        redactor.iter().for_each(|redactor| shared.redact(redactor, &mut counts));
        let mut spans: Vec<_> =
            trace::spans(turn, Scope::Final, options.semantics, None).iter().map(|span| shared.encode(span)).collect();
        if let Some(redactor) = redactor {
            spans.iter_mut().for_each(|span| span.redact(shared.len(), redactor, &mut counts));
        }
        each(spans);
    };
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        lines.feed(&buffer[..n], |offset, line| {
            if let Line::Whole(bytes) = line
                && let Ok(record) = record::parse(bytes)
                && let Some(turn) = assembler.push(record, offset)
            {
                tell(&turn);
            }
        });
    }
    if let Some(turn) = assembler.open() {
        tell(turn);
    }
    Ok(())
}
